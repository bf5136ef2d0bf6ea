/** Connections to the instances of one service: a pool of undici for each endpoint that was called. */

import type { ConnectionOptions } from 'node:tls';
import { after } from '../common/clock.js';
import { UnavailableError } from '../errors.js';
import type { ServiceInstance } from '../registry/instance.js';
import type { ServiceCache } from '../service/cache.js';
import type { ServiceChange } from '../service/diff.js';
import type { Endpoint } from '../service/endpoint.js';
import { each } from '../service/pick/filters.js';
import type { Filter } from '../service/pick/types.js';
import { serverNameOf } from './names.js';
import { isCallable } from './retry.js';
import type { UndiciModule, UndiciPool } from './undici.js';

/** How connections are made and ended. */
export interface PoolSettings {
  readonly undici: UndiciModule;
  readonly serverName: string | undefined;
  readonly tls: ConnectionOptions;
  readonly connectTimeoutMs: number;
  readonly drainTimeoutMs: number;
}

/** One endpoint of one instance. */
export interface Place {
  readonly instance: ServiceInstance;
  readonly endpoint: Endpoint;
}

/** Of an instance. */
interface Known {
  /** That it must prove. */
  readonly name: string | undefined;
  /** Of its pools, by endpoint. */
  readonly keys: Map<string, string>;
}

interface Connections {
  readonly id: string;
  readonly pool: UndiciPool;
}

/** The pools of one service. One whose instance has left the list, or has other endpoints now, is drained. */
export class Pools {
  readonly service: ServiceCache;
  /** Those that can be called: `http://` and `https://` whose name a certificate could carry. */
  readonly any: Filter;
  /** Of these `https://` alone. */
  readonly secure: Filter;
  readonly #settings: PoolSettings;
  readonly #pools = new Map<string, Connections>();
  /** Those that are drained, until they are closed. */
  readonly #draining = new Map<UndiciPool, Promise<void>>();
  /** Instances that have left. */
  readonly #gone = new WeakSet<ServiceInstance>();
  /** What was found out of an instance, whose record never changes. */
  readonly #known = new WeakMap<ServiceInstance, Known>();
  #closed = false;

  constructor(service: ServiceCache, settings: PoolSettings) {
    this.service = service;
    this.#settings = settings;
    const fits = ({ instance, endpoint }: Place) => isCallable(endpoint) && this.#nameOf(instance) !== undefined;
    this.any = each('http', fits);
    this.secure = each('https', (place) => place.endpoint.secure && fits(place));
    service.on('change', (change) => this.#changed(change));
  }

  /** What a request to it has for its origin: from there come the Host header and the name that is to be proved. */
  originOf({ instance, endpoint }: Place): string {
    return `${endpoint.secure ? 'https' : 'http'}://${this.#nameOf(instance)}`;
  }

  /** @throws where the instance has left meanwhile: nothing was sent. */
  at(place: Place): UndiciPool {
    const { instance, endpoint } = place;
    const key = this.#keyOf(place);
    const known = this.#pools.get(key);
    if (known) return known.pool;
    if (this.#closed || this.#gone.has(instance)) throw hasLeft(place);
    const pool = this.#open(endpoint, this.originOf(place));
    this.#pools.set(key, { id: instance.id, pool });
    return pool;
  }

  /**
   * Why a request that has its connection is not to be written to it: the instance has left since it was dispatched. To connect,
   * and to look whether a kept connection is alive, as undici 7 does, takes turns of the event loop, and the server may be
   * about to close.
   */
  refusal(place: Place): UnavailableError | undefined {
    this.service.refresh();
    return this.#closed || this.#pools.has(this.#keyOf(place)) ? undefined : hasLeft(place);
  }

  /** Requests that are under way end; new ones are refused. */
  close(): void {
    this.#closed = true;
    for (const key of [...this.#pools.keys()]) this.#drain(key);
  }

  /** Resolves when no connection is left. */
  async closed(): Promise<void> {
    await Promise.all(this.#draining.values());
  }

  /** Requests that are under way fail. */
  destroy(error: unknown): void {
    this.#closed = true;
    const all = [...this.#draining.keys(), ...[...this.#pools.values()].map(({ pool }) => pool)];
    this.#pools.clear();
    for (const pool of all) void pool.destroy(error).catch(() => {});
  }

  #keyOf(place: Place): string {
    const { instance, endpoint } = place;
    const { keys } = this.#of(instance);
    let key = keys.get(endpoint.url);
    if (key === undefined) {
      key = JSON.stringify([instance.id, endpoint.url, this.originOf(place)]);
      keys.set(endpoint.url, key);
    }
    return key;
  }

  #nameOf(instance: ServiceInstance): string | undefined {
    return this.#of(instance).name;
  }

  #of(instance: ServiceInstance): Known {
    let known = this.#known.get(instance);
    if (!known) {
      known = { name: serverNameOf(instance, this.#settings.serverName), keys: new Map() };
      this.#known.set(instance, known);
    }
    return known;
  }

  #changed({ removed, updated }: ServiceChange): void {
    for (const instance of removed) this.#gone.add(instance);
    if (this.#pools.size === 0) return;
    const changed = new Map(updated.map((instance) => [instance.id, instance]));
    const gone = new Set(removed.map(({ id }) => id));
    for (const [key, { id }] of this.#pools) {
      if (gone.has(id) || (changed.has(id) && !this.#has(changed.get(id) as ServiceInstance, key))) this.#drain(key);
    }
  }

  /** Whether an instance still has the endpoint of a pool, and its name. */
  #has(instance: ServiceInstance, key: string): boolean {
    const [, url, origin] = JSON.parse(key) as [string, string, string];
    return instance.endpoints.includes(url) && origin.endsWith(`://${this.#nameOf(instance)}`);
  }

  #drain(key: string): void {
    const { pool } = this.#pools.get(key) as Connections;
    this.#pools.delete(key);
    const stop = after(this.#settings.drainTimeoutMs, () => void pool.destroy().catch(() => {}));
    const closed = pool
      .close()
      .catch(() => {}) // it was destroyed
      .finally(() => {
        stop();
        this.#draining.delete(pool);
      });
    this.#draining.set(pool, closed);
  }

  #open({ host, port }: Endpoint, origin: string): UndiciPool {
    const { undici, tls, connectTimeoutMs } = this.#settings;
    const servername = origin.slice(origin.indexOf('//') + 2);
    const connector = undici.buildConnector({ ...tls, allowH2: false, timeout: connectTimeoutMs });
    const address = host.includes(':') ? `[${host}]` : host;
    return new undici.Pool(origin, {
      allowH2: false,
      connect: (options: object, done: unknown) =>
        connector({ ...options, hostname: host, host: `${address}:${port}`, port, servername }, done),
    });
  }
}

function hasLeft({ instance, endpoint }: Place): UnavailableError {
  const details = { operation: 'fetch', endpoint: endpoint.url, retryable: true };
  return new UnavailableError(`${instance.name}/${instance.id} has left the registry`, details);
}
