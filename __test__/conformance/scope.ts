// What a test has of a registry: a scope, with its clients and its faults; and what a row of the suite says of itself.

import type { Capabilities, Registry, RegistryOptions } from 'rollcall';
import { connect } from 'rollcall';
import type { TcpProxy } from '../support/tcp.js';
import type { Process, Scenario, Step } from './kit.js';

/** Options of every backend, as a test gives them. */
export type Common = Omit<Extract<RegistryOptions, { backend: 'memory' }>, 'backend' | 'namespace'>;

/** What a test may need of a row beyond registering and watching. */
export type Need =
  /** A single client can be cut off while others still reach the registry. */
  | 'oneSided'
  /** Requests and answers can be held back on the way. */
  | 'slowWay'
  /** What is stored can be read and written around the client, byte by byte, in transactions. */
  | 'rawRead'
  /** What others write is kept as they wrote it, whether it makes sense or not. */
  | 'rawPut'
  /** Metadata may have any keys and values. */
  | 'anyMetadata'
  /** An id is one of its name, not of the whole registry. */
  | 'idsPerName'
  /** Several processes share the registry. */
  | 'processes'
  /** A session or lease has a name of its own, so that a test can ask for it. */
  | 'leases'
  /** The server counts the streams and requests it serves. */
  | 'counts'
  /** Several registries lie in one server, and do not see one another. */
  | 'tenants';

export interface Row {
  readonly name: string;
  /** The TTL that tests use unless the default is what they test. */
  readonly ttlMs: number;
  readonly cannot: Partial<Record<Need, string>>;
  /** What a client says of it. */
  readonly capabilities: Capabilities;
  start(): Promise<Server>;
}

/** A running registry. Each test has a part of it to itself: a namespace or prefix. */
export interface Server {
  scope(): Promise<Scope>;
  close(): Promise<void>;
}

/** What one test sees of a registry, and the faults that befall it. */
export interface Scope {
  readonly ttlMs: number;
  /** Through the way that `outage()` cuts. */
  options(more?: Common): RegistryOptions;
  /** A client; closed when the test is over. */
  connect(more?: Common): Promise<Registry>;
  /** The same options as a URL, with more of them as a query. */
  url(query?: string): string;
  /** A client that `outage()` does not cut off, where the row can (`oneSided`). */
  observer(more?: Common): Promise<Registry>;
  /** A client of another tenant of the same server, called as this one with `suffix` behind it (`tenants`). */
  neighbour(suffix: string): Promise<Registry>;
  /** The steps of a scenario in another thread of execution: a process where the registry is shared, else a worker. */
  run(steps: Step[], more?: Common): Promise<Scenario>;
  /** The same, and it is a process (`processes`). */
  process(steps: Step[], more?: Common): Promise<Process>;
  /** Nothing gets through, connections are refused or cut. */
  outage(): Promise<void>;
  restore(): Promise<void>;
  /** The way that `outage()` cuts, for finer harm (`slowWay`). */
  readonly link: TcpProxy;
  /** A record as someone else writes it. */
  put(name: string, id: string, value: string): Promise<void>;
  /** A deletion by hand. */
  remove(name: string, id: string): Promise<boolean>;
  /** The lease or session of a record ends. */
  loseSession(name: string, id: string): Promise<void>;
  /** The registry loses all records of this scope. */
  wipe(): Promise<void>;
  /** Someone else's instance whose owner can die without a word. */
  mortal(name: string, id: string): Promise<{ die(): Promise<void> }>;
  /** etcd only, by `rawRead`, `leases` and `counts`: the server, and the key of a record. */
  readonly serverUrl: string;
  key(name: string, id: string): string;
  /** Undoes everything that the test has opened. */
  close(): Promise<void>;
}

/** A record as Kratos writes it. */
export const record = (
  name: string,
  id: string,
  more: { version?: string; metadata?: Record<string, string>; endpoints?: string[] } = {},
): string =>
  JSON.stringify({
    id,
    name,
    version: more.version ?? '',
    metadata: more.metadata ?? null,
    endpoints: more.endpoints ?? null,
  });

/** The clients and scenarios of one test, closed with it. */
export abstract class Clients {
  protected readonly opened: (() => Promise<unknown>)[] = [];
  abstract options(more?: Common): RegistryOptions;
  /** Around the way that `outage()` cuts. */
  protected abstract direct(more?: Common): RegistryOptions;
  /** The tenant that `neighbour()` is a client of. */
  protected abstract beside(suffix: string): RegistryOptions;
  protected abstract launch(steps: Step[], more?: Common): Scenario;
  abstract restore(): Promise<void>;

  private async open(options: RegistryOptions): Promise<Registry> {
    const registry = await connect(options);
    this.opened.push(() => registry.close({ timeoutMs: 2000 }).catch(() => undefined));
    return registry;
  }

  connect(more?: Common): Promise<Registry> {
    return this.open(this.options(more));
  }

  observer(more?: Common): Promise<Registry> {
    return this.open(this.direct(more));
  }

  neighbour(suffix: string): Promise<Registry> {
    return this.open(this.beside(suffix));
  }

  async run(steps: Step[], more?: Common): Promise<Scenario> {
    const running = this.launch(steps, more);
    this.opened.push(() => running.stop());
    await running.until('connected');
    return running;
  }

  async close(): Promise<void> {
    await this.restore();
    for (const undo of this.opened.splice(0).reverse()) await undo();
  }
}
