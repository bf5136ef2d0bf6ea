/** A client of the native side, made of memory and told what to do: for the logic above it. */

import { setImmediate as turn } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import type { LogLevel } from '../../lib/common/logger.js';
import type { ClientHandle, NativeEvent, NativeInstance } from '../../lib/native.js';
import { settle } from '../../lib/registry/options.js';
import { Registry } from '../../lib/registry/registry.js';

/** What the native side rejects with. */
export function nativeError(code: string, message = `native: ${code}`, operation = ''): Error {
  return Object.assign(new Error(message), { code, retryable: false, operation });
}

export function instance(id: string, more: Partial<NativeInstance> = {}): NativeInstance {
  return {
    id,
    name: 'orders',
    version: '1',
    metadata: {},
    endpoints: [`grpc://10.0.0.1:${9000 + id.length}`],
    ...more,
  };
}

export class FakeCancel {
  cancel: () => void = () => {};
  readonly cancelled = new Promise<never>((_, reject) => {
    this.cancel = () => reject(nativeError('ERR_ABORTED'));
  });
  attempts = () => 1;
}

export class FakeWatcher {
  stopped = false;
  failure: Error | null = null;
  isStale = false;
  takes = 0;
  #taken: { version: number; list: NativeInstance[] } = { version: 0, list: [] };
  constructor(
    readonly client: FakeClient,
    readonly number: number,
    readonly name: string,
  ) {}
  id() {
    return this.number;
  }
  stale() {
    return this.isStale;
  }
  attempts() {
    return 3;
  }
  version() {
    return this.client.lists.get(this.name)?.version ?? 0;
  }
  /** As the native side: what is new, if the list `known` was the last one taken here. */
  take(known: number) {
    this.takes++;
    const version = this.version();
    const list = structuredClone(this.client.lists.get(this.name)?.list ?? []);
    const { version: last, list: before } = this.#taken;
    this.#taken = { version, list };
    if (last === 0 || last !== known) return { version, difference: null, instances: list };
    const all = list.map((instance) => before.findIndex((old) => isDeepStrictEqual(old, instance)));
    let [head, tail] = [0, 0];
    while (head < all.length && all[head] === head) head++;
    const end = before.length - 1;
    while (tail <= end && tail < all.length - head && all.at(-1 - tail) === end - tail) tail++;
    const places = Int32Array.from(all.slice(head, all.length - tail));
    return { version, difference: { head, tail, places }, instances: list.filter((_, place) => all[place] === -1) };
  }
  error() {
    return this.failure;
  }
  stop() {
    this.stopped = true;
  }
}

export class FakeRegistration {
  current = 'registered';
  deregistered = 0;
  readonly reasons = new Set<string>();
  refusal: Error | undefined;
  gate: Promise<void> = Promise.resolve();
  constructor(
    readonly number: number,
    readonly record: NativeInstance,
  ) {}
  id() {
    return this.number;
  }
  instance() {
    return structuredClone(this.record);
  }
  state() {
    return this.current;
  }
  tried = 0;
  attempts() {
    return this.tried;
  }
  async update(version: string | null, metadata: Record<string, string> | null, endpoints: string[] | null) {
    if (version !== null) this.record.version = version;
    if (metadata !== null) this.record.metadata = metadata;
    if (endpoints !== null) this.record.endpoints = endpoints;
    if (this.refusal) throw this.refusal;
  }
  outFor() {
    return [...this.reasons];
  }
  async withdraw(reason: string, _timeoutMs: number, cancel: FakeCancel | null) {
    this.reasons.add(reason);
    await Promise.race([this.gate, cancel?.cancelled ?? new Promise(() => {})]);
    if (this.refusal) throw this.refusal;
  }
  async restore(reason: string) {
    this.reasons.delete(reason);
    if (this.refusal) throw this.refusal;
  }
  async drain() {
    this.reasons.add('draining');
    await this.deregister();
  }
  async deregister() {
    this.deregistered++;
    await this.gate;
    if (this.refusal) throw this.refusal;
    this.current = 'deregistered';
  }
}

export class FakeClient {
  readonly lists = new Map<string, { version: number; list: NativeInstance[] }>();
  readonly watchers: FakeWatcher[] = [];
  readonly registrations: FakeRegistration[] = [];
  readonly calls: string[] = [];
  referenced = false;
  refusal: Error | undefined;
  /** Runs before `register()` answers. */
  beforeAnswer: (registration: FakeRegistration) => unknown = () => {};
  #events: NativeEvent[] = [];
  #next = 0;
  wake: () => void = () => {};

  capabilities() {
    const can = { register: true, expires: true, owners: true, keepsId: true, listsNames: true, countsNames: true };
    const cannot = { oneRegistration: false, since: false, expiresIn: false, leavingReason: false, ownSwitch: false };
    return { ...can, ...cannot, settlesMs: 0 };
  }
  async contact() {
    if (this.refusal) throw this.refusal;
  }
  reached: 'connecting' | 'connected' | 'disconnected' = 'connecting';
  status() {
    return this.reached;
  }
  async ping(timeoutMs: number, cancel: FakeCancel | null) {
    this.calls.push(`ping ${timeoutMs}`);
    if (this.refusal) throw this.refusal;
    if (cancel) await cancel.cancelled;
    return 1.5;
  }
  async ready(timeoutMs: number, cancel: FakeCancel | null) {
    this.calls.push(`ready ${timeoutMs}`);
    if (this.refusal) throw this.refusal;
    if (cancel) await cancel.cancelled;
  }
  metrics() {
    const registrations = { registered: 1, out: 2, attempts: 3, failedAttempts: 4, losses: 5, repairs: 6, replaced: 7 };
    const watches = { followed: 8, stale: 9, reads: 10, breaks: 11, lists: 12 };
    const methods = { getService: { calls: 13, failed: 14 }, services: { calls: 15, failed: 16 } };
    return { ...registrations, ...watches, ...methods };
  }
  async register(record: NativeInstance, _options: unknown, cancel: FakeCancel | null) {
    this.calls.push('register');
    if (this.refusal) throw this.refusal;
    const registration = new FakeRegistration(++this.#next, { ...record, id: record.id || 'made-up' });
    this.registrations.push(registration);
    await Promise.race([this.beforeAnswer(registration), cancel?.cancelled ?? new Promise(() => {})]);
    return registration;
  }
  async getService(name: string, _consistent: boolean, _timeoutMs: number, cancel: FakeCancel | null) {
    this.calls.push('getService');
    if (this.refusal) throw this.refusal;
    if (cancel) await cancel.cancelled;
    return structuredClone(this.lists.get(name)?.list ?? []);
  }
  async services() {
    this.calls.push('services');
    if (this.refusal) throw this.refusal;
    return [...this.lists.keys()];
  }
  watch(name: string) {
    if (this.refusal) throw this.refusal;
    const watcher = new FakeWatcher(this, ++this.#next, name);
    this.watchers.push(watcher);
    return watcher;
  }
  /** Names are followed as the list of the name ''. */
  watchServices() {
    if (this.refusal) throw this.refusal;
    const followed = this.watch('');
    const take = (known: number) => {
      const { version, difference, instances } = FakeWatcher.prototype.take.call(followed, known);
      const counts = instances.map(({ version }) => Number(version));
      return { version, difference, names: instances.map(({ name }) => name), counts: Int32Array.from(counts) };
    };
    return Object.assign(followed, { take });
  }
  drain(most: number) {
    return this.#events.splice(0, most);
  }
  ref() {
    this.referenced = true;
  }
  unref() {
    this.referenced = false;
  }
  async close() {
    this.calls.push('close');
    if (this.refusal) throw this.refusal;
  }

  /** The server has a new list. Resolves when those who follow it were told. */
  async publish(name: string, list: NativeInstance[]): Promise<void> {
    this.lists.set(name, { version: (this.lists.get(name)?.version ?? 0) + 1, list });
    const following = this.watchers.filter((watcher) => watcher.name === name && !watcher.stopped);
    await Promise.all(following.map((watcher) => this.tell('watch', watcher.number)));
  }
  /** An event. Resolves when it was drained: that may be in a later turn of the event loop. */
  async tell(kind: string, id: number, more: Partial<NativeEvent> = {}): Promise<void> {
    this.#events.push({ kind, id, level: null, text: null, key: null, ...more } as NativeEvent);
    this.wake();
    // At most as many turns as there are events: each takes one at least. Nobody drains after the end.
    for (let left = this.#events.length; left > 0 && this.#events.length > 0; left--) await turn();
    await turn();
  }
}

export interface Opened {
  readonly registry: Registry;
  readonly client: FakeClient;
  readonly logged: { level: LogLevel; message: string }[];
}

/** A registry on a fake client. */
export async function openFake(more: object = {}): Promise<Opened> {
  const client = new FakeClient();
  const logged: Opened['logged'] = [];
  const write = (level: LogLevel) => (message: string) => void logged.push({ level, message });
  const logger = { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') };
  const settings = await settle({ backend: 'memory', logger, ...more });
  const registry = Registry.open(
    settings,
    (wake) => {
      client.wake = wake;
      return client as unknown as ClientHandle;
    },
    () => new FakeCancel() as never,
  );
  return { registry, client, logged };
}
