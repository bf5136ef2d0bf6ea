/**
 * A long list as the native side packs it (`src/pages/reply.rs`), and what is cut out of it.
 *
 * @internal
 */

import { digitsOf, unsignedDigitsOf } from '../int64.js';
import type { IKeyValue, IResponseHeader } from '../rpc/messages.js';

/** Words before the key-values of a chunk, and of each of them. */
const CHUNK_WORDS = 12;
const KV_WORDS = 11;

/** A chunk of a long list: key-values by their place, cut out when they are asked for. */
export class Chunk {
  readonly count: number;
  readonly #bytes: Buffer;
  readonly #words: Int32Array;
  /** Where the key of each place begins; its value follows it. */
  #at: number;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
    // Buffers of the native side begin at a whole word, but for tiny ones that share one.
    this.#words =
      bytes.byteOffset % 4 === 0
        ? new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2)
        : new Int32Array(new Uint8Array(bytes).buffer, 0, bytes.length >> 2);
    this.count = this.#words[0] as number;
    this.#at = (CHUNK_WORDS + this.count * KV_WORDS) * 4;
  }

  get more(): boolean {
    return this.#words[1] === 1;
  }

  /** How many keys the range has in all, as a decimal. */
  get total(): string {
    return longAt(this.#words, 2);
  }

  get header(): IResponseHeader {
    return headerAt(this.#words, 4);
  }

  /** Visits each key and value as text or bytes, in order. `skip` bytes of each key are left out. */
  each(skip: number, keyIn: Cut, valueIn: Cut, visit: (key: never, value: never) => void): void {
    const words = this.#words;
    const bytes = this.#bytes;
    let at = this.#at;
    for (let i = 0, w = CHUNK_WORDS; i < this.count; i++, w += KV_WORDS) {
      const middle = at + (words[w] as number);
      const end = middle + (words[w + 1] as number);
      const ascii = words[w + 2] as number;
      visit(
        keyIn(bytes, at + skip, middle, (ascii & 1) !== 0) as never,
        valueIn(bytes, middle, end, (ascii & 2) !== 0) as never,
      );
      at = end;
    }
  }

  /** Appends each key-value as etcd3 has it to `into`. */
  keyValues(skip: number, into: IKeyValue[]): void {
    const words = this.#words;
    const bytes = this.#bytes;
    let at = this.#at;
    for (let i = 0, w = CHUNK_WORDS; i < this.count; i++, w += KV_WORDS) {
      const middle = at + (words[w] as number);
      const end = middle + (words[w + 1] as number);
      into.push({
        key: bytes.subarray(at + skip, middle),
        create_revision: longAt(words, w + 3),
        mod_revision: longAt(words, w + 5),
        version: longAt(words, w + 7),
        value: bytes.subarray(middle, end),
        lease: longAt(words, w + 9),
      });
      at = end;
    }
  }
}

/** Cuts a key or value out of a chunk. */
export type Cut = (bytes: Buffer, start: number, end: number, ascii: boolean) => unknown;

// Typings of Node.js leave out what these have always been.
export interface Slices {
  latin1Slice(start: number, end: number): string;
  utf8Slice(start: number, end: number): string;
}

/** As text; what is no UTF-8 shows as U+FFFD, as everywhere in Node.js. */
export const asText: Cut = (bytes, start, end, ascii) =>
  ascii ? (bytes as unknown as Slices).latin1Slice(start, end) : (bytes as unknown as Slices).utf8Slice(start, end);
/** As bytes: a view of the chunk, as the answers of etcd3 are views of the message. */
export const asBytes: Cut = (bytes, start, end) => bytes.subarray(start, end);
/** Not at all. */
export const asNothing: Cut = () => undefined;

/** A 64-bit number in two words, the high one first, as a decimal. */
function longAt(words: Int32Array, at: number): string {
  return digitsOf(words[at + 1] as number, words[at] as number);
}

/** The same for what has no sign: ids of clusters and members, terms. */
function unsignedAt(words: Int32Array, at: number): string {
  return unsignedDigitsOf(words[at + 1] as number, words[at] as number);
}

/** What headers have in common: made once for as long as it stays the same. */
let known: { words: [number, number, number, number, number, number]; cluster: string; member: string; term: string } =
  {
    words: [0, 0, 0, 0, 0, 0],
    cluster: '0',
    member: '0',
    term: '0',
  };

/** A header in eight words. */
export function headerAt(words: Int32Array, at: number): IResponseHeader {
  const seen = known.words;
  if (
    words[at] !== seen[0] ||
    words[at + 1] !== seen[1] ||
    words[at + 2] !== seen[2] ||
    words[at + 3] !== seen[3] ||
    words[at + 6] !== seen[4] ||
    words[at + 7] !== seen[5]
  ) {
    const word = (i: number) => words[at + i] as number;
    known = {
      words: [word(0), word(1), word(2), word(3), word(6), word(7)],
      cluster: unsignedAt(words, at),
      member: unsignedAt(words, at + 2),
      term: unsignedAt(words, at + 6),
    };
  }
  return { cluster_id: known.cluster, member_id: known.member, revision: longAt(words, at + 4), raft_term: known.term };
}
