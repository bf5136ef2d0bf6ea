// A way to a kube-apiserver that ends TLS itself, so that what is on it can be seen and harmed.
import { readFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { Agent, createServer, request } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { Kubernetes } from './kubernetes.js';

export interface Way {
  /** host:port; its certificate is of the authority of the server's. */
  readonly host: string;
  /** Every request so far: the method, a blank, the path with its query. */
  readonly seen: string[];
  /** What happens before a request is passed on. */
  before: ((method: string, path: string) => Promise<void> | undefined) | undefined;
  /** Answers in the place of the server where it gives true. */
  instead: ((path: string, answer: ServerResponse) => boolean) | undefined;
  /** Is given what a watch brings; false: that is not passed on, and the rest is its own affair. */
  onWatch: ((chunk: Buffer, answer: ServerResponse) => boolean) | undefined;
  /** Resets what is open. */
  sever(): void;
  close(): Promise<void>;
}

export const isWatch = (path: string): boolean => /[?&]watch=(1|true)\b/.test(path);

export async function startWay({ host, certificates }: Kubernetes): Promise<Way> {
  const agent = new Agent({ keepAlive: true, ca: readFileSync(certificates.ca.certFile) });
  const pass = (asked: IncomingMessage, answer: ServerResponse, path: string): void => {
    const { host: _, ...headers } = asked.headers;
    const there = request(`https://${host}${path}`, { method: asked.method, agent, headers }, (given) => {
      answer.writeHead(given.statusCode ?? 502, given.headers);
      answer.flushHeaders();
      given.on('data', (chunk: Buffer) => {
        if (!isWatch(path) || (way.onWatch?.(chunk, answer) ?? true)) answer.write(chunk);
      });
      given.on('end', () => answer.end());
      given.on('error', () => answer.destroy());
    });
    there.on('error', () => answer.destroy());
    answer.on('close', () => there.destroy());
    asked.pipe(there);
  };
  const { certFile, keyFile } = certificates.server;
  const server = createServer({ cert: readFileSync(certFile), key: readFileSync(keyFile) }, (asked, answer) => {
    const path = asked.url ?? '/';
    way.seen.push(`${asked.method} ${path}`);
    answer.on('error', () => {});
    asked.on('error', () => {});
    if (way.instead?.(path, answer)) return;
    const first = way.before?.(asked.method ?? '', path);
    if (first)
      first.then(
        () => pass(asked, answer, path),
        () => answer.destroy(),
      );
    else pass(asked, answer, path);
  });
  server.on('clientError', (_, socket) => socket.destroy());
  // Those too that still shake hands, of which the server does not know yet.
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
  });
  const sever = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const way: Way = {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen: [],
    before: undefined,
    instead: undefined,
    onWatch: undefined,
    sever,
    async close() {
      const closed = new Promise((resolve) => server.close(resolve));
      sever();
      agent.destroy();
      await closed;
    },
  };
  return way;
}
