// ZooKeeper: a prefix for each scope.

import type { RegistryOptions } from 'rollcall';
import { uniqueName } from '../../support/process.js';
import { startTcpProxy, type TcpProxy } from '../../support/tcp.js';
import { startZookeeper } from '../../support/zookeeper.js';
import { expireSession, type ZkClient } from '../../support/zookeeper-client.js';
import { type Common, Linked, type Row, type Stored, usual } from '../scope.js';

/** `/suite-x/name/id`: a prefix of its own, two levels deep. */
class ZookeeperScope extends Linked {
  readonly ttlMs = 3000;
  private readonly prefix = `/suite/${uniqueName('scope')}`;

  constructor(
    private readonly host: string,
    /** Around the product; shared by the scopes. */
    private readonly client: ZkClient,
    link: TcpProxy,
  ) {
    super(link);
  }

  options(more?: Common): RegistryOptions {
    return this.of(this.link.host, more);
  }

  url(query = ''): string {
    return `zookeeper://${this.link.host}?prefix=${encodeURIComponent(this.prefix)}&${query}`;
  }

  protected direct(more?: Common): RegistryOptions {
    return this.of(this.host, more);
  }

  private of(hosts: string, more?: Common): RegistryOptions {
    return { backend: 'zookeeper', hosts, prefix: this.prefix, ttlMs: this.ttlMs, logger: false, ...more };
  }

  protected override beside(suffix: string): RegistryOptions {
    return { ...this.of(this.host), prefix: `${this.prefix}${suffix}` } as RegistryOptions;
  }

  put(name: string, id: string, value: string): Promise<void> {
    return this.client.put(this.key(name, id), value);
  }

  remove(name: string, id: string): Promise<boolean> {
    return this.client.delete(this.key(name, id));
  }

  async loseSession(name: string, id: string): Promise<void> {
    const there = await this.client.get(this.key(name, id));
    if (!there) throw new Error(`no record ${name}/${id}`);
    await expireSession(this.host, there.stat.ephemeralOwner);
  }

  wipe(): Promise<void> {
    return this.client.deleteBelow(this.prefix);
  }

  key(name: string, id: string): string {
    return `${this.prefix}/${name}/${id}`;
  }

  override async stored(name: string, id: string): Promise<Stored | undefined> {
    const key = this.key(name, id);
    const there = await this.client.get(key);
    if (!there) return undefined;
    const { czxid, mzxid, ephemeralOwner } = there.stat;
    const [createRevision, modRevision] = [Number(czxid), Number(mzxid)];
    return { key, value: there.value, lease: String(ephemeralOwner), createRevision, modRevision };
  }

  override async storedUnder(name: string): Promise<Stored[]> {
    const children = (await this.client.children(`${this.prefix}/${name}`)).sort();
    const nodes = await Promise.all(children.map((child) => this.stored(name, child)));
    return nodes.filter((one) => one !== undefined);
  }

  override async transact(name: string, puts: Record<string, string>, removals: string[]): Promise<void> {
    const written = Object.entries(puts).map(([id, value]) => [this.key(name, id), value]);
    const removed = removals.map((id) => this.key(name, id));
    await this.client.transact(Object.fromEntries(written), removed);
  }
}

export const zookeeper: Row = {
  name: 'zookeeper 3.8',
  ttlMs: 3000,
  cannot: {
    leases: 'all registrations of a client share its session, which ends with the client',
    counts: 'ZooKeeper counts no streams by kind',
    compaction: 'ZooKeeper keeps no history',
    ownSwitch: 'ZooKeeper has no switch of its own',
  },
  capabilities: { ...usual, since: true },
  async start() {
    const server = await startZookeeper();
    const client = await server.client();
    const host = server.hosts[0] as string;
    return {
      scope: async () => new ZookeeperScope(host, client, await startTcpProxy(host)),
      close: () => server.close(),
    };
  },
};
