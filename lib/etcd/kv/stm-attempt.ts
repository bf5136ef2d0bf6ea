/** One run of a software transaction: what it read, what it is to write, and what has to hold when it is committed. */

import { plainError } from '../check.js';
import { ClientRuntimeError, compactedRead, STMConflictError } from '../errors.js';
import type { CallOptions } from '../rpc/calls.js';
import { CompareResult, CompareTarget } from '../rpc/enums.js';
import type {
  ICompare,
  IDeleteRangeRequest,
  IDeleteRangeResponse,
  IPutRequest,
  IPutResponse,
  IRangeRequest,
  IRangeResponse,
  IRequestOp,
  IResponseHeader,
  ITxnResponse,
} from '../rpc/messages.js';
import { Range } from './range.js';
import type { Caller } from './request.js';

const EMPTY = Buffer.alloc(0);
const ZERO = Buffer.from([0]);

/** Keys in a Map, byte by byte: as UTF-8 different keys could fall together. */
const textOf = (key: Buffer): string => key.toString('latin1');

/**
 * What an isolation level asks for.
 *
 * @internal
 */
export interface Checks {
  /** Every read sees the revision of the first one. */
  readonly pinned: boolean;
  /** What was read must be unchanged at the commit. */
  readonly reads: boolean;
  /** What is written must be unchanged since the first read. */
  readonly writes: boolean;
}

interface Read {
  readonly key: Buffer;
  readonly answer: Promise<IRangeResponse>;
  /** Set when the answer came. */
  found?: IRangeResponse;
  /** Whether the program asked for it: what was only fetched ahead needs no check. */
  seen: boolean;
}

type Write =
  | { readonly kind: 'put'; readonly key: Buffer; readonly request: IPutRequest }
  | { readonly kind: 'delete'; readonly key: Buffer }
  | { readonly kind: 'deleteRange'; readonly range: Range };

/**
 * Takes the place of the connection for the builders of one run: reads go through a cache, writes are kept until the
 * commit. Keys are those of etcd, with the prefix of the namespace.
 *
 * @internal
 */
export class Attempt implements Caller {
  readonly #caller: Caller;
  readonly #checks: Checks;
  /** Options of reads that have none of their own. */
  readonly #defaults: CallOptions | undefined;
  readonly #reads = new Map<string, Read>();
  #writes: Write[] = [];
  /** The first read that is under way or done; the others wait for its revision. */
  #first: Promise<IRangeResponse> | undefined;
  #snapshot: string | undefined;
  #over = false;
  /** Whether etcd has compacted the revision that the reads are pinned to. */
  #lost = false;

  constructor(caller: Caller, checks: Checks, defaults: CallOptions | undefined) {
    this.#caller = caller;
    this.#checks = checks;
    this.#defaults = defaults;
  }

  /** Whether the run failed for no fault of the program, and may be made again. */
  get snapshotLost(): boolean {
    return this.#lost;
  }

  /** Nothing may be read or written any more. */
  end(): void {
    this.#over = true;
  }

  /** Reads keys ahead of their use. Failures show when a key is used. */
  prefetch(keys: readonly Buffer[]): void {
    for (const key of keys) this.#read({ key, limit: 1 }, this.#defaults).answer.catch(() => {});
  }

  async exec<T>(_service: 'KV', method: string, params: unknown, options?: CallOptions): Promise<T> {
    if (this.#over) {
      throw plainError(
        `This run of the software transaction has ended: a ${method} came too late. ` +
          'Await every read and write inside the function that is given to transact().',
      );
    }
    switch (method) {
      case 'range':
        return (await this.#get(params as IRangeRequest, options ?? this.#defaults)) as T;
      case 'put':
        return this.#put(params as IPutRequest) as T;
      case 'deleteRange':
        return this.#delete(params as IDeleteRangeRequest) as T;
      default:
        throw new ClientRuntimeError(`Unexpected kv operation in STM: ${method}`);
    }
  }

  /**
   * Commits what was written, if what was read allows it.
   *
   * @throws STMConflictError if it does not.
   */
  async commit(options: CallOptions | undefined): Promise<void> {
    const compare = [...this.#writeChecks(), ...this.#readChecks()];
    const success = this.#operations();
    if (compare.length === 0 && success.length === 0) return;
    const answer = await this.#caller.exec<ITxnResponse>('KV', 'txn', { compare, failure: [], success }, options);
    if (!answer.succeeded) throw new STMConflictError();
  }

  async #get(request: IRangeRequest, options: CallOptions | undefined): Promise<IRangeResponse> {
    refuse('read', request, [
      'revision',
      'range_end',
      'min_mod_revision',
      'max_mod_revision',
      'min_create_revision',
      'max_create_revision',
    ]);
    const key = request.key ?? EMPTY;
    const own = this.#written(key);
    if (own) return own;
    const read = this.#read(request, options);
    read.seen = true;
    return await read.answer;
  }

  /** The one read of a key in this run. One that failed is forgotten, so that it can be tried again. */
  #read({ key = EMPTY, serializable }: IRangeRequest, options: CallOptions | undefined): Read {
    const known = this.#reads.get(textOf(key));
    if (known) return known;
    // Values are always fetched: whoever only asked whether the key exists may want its value later.
    const request: IRangeRequest = { key, limit: 1, ...(serializable && { serializable }) };
    const read: Read = { key, answer: this.#send(request, options), seen: false };
    this.#reads.set(textOf(key), read);
    read.answer.then(
      (found) => {
        read.found = found;
      },
      () => this.#reads.delete(textOf(key)),
    );
    return read;
  }

  async #send(request: IRangeRequest, options: CallOptions | undefined): Promise<IRangeResponse> {
    while (this.#first && this.#snapshot === undefined) await this.#first.catch(() => {});
    if (this.#snapshot !== undefined) {
      return await this.#range(this.#checks.pinned ? { ...request, revision: this.#snapshot } : request, options);
    }
    const first = this.#range(request, options);
    // Until its revision is known the others wait, if they need it.
    if (this.#checks.pinned) this.#first = first;
    try {
      const answer = await first;
      this.#snapshot ??= answer.header?.revision;
      return answer;
    } finally {
      if (this.#first === first) this.#first = undefined;
    }
  }

  async #range(request: IRangeRequest, options: CallOptions | undefined): Promise<IRangeResponse> {
    try {
      return await this.#caller.exec<IRangeResponse>('KV', 'range', request, options);
    } catch (error) {
      if (request.revision !== undefined && compactedRead(error)) this.#lost = true;
      throw error;
    }
  }

  #put(request: IPutRequest): IPutResponse {
    refuse('put', request, ['lease', 'prev_kv']);
    const key = request.key ?? EMPTY;
    if (request.ignore_value && this.#written(key)?.count === '0') {
      throw plainError('touch() came after a delete of the key in the same transaction: there is no value to keep');
    }
    const before = this.#writes.findIndex((write) => write.kind !== 'deleteRange' && write.key.equals(key));
    const old = this.#writes[before];
    // A touch after a put of this run: the put raises the revision already, and its value stays.
    if (request.ignore_value && old?.kind === 'put') return NOTHING_BEFORE;
    if (old) this.#writes.splice(before, 1);
    this.#writes.push({ kind: 'put', key, request });
    return NOTHING_BEFORE;
  }

  #delete(request: IDeleteRangeRequest): IDeleteRangeResponse {
    refuse('delete', request, ['prev_kv']);
    const { key = EMPTY, range_end: end = EMPTY } = request;
    const range = new Range(key, end);
    // etcd takes no put under a delete in one transaction; what was written before it has no effect anyway.
    this.#writes = this.#writes.filter((write) => write.kind === 'deleteRange' || !range.includes(write.key));
    this.#writes.push(end.length === 0 ? { kind: 'delete', key } : { kind: 'deleteRange', range });
    return { header: null as unknown as IResponseHeader, deleted: '1', prev_kvs: [] };
  }

  /** What this run makes of a key; `undefined` when it leaves it alone. */
  #written(key: Buffer): IRangeResponse | undefined {
    for (const write of this.#writes.toReversed()) {
      if (write.kind === 'deleteRange' ? !write.range.includes(key) : !write.key.equals(key)) continue;
      if (write.kind !== 'put') return answerOf(key);
      return write.request.ignore_value ? undefined : answerOf(key, write.request.value ?? EMPTY);
    }
    return undefined;
  }

  #readChecks(): ICompare[] {
    if (!this.#checks.reads) return [];
    const compare: ICompare[] = [];
    for (const { key, found, seen } of this.#reads.values()) {
      if (!found || !seen) continue;
      const mod_revision = found.kvs[0]?.mod_revision ?? 0;
      compare.push({ key, result: CompareResult.Equal, target: CompareTarget.Mod, mod_revision });
    }
    return compare;
  }

  #writeChecks(): ICompare[] {
    const since = this.#snapshot;
    const read = new Set([...this.#reads].filter(([, { found, seen }]) => found && seen).map(([key]) => key));
    if (!this.#checks.writes || since === undefined || read.size === 0) return [];
    const mod_revision = String(BigInt(since) + 1n);
    return this.#writes.flatMap((write) => {
      if (write.kind === 'deleteRange') {
        throw plainError(
          'You cannot delete ranges in the SerializableSnapshot isolation level after a read: ' +
            'delete the keys one by one, or use Isolation.Serializable.',
        );
      }
      // What was read as well has its own, stricter, check.
      if (read.has(textOf(write.key))) return [];
      return { key: write.key, result: CompareResult.Less, target: CompareTarget.Mod, mod_revision };
    });
  }

  #operations(): IRequestOp[] {
    const puts = this.#writes.filter((write) => write.kind === 'put');
    return this.#writes.flatMap((write): IRequestOp[] => {
      if (write.kind === 'put') return [{ request_put: write.request }];
      if (write.kind === 'delete') return [{ request_delete_range: { key: write.key } }];
      // Every put under it came later, and stays: the delete is cut into the pieces around them.
      const pieces: Range[] = [];
      let rest = write.range;
      for (const { key } of puts.filter((put) => write.range.includes(put.key)).sort((a, b) => a.key.compare(b.key))) {
        if (rest.start.compare(key) < 0) pieces.push(new Range(rest.start, key));
        rest = new Range(Buffer.concat([key, ZERO]), rest.end);
      }
      return [...pieces, rest]
        .filter(isSome)
        .map(({ start, end }) => ({ request_delete_range: { key: start, range_end: end } }));
    });
  }
}

const NOTHING_BEFORE = { header: null, prev_kv: null } as unknown as IPutResponse;

/** The answer to a read of what this run wrote. It has no header, and no revisions yet. */
function answerOf(key: Buffer, value?: Buffer): IRangeResponse {
  const nothing = { create_revision: '0', mod_revision: '0', version: '0', lease: '0' };
  return {
    header: null as unknown as IResponseHeader,
    kvs: value === undefined ? [] : [{ key, value, ...nothing }],
    more: false,
    count: value === undefined ? '0' : '1',
  };
}

/** Whether a range can hold a key. */
function isSome({ start, end }: Range): boolean {
  return end.equals(ZERO) || start.compare(end) < 0;
}

function refuse<R extends object>(kind: string, request: R, names: readonly (keyof R)[]): void {
  for (const name of names) {
    if (request[name] !== undefined) {
      throw plainError(`"${String(name)}" is not supported in ${kind} requests within STM transactions`);
    }
  }
}
