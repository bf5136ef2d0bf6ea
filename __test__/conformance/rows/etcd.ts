// Etcd: a prefix for each scope.

import type { RegistryOptions } from 'rollcall';
import { type EtcdVersion, startEtcd } from '../../support/etcd.js';
import { uniqueName } from '../../support/process.js';
import { startTcpProxy, type TcpProxy } from '../../support/tcp.js';
import * as gateway from '../gateway.js';
import { type Common, Linked, type Row, type Stored, usual } from '../scope.js';

class EtcdScope extends Linked {
  readonly ttlMs = 3000;
  private readonly prefix = `/${uniqueName('suite')}`;

  constructor(
    private readonly serverUrl: string,
    link: TcpProxy,
  ) {
    super(link);
  }

  options(more?: Common): RegistryOptions {
    return { backend: 'etcd', hosts: this.link.host, prefix: this.prefix, ttlMs: this.ttlMs, logger: false, ...more };
  }

  url(query = ''): string {
    return `etcd://${this.link.host}?prefix=${encodeURIComponent(this.prefix)}&${query}`;
  }

  protected direct(more?: Common): RegistryOptions {
    return {
      backend: 'etcd',
      hosts: new URL(this.serverUrl).host,
      prefix: this.prefix,
      ttlMs: this.ttlMs,
      logger: false,
      ...more,
    };
  }

  protected override beside(suffix: string): RegistryOptions {
    return { ...(this.direct() as Extract<RegistryOptions, { backend: 'etcd' }>), prefix: `${this.prefix}${suffix}` };
  }

  async put(name: string, id: string, value: string): Promise<void> {
    await gateway.put(this.serverUrl, this.key(name, id), value);
  }

  async remove(name: string, id: string): Promise<boolean> {
    const there = await gateway.stored(this.serverUrl, this.key(name, id));
    await gateway.remove(this.serverUrl, this.key(name, id));
    return there !== undefined;
  }

  async loseSession(name: string, id: string): Promise<void> {
    const there = await gateway.stored(this.serverUrl, this.key(name, id));
    if (!there) throw new Error(`no record ${name}/${id}`);
    await gateway.revoke(this.serverUrl, there.lease);
  }

  async wipe(): Promise<void> {
    await gateway.removeUnder(this.serverUrl, `${this.prefix}/`);
  }

  key(name: string, id: string): string {
    return `${this.prefix}/${name}/${id}`;
  }

  override stored(name: string, id: string): Promise<Stored | undefined> {
    return gateway.stored(this.serverUrl, this.key(name, id));
  }

  override storedUnder(name: string): Promise<Stored[]> {
    return gateway.storedUnder(this.serverUrl, this.key(name, ''));
  }

  override async transact(name: string, puts: Record<string, string>, removals: string[]): Promise<void> {
    const written = Object.entries(puts).map(([id, value]) => [this.key(name, id), value]);
    const removed = removals.map((id) => this.key(name, id));
    await gateway.transact(this.serverUrl, Object.fromEntries(written), removed);
  }

  override compact(): Promise<void> {
    return gateway.compact(this.serverUrl);
  }

  override grantedTtl(lease: string): Promise<number | undefined> {
    return gateway.grantedTtl(this.serverUrl, lease);
  }

  override streams(): Promise<number> {
    return gateway.metric(this.serverUrl, 'etcd_debugging_mvcc_watcher_total');
  }
}

export const etcd = (version: EtcdVersion): Row => ({
  name: `etcd ${version}`,
  ttlMs: 3000,
  cannot: { ownSwitch: 'etcd has no switch of its own' },
  capabilities: { ...usual, countsNames: true },
  async start() {
    const server = await startEtcd({ version });
    return {
      scope: async () => new EtcdScope(server.httpUrl, await startTcpProxy(server.hosts[0] as string)),
      close: () => server.close(),
    };
  },
});
