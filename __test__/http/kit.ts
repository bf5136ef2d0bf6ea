// What the tests of calls over HTTP share: servers in this process, and a service on the memory registry.
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import type { AddressInfo, Server } from 'node:net';
import { createServer as createTcpServer } from 'node:net';
import type { Registry, ServiceCache, ServiceOptions } from 'rollcall';
import { connect } from 'rollcall';
import { uniqueName } from '../support/process.js';

export type Finish = { onTestFinished(finish: () => unknown): void };

/** A request that arrived, whole. */
export interface Arrival {
  readonly method: string | undefined;
  readonly url: string | undefined;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
}

export interface HttpServer {
  readonly port: number;
  readonly arrivals: readonly Arrival[];
}

async function listening(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
}

/** A server that counts what arrives. */
export async function httpServer(
  { onTestFinished }: Finish,
  answer: (response: ServerResponse, arrival: Arrival) => void = (response) => response.end('ok'),
  early?: RequestListener,
): Promise<HttpServer> {
  const arrivals: Arrival[] = [];
  const server = createServer(async (request, response) => {
    early?.(request, response);
    let body = '';
    try {
      for await (const piece of request) body += piece;
    } catch {
      return; // the caller went away
    }
    const { method, url, headers } = request;
    const arrival = { method, url, headers, body };
    arrivals.push(arrival);
    answer(response, arrival);
  });
  const port = await listening(server);
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return { port, arrivals };
}

/** A port that refuses connections: it was ours a moment ago. */
export async function refusingPort(): Promise<number> {
  const server = createTcpServer();
  const port = await listening(server);
  await new Promise((resolve) => server.close(resolve));
  return port;
}

export interface Service {
  readonly registry: Registry;
  readonly orders: ServiceCache;
}

/** `orders` with an instance at each of these ports, in this order for round robin. */
export async function service(
  { onTestFinished }: Finish,
  ports: readonly number[],
  options?: ServiceOptions,
): Promise<Service> {
  const registry = await connect(`memory://${uniqueName()}?logger=0`);
  onTestFinished(() => registry.close());
  for (const [n, port] of ports.entries()) {
    await registry.register({ name: 'orders', id: `i${n}`, endpoints: [`http://127.0.0.1:${port}`] });
  }
  const orders = registry.service('orders', options);
  await orders.ready({ min: ports.length });
  return { registry, orders };
}
