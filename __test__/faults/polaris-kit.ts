// What the fault tests of Polaris share: a server of their own for every test, clients of it, and a way between them.
import type { PolarisOptions, Registry } from 'rollcall';
import { type PolarisServer, type PolarisServerOptions, startPolaris } from '../support/polaris.js';
import type { TcpProxy } from '../support/tcp.js';
import { connected, type Finish, wayTo } from './kit.js';

export const NAMESPACE = 'default';

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

export const client = (
  context: Finish,
  hosts: string | readonly string[],
  more: Partial<PolarisOptions> = {},
): Promise<Registry> => connected(context, optionsFor(hosts, more));

export const way = (context: Finish, polaris: PolarisServer): Promise<TcpProxy> => wayTo(context, polaris.host);
