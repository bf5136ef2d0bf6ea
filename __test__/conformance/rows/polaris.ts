// Polaris: a namespace for each scope, in the layout of `contrib/polaris`.

import { createHash } from 'node:crypto';
import type { RegistryOptions } from 'rollcall';
import { type PolarisInstance, type PolarisPlace, type PolarisServer, startPolaris } from '../../support/polaris.js';
import { uniqueName } from '../../support/process.js';
import { startTcpProxy, type TcpProxy } from '../../support/tcp.js';
import { type Common, Linked, type Row, usual } from '../scope.js';

class PolarisScope extends Linked {
  readonly ttlMs = 3000;
  private readonly namespace = uniqueName('suite');
  private writing = 0;

  constructor(
    private readonly server: PolarisServer,
    link: TcpProxy,
  ) {
    super(link);
    this.opened.push(() => this.wipe());
  }

  private to(hosts: string, namespace: string, more?: Common): RegistryOptions {
    return { backend: 'polaris', hosts, namespace, ttlMs: this.ttlMs, logger: false, ...more };
  }

  options(more?: Common): RegistryOptions {
    return this.to(this.link.host, this.namespace, more);
  }

  url(query = ''): string {
    return `polaris://${this.link.host}?namespace=${this.namespace}&${query}`;
  }

  protected direct(more?: Common): RegistryOptions {
    return this.to(this.server.host, this.namespace, more);
  }

  protected override beside(suffix: string): RegistryOptions {
    return this.to(this.server.host, `${this.namespace}${suffix}`);
  }

  /** As Kratos would write it, but for the id; and it stays, for nobody waits for its beats. */
  async put(name: string, id: string, value: string): Promise<void> {
    const record = JSON.parse(value) as {
      id: string;
      version?: string;
      metadata?: Record<string, string> | null;
      endpoints?: string[] | null;
    };
    const { namespace } = this;
    this.writing += 1;
    const endpoints = record.endpoints ?? [];
    const common = { namespace, service: name, version: record.version ?? '', weight: 100 };
    // An instance without endpoints has a place nobody can call, one for each key.
    const nowhere = `somebody-${createHash('md5').update(id).digest('hex')}`;
    const instances = (endpoints.length > 0 ? endpoints : [undefined]).map((endpoint, at): PolarisInstance => {
      const { protocol, hostname, port } = new URL(endpoint ?? `none://${nowhere}:0`);
      const told = `${protocol}//${hostname}:${port}`;
      return {
        ...common,
        host: hostname,
        port: Number(port),
        protocol: endpoint === undefined ? '' : protocol.slice(0, -1),
        metadata: {
          ...record.metadata,
          merge: `${this.writing}`,
          'rollcall.id': record.id,
          'rollcall.n':
            endpoint === undefined ? `0/0/${this.writing}` : `${at + 1}/${endpoints.length}/${this.writing}`,
          ...(endpoint !== undefined && endpoint !== told && { 'rollcall.endpoint': endpoint }),
        },
      };
    });
    const before = await this.places(name, record.id);
    await this.server.put(...instances);
    const isKept = (old: PolarisPlace) => instances.some(({ host, port }) => host === old.host && port === old.port);
    await this.server.delete(...before.filter((place) => !isKept(place)));
  }

  /** Everything that stands under an id, whoever has written it. */
  private async places(name: string, id: string): Promise<PolarisPlace[]> {
    const { namespace } = this;
    const all = await this.server.list(namespace, name);
    return all
      .filter(({ metadata }) => metadata?.['rollcall.id'] === id)
      .map(({ host, port }) => ({ namespace, service: name, host, port }));
  }

  async remove(name: string, id: string): Promise<boolean> {
    const places = await this.places(name, id);
    await this.server.delete(...places);
    return places.length > 0;
  }

  /** There is no session: what comes nearest is that somebody deletes the record. */
  async loseSession(name: string, id: string): Promise<void> {
    if (!(await this.remove(name, id))) throw new Error(`no record ${name}/${id}`);
  }

  async wipe(): Promise<void> {
    const { namespace } = this;
    for (const service of await this.server.services(namespace)) {
      const all = await this.server.list(namespace, service);
      await this.server.delete(...all.map(({ host, port }) => ({ namespace, service, host, port })));
    }
  }

  key(name: string, id: string): string {
    return `${this.namespace}/${name}/${id}`;
  }

  /** The isolation of each endpoint. */
  override async setOwnSwitch(name: string, id: string, isOut: boolean): Promise<void> {
    const places = await this.places(name, id);
    await this.server.change(...places.map((place) => ({ ...place, isolate: isOut })));
  }
}

export const polaris: Row = {
  name: 'polaris',
  ttlMs: 3000,
  cannot: {
    rawRead: 'Polaris stores fields, no bytes',
    rawPut: 'Polaris checks what it is given',
    transactions: 'Polaris changes one instance at a time',
    compaction: 'Polaris keeps no history',
    codecs: 'the layouts of Polaris are services, no values',
    prefixes: 'Polaris has namespaces, and no prefix',
    anyMetadata: 'Polaris takes 64 pairs of metadata, and some keys are its own',
    leases: 'Polaris has no leases',
    counts: 'Polaris counts no streams',
  },
  capabilities: { ...usual, settlesMs: 1200, ownSwitch: true },
  async start() {
    const server = await startPolaris();
    return {
      scope: async () => new PolarisScope(server, await startTcpProxy(server.host)),
      close: () => server.close(),
    };
  },
};
