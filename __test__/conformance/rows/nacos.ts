// Nacos: a namespace for each scope.

import { createHash } from 'node:crypto';
import type { RegistryOptions } from 'rollcall';
import { type NacosPlace, type NacosRegistry, startNacos } from '../../support/nacos.js';
import { startNacosStub } from '../../support/nacos-stub.js';
import { uniqueName, waitFor } from '../../support/process.js';
import { startTcpProxy, type TcpProxy } from '../../support/tcp.js';
import { type Common, Linked, type Row, readRecord, usual } from '../scope.js';

const KINDS = ['grpc', 'grpcs', 'http', 'https'];

class NacosScope extends Linked {
  readonly ttlMs = 3000;
  private readonly namespace = uniqueName('suite');
  /** Where others have written an instance. */
  private readonly written = new Map<string, NacosPlace[]>();
  private writing = 0;

  constructor(
    private readonly server: NacosRegistry,
    link: TcpProxy,
  ) {
    super(link);
  }

  /** A server asks whoever is silent for a second, or three, and waits for the answer; see `startNacos` and the stub. */
  override get silenceMs(): number {
    return 8000;
  }

  /** Only gRPC goes through the way that is cut. */
  private to(grpcHost: string, more?: Common): RegistryOptions {
    const grpcPort = Number(grpcHost.split(':')[1]);
    const { namespace, ttlMs } = this;
    return { backend: 'nacos', hosts: this.server.host, grpcPort, namespace, ttlMs, logger: false, ...more };
  }

  options(more?: Common): RegistryOptions {
    return this.to(this.link.host, more);
  }

  url(query = ''): string {
    return `nacos://${this.server.host}?grpcPort=${this.link.host.split(':')[1]}&namespace=${this.namespace}&${query}`;
  }

  protected direct(more?: Common): RegistryOptions {
    return this.to(this.server.grpcHost, more);
  }

  protected override beside(suffix: string): RegistryOptions {
    return { ...this.direct(), namespace: `${this.namespace}${suffix.replace('/', '_')}` } as RegistryOptions;
  }

  /** By HTTP, without an owner. */
  async put(name: string, id: string, value: string): Promise<void> {
    const record = readRecord(value);
    const { namespace } = this;
    this.writing += 1;
    const common = { ...record.metadata, version: record.version ?? '', 'rollcall.id': record.id };
    const endpoints = record.endpoints ?? [];
    const hosts = endpoints.map((endpoint, at): [NacosPlace, Record<string, string>] => {
      const { protocol, hostname, port } = new URL(endpoint);
      const kind = protocol.slice(0, -1);
      return [
        { namespace, service: KINDS.includes(kind) ? `${name}.${kind}` : name, ip: hostname, port: Number(port) },
        {
          ...common,
          kind,
          'rollcall.n': `${at + 1}/${endpoints.length}/${this.writing}`,
          ...(endpoint !== `${kind}://${hostname}:${port}` && { 'rollcall.endpoint': endpoint }),
        },
      ];
    });
    if (hosts.length === 0) {
      const ip = `somebody-${createHash('md5').update(id).digest('hex')}`;
      hosts.push([
        { namespace, service: name, ip, port: 1 },
        { ...common, 'rollcall.n': `0/0/${this.writing}` },
      ]);
    }
    const key = this.key(name, id);
    const before = this.written.get(key) ?? [];
    for (const [place, metadata] of hosts) await this.server.put(place, metadata, 100);
    const places = hosts.map(([place]) => place);
    this.written.set(key, places);
    const isKept = (old: NacosPlace) =>
      places.some(({ service, ip, port }) => service === old.service && ip === old.ip && port === old.port);
    for (const place of before) if (!isKept(place)) await this.server.delete(place);
  }

  /** Everything that stands under an id, whoever has written it. */
  private async places(name: string, id?: string): Promise<NacosPlace[]> {
    const { namespace } = this;
    const services = [name, ...KINDS.map((kind) => `${name}.${kind}`)];
    const lists = await Promise.all(
      services.map(async (service) =>
        (await this.server.list(namespace, service))
          .filter(({ metadata }) => id === undefined || metadata['rollcall.id'] === id)
          .map(({ ip, port }) => ({ namespace, service, ip, port })),
      ),
    );
    return lists.flat();
  }

  async remove(name: string, id: string): Promise<boolean> {
    const places = await this.places(name, id);
    for (const place of places) await this.server.delete(place);
    return places.length > 0;
  }

  /** There is no session but the connection, which carries all: what comes nearest is that the record is gone. */
  async loseSession(name: string, id: string): Promise<void> {
    // After an outage it may come back only now.
    await waitFor(() => this.remove(name, id), { what: `a record ${name}/${id}` });
  }

  async wipe(): Promise<void> {
    for (const service of await this.server.services(this.namespace)) {
      const { namespace } = this;
      const hosts = await this.server.list(namespace, service);
      for (const { ip, port } of hosts) await this.server.delete({ namespace, service, ip, port });
    }
  }

  key(name: string, id: string): string {
    return `DEFAULT_GROUP@@${name}#${id}`;
  }
}

const row = (name: string, start: () => Promise<NacosRegistry>): Row => ({
  name,
  ttlMs: 3000,
  cannot: {
    rawRead: 'Nacos stores fields, no bytes',
    rawPut: 'Nacos checks what it is given',
    transactions: 'Nacos changes one service at a time',
    compaction: 'Nacos keeps no history',
    codecs: 'the forms of Nacos are services, no values',
    prefixes: 'Nacos has namespaces and groups, and no prefix',
    anyMetadata: 'Nacos takes 1,024 characters of metadata, and some keys are its own',
    leases: 'the connection is the lease',
    outlives: 'the records of a connection end with it; see faults/nacos',
    counts: 'Nacos counts no streams',
    singleLosses:
      'a name is one publication: the repair of one record brings back another before anybody has missed it',
    ownSwitch: 'an instance that is switched off is one that Nacos does not tell of, to its owner as well',
  },
  capabilities: { ...usual, settlesMs: 1200 },
  patience: 3, // it pushes up to a second late
  async start() {
    const server = await start();
    return {
      scope: async () => new NacosScope(server, await startTcpProxy(server.grpcHost)),
      close: () => server.close(),
    };
  },
});

/** r-nacos, and a stub that keeps its word as the original does. */
export const nacos: Row[] = [
  row('nacos r-nacos', () => startNacos({ env: { RNACOS_GRPC_DETECTION_TIMEOUT_SECOND: '1' } })),
  row('nacos stub', () => startNacosStub()),
];
