/** Services and settings in etcd, in the words that many programs on Nest have written for themselves. */

import { onAbort } from '../../common/abort.js';
import { abortSignal, invalid, text } from '../../common/shape.js';
import { UnsupportedError } from '../../errors.js';
import type { Etcd3 } from '../../etcd/client.js';
import type { CallOptions } from '../../etcd/rpc/calls.js';
import { follow } from '../../frameworks/follow.js';
import type { AppLogger } from '../../frameworks/logger.js';
import { named } from '../../registry/call.js';
import type { CallOptions as ServiceCallOptions, WatchOptions } from '../../registry/call-options.js';
import { connect } from '../../registry/connect.js';
import type { ServiceInstance } from '../../registry/instance.js';
import { defaultDrain } from '../../registry/options.js';
import type { Registration } from '../../registry/registration.js';
import type { Registry } from '../../registry/registry.js';
import { madeByModule } from './by-module.js';
import { followSetting, type OnSetting } from './setting.js';

/** What every service key begins with: the key of an instance is `/services/{name}/{id}`. */
const PREFIX = '/services';
/** How long the key of a process that died stays. */
const TTL_MS = 10_000;

/** What is told of a service: the value of each of its keys, parsed, in the order of the keys. */
export type OnServices<T> = (services: T[]) => unknown;

/** A setting, or the metadata of a service: anything that JSON can say. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json | undefined };

/**
 * Settings and services on etcd: the value of a key is what you give, and the keys of services are
 * `/services/{name}/{id}`, under a lease of 10 seconds.
 *
 * What is registered is renewed on a thread of its own and put back after any loss, as by `connect()` of `rollcall`, which
 * it is made of; where endpoints and versions are to travel too, or Go services on Kratos are to see them, take
 * `RegistryModule`.
 */
export class EtcdService {
  /** The whole client. */
  readonly client: Etcd3;
  readonly #log: AppLogger;
  readonly #registered = new Map<string, Promise<Registration>>();
  #registry: Promise<Registry> | undefined;
  #leaving: Promise<void> | undefined;
  #keepsAlive = true;

  /** @internal */
  constructor(client: Etcd3, log: AppLogger) {
    if (new.target === EtcdService) madeByModule(client, 'EtcdService', 'EtcdModule');
    this.client = client;
    this.#log = log;
  }

  /** Writes a setting: text, numbers and bytes as they are, anything else as JSON. */
  async saveConfig(key: string, value: string | number | Buffer | Json, options?: CallOptions): Promise<void> {
    const plain = typeof value === 'string' || typeof value === 'number' || Buffer.isBuffer(value);
    const put = this.client.put(key).value(plain ? (value as string) : json('value', value));
    await put.options(options);
  }

  /** The text of a setting; `null` when there is none. */
  async getConfig(key: string, options?: CallOptions): Promise<string | null> {
    return await this.client.get(key).options(options).string();
  }

  /**
   * Calls back with the text of a setting, `null` when there is none, and then with every change of it. While the callback
   * has not returned, or its promise is pending, it is not called again; then it hears the latest text. What it throws is
   * logged. Resolves after the first call; the options are for the first
   * read, and the signal ends the rest as well. A watch that etcd refuses later is logged and begun anew, every 5 seconds.
   *
   * @returns what ends that.
   * @throws as `getConfig()`.
   */
  async watchConfig(key: string, callback: OnSetting, options: CallOptions = {}): Promise<() => void> {
    return await followSetting(this.client, key, callback, { log: this.#log, first: options });
  }

  /**
   * The same, also where the setting can't be read yet. Ends with the client.
   *
   * @internal
   */
  async keepConfig(key: string, callback: OnSetting): Promise<void> {
    await followSetting(this.client, key, callback, { log: this.#log, lazy: true });
  }

  /**
   * Puts a service under `/services/{name}/{id}`, and keeps it there until it is deregistered, the application stops, or
   * another process registers the same id. Resolves when others see it. Registering an id again changes its metadata.
   *
   * @throws as `Registry.register()`.
   */
  async registerService(
    name: string,
    id: string,
    metadata: Json = {},
    options?: ServiceCallOptions,
  ): Promise<Registration> {
    text('id', id);
    const value = { '': json('metadata', metadata) };
    const key = `${name}/${id}`;
    const before = this.#registered.get(key);
    const next = this.#renew(before, name, id, value, options);
    this.#registered.set(key, next);
    try {
      return await next;
    } catch (error) {
      // What is registered still is, with what it was.
      if (this.#registered.get(key) === next) {
        if (before) this.#registered.set(key, before);
        else this.#registered.delete(key);
      }
      throw named(error, 'registerService');
    }
  }

  async #renew(
    before: Promise<Registration> | undefined,
    name: string,
    id: string,
    metadata: Record<string, string>,
    options: ServiceCallOptions | undefined,
  ): Promise<Registration> {
    const known = await before?.catch(() => undefined);
    if (known && known.state !== 'replaced' && known.state !== 'deregistered') {
      await known.update({ metadata }, options);
      return known;
    }
    const registry = await this.#services();
    return await registry.register({ name, id, metadata }, options); // which logs what becomes of it
  }

  /** Takes a service that was registered here out of etcd, if it is there. */
  async deregisterService(name: string, id: string, options?: ServiceCallOptions): Promise<void> {
    const key = `${name}/${id}`;
    const known = await this.#registered.get(key)?.catch(() => undefined);
    this.#registered.delete(key);
    await known?.deregister(options);
  }

  /**
   * The metadata of all instances of a service, as they were registered: of those of exactly this name. Asks etcd; where
   * that is too slow, or etcd may be away, keep the list that `watchService()` tells.
   *
   * @throws as `Registry.getService()`. Values that are no JSON are left out.
   */
  async discoverService<T = unknown>(name: string, options?: ServiceCallOptions): Promise<T[]> {
    const registry = await this.#services();
    return parsed<T>(await registry.getService(name, { ...options, consistent: true }));
  }

  /**
   * Calls back with the current list of a service, also when it is empty, and with every change of it. While the callback
   * has not returned, or its promise is pending, it is not called again; then it hears the latest list. What it throws is
   * logged.
   *
   * @returns what ends that.
   */
  async watchService<T = unknown>(
    name: string,
    callback: OnServices<T>,
    options: WatchOptions = {},
  ): Promise<() => void> {
    const registry = await this.#services();
    const signal = abortSignal('options.signal', options.signal);
    const watcher = follow(registry, name, (list) => callback(parsed<T>(list)), this.#log);
    if (signal?.aborted) watcher.stop();
    const unlisten = signal && onAbort(signal, () => watcher.stop());
    return () => {
      unlisten?.();
      watcher.stop();
    };
  }

  /**
   * What is registered or watched keeps the process alive: the default.
   *
   * @internal
   */
  ref(): void {
    this.#keepsAlive = true;
    this.#registry?.then((registry) => this.#settle(registry)).catch(() => {});
  }

  /**
   * It doesn't. What goes by way of `client` is the matter of the client.
   *
   * @internal
   */
  unref(): void {
    this.#keepsAlive = false;
    this.#registry?.then((registry) => this.#settle(registry)).catch(() => {});
  }

  #settle(registry: Registry): Registry {
    return this.#keepsAlive ? registry.ref() : registry.unref();
  }

  /**
   * Before the application stops.
   *
   * @internal
   */
  leave(): Promise<void> {
    this.#leaving ??= (async () => {
      await Promise.all(
        [...this.#registered.values()].map((each) =>
          this.#quietly(each.then((it) => it.deregister({ drainMs: defaultDrain('etcd') }))),
        ),
      );
    })();
    return this.#leaving;
  }

  /**
   * At the end.
   *
   * @internal
   */
  async close(): Promise<void> {
    await this.#quietly(this.#registry?.then((registry) => registry.close()));
  }

  async #quietly(work: Promise<void> | undefined): Promise<void> {
    try {
      await work;
    } catch (error) {
      this.#log.warn(`a service was not taken out of etcd in order: ${(error as Error).message}`);
    }
  }

  /** A registry on the connection of the client. Made at the first use: most programs use only the settings, or only the rest. */
  #services(): Promise<Registry> {
    this.#registry ??= (async () => {
      const registry = await connect({
        client: this.#shared(),
        prefix: PREFIX,
        codec: 'json',
        ttlMs: TTL_MS,
        lazy: true,
        logger: this.#log,
      });
      return this.#settle(registry);
    })();
    this.#registry.catch(() => {
      this.#registry = undefined;
    });
    return this.#registry;
  }

  /** The client that was injected, which a test may have put in its place. */
  #shared(): Etcd3 {
    const { connection } = this.client as Partial<Etcd3>;
    if (connection && !connection.mocked) return this.client;
    throw new UnsupportedError(
      'services of EtcdService need a client of a real etcd, and this one was replaced or is mocked: replace ' +
        'EtcdService itself, by overrideProvider(EtcdService)',
    );
  }
}

function json(path: string, value: unknown): string {
  const written = JSON.stringify(value);
  if (written === undefined) throw invalid(path, 'expected what JSON can say');
  return written;
}

/** Parsed anew for each caller, who may change what it gets. */
function parsed<T>(list: readonly ServiceInstance[]): T[] {
  return list.map(({ metadata }) => JSON.parse(metadata[''] ?? 'null') as T);
}
