// Polaris: a namespace for each scope, in the layout of `contrib/polaris`.

import { createHash } from 'node:crypto';
import type { RegistryOptions } from 'rollcall';
import { type PolarisInstance, type PolarisPlace, type PolarisServer, startPolaris } from '../../support/polaris.js';
import { uniqueName, waitFor } from '../../support/process.js';
import { startTcpProxy, type TcpProxy } from '../../support/tcp.js';
import { type Common, Linked, type Row, readRecord, usual } from '../scope.js';

/** How late a server tells: it looks at its store once a second. */
const LATE_MS = 2000;

/** A server counts whole seconds, and each of the two checks comes up to a second late, so that not all come at once. */
const CHECKS_MS = 3000;

/** For as long after its start a server checks nobody; then it goes by no check for three TTLs. */
const IDLE_MS = 10_000;

/** Has a server to itself, which is slower the more it has ever held. The servers are few, and used again. */
class PolarisScope extends Linked {
  readonly ttlMs = 3000;
  private readonly namespace = uniqueName('suite');
  /** Where others have written an instance. */
  private readonly written = new Map<string, PolarisPlace[]>();
  private writing = 0;

  constructor(
    private readonly server: PolarisServer,
    link: TcpProxy,
    giveBack: () => Promise<void>,
  ) {
    super(link);
    this.opened.push(giveBack);
  }

  /**
   * It is unhealthy six TTLs and two late checks after its last beat at the latest, of a server that has not just been started,
   * and clients are told a little later.
   */
  override get silenceMs(): number {
    return IDLE_MS + 6 * this.ttlMs + CHECKS_MS + LATE_MS;
  }

  private to(hosts: string, namespace: string, more?: Common): RegistryOptions {
    return { backend: 'polaris', hosts, namespace, ttlMs: this.ttlMs, timeoutMs: 30_000, logger: false, ...more };
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
    const record = readRecord(value);
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
    const key = this.key(name, id);
    const before = this.written.get(key) ?? [];
    await this.server.put(...instances);
    this.written.set(
      key,
      instances.map((one) => this.placeOf(name, one)),
    );
    const isKept = (old: PolarisPlace) => instances.some(({ host, port }) => host === old.host && port === old.port);
    await this.server.delete(...before.filter((place) => !isKept(place)));
    const merges = instances.map(({ metadata }) => metadata?.merge);
    await this.told(name, (all) => merges.every((merge) => all.some(({ metadata }) => metadata?.merge === merge)));
  }

  /** Waits until clients are told of what was done. */
  private told(name: string, isTold: (all: PolarisInstance[]) => boolean): Promise<boolean> {
    // What is overtaken by a later writing is never told.
    return waitFor(async () => isTold(await this.server.discover(this.namespace, name)), {
      timeoutMs: LATE_MS,
      intervalMs: 100,
    }).catch(() => false);
  }

  /** Everything that stands under an id, whoever has written it. */
  private async records(name: string, id: string): Promise<PolarisInstance[]> {
    const all = await this.server.list(this.namespace, name);
    return all.filter(({ metadata }) => metadata?.['rollcall.id'] === id);
  }

  private placeOf(service: string, { host, port }: PolarisInstance): PolarisPlace {
    return { namespace: this.namespace, service, host, port };
  }

  /** Where it stands. */
  private async places(name: string, id: string): Promise<PolarisPlace[]> {
    return (await this.records(name, id)).map((one) => this.placeOf(name, one));
  }

  async remove(name: string, id: string): Promise<boolean> {
    const places = await this.places(name, id);
    await this.server.delete(...places);
    await this.toldGone(name, id);
    return places.length > 0;
  }

  /**
   * There is no session: what comes nearest is that somebody deletes the record. It is lost once its owner looks for it in vain,
   * and has written it anew since, or not for a TTL. As it was, it comes back by a writing that is under way, and by the one
   * that each new connection gets: then it is deleted once more.
   */
  async loseSession(name: string, id: string): Promise<void> {
    let [was, goneAt] = ['', 0];
    const isLost = async () => {
      const all = await this.records(name, id);
      const is = all.map(({ metadata }) => `${metadata?.['rollcall.owner']} ${metadata?.['rollcall.n']}`).join();
      was ||= is;
      if (is !== '' && is === was) {
        await this.server.delete(...all.map((one) => this.placeOf(name, one)));
        await this.toldGone(name, id);
        goneAt = performance.now();
        return false;
      }
      return goneAt > 0 && (is !== '' || performance.now() - goneAt > this.ttlMs);
    };
    await waitFor(isLost, { what: `the loss of ${name}/${id}` });
  }

  private toldGone(name: string, id: string): Promise<boolean> {
    return this.told(name, (all) => all.every(({ metadata }) => metadata?.['rollcall.id'] !== id));
  }

  async wipe(): Promise<void> {
    const { namespace } = this;
    for (const service of await this.server.services(namespace)) {
      const all = await this.server.list(namespace, service);
      await this.server.delete(...all.map((one) => this.placeOf(service, one)));
      this.written.clear();
      await this.told(service, (left) => left.length === 0);
    }
  }

  key(name: string, id: string): string {
    return `${this.namespace}/${name}/${id}`;
  }

  /** The isolation of each endpoint. */
  override async setOwnSwitch(name: string, id: string, isOut: boolean): Promise<void> {
    const places = await this.places(name, id);
    await this.server.change(...places.map((place) => ({ ...place, isolate: isOut })));
    const isOf = ({ metadata }: PolarisInstance) => metadata?.['rollcall.id'] === id;
    await this.told(name, (all) => all.filter(isOf).every(({ isolate }) => (isolate ?? false) === isOut));
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
    goesByTtl: 'Polaris takes an instance for unhealthy after 3 to 6 TTLs; see faults/polaris',
    quickWrites: 'Polaris tells of a change after up to a second, and its store in a file is slow to write',
    anyName: 'Polaris takes letters, digits and a few signs',
  },
  capabilities: { ...usual, settlesMs: 1200, ownSwitch: true },
  lateMs: LATE_MS,
  patience: 4,
  async start() {
    const started: PolarisServer[] = [];
    const free: PolarisServer[] = [];
    return {
      async scope() {
        let server = free.pop();
        if (!server) {
          server = await startPolaris();
          started.push(server);
        }
        const taken = server;
        return new PolarisScope(taken, await startTcpProxy(taken.host), async () => {
          await taken.wipe();
          free.push(taken);
        });
      },
      async close() {
        await Promise.all(started.map((one) => one.close()));
      },
    };
  },
};
