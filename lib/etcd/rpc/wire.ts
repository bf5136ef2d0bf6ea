/** Protobuf's wire format: numbers and bytes, in and out. Nothing here knows a message. */

import { shown } from '../../common/shape.js';
import { digitsOf, exactOf, unsignedDigitsOf } from '../int64.js';

/** A value that cannot be written. The codec turns it into the public error and adds the path. */
export class Unwritable extends Error {}

const unwritable = (problem: string) => new Unwritable(problem);

/** Bytes that are no message. The codec turns it into the public error. */
export class Unreadable extends Error {}

const TWO_32 = 4_294_967_296;
/** Fits a call of ordinary size; more is given back after the call that needed it. */
const SCRATCH = 4096;
const KEPT = 1024 * 1024;

/** Bytes that grow while they are written. One can be used again and again: `finish()` copies out and begins anew. */
export class Writer {
  #bytes: Buffer = Buffer.allocUnsafeSlow(SCRATCH);
  #length = 0;

  /** A copy of what has been written, perhaps within a larger ArrayBuffer. The writer is then empty. */
  finish(): Uint8Array {
    const written = Buffer.allocUnsafe(this.#length); // small ones from Node's pool: an ArrayBuffer each costs 1 µs
    this.#bytes.copy(written, 0, 0, this.#length);
    this.reset();
    return written;
  }

  /** Forgets what has been written. */
  reset(): void {
    this.#length = 0;
    if (this.#bytes.length > KEPT) this.#bytes = Buffer.allocUnsafeSlow(SCRATCH);
  }

  #reserve(size: number): Buffer {
    const needed = this.#length + size;
    if (needed > this.#bytes.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(needed, this.#bytes.length * 2));
      this.#bytes.copy(larger, 0, 0, this.#length);
      this.#bytes = larger;
    }
    return this.#bytes;
  }

  /** An unsigned number of 32 bits. */
  uint32(value: number): void {
    const bytes = this.#reserve(5);
    let at = this.#length;
    let rest = value;
    while (rest > 0x7f) {
      bytes[at++] = (rest & 0x7f) | 0x80;
      rest >>>= 7;
    }
    bytes[at++] = rest;
    this.#length = at;
  }

  /** 64 bits, as two halves. */
  #varint64(low: number, high: number): void {
    const bytes = this.#reserve(10);
    let at = this.#length;
    let lo = low;
    let hi = high;
    while (hi !== 0) {
      bytes[at++] = (lo & 0x7f) | 0x80;
      lo = ((lo >>> 7) | (hi << 25)) >>> 0;
      hi >>>= 7;
    }
    while (lo > 0x7f) {
      bytes[at++] = (lo & 0x7f) | 0x80;
      lo >>>= 7;
    }
    bytes[at++] = lo;
    this.#length = at;
  }

  /** A number of 64 bits: decimal digits, a safe number or a bigint. Throws `Unwritable`. */
  int64(value: unknown, signed: boolean): void {
    const exact = exactOf(value, signed, unwritable);
    if (typeof exact === 'number') {
      this.#varint64(exact >>> 0, Math.floor(exact / TWO_32) >>> 0);
    } else {
      const bits = BigInt.asUintN(64, exact);
      this.#varint64(Number(bits & 0xffff_ffffn), Number(bits >> 32n));
    }
  }

  /** A number of 32 bits as a varint, sign-extended: an enum. */
  int32(value: number): void {
    if (value >= 0) this.uint32(value);
    else this.#varint64(value >>> 0, 0xffff_ffff);
  }

  /** A length and so many bytes; text is written as UTF-8. Throws `Unwritable`. */
  bytes(value: unknown): void {
    if (typeof value === 'string') {
      this.text(value);
      return;
    }
    if (!ArrayBuffer.isView(value) || (value as Partial<Uint8Array>).BYTES_PER_ELEMENT !== 1) {
      throw new Unwritable(`expected a Buffer, a Uint8Array or a string, got ${shown(value)}`);
    }
    const given = value as Uint8Array;
    const size = given.length;
    this.uint32(size);
    const into = this.#reserve(size);
    into.set(given, this.#length);
    this.#length += size;
  }

  /** A length and text as UTF-8. */
  text(value: string): void {
    const size = Buffer.byteLength(value);
    this.uint32(size);
    const into = this.#reserve(size);
    into.write(value, this.#length, size, 'utf8');
    this.#length += size;
  }

  /** Begins a nested message. Hand the result to `close`. */
  open(): number {
    this.#reserve(1);
    return this.#length++;
  }

  /** Ends a nested message: writes its length before it. One byte was kept for that; a longer one moves the message. */
  close(at: number): void {
    const size = this.#length - at - 1;
    let more = 0;
    for (let rest = size >>> 7; rest !== 0; rest >>>= 7) more++;
    if (more > 0) {
      this.#reserve(more).copyWithin(at + 1 + more, at + 1, this.#length);
    }
    this.#length = at;
    this.uint32(size);
    this.#length += size;
  }
}

/** Reads from bytes that may be anything. Never reads beyond `end`; throws `Unreadable`. */
export class Reader {
  readonly bytes: Buffer;
  at = 0;
  end: number;

  constructor(bytes: Uint8Array) {
    this.bytes = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.end = bytes.length;
  }

  /** The low 32 bits of a varint of up to 64. */
  uint32(): number {
    const { bytes, end } = this;
    let at = this.at;
    let value = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      if (at >= end) throw new Unreadable('cut short');
      const byte = bytes[at++] as number;
      if (shift < 32) value |= (byte & 0x7f) << shift;
      if (byte < 0x80) {
        this.at = at;
        return value >>> 0;
      }
    }
    throw new Unreadable('a number of more than 64 bits');
  }

  /** A number of 64 bits as decimal digits. */
  int64(signed: boolean): string {
    const { bytes, end } = this;
    let at = this.at;
    // Four bytes hold 28 bits, and most numbers.
    let low = 0;
    let byte = 0;
    for (let shift = 0; shift < 28; shift += 7) {
      if (at >= end) throw new Unreadable('cut short');
      byte = bytes[at++] as number;
      low |= (byte & 0x7f) << shift;
      if (byte < 0x80) {
        this.at = at;
        return String(low);
      }
    }
    if (at >= end) throw new Unreadable('cut short');
    byte = bytes[at++] as number;
    low = (low | ((byte & 0x7f) << 28)) >>> 0;
    let high = (byte & 0x7f) >>> 4;
    for (let shift = 3; byte >= 0x80; shift += 7) {
      if (at >= end) throw new Unreadable('cut short');
      if (shift > 31) throw new Unreadable('a number of more than 64 bits');
      byte = bytes[at++] as number;
      high |= (byte & 0x7f) << shift;
    }
    this.at = at;
    high >>>= 0;
    return signed ? digitsOf(low, high) : unsignedDigitsOf(low, high);
  }

  /** A varint that is true unless it is 0. */
  bool(): boolean {
    const from = this.at;
    const low = this.uint32();
    if (low !== 0) return true;
    for (let at = from; at < this.at; at++) if ((this.bytes[at] as number) & 0x7f) return true;
    return false;
  }

  /** The end of what a length announces. */
  limit(): number {
    const size = this.uint32();
    const end = this.at + size;
    if (end > this.end) throw new Unreadable('cut short');
    return end;
  }

  /** A length and so many bytes, as a view. */
  view(): Buffer {
    const limit = this.limit();
    const bytes = this.bytes.subarray(this.at, limit);
    this.at = limit;
    return bytes;
  }

  /** Passes over the value of a field that nobody knows. */
  skip(wire: number): void {
    switch (wire) {
      case 0:
        this.uint32();
        return;
      case 1:
        this.at += 8;
        break;
      case 2:
        this.at = this.limit();
        return;
      case 5:
        this.at += 4;
        break;
      default:
        throw new Unreadable(`wire type ${wire}`);
    }
    if (this.at > this.end) throw new Unreadable('cut short');
  }
}
