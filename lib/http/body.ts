/** Bodies of requests: whether they can be sent again. */

import { invalid, kindOf } from '../common/shape.js';

/** A body, and how it is sent. */
export interface Body {
  /** It can be sent again although it was sent, or begun to be. */
  readonly repeatable: boolean;
  /** Whether all of it can be handed out yet; always true for what is no stream. */
  readonly whole: boolean;
  /** What the program's own stream failed with: no fault of the instance. */
  readonly error: { readonly thrown: unknown } | undefined;
  /** For the next try; only while it is whole. */
  next(): RequestInit['body'];
  /** There is no further try. */
  settle(): void;
  /** It is not sent: a stream gives back what it holds. */
  drop(): void;
}

const NONE: Body = {
  repeatable: true,
  whole: true,
  error: undefined,
  next: () => undefined,
  settle: () => {},
  drop: () => {},
};

/** A stream can be sent once; all else as often as one likes. */
export function bodyOf(body: RequestInit['body']): Body {
  if (body === undefined) return NONE;
  if (isStream(body)) return new StreamBody(body);
  return { ...NONE, next: () => body };
}

function isStream(body: unknown): body is AsyncIterable<unknown> {
  return typeof body === 'object' && body !== null && Symbol.asyncIterator in body;
}

/** Pieces that are kept. `fetch` reads one, of two at most, before it has a connection. */
const KEPT = 4;

/** A stream whose first pieces are kept, so that it can be handed out again where no connection came about. */
class StreamBody implements Body {
  readonly repeatable = false;
  error: Body['error'];
  readonly #source: AsyncIterable<unknown>;
  #iterator: AsyncIterator<unknown> | undefined;
  /** In order, from the first one on; `undefined` when there were too many. */
  #kept: Promise<IteratorResult<unknown>>[] | undefined = [];
  #isSettled = false;
  #isCancelled = false;

  constructor(source: AsyncIterable<unknown>) {
    this.#source = source;
  }

  get whole(): boolean {
    return this.#kept !== undefined;
  }

  next(): RequestInit['body'] {
    let at = 0;
    const stream = new ReadableStream<unknown>(
      {
        pull: async (controller) => {
          const { value, done } = await this.#piece(at++);
          if (done) controller.close();
          else controller.enqueue(value);
        },
        cancel: () => {
          this.#isCancelled = true;
          if (this.#isSettled || !this.whole) this.drop();
        },
      },
      { highWaterMark: 0 }, // nothing is read before it is wanted
    );
    return stream as unknown as RequestInit['body'];
  }

  settle(): void {
    this.#isSettled = true;
    if (this.#isCancelled) this.drop(); // it was not wanted whole
  }

  drop(): void {
    void (async () => {
      const { cancel, locked } = this.#source as { cancel?: unknown; locked?: unknown };
      if (!this.#iterator && typeof cancel === 'function' && !locked) await cancel.call(this.#source);
      else await (this.#iterator ?? this.#source[Symbol.asyncIterator]()).return?.();
    })().catch(() => {}); // whose failure nobody waits for
  }

  #piece(at: number): Promise<IteratorResult<unknown>> {
    const known = this.#kept?.[at];
    if (known) return known;
    const read = this.#read();
    if (at < KEPT) this.#kept?.push(read);
    else this.#kept = undefined;
    return read;
  }

  async #read(): Promise<IteratorResult<unknown>> {
    try {
      this.#iterator ??= this.#source[Symbol.asyncIterator]();
      const read = await this.#iterator.next();
      if (read.done || read.value instanceof Uint8Array) return read;
      throw invalid('init.body', `expected a stream of Uint8Array, got ${kindOf(read.value)} in it`);
    } catch (thrown) {
      this.error = { thrown };
      throw thrown;
    }
  }
}
