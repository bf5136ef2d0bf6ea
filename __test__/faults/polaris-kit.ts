// What the fault tests of Polaris share: a server of their own for every test, clients of it, and a way between them.
import type { PolarisOptions, Registry } from 'rollcall';
import { connect } from 'rollcall';
import { type PolarisServer, type PolarisServerOptions, startPolaris } from '../support/polaris.js';
import { startTcpProxy, type TcpProxy } from '../support/tcp.js';
import type { Finish } from './kit.js';

export const NAMESPACE = 'default';
export const instance = {
  name: 'orders',
  id: 'a',
  version: '1',
  metadata: { colour: 'gray' },
  endpoints: ['grpc://10.1.2.3:9000', 'http://10.1.2.3:8000'],
};

export async function server({ onTestFinished }: Finish, options: PolarisServerOptions = {}): Promise<PolarisServer> {
  const polaris = await startPolaris(options);
  onTestFinished(() => polaris.close());
  return polaris;
}

export const optionsFor = (hosts: string | readonly string[], more: Partial<PolarisOptions> = {}): PolarisOptions => ({
  backend: 'polaris',
  hosts,
  logger: false, // faults are what these tests are about
  ...more,
});

export async function client(
  { onTestFinished }: Finish,
  hosts: string | readonly string[],
  more: Partial<PolarisOptions> = {},
): Promise<Registry> {
  const registry = await connect(optionsFor(hosts, more));
  onTestFinished(() => registry.close({ timeoutMs: 1000 }).catch(() => undefined));
  return registry;
}

export async function way({ onTestFinished }: Finish, polaris: PolarisServer): Promise<TcpProxy> {
  const link = await startTcpProxy(polaris.host);
  onTestFinished(() => link.close());
  return link;
}
