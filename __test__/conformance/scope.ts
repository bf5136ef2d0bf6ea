// What a test has of a registry: a scope, with its clients and its faults; and what a row of the suite says of itself.

import type { Capabilities, Registry, RegistryOptions } from 'rollcall';
import { connect } from 'rollcall';
import type { TcpProxy } from '../support/tcp.js';
import { inProcess, type Process, type Scenario, type Step } from './kit.js';

/** Options of every backend, as a test gives them. */
export type Common = Omit<Extract<RegistryOptions, { backend: 'memory' }>, 'backend' | 'namespace'>;

/** What a test may need of a row beyond registering and watching. */
export type Need =
  /** A single client can be cut off while others still reach the registry. */
  | 'oneSided'
  /** Requests and answers can be held back on the way. */
  | 'slowWay'
  /** What is stored can be read around the client, byte by byte. */
  | 'rawRead'
  /** What others write is kept as they wrote it, whether it makes sense or not. */
  | 'rawPut'
  /** Others can change several records at one moment. */
  | 'transactions'
  /** The registry keeps its history, and can be told to forget it. */
  | 'compaction'
  /** Its options have a `codec`. */
  | 'codecs'
  /** Its options have a `prefix`, which may have any depth. */
  | 'prefixes'
  /** Metadata may have any keys and values. */
  | 'anyMetadata'
  /** Names, ids and versions may be any text. */
  | 'anyText'
  /** The endpoints that others write may be any URLs. */
  | 'foreignEndpoints'
  /** What is not renewed for its TTL is lost, and goes by itself. */
  | 'expires'
  /** Two owners of one id are told apart. */
  | 'owners'
  /** A client holds several registrations at a time. */
  | 'manyRegistrations'
  /** An id is one of its name, not of the whole registry. */
  | 'idsPerName'
  /** Several processes share the registry. */
  | 'processes'
  /** A session or lease has a name of its own, so that a test can ask for it. */
  | 'leases'
  /** The server counts the streams it serves. */
  | 'counts'
  /** How long a record stands without renewal is for its client to say, not for the server. */
  | 'ownTtl'
  /** What a dead process has written stands for some time. */
  | 'outlives'
  /** The record of an owner that is gone goes after its TTL, and not after several of them. */
  | 'goesByTtl'
  /** Others can write hundreds of records in seconds, each of which is told at once. */
  | 'quickWrites'
  /** Each of many records is missed by itself, whatever happens to the others of its name. */
  | 'singleLosses'
  /** A name may have any letters. */
  | 'anyName'
  /** Operators can take an instance out by a switch of the registry's own. */
  | 'ownSwitch'
  /** Several registries lie in one server, and do not see one another. */
  | 'tenants';

export interface Row {
  /** That of the backend, then a blank and the version where there are several. */
  readonly name: string;
  /** The TTL that tests use unless the default is what they test. */
  readonly ttlMs: number;
  readonly cannot: Partial<Record<Need, string>>;
  /** What a client says of it. */
  readonly capabilities: Capabilities;
  /** By how much a read may be late, in milliseconds: where a server looks at its store from time to time. Default 0. */
  readonly lateMs?: number;
  /** How many times as long as elsewhere a test may take: where a change is not seen at once. Default 1. */
  readonly patience?: number;
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
  /** How long the record of an owner that says nothing may stand: the TTL, unless the registry goes by a clock of its own. */
  readonly silenceMs: number;
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
  /** Where a record lies, as a bad one is reported. */
  key(name: string, id: string): string;
  /** What is stored as a record (`rawRead`). */
  stored(name: string, id: string): Promise<Stored | undefined>;
  /** Everything that is stored under a name (`rawRead`). */
  storedUnder(name: string): Promise<Stored[]>;
  /** Records of a name, by their ids, are written and removed at one moment (`transactions`). */
  transact(name: string, puts: Record<string, string>, removals: string[]): Promise<void>;
  /** The history up to now is forgotten (`compaction`). */
  compact(): Promise<void>;
  /** Seconds granted to a lease; undefined when the registry has no such lease (`leases`). */
  grantedTtl(lease: string): Promise<number | undefined>;
  /** How many streams the server has for watches, of all clients (`counts`). */
  streams(): Promise<number>;
  /** The operator's switch of an instance (`ownSwitch`). */
  setOwnSwitch(name: string, id: string, isOut: boolean): Promise<void>;
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
  /** Undoes everything that the test has opened. */
  close(): Promise<void>;
}

/** A record around the client. */
export interface Stored {
  readonly key: string;
  /** Without what the registry or the backend keeps beside it. */
  readonly value: string;
  /** '0' when none. */
  readonly lease: string;
  /** Another one when it was made anew, and when it was written again; a renewal is neither. */
  readonly createRevision: number;
  readonly modRevision: number;
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

/** What such a record says. */
export const readRecord = (
  value: string,
): {
  id: string;
  name: string;
  version?: string;
  metadata?: Record<string, string> | null;
  endpoints?: string[] | null;
} => JSON.parse(value);

const absent = (need: Need): never => {
  throw new Error(`not in this row: the test must name its need "${need}"`);
};

/**
 * The clients and scenarios of one test, closed with it. What a test must name as its need is refused here: a row writes
 * what it can.
 */
export abstract class Clients implements Scope {
  protected readonly opened: (() => Promise<unknown>)[] = [];

  get silenceMs(): number {
    return this.ttlMs;
  }

  abstract readonly ttlMs: number;
  abstract options(more?: Common): RegistryOptions;
  abstract url(query?: string): string;
  abstract outage(): Promise<void>;
  abstract restore(): Promise<void>;
  abstract put(name: string, id: string, value: string): Promise<void>;
  abstract remove(name: string, id: string): Promise<boolean>;
  abstract loseSession(name: string, id: string): Promise<void>;
  abstract wipe(): Promise<void>;
  abstract key(name: string, id: string): string;
  /** Around the way that `outage()` cuts. */
  protected abstract direct(more?: Common): RegistryOptions;

  /** The tenant that `neighbour()` is a client of. */
  protected beside(_suffix: string): RegistryOptions {
    return absent('tenants');
  }

  protected launch(steps: Step[], more?: Common): Scenario {
    return inProcess(this.direct(more), steps);
  }

  protected async open(options: RegistryOptions): Promise<Registry> {
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

  async process(steps: Step[], more?: Common): Promise<Process> {
    const running = await this.run(steps, more);
    return 'pid' in running ? (running as Process) : absent('processes');
  }

  async mortal(name: string, id: string): Promise<{ die(): Promise<void> }> {
    const owner = await this.process([['register', { name, id }]]);
    await owner.until('register:done');
    return { die: () => owner.stop() };
  }

  async close(): Promise<void> {
    await this.restore();
    for (const undo of this.opened.splice(0).reverse()) await undo();
  }

  get link(): TcpProxy {
    return absent('slowWay');
  }

  async stored(_name: string, _id: string): Promise<Stored | undefined> {
    return absent('rawRead');
  }

  async storedUnder(_name: string): Promise<Stored[]> {
    return absent('rawRead');
  }

  async transact(_name: string, _puts: Record<string, string>, _removals: string[]): Promise<void> {
    absent('transactions');
  }

  async compact(): Promise<void> {
    absent('compaction');
  }

  async grantedTtl(_lease: string): Promise<number | undefined> {
    return absent('leases');
  }

  async streams(): Promise<number> {
    return absent('counts');
  }

  async setOwnSwitch(_name: string, _id: string, _isOut: boolean): Promise<void> {
    absent('ownSwitch');
  }
}

/** Of a registry that is reached by TCP. */
export abstract class Linked extends Clients {
  constructor(private readonly way: TcpProxy) {
    super();
    this.opened.push(() => way.close());
  }

  override get link(): TcpProxy {
    return this.way;
  }

  async outage(): Promise<void> {
    this.way.setEnabled(false);
  }

  async restore(): Promise<void> {
    this.way.dropAnswers(false);
    this.way.release();
    this.way.setEnabled(true);
  }
}

/** What most registries say of themselves: a row names where its own differs. */
export const usual: Capabilities = {
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
