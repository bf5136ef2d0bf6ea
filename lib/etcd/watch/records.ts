/** What a watch tells, as the native side packs it: `crates/core/src/etcd/watch/pack.rs` says how. */

import { digitsOf, unsignedDigitsOf } from '../int64.js';
import type { IEvent, IKeyValue, IResponseHeader, IWatchResponse } from '../rpc/messages.js';

/** The kinds of records. */
export const RESPONSE = 0;
export const CONNECTING = 1;
export const CREATED = 2;
export const SETTLED = 3;
export const DISCONNECTED = 4;
export const END = 5;

const DELETE = 1;
const PREVIOUS = 2;

/** A response of etcd whose changes are being told. */
export interface Answer {
  /** How many are left. */
  left: number;
  /** Where the watch resumes after it: digits. */
  readonly next: string;
  /** The whole of it, its `events` to be filled while they are told; only when somebody wants it. */
  readonly response: (IWatchResponse & { events: IEvent[] }) | undefined;
}

/** The watch stands. */
export interface Created {
  readonly next: string;
  readonly response: IWatchResponse;
}

/** One change. */
export interface Change {
  readonly deleted: boolean;
  readonly kv: IKeyValue;
  readonly previous: IKeyValue | null;
}

/**
 * Reads one batch, record by record. Keys and values are views of the batch, which lives as long as one of them does.
 *
 * @internal
 */
export class Records {
  readonly #batch: Buffer;
  readonly #numbers: Int32Array;
  /** How many bytes of each key are the namespace's. */
  readonly #prefix: number;
  #at = 0;
  #byte: number;

  constructor(batch: Buffer, prefix: number) {
    const count = batch.readUInt32LE(0);
    const aligned =
      batch.byteOffset % 4 === 0 ? batch : Buffer.from(batch.buffer.slice(batch.byteOffset), 0, batch.length);
    this.#batch = aligned;
    this.#numbers = new Int32Array(aligned.buffer, aligned.byteOffset + 4, count);
    this.#byte = 4 + count * 4;
    this.#prefix = prefix;
  }

  /** The kind of the record that is read next; `undefined` at the end. Stays where it is. */
  peek(): number | undefined {
    return this.#numbers[this.#at];
  }

  /** Of a response that is read next: how many changes it has. Stays where it is. */
  peekCount(): number {
    return this.#numbers[this.#at + 2] as number;
  }

  /** The next number. */
  number(): number {
    return this.#numbers[this.#at++] as number;
  }

  /** A 64-bit number. */
  digits(): string {
    const at = this.#at;
    this.#at = at + 2;
    return digitsOf(this.#numbers[at] as number, this.#numbers[at + 1] as number);
  }

  /** Passes numbers over. */
  skip(count: number): void {
    this.#at += count;
  }

  /** What follows the kind of a response. `whole`: with what etcd's own message holds. */
  answer(whole: boolean): Answer {
    const fragment = this.number() === 1;
    const left = this.number();
    const next = this.digits();
    if (whole) return { left, next, response: this.#response({ created: false, fragment }) };
    this.skip(10);
    return { left, next, response: undefined };
  }

  /** What follows the kind `CREATED`. */
  created(): Created {
    this.skip(1);
    return { next: this.digits(), response: this.#response({ created: true, fragment: false }) };
  }

  #response(of: { created: boolean; fragment: boolean }): IWatchResponse & { events: IEvent[] } {
    const watch_id = this.digits();
    const header = this.#header();
    return { header, watch_id, ...of, canceled: false, compact_revision: '0', cancel_reason: '', events: [] };
  }

  #header(): IResponseHeader {
    const numbers = this.#numbers;
    const at = this.#at;
    this.#at = at + 8;
    return {
      cluster_id: unsignedDigitsOf(numbers[at] as number, numbers[at + 1] as number),
      member_id: unsignedDigitsOf(numbers[at + 2] as number, numbers[at + 3] as number),
      revision: digitsOf(numbers[at + 4] as number, numbers[at + 5] as number),
      raft_term: unsignedDigitsOf(numbers[at + 6] as number, numbers[at + 7] as number),
    };
  }

  change(): Change {
    const flags = this.#numbers[this.#at++] as number;
    const kv = this.#keyValue();
    return { deleted: (flags & DELETE) !== 0, kv, previous: (flags & PREVIOUS) !== 0 ? this.#keyValue() : null };
  }

  #keyValue(): IKeyValue {
    const numbers = this.#numbers;
    const at = this.#at;
    this.#at = at + 10;
    const modLower = numbers[at] as number;
    const modUpper = numbers[at + 1] as number;
    const createLower = numbers[at + 2] as number;
    const createUpper = numbers[at + 3] as number;
    const version = numbers[at + 4] as number;
    const leaseLower = numbers[at + 6] as number;
    const leaseUpper = numbers[at + 7] as number;
    const mod = digitsOf(modLower, modUpper);
    const key = this.#byte + this.#prefix;
    const value = this.#byte + (numbers[at + 8] as number);
    const end = value + (numbers[at + 9] as number);
    this.#byte = end;
    return {
      key: this.#batch.subarray(key, value),
      create_revision: createLower === modLower && createUpper === modUpper ? mod : digitsOf(createLower, createUpper),
      mod_revision: mod,
      version: digitsOf(version, numbers[at + 5] as number),
      value: this.#batch.subarray(value, end),
      lease: leaseLower === 0 && leaseUpper === 0 ? '0' : digitsOf(leaseLower, leaseUpper),
    };
  }

  /** Passes the events of a response over. */
  skipChanges(count: number): void {
    const numbers = this.#numbers;
    for (let i = 0; i < count; i++) {
      const previous = ((numbers[this.#at++] as number) & PREVIOUS) !== 0;
      for (let left = previous ? 2 : 1; left > 0; left--) {
        this.#byte += (numbers[this.#at + 8] as number) + (numbers[this.#at + 9] as number);
        this.#at += 10;
      }
    }
  }
}
