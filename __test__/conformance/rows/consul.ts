// Consul: an agent for each scope.

import type { RegistryOptions } from 'rollcall';
import { type Consul, type ConsulAgent, startConsul } from '../../support/consul.js';
import { startTcpProxy, type TcpProxy } from '../../support/tcp.js';
import { type Common, Linked, type Row, readRecord, usual } from '../scope.js';

/** Has an agent to itself: Consul has no prefix. The agents are few, and used again. */
class ConsulScope extends Linked {
  readonly ttlMs = 3000;

  constructor(
    private readonly agent: ConsulAgent,
    link: TcpProxy,
    giveBack: () => void,
  ) {
    super(link);
    this.opened.push(async () => giveBack());
    this.opened.push(() => agent.forget());
  }

  private to(hosts: string, more?: Common): RegistryOptions {
    // The endpoints of these tests are made up: the agent would find nobody there.
    return { backend: 'consul', hosts, healthCheck: false, ttlMs: this.ttlMs, logger: false, ...more };
  }

  options(more?: Common): RegistryOptions {
    return this.to(this.link.host, more);
  }

  url(query = ''): string {
    return `consul://${this.link.host}?healthCheck=false&${query}`;
  }

  protected direct(more?: Common): RegistryOptions {
    return this.to(this.agent.host, more);
  }

  /** As Kratos would write the record, but for checks. */
  async put(_: string, id: string, value: string): Promise<void> {
    const record = readRecord(value);
    const tagged = (record.endpoints ?? []).map((endpoint): [string, object] => {
      const { protocol, port } = new URL(endpoint);
      return [protocol.slice(0, -1), { Address: endpoint, Port: Number(port) }];
    });
    await this.agent.register({
      ID: id,
      Name: record.name,
      Tags: [`version=${record.version ?? ''}`],
      TaggedAddresses: Object.fromEntries(tagged),
      Meta: record.metadata ?? {},
    });
  }

  remove(_: string, id: string): Promise<boolean> {
    return this.agent.deregister(id);
  }

  /** There is no session: what comes nearest is a check that somebody makes fail. */
  loseSession(_: string, id: string): Promise<void> {
    return this.agent.fail(id);
  }

  wipe(): Promise<void> {
    return this.agent.forget();
  }

  key(_: string, id: string): string {
    return id;
  }

  /** Maintenance of the service. */
  override async setOwnSwitch(_: string, id: string, isOut: boolean): Promise<void> {
    await this.agent.call('PUT', `/v1/agent/service/maintenance/${id}?enable=${isOut}`);
  }
}

export const consul: Row = {
  name: 'consul',
  ttlMs: 3000,
  cannot: {
    rawRead: 'Consul stores fields, no bytes',
    rawPut: 'Consul checks what it is given',
    transactions: 'Consul changes one service of an agent at a time',
    compaction: 'Consul keeps no history',
    codecs: 'Consul has one form of records',
    prefixes: 'Consul has no prefix',
    anyMetadata: 'Consul limits keys and values of metadata',
    idsPerName: 'an id is one of an agent, whatever the name',
    leases: 'Consul has no leases',
    counts: 'Consul counts no streams',
    tenants: 'namespaces and partitions are of Consul Enterprise',
  },
  capabilities: { ...usual, ownSwitch: true },
  async start() {
    const started: Consul[] = [];
    const free: Consul[] = [];
    return {
      async scope() {
        let one = free.pop();
        if (!one) {
          one = await startConsul();
          started.push(one);
        }
        const taken = one;
        return new ConsulScope(taken.server, await startTcpProxy(taken.server.host), () => free.push(taken));
      },
      async close() {
        await Promise.all(started.map((one) => one.close()));
      },
    };
  },
};
