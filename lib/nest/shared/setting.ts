/** A setting in etcd that is followed for as long as its client lives. */

import { setTimeout } from 'node:timers';
import { onAbort } from '../../common/abort.js';
import type { Etcd3 } from '../../etcd/client.js';
import type { CallOptions } from '../../etcd/rpc/calls.js';
import type { AppLogger } from '../../frameworks/logger.js';

/** How long a setting that could not be read is left alone, in milliseconds. */
const AGAIN_MS = 5000;

/** What could not be read the last time, of each client. */
const unread = new WeakMap<object, Set<string>>();

/** The settings of a client that are followed and can't be read. */
export const unreadSettings = (client: object): string[] => [...(unread.get(client) ?? [])];

/** What hears of a setting: its text, or `null` when there is none. */
export type OnSetting = (value: string | null) => unknown;

/**
 * Calls `listener` with the text of a setting and then with every change of it. While it has not returned, or its promise
 * is pending, it is not called again; then it hears the latest text. What it throws is logged. A watch that ends by an
 * error, because a right was taken for instance, is begun anew after a pause, with one line in the log.
 *
 * `first` has the options of the first read; its signal ends all.
 *
 * Resolves after the first call, with what ends it, and rejects when the first read fails; with `lazy` it resolves at
 * once, and the first read is tried again too.
 */
export async function followSetting(
  client: Etcd3,
  key: string,
  listener: OnSetting,
  { log, lazy = false, first }: { log: AppLogger; lazy?: boolean; first?: CallOptions },
): Promise<() => void> {
  const following = new Following(client, key, listener, log);
  const from = lazy ? undefined : await following.read(first);
  const unlisten = first?.signal && onAbort(first.signal, () => following.stop());
  void following.goOn(from);
  return () => {
    unlisten?.();
    following.stop();
  };
}

class Following {
  readonly #client: Etcd3;
  readonly #key: string;
  readonly #listener: OnSetting;
  readonly #log: AppLogger;
  readonly #stopped = new AbortController();
  #latest: string | null = null;
  #told: string | null | undefined;
  #busy = false;

  constructor(client: Etcd3, key: string, listener: OnSetting, log: AppLogger) {
    this.#client = client;
    this.#key = key;
    this.#listener = listener;
    this.#log = log;
  }

  stop(): void {
    this.#stopped.abort();
    this.#readable();
  }

  /** Tells what stands, and gives the revision after it. */
  async read(options?: CallOptions): Promise<bigint> {
    const { header, kvs } = await this.#client.get(this.#key).options(options).exec();
    await this.#hear(kvs[0]?.value.toString() ?? null);
    return BigInt(header.revision) + 1n;
  }

  /** Follows until it is stopped or the client closed. Never rejects. */
  async goOn(first: bigint | undefined): Promise<void> {
    const { signal } = this.#stopped;
    for (let from = first; !signal.aborted; from = undefined) {
      try {
        from ??= await this.read();
        this.#readable();
        await this.#watch(from);
        return;
      } catch (error) {
        if (signal.aborted || (error as { code?: unknown }).code === 'ERR_CLOSED') break;
        this.#unreadable(error as Error);
        await this.#pause();
      }
    }
    this.#readable();
  }

  async #watch(from: bigint): Promise<void> {
    const watcher = this.#client.watch().key(this.#key).startRevision(from).withRelist().watcher();
    const end = () => void watcher.cancel();
    const { signal } = this.#stopped;
    signal.addEventListener('abort', end, { once: true });
    try {
      for await (const change of watcher) {
        const value = change.type === 'list' ? change.keys[0]?.value : change.type === 'put' ? change.value : undefined;
        void this.#hear(value?.toString() ?? null);
      }
    } finally {
      signal.removeEventListener('abort', end);
    }
  }

  async #hear(value: string | null): Promise<void> {
    this.#latest = value;
    if (this.#busy) return;
    this.#busy = true;
    while (this.#told !== this.#latest && !this.#stopped.signal.aborted) {
      this.#told = this.#latest;
      try {
        await this.#listener(this.#told);
      } catch (error) {
        const text = (error as Error | undefined)?.stack ?? error;
        this.#log.error(`a listener of the setting ${this.#key} failed: ${text}`);
      }
    }
    this.#busy = false; // in the same turn as the last look at what is latest
  }

  #unreadable(error: Error): void {
    const keys = unread.get(this.#client) ?? new Set();
    unread.set(this.#client, keys);
    if (keys.has(this.#key)) return; // it was said
    keys.add(this.#key);
    const { message } = error;
    this.#log.error(`the setting ${this.#key} can't be followed, and is tried every ${AGAIN_MS / 1000} s: ${message}`);
  }

  #readable(): void {
    if (unread.get(this.#client)?.delete(this.#key) && !this.#stopped.signal.aborted) {
      this.#log.log(`the setting ${this.#key} is followed again`);
    }
  }

  #pause(): Promise<void> {
    const { signal } = this.#stopped;
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        signal.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(done, AGAIN_MS).unref();
      signal.addEventListener('abort', done, { once: true });
    });
  }
}
