// What the tests of calls over gRPC share: all lines of grpc-js, servers in this process, and a service to call by its name.
import { readFileSync, symlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { InstanceInput, Registry } from 'rollcall';
import { connect, MemoryServer } from 'rollcall';
import type { GrpcModule, GrpcOptions } from 'rollcall/grpc';
import { registerResolver } from 'rollcall/grpc';
import { installed } from '../packaging/tools.js';
import { uniqueName, waitFor } from '../support/process.js';

export type Finish = { onTestFinished(finish: () => unknown): void };

const root = fileURLToPath(new URL('../..', import.meta.url));

/** The lines of grpc-js that are promised: 1.10 to 1.14. */
export const LINES = [10, 11, 12, 13, 14] as const;
export type Line = (typeof LINES)[number];

/** What the tests use of grpc-js. */
export interface Grpc extends GrpcModule {
  readonly credentials: { createInsecure(): object; createSsl(roots?: Buffer): object };
  readonly Metadata: new () => { set(key: string, value: string): void };
  makeGenericClientConstructor(
    definition: object,
    name: string,
  ): new (
    address: string,
    credentials: object,
    options?: object,
  ) => OrdersClient;
}

export interface CallOptions {
  /** When it must be over, in milliseconds of the epoch. */
  readonly deadline?: number;
}

/** A client of `orders.v1.Orders`, as grpc-js makes it. */
export interface OrdersClient {
  get(
    id: string,
    metadata: object,
    options: CallOptions,
    done: (error: { code: number; details: string } | null, from?: string) => void,
  ): { cancel(): void };
  getChannel(): { getConnectivityState(connect: boolean): number };
  close(): void;
}

interface ServerModule {
  readonly Server: new () => {
    addService(definition: object, handlers: object): void;
    createConnectionInjector(credentials: object): { injectConnection(socket: Socket): void };
    forceShutdown(): void;
  };
  readonly ServerCredentials: {
    createInsecure(): object;
    createSsl(roots: null, pairs: { private_key: Buffer; cert_chain: Buffer }[]): object;
  };
}

/**
 * A folder with all lines of grpc-js beside one another, and rollcall. It stays in `build/` from one run to the next.
 */
export async function project(): Promise<string> {
  const lines = LINES.map((line) => `grpc${line}@npm:@grpc/grpc-js@~1.${line}`);
  const folder = await installed('grpc', [...lines, '@grpc/grpc-js@~1.14', '@grpc/proto-loader@0.8']);
  try {
    symlinkSync(root, join(folder, 'node_modules', 'rollcall'), 'dir');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  return folder;
}

/** A line of grpc-js: each is a copy of its own. */
export async function load(line: Line): Promise<Grpc> {
  return createRequire(join(await project(), 'package.json'))(`grpc${line}`) as Grpc;
}

/** A string value of protobuf, as `fixtures/orders.proto` has it in both directions. */
const encoded = (text: string): Buffer => {
  const bytes = Buffer.from(text);
  if (bytes.length > 127) throw new Error('too long for this test');
  return bytes.length === 0 ? Buffer.alloc(0) : Buffer.concat([Buffer.from([0x0a, bytes.length]), bytes]);
};
const decoded = (bytes: Buffer): string => bytes.subarray(2).toString();

const METHOD = {
  requestStream: false,
  responseStream: false,
  requestSerialize: encoded,
  requestDeserialize: decoded,
  responseSerialize: encoded,
  responseDeserialize: decoded,
};
export const ORDERS = { get: { ...METHOD, path: '/orders.v1.Orders/Get', originalName: 'Get' } };

/** A server in this process that counts. */
export interface OrdersServer {
  readonly id: string;
  readonly port: number;
  /** Connections that were ever made. */
  readonly connections: number;
  readonly calls: number;
  /** The first answers take so long, the next too, … and the rest none. */
  delays: number[];
  /** Statuses that the next calls end with. */
  failures: number[];
  stop(): void;
}

export async function ordersServer(
  { onTestFinished }: Finish,
  id: string,
  tls?: { certFile: string; keyFile: string },
): Promise<OrdersServer> {
  const grpc = (await load(14)) as unknown as ServerModule;
  const server = new grpc.Server();
  const told = { id, port: 0, connections: 0, calls: 0, delays: [] as number[], failures: [] as number[], stop };
  server.addService(ORDERS, {
    get(_: unknown, done: (error: object | null, from?: string) => void) {
      told.calls++;
      const delay = told.delays.shift() ?? 0;
      const code = told.failures.shift() ?? 0;
      const answer = () => (code === 0 ? done(null, id) : done({ code, details: `from ${id}` }));
      if (delay === 0) answer();
      else setTimeout(answer, delay);
    },
  });
  const credentials = tls
    ? grpc.ServerCredentials.createSsl(null, [
        { private_key: readFileSync(tls.keyFile), cert_chain: readFileSync(tls.certFile) },
      ])
    : grpc.ServerCredentials.createInsecure();
  const injector = server.createConnectionInjector(credentials);
  const sockets = new Set<Socket>();
  const listener = createServer((socket) => {
    told.connections++;
    sockets.add(socket.on('error', () => {}));
    injector.injectConnection(socket);
  });
  function stop(): void {
    listener.close();
    for (const socket of sockets) socket.destroy();
    server.forceShutdown();
  }
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  told.port = (listener.address() as AddressInfo).port;
  onTestFinished(stop);
  return told;
}

export interface Memory {
  readonly registry: Registry;
  readonly faults: MemoryServer;
  /** Registers a server as an instance. */
  add(server: OrdersServer, more?: Partial<InstanceInput>): ReturnType<Registry['register']>;
}

/** A registry in this process. */
export async function memory({ onTestFinished }: Finish): Promise<Memory> {
  const namespace = uniqueName();
  const registry = await connect(`memory://${namespace}?ttlMs=1000&logger=0&emptyGraceMs=0`);
  const faults = MemoryServer.of(namespace);
  onTestFinished(() => {
    faults.setAway(false);
    return registry.close();
  });
  return {
    registry,
    faults,
    add: ({ id, port }, more) =>
      registry.register({ name: 'orders', id, endpoints: [`grpc://127.0.0.1:${port}`], ...more }),
  };
}

/** What a call came to: who answered, or the status. */
export interface Outcome {
  readonly from?: string | undefined;
  readonly code: number;
  readonly details: string;
}

export interface Caller {
  readonly client: OrdersClient;
  call(options?: CallOptions & { headers?: Record<string, string>; waitForReady?: boolean }): Promise<Outcome>;
  /** Calls until so many in a row are answered by these, all of them. */
  reaches(ids: readonly string[]): Promise<void>;
}

let authorities = 0;

/** A client of `orders` by its name, with a line of grpc-js. */
export async function dial(
  { onTestFinished }: Finish,
  line: Line,
  registry: Registry,
  options: GrpcOptions & { channel?: object; service?: string; credentials?: (grpc: Grpc) => object } = {},
): Promise<Caller> {
  const grpc = await load(line);
  const { channel, service = 'orders', credentials, ...more } = options;
  const authority = `t${++authorities}`;
  const registration = registerResolver(registry, { grpc, authority, ...more });
  const Client = grpc.makeGenericClientConstructor(ORDERS, 'Orders');
  const target = `${credentials ? 'discovery+tls' : 'discovery'}://${authority}/${service}`;
  const client = new Client(target, credentials?.(grpc) ?? grpc.credentials.createInsecure(), channel ?? {});
  onTestFinished(() => {
    client.close();
    registration.unregister();
  });
  return callerOf(grpc, client);
}

export function callerOf(grpc: Grpc, client: OrdersClient): Caller {
  const call: Caller['call'] = ({ headers = {}, waitForReady, ...options } = {}) =>
    new Promise((resolve) => {
      const metadata = new grpc.Metadata() as { set(key: string, value: string): void; setOptions(o: object): void };
      for (const [key, value] of Object.entries(headers)) metadata.set(key, value);
      if (waitForReady) metadata.setOptions({ waitForReady: true });
      client.get('7', metadata, { deadline: Date.now() + 20_000, ...options }, (error, from) =>
        resolve({ from, code: error?.code ?? 0, details: error?.details ?? '' }),
      );
    });
  return {
    client,
    call,
    reaches: async (ids) => {
      await waitFor(
        async () => {
          const calls = await Promise.all(Array.from({ length: 20 * ids.length }, () => call()));
          const from = [...new Set(calls.map(({ from: id, details }) => id ?? details))].sort();
          return from.join() === [...ids].sort().join() || Promise.reject(new Error(`answered by ${from}`));
        },
        { timeoutMs: 20_000, what: `calls to ${ids}` },
      );
    },
  };
}

/** How often each answered. */
export function counts(outcomes: readonly Outcome[]): Record<string, number> {
  const answered: Record<string, number> = {};
  for (const { from, details } of outcomes) answered[from ?? details] = (answered[from ?? details] ?? 0) + 1;
  return answered;
}
