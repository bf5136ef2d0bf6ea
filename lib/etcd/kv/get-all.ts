/** Reading many keys: at once, or page by page. */

import { InvalidArgumentError } from '../../errors.js';
import { memberOf } from '../check.js';
import { abortedCall, compactedRead, fromFailure, isTooLarge } from '../errors.js';
import { SortOrder, SortTarget } from '../rpc/enums.js';
import type { IKeyValue, IRangeRequest, IRangeResponse } from '../rpc/messages.js';
import { asBytes, asNothing, asText, type Chunk } from '../transport/chunk.js';
import { RangeBuilder } from './get.js';
import { type Rangable, Range } from './range.js';

/** A key and what etcd holds for it, with exact numbers. */
export interface IEntry {
  /** Without the prefix of the namespace. */
  key: Buffer;
  value: Buffer;
  /** How often the key was written since it was made, from 1. */
  version: bigint;
  /** The revision that made the key. */
  createRevision: bigint;
  /** The revision that changed the key last. */
  modRevision: bigint;
  /** The lease that the key goes with; 0 for none. */
  lease: bigint;
}

/** How `stream()` reads. */
export interface IStreamOptions {
  /** How many keys are fetched at once, and so held in memory. Default: 1000. */
  pageSize?: number | undefined;
}

const PAGE_SIZE = 1000;
const ZERO = Buffer.from([0]);

/**
 * Reads many keys: all of the namespace, unless a prefix or a range is selected. Awaiting it means `strings()`.
 *
 * `strings()`, `json()`, `numbers()` and `buffers()` give a plain object, which has no order of its own for keys that look
 * like numbers, and in which keys that are no UTF-8 can fall together: `entries()` has neither fault. All of them hold the
 * whole answer in memory; for more keys than that, iterate over the builder or over `stream()`.
 */
export class MultiRangeBuilder extends RangeBuilder<{ [key: string]: string }> {
  #range = Range.prefix('');

  /** Selects all keys that begin with a prefix. A later selection takes the place of an earlier one. */
  prefix(value: string | Buffer): this {
    return this.inRange(Range.prefix(value));
  }

  /** Selects a range, or what stands for one, within the namespace. A string or a Buffer alone means that one key. */
  inRange(r: Rangable): this {
    this.#range = Range.from(r);
    return this;
  }

  /** Selects every key of the namespace, which is the default. */
  all(): this {
    return this.prefix('');
  }

  /**
   * At most so many keys. 0, and what is not finite, means no limit, which is the default.
   *
   * @throws InvalidArgumentError for a negative number.
   */
  limit(count: number): this {
    const limit = Number.isFinite(Number(count)) ? Math.trunc(Number(count)) : 0;
    if (limit < 0 || limit > Number.MAX_SAFE_INTEGER) {
      throw new InvalidArgumentError(`getAll().limit(): expected 0 or more, got ${count}; 0 means no limit`);
    }
    return this.filter('limit', limit);
  }

  /** Sorts on the server. Default: by key, ascending. An unknown name throws an `Error`. */
  sort(target: keyof typeof SortTarget, order: keyof typeof SortOrder): this {
    const by = memberOf(SortTarget, target, 'sort order in client.get().sort(...)');
    this.filter('sort_order', memberOf(SortOrder, order, 'sort order in client.get().sort(...)'));
    return this.filter('sort_target', by);
  }

  /** How many keys there are, whatever the limit and the revision filters. Fetches none of them. */
  async count(): Promise<number> {
    const { count } = await this.range({ count_only: true });
    return Number(count);
  }

  /** The keys alone, in order. The values are not fetched. */
  async keys(encoding: BufferEncoding = 'utf8'): Promise<string[]> {
    if (encoding === 'utf8') return await this.#keys<string>('text');
    const keys = await this.keyBuffers();
    return keys.map((key) => key.toString(encoding));
  }

  /** The keys alone, in order, as bytes. The values are not fetched. */
  async keyBuffers(): Promise<Buffer[]> {
    return await this.#keys<Buffer>('bytes');
  }

  /** The values parsed as JSON, by key. Rejects with a `SyntaxError` when one of them is not JSON. */
  json(): Promise<{ [key: string]: unknown }> {
    return this.#mapped<string, unknown>('text', (value) => JSON.parse(value));
  }

  /** The values as text, by key. `encoding` is for the values; keys are read as UTF-8. */
  strings(encoding: BufferEncoding = 'utf8'): Promise<{ [key: string]: string }> {
    return encoding === 'utf8'
      ? this.#mapped<string, string>('text')
      : this.#mapped<Buffer, string>('bytes', (value) => value.toString(encoding));
  }

  /** The values as numbers, by key; `NaN` where one is none. */
  numbers(): Promise<{ [key: string]: number }> {
    return this.#mapped<string, number>('text', Number);
  }

  /** The values as they are, by key. */
  buffers(): Promise<{ [key: string]: Buffer }> {
    return this.#mapped<Buffer, Buffer>('bytes');
  }

  /** Keys and values in the order asked for, with exact keys and numbers. */
  async entries(): Promise<IEntry[]> {
    const { kvs } = await this.#stripped();
    return kvs.map((kv) => toEntry(kv, kv.key));
  }

  /** etcd's whole answer, with the keys without the prefix of the namespace, unlike in `get().exec()`. */
  exec(): Promise<IRangeResponse> {
    return this.#stripped();
  }

  /**
   * Reads page by page, in the order of the keys, all at the revision of the first page (or at the one given): what is
   * written meanwhile is not seen. Only one page is in memory, and the next one is read when this one has been taken.
   *
   * `limit()` is for the whole; `timeoutMs` is for each page, `deadline` and `signal` are for the whole. Each page is a
   * read of its own, tried again as any read. A page that is too large for one answer is read in halves.
   *
   * It ends with an error when a page fails, with `CompactedError` when etcd compacts the revision meanwhile (begin anew
   * then), and with `GRPCCancelledError` when the signal fires. `break` ends it without one.
   *
   * @throws InvalidArgumentError when another order than by key, ascending, was asked for.
   */
  stream(options: IStreamOptions = {}): AsyncGenerator<IEntry, void, undefined> {
    const { pageSize = PAGE_SIZE } = options;
    if (!Number.isSafeInteger(pageSize) || pageSize < 1) {
      throw new InvalidArgumentError(`getAll().stream(): pageSize: expected a whole number from 1 on, got ${pageSize}`);
    }
    const { sort_target: by = SortTarget.Key, sort_order: order = SortOrder.None } = this.filters ?? {};
    if (by !== SortTarget.Key || order === SortOrder.Descend) {
      throw new InvalidArgumentError(
        'getAll().stream(): pages come by key, ascending, and in no other order; leave sort() out, or use entries()',
      );
    }
    return this.#pages(pageSize);
  }

  /** Iterates over `stream()`. */
  [Symbol.asyncIterator](): AsyncGenerator<IEntry, void, undefined> {
    return this.stream();
  }

  /**
   * Leaves the values out of what `stream()` gives; they are empty then.
   *
   * @internal
   */
  namesOnly(): this {
    return this.filter('keys_only', true);
  }

  /** @internal */
  protected override send(): Promise<{ [key: string]: string }> {
    return this.strings();
  }

  /** @internal */
  protected override request(form?: IRangeRequest): IRangeRequest {
    return { ...this.keyspace.range(this.#range), ...this.filters, ...form };
  }

  async #stripped(form?: IRangeRequest): Promise<IRangeResponse> {
    const skip = this.keyspace.prefix.length;
    let found: IRangeResponse | undefined;
    const isQuick = await this.#quick(form, (chunk) => {
      found ??= { header: chunk.header, kvs: [], more: chunk.more, count: chunk.total };
      chunk.keyValues(skip, found.kvs);
    });
    return isQuick && found ? found : await this.#slow(form);
  }

  async #slow(form?: IRangeRequest): Promise<IRangeResponse> {
    const answer = await this.range(form);
    if (this.keyspace.prefix.length > 0) for (const kv of answer.kvs) kv.key = this.keyspace.strip(kv.key);
    return answer;
  }

  async #keys<K extends string | Buffer>(as: 'text' | 'bytes'): Promise<K[]> {
    const keys: K[] = [];
    const form = { keys_only: true };
    const skip = this.keyspace.prefix.length;
    const cut = as === 'text' ? asText : asBytes;
    if (await this.#quick(form, (chunk) => chunk.each(skip, cut, asNothing, (key: K) => keys.push(key)))) return keys;
    const { kvs } = await this.#slow(form);
    return kvs.map(({ key }) => (as === 'text' ? key.toString() : key) as K);
  }

  /** The values, as text or bytes, converted, by key. */
  async #mapped<V extends string | Buffer, R>(
    as: 'text' | 'bytes',
    convert?: (value: V) => R,
  ): Promise<{ [key: string]: R }> {
    const found: { [key: string]: R } = {};
    const put = (key: string, value: V) => {
      const converted = convert ? convert(value) : (value as unknown as R);
      if (key !== '__proto__') found[key] = converted;
      // Assigning it would set the prototype instead.
      else
        Object.defineProperty(found, key, { value: converted, configurable: true, enumerable: true, writable: true });
    };
    const skip = this.keyspace.prefix.length;
    const cut = as === 'text' ? asText : asBytes;
    if (await this.#quick(undefined, (chunk) => chunk.each(skip, asText, cut, put))) return found;
    const { kvs } = await this.#slow();
    for (const { key, value } of kvs) put(key.toString(), (as === 'text' ? value.toString() : value) as V);
    return found;
  }

  /**
   * Hands the answer over in chunks by the shortest way; false when there is none for this read. What `each` throws is
   * thrown at the end, and the chunks after it are passed over.
   */
  async #quick(form: IRangeRequest | undefined, each: (chunk: Chunk) => void): Promise<boolean> {
    let thrown: { error: unknown } | undefined;
    const quick = this.caller.quickList?.(this.request(form), this.callOptions, (chunk) => {
      if (thrown) return;
      try {
        each(chunk);
      } catch (error) {
        thrown = { error };
      }
    });
    if (!quick) return false;
    try {
      await quick;
    } catch (failure) {
      throw fromFailure(failure, 'KV.range'); // made here, so that its stack shows the caller
    }
    if (thrown) throw thrown.error;
    return true;
  }

  async *#pages(pageSize: number): AsyncGenerator<IEntry, void, undefined> {
    const signal = this.callOptions?.signal;
    let page: IRangeRequest = {};
    let left = Number(this.filters?.limit ?? 0) || Number.POSITIVE_INFINITY;
    for (let size = pageSize; ; ) {
      const limit = Math.min(size, left);
      let answer: IRangeResponse;
      try {
        answer = await this.range({ ...page, limit });
      } catch (error) {
        if (isTooLarge(error) && limit > 1) {
          size = Math.ceil(limit / 2);
          continue;
        }
        throw compactedRead(error) ?? error;
      }
      for (const kv of answer.kvs) {
        if (signal?.aborted) throw abortedCall(signal, 'KV.range');
        yield toEntry(kv, this.keyspace.strip(kv.key));
      }
      left -= answer.kvs.length;
      const last = answer.kvs.at(-1);
      if (!answer.more || !last || left <= 0) return;
      // The first page decides the revision; the smallest key after its last one begins the next.
      page = {
        key: Buffer.concat([last.key, ZERO]),
        revision: page.revision ?? this.filters?.revision ?? answer.header.revision,
      };
    }
  }
}

function toEntry({ value, version, create_revision, mod_revision, lease }: IKeyValue, key: Buffer): IEntry {
  return {
    key,
    value,
    version: BigInt(version),
    createRevision: BigInt(create_revision),
    modRevision: BigInt(mod_revision),
    lease: BigInt(lease),
  };
}
