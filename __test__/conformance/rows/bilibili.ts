// bilibili's discovery: an environment for each scope, at one node whose clocks are shorter than the usual ones.

import type { RegistryOptions } from 'rollcall';
import { type DiscoveryNode, startDiscovery, ZONE } from '../../support/discovery.js';
import { uniqueName } from '../../support/process.js';
import { startTcpProxy, type TcpProxy } from '../../support/tcp.js';
import { type Common, Linked, type Row, readRecord, usual } from '../scope.js';

class BilibiliScope extends Linked {
  readonly ttlMs = 3000;
  private readonly env = uniqueName('scope');

  constructor(
    private readonly node: DiscoveryNode,
    link: TcpProxy,
  ) {
    super(link);
    this.opened.push(() => this.wipe());
  }

  private to(hosts: string, env: string, more?: Common): RegistryOptions {
    // The nodes are of another environment, and would lead around the link.
    const fixed = { zone: ZONE, env, discoverNodes: false, ttlMs: this.ttlMs, logger: false } as const;
    return { backend: 'bilibili', hosts, ...fixed, ...more };
  }

  options(more?: Common): RegistryOptions {
    return this.to(this.link.host, this.env, more);
  }

  url(query = ''): string {
    return `bilibili://${this.link.host}?zone=${ZONE}&env=${this.env}&discoverNodes=false&${query}`;
  }

  protected direct(more?: Common): RegistryOptions {
    return this.to(this.node.host, this.env, more);
  }

  protected override beside(suffix: string): RegistryOptions {
    return this.to(this.node.host, `${this.env}${suffix}`);
  }

  /** As Kratos would write it, but for the host name; and it stays, for nobody renews it. */
  async put(name: string, id: string, value: string): Promise<void> {
    const record = readRecord(value);
    await this.node.register(this.env, name, id, {
      version: record.version ?? '',
      metadata: record.metadata ?? {},
      addrs: record.endpoints ?? [],
      region: 'kept',
    });
  }

  remove(name: string, id: string): Promise<boolean> {
    return this.node.cancel(this.env, name, id);
  }

  /** There is no session: what comes nearest is an eviction. */
  async loseSession(name: string, id: string): Promise<void> {
    if (!(await this.remove(name, id))) throw new Error(`no record ${name}/${id}`);
  }

  async wipe(): Promise<void> {
    for (const { appid, hostname, zone } of await this.node.all(this.env)) {
      await this.node.cancel(this.env, appid, hostname, zone);
    }
  }

  key(name: string, id: string): string {
    return `${name}/${id}`;
  }

  /** The status of an instance. */
  override async setOwnSwitch(name: string, id: string, isOut: boolean): Promise<void> {
    const status = isOut ? '2' : '1';
    const { code } = await this.node.ask('POST', 'set', {
      ...{ appid: name, env: this.env, zone: ZONE, hostname: id, status },
    });
    if (code !== 0) throw new Error(`set ${name}/${id}: ${code}`);
  }
}

export const bilibili: Row = {
  name: 'bilibili',
  ttlMs: 3000,
  cannot: {
    rawRead: 'discovery stores fields, no bytes',
    rawPut: 'discovery checks what it is given',
    transactions: 'discovery changes one instance at a time',
    compaction: 'discovery keeps no history',
    codecs: 'discovery has one form of records',
    prefixes: 'discovery has no prefix',
    leases: 'discovery has no leases',
    counts: 'discovery counts no streams',
    ownTtl: 'discovery evicts by a clock of its own; see faults/bilibili',
  },
  capabilities: { ...usual, ownSwitch: true },
  patience: 3, // it answers every question about a name anew, with all of its instances
  async start() {
    // A thirtieth of the usual times. It does not protect itself: what dies in one test would be kept by all the others.
    const clocks = { EVICT_AFTER: '3s', EVICT_EVERY: '500ms', PROTECT_BELOW: '0' };
    const discovery = await startDiscovery({ clocks });
    return {
      async scope() {
        return new BilibiliScope(discovery.node, await startTcpProxy(discovery.node.host));
      },
      close: () => discovery.close(),
    };
  },
};
