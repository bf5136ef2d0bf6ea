/** How the prefix of a namespace is put before keys and taken off them. */

import { type Bytes, bytes } from '../check.js';
import { ClientRuntimeError } from '../errors.js';
import type { Connection } from '../transport/connection.js';
import { endOfPrefix, type Range } from './range.js';

/** A part of the store and the client that reaches it, as far as leases and elections need to know: every `Namespace` is one. */
export interface Scope {
  /** What is put before all keys. */
  readonly prefix: Buffer;
  /** @internal */
  readonly connection: Connection;
  /** @internal */
  readonly keyspace: Keyspace;
}

/**
 * The keys of one namespace: what a program names `key` is `prefix` + `key` in etcd. With an empty prefix nothing is
 * copied.
 *
 * @internal
 */
export class Keyspace {
  static readonly root = new Keyspace(Buffer.alloc(0));
  readonly prefix: Buffer;
  /** The first key after the namespace, when it was wanted once. */
  #end: Buffer | undefined;

  constructor(prefix: Buffer) {
    this.prefix = prefix;
  }

  /** The key in etcd, written in one allocation. */
  key(key: Bytes): Buffer {
    const { prefix } = this;
    if (prefix.length === 0) return bytes(key, 'key');
    if (typeof key !== 'string') return Buffer.concat([prefix, bytes(key, 'key')]);
    const whole = Buffer.allocUnsafe(prefix.length + Buffer.byteLength(key));
    prefix.copy(whole);
    whole.write(key, prefix.length);
    return whole;
  }

  /** The end of a range in etcd; no upper bound means: up to the end of the namespace. */
  rangeEnd(end: Buffer): Buffer {
    if (this.prefix.length === 0) return end;
    if (end.length === 1 && end[0] === 0) {
      this.#end ??= endOfPrefix(this.prefix);
      return this.#end;
    }
    return Buffer.concat([this.prefix, end]);
  }

  /**
   * The fields of a request that name a range. Without an end there is no `range_end`: etcd 3.4 takes one that is sent
   * empty for no upper bound.
   */
  range(range: Range): { key: Buffer; range_end?: Buffer } {
    const key = this.key(range.start);
    return range.end.length === 0 ? { key } : { key, range_end: this.rangeEnd(range.end) };
  }

  /** Whether a key of etcd lies in the namespace. */
  owns(key: Buffer): boolean {
    const { prefix } = this;
    return key.length >= prefix.length && key.compare(prefix, 0, prefix.length, 0, prefix.length) === 0;
  }

  /** A key of etcd as the namespace names it: a view, not a copy. */
  strip(key: Buffer): Buffer {
    if (this.prefix.length === 0) return key;
    if (!this.owns(key)) {
      throw new ClientRuntimeError(
        `an answer holds a key outside the namespace ${JSON.stringify(String(this.prefix))}`,
      );
    }
    return key.subarray(this.prefix.length);
  }

  /** A namespace within this one. */
  nested(prefix: Bytes): Keyspace {
    return new Keyspace(Buffer.concat([this.prefix, bytes(prefix, 'namespace()')]));
  }
}
