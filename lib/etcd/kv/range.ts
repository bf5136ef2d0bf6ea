/** A range of keys, by bytes. */

import { InvalidArgumentError } from '../../errors.js';
import { bytes } from '../check.js';

/** As the end of a range: no upper bound. As the start: the smallest key there can be. */
const ZERO = Buffer.from([0]);
const EMPTY = Buffer.alloc(0);

/** What can be made into a `Range`. A string or a Buffer alone means that one key. */
export type Rangable =
  | Range
  | string
  | Buffer
  | { start: string | Buffer; end: string | Buffer }
  | { prefix: string | Buffer };

/**
 * The first key after all that begin with a prefix; `\0`, no upper bound, when there is none.
 *
 * @internal
 */
export function endOfPrefix(prefix: Buffer): Buffer {
  for (let last = prefix.length - 1; last >= 0; last--) {
    const byte = prefix[last] as number;
    if (byte < 0xff) {
      const end = Buffer.from(prefix.subarray(0, last + 1));
      end[last] = byte + 1;
      return end;
    }
  }
  return ZERO;
}

/**
 * A range of keys: all from `start` up to, and without, `end`, in the order of their bytes. An empty `end` means the one
 * key `start`; an `end` of `\0` means that there is no upper bound. It belongs to no namespace: who uses it adds theirs.
 */
export class Range {
  /** The first key. */
  readonly start: Buffer;
  /** The first key after the range. Empty: `start` is the only key. `\0`: no upper bound. */
  readonly end: Buffer;

  /**
   * @param end default: empty, which means the one key `start`.
   * @throws InvalidArgumentError for what is not a string or a Buffer.
   */
  constructor(start: Buffer | string, end: Buffer | string = EMPTY) {
    this.start = bytes(start, 'range.start');
    this.end = bytes(end, 'range.end');
  }

  /** All keys that begin with a prefix. The empty prefix gives `\0` to `\0`, which is every key. */
  static prefix(prefix: string | Buffer): Range {
    const start = bytes(prefix, 'prefix');
    return start.length === 0 ? new Range(ZERO, ZERO) : new Range(start, endOfPrefix(start));
  }

  /**
   * Makes a range of what stands for one. A `Range` is given back as it is.
   *
   * @throws InvalidArgumentError for anything else than a `Rangable`.
   */
  static from(v: Rangable): Range {
    if (v instanceof Range) return v;
    if (typeof v === 'string' || (v as unknown) instanceof Uint8Array) return new Range(v as string | Buffer);
    if (typeof v === 'object' && v !== null) {
      if ('prefix' in v) return Range.prefix(v.prefix);
      if ('start' in v) return new Range(v.start, v.end);
    }
    throw new InvalidArgumentError(
      'range: expected a Range, a key, { start, end } or { prefix }; a key is a string or a Buffer',
    );
  }

  /** Whether a key lies in the range. */
  includes(value: string | Buffer): boolean {
    const key = bytes(value, 'range.includes()');
    if (this.end.length === 0) return this.start.equals(key);
    return this.start.compare(key) <= 0 && (isOpen(this.end) || this.end.compare(key) > 0);
  }

  /** -1 when all of this range lies before the other one, 1 when all of it lies after it, 0 when they overlap. */
  compare(other: Range): number {
    if (endsBefore(this, other.start)) return -1;
    if (endsBefore(other, this.start)) return 1;
    return 0;
  }
}

function isOpen(end: Buffer): boolean {
  return end.length === 1 && end[0] === 0;
}

/** Whether every key of a range comes before a key. */
function endsBefore(range: Range, key: Buffer): boolean {
  if (range.end.length === 0) return range.start.compare(key) < 0;
  return !isOpen(range.end) && range.end.compare(key) <= 0;
}
