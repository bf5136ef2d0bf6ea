// The rows of the suite: one per backend and server version. A row says what its registry, or the way to it, cannot be
// made to do; a test that needs it is skipped with that reason in its name. To add a backend, add a row here.

import type { Capabilities, RegistryOptions } from 'rollcall';
import { MemoryServer } from 'rollcall';
import { afterAll, describe, test } from 'vitest';
import type { Consul, ConsulAgent } from '../support/consul.js';
import { startConsul } from '../support/consul.js';
import type { EtcdVersion } from '../support/etcd.js';
import { ETCD_VERSIONS, startEtcd } from '../support/etcd.js';
import { uniqueName } from '../support/process.js';
import type { TcpProxy } from '../support/tcp.js';
import { startTcpProxy } from '../support/tcp.js';
import { startZookeeper } from '../support/zookeeper.js';
import type { ZkClient } from '../support/zookeeper-client.js';
import { expireSession } from '../support/zookeeper-client.js';
import * as gateway from './gateway.js';
import type { Process, Scenario, Step } from './kit.js';
import { inProcess, inThread } from './kit.js';
import { Clients, type Common, type Need, type Row, type Scope, type Server } from './scope.js';

export * from './scope.js';

class MemoryScope extends Clients implements Scope {
  readonly ttlMs = 1000;
  readonly serverUrl = '';
  private readonly namespace = uniqueName('suite');
  private readonly server = MemoryServer.of(this.namespace);

  options(more?: Common): RegistryOptions {
    return { backend: 'memory', namespace: this.namespace, ttlMs: this.ttlMs, logger: false, ...more };
  }

  url(query = ''): string {
    return `memory://${this.namespace}?${query}`;
  }

  protected direct(more?: Common): RegistryOptions {
    return this.options(more);
  }

  protected beside(suffix: string): RegistryOptions {
    return { ...this.options(), backend: 'memory', namespace: `${this.namespace}${suffix}` };
  }

  protected launch(steps: Step[], more?: Common): Scenario {
    return inThread(this.options(more), steps);
  }

  async outage(): Promise<void> {
    this.server.setAway(true);
  }

  async restore(): Promise<void> {
    this.server.setAway(false);
  }

  process(): never {
    throw new Error('not in this row: the test must name its need "processes"');
  }

  get link(): never {
    throw new Error('not in this row: the test must name its need "slowWay"');
  }

  async put(name: string, id: string, value: string): Promise<void> {
    this.server.put(name, id, value);
  }

  async remove(name: string, id: string): Promise<boolean> {
    return this.server.remove(name, id);
  }

  async loseSession(name: string, id: string): Promise<void> {
    if (!this.server.expire(name, id)) throw new Error(`no record ${name}/${id}`);
  }

  async wipe(): Promise<void> {
    this.server.wipe();
  }

  async mortal(name: string, id: string): Promise<{ die(): Promise<void> }> {
    const owner = await this.connect();
    await owner.register({ name, id });
    return {
      die: async () => {
        if (!this.server.crash(name, id)) throw new Error(`no record ${name}/${id}`);
      },
    };
  }

  key(name: string, id: string): string {
    return `${name}/${id}`;
  }
}

class EtcdScope extends Clients implements Scope {
  readonly ttlMs = 3000;
  private readonly prefix = `/${uniqueName('suite')}`;

  constructor(
    readonly serverUrl: string,
    readonly link: TcpProxy,
  ) {
    super();
    this.opened.push(() => link.close());
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

  protected beside(suffix: string): RegistryOptions {
    return { ...(this.direct() as Extract<RegistryOptions, { backend: 'etcd' }>), prefix: `${this.prefix}${suffix}` };
  }

  protected launch(steps: Step[], more?: Common): Process {
    return inProcess(this.direct(more), steps);
  }

  async process(steps: Step[], more?: Common): Promise<Process> {
    return (await this.run(steps, more)) as Process;
  }

  async outage(): Promise<void> {
    this.link.setEnabled(false);
  }

  async restore(): Promise<void> {
    this.link.dropAnswers(false);
    this.link.release();
    this.link.setEnabled(true);
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

  async mortal(name: string, id: string): Promise<{ die(): Promise<void> }> {
    const owner = inProcess(this.direct(), [['register', { name, id }]]);
    this.opened.push(() => owner.stop());
    await owner.until('register:done');
    return { die: () => owner.stop() };
  }

  key(name: string, id: string): string {
    return `${this.prefix}/${name}/${id}`;
  }
}

/** Has an agent to itself: Consul has no prefix. The agents are few, and used again. */
class ConsulScope extends Clients implements Scope {
  readonly ttlMs = 3000;
  readonly serverUrl: string;

  constructor(
    private readonly agent: ConsulAgent,
    readonly link: TcpProxy,
    giveBack: () => void,
  ) {
    super();
    this.serverUrl = agent.url;
    this.opened.push(async () => giveBack());
    this.opened.push(() => agent.forget());
    this.opened.push(() => link.close());
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

  protected beside(): never {
    throw new Error('not in this row: the test must name its need "tenants"');
  }

  protected launch(steps: Step[], more?: Common): Process {
    return inProcess(this.direct(more), steps);
  }

  async process(steps: Step[], more?: Common): Promise<Process> {
    return (await this.run(steps, more)) as Process;
  }

  async outage(): Promise<void> {
    this.link.setEnabled(false);
  }

  async restore(): Promise<void> {
    this.link.dropAnswers(false);
    this.link.release();
    this.link.setEnabled(true);
  }

  /** As Kratos would write the record, but for checks. */
  async put(_: string, id: string, value: string): Promise<void> {
    const record = JSON.parse(value) as {
      name: string;
      version?: string;
      metadata?: Record<string, string> | null;
      endpoints?: string[] | null;
    };
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

  async mortal(name: string, id: string): Promise<{ die(): Promise<void> }> {
    const owner = inProcess(this.direct(), [['register', { name, id }]]);
    this.opened.push(() => owner.stop());
    await owner.until('register:done');
    return { die: () => owner.stop() };
  }

  key(_: string, id: string): string {
    return id;
  }
}

/** `/suite-x/name/id`: a prefix of its own, two levels deep. */
class ZookeeperScope extends Clients implements Scope {
  readonly ttlMs = 3000;
  readonly serverUrl: string;
  private readonly prefix = `/suite/${uniqueName('scope')}`;

  constructor(
    private readonly host: string,
    /** Around the product; shared by the scopes. */
    private readonly client: ZkClient,
    readonly link: TcpProxy,
  ) {
    super();
    this.serverUrl = `zookeeper://${host}`;
    this.opened.push(() => link.close());
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

  protected beside(suffix: string): RegistryOptions {
    return { ...this.of(this.host), prefix: `${this.prefix}${suffix}` } as RegistryOptions;
  }

  protected launch(steps: Step[], more?: Common): Process {
    return inProcess(this.direct(more), steps);
  }

  async process(steps: Step[], more?: Common): Promise<Process> {
    return (await this.run(steps, more)) as Process;
  }

  async outage(): Promise<void> {
    this.link.setEnabled(false);
  }

  async restore(): Promise<void> {
    this.link.dropAnswers(false);
    this.link.release();
    this.link.setEnabled(true);
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

  async mortal(name: string, id: string): Promise<{ die(): Promise<void> }> {
    const owner = inProcess(this.direct(), [['register', { name, id }]]);
    this.opened.push(() => owner.stop());
    await owner.until('register:done');
    return { die: () => owner.stop() };
  }

  key(name: string, id: string): string {
    return `${this.prefix}/${name}/${id}`;
  }
}

const usual: Capabilities = {
  register: true,
  expires: true,
  owners: true,
  keepsId: true,
  listsNames: true,
  countsNames: false,
  oneRegistration: false,
  settlesMs: 0,
  since: false,
  expiresIn: false,
  leavingReason: false,
  ownSwitch: false,
};

const memory: Row = {
  name: 'memory',
  ttlMs: 1000,
  cannot: {
    oneSided: 'a memory server is away for all its clients or for none',
    slowWay: 'there is no way between a client and a memory server',
    rawRead: 'a memory server has no stored bytes to look at',
    processes: 'a memory server lives inside one process',
    leases: 'a memory server has no lease with an id',
    counts: 'a memory server counts no requests',
  },
  capabilities: { ...usual, countsNames: true },
  start: async () => ({ scope: async () => new MemoryScope(), close: async () => {} }),
};

const etcd = (version: EtcdVersion): Row => ({
  name: `etcd ${version}`,
  ttlMs: 3000,
  cannot: {},
  capabilities: { ...usual, countsNames: true },
  async start() {
    const server = await startEtcd({ version });
    return {
      scope: async () => new EtcdScope(server.httpUrl, await startTcpProxy(server.hosts[0] as string)),
      close: () => server.close(),
    };
  },
});

const consul: Row = {
  name: 'consul',
  ttlMs: 3000,
  cannot: {
    rawRead: 'Consul stores fields, no bytes',
    rawPut: 'Consul checks what it is given',
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

const zookeeper: Row = {
  name: 'zookeeper 3.8',
  ttlMs: 3000,
  cannot: {
    leases: 'all registrations of a client share its session, which ends with the client',
    counts: 'ZooKeeper counts no streams and requests by kind',
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

export const rows: Row[] = [memory, ...ETCD_VERSIONS.map(etcd), consul, zookeeper];

export type It = (
  title: string,
  body: (scope: Scope) => Promise<void>,
  how?: { needs?: Need[]; timeoutMs?: number },
) => void;

/** The servers of this file, started when the first theme needs them and shared by all. */
const running = new Map<Row, Promise<Server>>();

/**
 * Declares the tests of a theme once for every row. The tests of a file share a server per row and run at the same
 * time, each in a scope of its own; `sequential` is for a theme that looks at something the scopes share.
 */
export function forEveryBackend(theme: string, declare: (it: It, row: Row) => void, { sequential = false } = {}): void {
  for (const row of rows) {
    describe(`${theme} · ${row.name}`, { concurrent: !sequential }, () => {
      declare((title, body, { needs = [], timeoutMs = 30_000 } = {}) => {
        const missing = needs.find((need) => row.cannot[need] !== undefined);
        if (missing) {
          test.skip(`${title} (not run: ${row.cannot[missing]})`, () => {});
          return;
        }
        test(title, { timeout: timeoutMs }, async ({ onTestFinished }) => {
          const server = running.get(row) ?? row.start();
          running.set(row, server);
          const scope = await (await server).scope();
          onTestFinished(() => scope.close());
          await body(scope);
        });
      }, row);
    });
  }
}

afterAll(async () => {
  for (const server of running.values()) await server.then((it) => it.close());
});
