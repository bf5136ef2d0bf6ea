// What the fault tests share: a server of their own for every test, and everything undone when the test is over.
import { createServer } from 'node:net';
import type { EtcdOptions, Registry, RegistryOptions } from 'rollcall';
import { connect } from 'rollcall';
import type { TestContext } from 'vitest';
import type { Process, Step } from '../conformance/kit.js';
import { inProcess } from '../conformance/kit.js';
import type { EtcdCluster, EtcdOptions as ServerOptions } from '../support/etcd.js';
import { startEtcd } from '../support/etcd.js';
import type { TcpProxy } from '../support/tcp.js';
import { startTcpProxy } from '../support/tcp.js';

export type Finish = Pick<TestContext, 'onTestFinished'>;

/** A client, closed when the test is over. */
export async function connected({ onTestFinished }: Finish, options: RegistryOptions): Promise<Registry> {
  const registry = await connect(options);
  onTestFinished(() => registry.close({ timeoutMs: 1000 }).catch(() => undefined));
  return registry;
}

/** A way to a server, host:port, that can be cut. */
export async function wayTo({ onTestFinished }: Finish, upstream: string): Promise<TcpProxy> {
  const link = await startTcpProxy(upstream);
  onTestFinished(() => link.close());
  return link;
}

/** As instances are declared where two endpoints are of interest. */
export const instance = {
  name: 'orders',
  id: 'a',
  version: '1',
  metadata: { colour: 'gray' },
  endpoints: ['grpc://10.1.2.3:9000', 'http://10.1.2.3:8000'],
};

export async function server({ onTestFinished }: Finish, options: ServerOptions): Promise<EtcdCluster> {
  const etcd = await startEtcd(options);
  onTestFinished(() => etcd.close());
  return etcd;
}

export const way = (context: Finish, etcd: EtcdCluster): Promise<TcpProxy> => wayTo(context, etcd.hosts[0] as string);

const optionsFor = (to: EtcdCluster | TcpProxy, more: Partial<EtcdOptions>): RegistryOptions => ({
  backend: 'etcd',
  hosts: 'hosts' in to ? [...to.hosts] : [to.host],
  logger: false, // faults are what these tests are about; a warning for each would bury what fails
  ...more,
});

/** A client; the TTL is the default one unless given. */
export const client = (
  context: Finish,
  to: EtcdCluster | TcpProxy,
  more: Partial<EtcdOptions> = {},
): Promise<Registry> => connected(context, optionsFor(to, more));

export async function child(
  { onTestFinished }: Finish,
  to: EtcdCluster | TcpProxy,
  steps: Step[],
  more: Partial<EtcdOptions> = {},
): Promise<Process> {
  const program = inProcess(optionsFor(to, more), steps);
  onTestFinished(() => program.stop());
  await program.until('connected');
  return program;
}

/** What answers a client of HTTP/2, and is no server of it: what it does, and what it sends before it hangs up or waits. */
export const NO_HTTP2: readonly (readonly [does: string, sends: Buffer | undefined])[] = [
  ['hangs up', undefined],
  ['speaks HTTP/1.1', Buffer.from('HTTP/1.1 500 Internal Server Error\r\ncontent-length: 5\r\n\r\n<html')],
  ['sends half a frame of HTTP/2', Buffer.from([0, 0, 18, 4, 0, 0])],
  ['sends 64 MiB of nothing', Buffer.alloc(64 * 1024 * 1024)],
];

/** The port of one of these. */
export async function noServer({ onTestFinished }: Finish, sends: Buffer | undefined): Promise<number> {
  const fake = createServer((socket) => {
    socket.on('error', () => undefined);
    if (sends) socket.write(sends);
    else socket.destroy();
  });
  await new Promise<void>((resolve) => fake.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void fake.close());
  return (fake.address() as { port: number }).port;
}
