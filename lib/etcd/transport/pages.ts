/**
 * The JavaScript side of the batched boundary: the calls of one tick are written into one page and handed over by one
 * native call; answers come back many at a time. `src/pages/mod.rs` is the other side, and says why it is so.
 *
 * @internal
 */

import { onAbort } from '../../common/abort.js';
import type { Failure } from '../../common/failure.js';
import { Share, took } from '../../common/turns.js';
import type { EtcdHandle } from '../../native.js';
import { native } from '../../native.js';
import type { IResponseHeader } from '../rpc/messages.js';
import { type Call, READS } from './call.js';
import { Chunk, headerAt, type Slices } from './chunk.js';
import { abortFailure } from './failure.js';
import { Queue } from './queue.js';

// Forms that an answer is wanted in.
const RAW = 0;
const VALUE = 1;
const LIST = 2;
const HEADER = 3;

/** A flag of a call, as those of `call.ts`: it can be cancelled. */
const CANCELS = 16;

// Forms of answers.
const F_RAW = 0;
const F_BYTES = 1;
const F_ASCII = 2;
const F_UTF8 = 3;
const F_ABSENT = 4;
const F_HEADER = 5;
const F_CHUNK = 6;
const F_LAST = 7;
const APART = 1 << 16;
/** In the number of answers: some are left. */
const MORE = 0x8000_0000;
/** Words of the record of an answer. */
const ANSWER_WORDS = 3;

/** Calls that may be under way; over it they wait here. It bounds what the connection has to carry at once. */
const DEFAULT_LIMIT = 4096;

// As of `Slices`: what this has always been.
interface Writes {
  utf8Write(text: string, at: number): number;
}

type Taker = (value: never) => void;
type Refuser = (failure: unknown) => void;

let take: Taker;
let refuse: Refuser;
// One for all calls: a closure for each would cost half as much again as the promise.
const executor = (resolve: Taker, reject: Refuser) => {
  take = resolve;
  refuse = reject;
};
const nobody = () => {};

/** Ids are given out again once their call is answered, so that the arrays stay as short as what was once under way. */
export class Pages {
  readonly #native: EtcdHandle;
  readonly #limit: number;
  readonly #busy: (busy: boolean) => void;

  readonly #records: number;
  readonly #words: number;
  readonly #headBytes: number;
  readonly #bodyBytes: number;
  readonly #out: Buffer;
  readonly #head: Int32Array;
  /** Records written and not yet handed over, and bytes of their bodies. */
  #count = 0;
  #length = 0;

  readonly #in: Buffer;
  readonly #answers: Int32Array;

  readonly #takers: Taker[] = [];
  readonly #refusers: Refuser[] = [];
  /** Of a call for a value: whether it is wanted as bytes. Of a call for a list: what takes its chunks. */
  readonly #asBytes: boolean[] = [];
  readonly #lists: (((chunk: Chunk) => void) | undefined)[] = [];
  readonly #free: number[] = [];
  #live = 0;
  /** Calls over the limit. */
  readonly #waiting = new Queue();
  #closed: (() => unknown) | undefined;
  readonly #share = new Share((most) => this.#drain(most));

  /** `busy` is told when calls begin to be under way and, a moment after the last one, when there are none. */
  constructor(handle: EtcdHandle, busy: (busy: boolean) => void, limit = DEFAULT_LIMIT) {
    const layout = native().pageLayout();
    this.#native = handle;
    this.#limit = limit;
    this.#busy = busy;
    this.#records = layout.records;
    this.#words = layout.words;
    this.#headBytes = layout.headBytes;
    this.#bodyBytes = layout.bodyBytes;
    this.#out = Buffer.from(new ArrayBuffer(layout.headBytes + layout.bodyBytes));
    this.#head = new Int32Array(this.#out.buffer, 0, layout.headBytes >> 2);
    this.#in = Buffer.from(new ArrayBuffer(layout.answerBytes));
    this.#answers = new Int32Array(this.#in.buffer);
  }

  /** The answer as it came, encoded. */
  raw(call: Call, body: Uint8Array): Promise<Buffer> {
    return this.#send(call, RAW, body);
  }

  /** The chunks of a range go to `each`, in order, in one or more turns of the event loop; then it resolves. */
  list(call: Call, body: Uint8Array, each: (chunk: Chunk) => void): Promise<void> {
    return this.#send(call, LIST, body, false, each);
  }

  /** The value of the one key of a plain get, `null` when it is not there: encoded straight into the page. */
  get(call: Call, prefix: Buffer, key: string | Buffer, wantsBytes: boolean): Promise<string | Buffer | null> {
    if (this.#live >= this.#limit || call.signal !== undefined || this.#closed !== undefined || !fits(prefix, key)) {
      return this.#send(call, VALUE, rangeOf(prefix, key), wantsBytes);
    }
    const promise = new Promise<string | Buffer | null>(executor as never);
    const id = this.#begin();
    this.#asBytes[id] = wantsBytes;
    this.#room(MOST_INLINE);
    const start = this.#headBytes + this.#length;
    const end = this.#writeBytes(start, 0x0a, prefix, key);
    this.#record(id, call, VALUE, end - start);
    return promise;
  }

  /** The header of the answer to a plain put: encoded straight into the page. */
  put(call: Call, prefix: Buffer, key: string | Buffer, value: string | Buffer): Promise<IResponseHeader> {
    if (
      this.#live >= this.#limit ||
      call.signal !== undefined ||
      this.#closed !== undefined ||
      !fits(prefix, key) ||
      value.length > MOST_VALUE
    ) {
      return this.#send(call, HEADER, putOf(prefix, key, value));
    }
    const promise = new Promise<IResponseHeader>(executor as never);
    const id = this.#begin();
    this.#room(MOST_INLINE + 3 * MOST_VALUE + 8);
    const start = this.#headBytes + this.#length;
    let at = this.#writeBytes(start, 0x0a, prefix, key);
    at = this.#writeValue(at, value);
    this.#record(id, call, HEADER, at - start);
    return promise;
  }

  /** Answers have come. Called by the native side. */
  drain(): void {
    this.#share.wake();
  }

  /** Takes answers, about `most`; says whether there are more. */
  #drain(most: number): boolean {
    const drained = this.#native.drain(this.#in, most);
    const count = drained & ~MORE;
    if (count === 0) {
      if (this.#live === 0) this.#busy(false);
      return false;
    }
    took(count);
    const words = this.#answers;
    let word = 0;
    let over = 0;
    for (let i = 0; i < count; i++) {
      const id = words[word] as number;
      const form = words[word + 1] as number;
      const length = words[word + 2] as number;
      word += ANSWER_WORDS;
      if (this.#answer(id, form, word << 2, length)) over++;
      if ((form & APART) === 0) word += (length + 3) >> 2;
    }
    this.#live -= over;
    if (this.#waiting.length > 0) this.#waiting.start(this.#limit - this.#live);
    // The native side of a closed client is gone before a busy program has taken the last answers: nothing more is told.
    if (this.#closed && this.#live === 0) this.#busy(false);
    return (drained & MORE) !== 0;
  }

  /** From now on every call, those under way as well, is refused with what `why` makes. */
  close(why: () => unknown): void {
    this.#closed = why;
    for (let id = 0; id < this.#refusers.length; id++) {
      const refuser = this.#refusers[id] as Refuser;
      if (refuser === nobody) continue;
      this.#abandon(id);
      refuser(why());
    }
    this.#waiting.start(Number.POSITIVE_INFINITY); // and they are refused
  }

  /** Settles what an answer belongs to; true when its call is over. */
  #answer(id: number, form: number, start: number, length: number): boolean {
    const kind = form & 0xff;
    const apart = (form & APART) === 0 ? undefined : (this.#native.take(id) ?? Buffer.alloc(0));
    if (kind === F_CHUNK || kind === F_LAST) {
      this.#lists[id]?.(new Chunk(apart ?? Buffer.from(this.#in.subarray(start, start + length))));
      if (kind === F_CHUNK) return false;
    }
    const taker = this.#takers[id] as Taker;
    const refuser = this.#refusers[id] as Refuser;
    this.#takers[id] = nobody;
    this.#refusers[id] = nobody;
    this.#lists[id] = undefined;
    this.#free.push(id);
    const from = apart ?? this.#in;
    const begin = apart ? 0 : start;
    const end = begin + length;
    switch (kind) {
      case F_ASCII:
        taker((this.#asBytes[id] ? copied(from, begin, end, apart) : slices(from).latin1Slice(begin, end)) as never);
        break;
      case F_UTF8:
      case F_BYTES:
        taker((this.#asBytes[id] ? copied(from, begin, end, apart) : slices(from).utf8Slice(begin, end)) as never);
        break;
      case F_ABSENT:
        taker(null as never);
        break;
      case F_HEADER:
        taker(headerAt(this.#answers, begin >> 2) as never);
        break;
      case F_RAW:
        taker(copied(from, begin, end, apart) as never);
        break;
      case F_LAST:
        taker(undefined as never);
        break;
      default:
        refuser(JSON.parse(slices(from).utf8Slice(begin, end)) as Failure);
    }
    return true;
  }

  #send<T>(call: Call, want: number, body: Uint8Array, wantsBytes = false, each?: (chunk: Chunk) => void): Promise<T> {
    if (this.#closed) return Promise.reject(this.#closed());
    if (this.#live >= this.#limit) {
      return this.#waiting.add(call, (turn) => this.#send(turn, want, body, wantsBytes, each));
    }
    const { signal } = call;
    if (signal?.aborted) return Promise.reject(abortFailure(signal, false));
    const promise = new Promise<T>(executor as never);
    const id = this.#begin();
    this.#asBytes[id] = wantsBytes;
    this.#lists[id] = each;
    const sent = signal ? { ...call, flags: call.flags | CANCELS } : call;
    if (body.length > this.#bodyBytes) {
      this.#submit(); // what came before goes before
      const { method, flags, timeoutMs, member } = sent;
      this.#native.submitLarge(id, method | (want << 8) | (flags << 16), timeoutMs, member, body);
    } else {
      this.#room(body.length);
      this.#out.set(body, this.#headBytes + this.#length);
      this.#record(id, sent, want, body.length);
    }
    return signal ? this.#abortable(promise, id, signal, (call.flags & READS) !== 0) : promise;
  }

  /** Settles early when the signal fires. The id stays taken until the native side has answered. */
  #abortable<T>(promise: Promise<T>, id: number, signal: AbortSignal, reads: boolean): Promise<T> {
    const refuser = this.#refusers[id] as Refuser;
    const giveUp = () => {
      if (this.#refusers[id] !== refuser) return; // answered in this very turn
      this.#abandon(id);
      this.#submit(); // it may still be in the page
      this.#native.cancel(id);
      refuser(abortFailure(signal, !reads));
    };
    const unlisten = onAbort(signal, giveUp);
    promise.then(unlisten, unlisten);
    return promise;
  }

  /** Nobody waits for the answer any more. */
  #abandon(id: number): void {
    this.#takers[id] = nobody;
    this.#refusers[id] = nobody;
    this.#lists[id] = undefined;
  }

  /** Takes an id for the promise just made. */
  #begin(): number {
    const id = this.#free.pop() ?? this.#takers.length;
    this.#takers[id] = take;
    this.#refusers[id] = refuse;
    if (this.#live++ === 0) this.#busy(true);
    return id;
  }

  /** Makes room in the page. */
  #room(length: number): void {
    if (this.#count === this.#records || this.#length + length > this.#bodyBytes) this.#submit();
  }

  #record(id: number, call: Call, want: number, length: number): void {
    const head = this.#head;
    let at = this.#count * this.#words;
    head[at++] = id;
    head[at++] = call.method | (want << 8) | (call.flags << 16);
    head[at++] = call.timeoutMs;
    head[at++] = call.member;
    head[at] = length;
    this.#length += length;
    if (this.#count++ === 0) queueMicrotask(this.#submit);
  }

  /** Hands the page over. */
  readonly #submit = (): void => {
    if (this.#count === 0) return;
    const count = this.#count;
    const length = this.#length;
    this.#count = 0;
    this.#length = 0;
    this.#native.submit(this.#out, count, length);
  };

  /** A field of bytes that are short: a tag, a length of one byte, the bytes. Returns where it ends. */
  #writeBytes(at: number, tag: number, prefix: Buffer, text: string | Buffer): number {
    const out = this.#out;
    let end = at + 2;
    if (prefix.length > 0) {
      out.set(prefix, end);
      end += prefix.length;
    }
    end += typeof text === 'string' ? (out as unknown as Writes).utf8Write(text, end) : text.copy(out, end);
    out[at] = tag;
    out[at + 1] = end - at - 2;
    return end;
  }

  /** The value of a put. */
  #writeValue(at: number, value: string | Buffer): number {
    const out = this.#out;
    // Three bytes hold the length of every value that comes here: room is left for them, unless one will do.
    const short = value.length < 43;
    const start = at + (short ? 2 : 4);
    const length =
      typeof value === 'string' ? (out as unknown as Writes).utf8Write(value, start) : value.copy(out, start);
    out[at] = 0x12;
    if (short) {
      out[at + 1] = length;
    } else {
      // A varint may be longer than it need be.
      out[at + 1] = (length & 0x7f) | 0x80;
      out[at + 2] = ((length >> 7) & 0x7f) | 0x80;
      out[at + 3] = length >> 14;
    }
    return start + length;
  }
}

/** The most that a key written straight into a page may be, in bytes, tag and length apart: one byte holds its length. */
const MOST_KEY = 127;
const MOST_INLINE = MOST_KEY + 2;
/** The most that a value written straight into a page may be, in code units: three times as many bytes. */
const MOST_VALUE = 32 * 1024;

function fits(prefix: Buffer, key: string | Buffer): boolean {
  return prefix.length + (typeof key === 'string' ? key.length * 3 : key.length) <= MOST_KEY;
}

/** A `RangeRequest` of one key. */
export function rangeOf(prefix: Buffer, key: string | Buffer): Uint8Array {
  return field(0x0a, Buffer.concat([prefix, bytesOf(key)]));
}

function putOf(prefix: Buffer, key: string | Buffer, value: string | Buffer): Uint8Array {
  return Buffer.concat([rangeOf(prefix, key), field(0x12, bytesOf(value))]);
}

function bytesOf(text: string | Buffer): Buffer {
  return typeof text === 'string' ? Buffer.from(text) : text;
}

function field(tag: number, bytes: Buffer): Buffer {
  const head = [tag];
  let length = bytes.length;
  for (; length > 0x7f; length >>>= 7) head.push((length & 0x7f) | 0x80);
  head.push(length);
  return Buffer.concat([Buffer.from(head), bytes]);
}

function slices(bytes: Buffer): Slices {
  return bytes as unknown as Slices;
}

/** Bytes of their own: the page is used again. */
function copied(from: Buffer, start: number, end: number, apart: Buffer | undefined): Buffer {
  return apart ?? Buffer.from(from.subarray(start, end));
}
