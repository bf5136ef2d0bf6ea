/** What ends a try: its deadline and the signal of the program. */

import { onAbort } from '../common/abort.js';
import { after } from '../common/clock.js';
import type { TimeoutError } from '../errors.js';
import { builtInDispatcher } from './undici.js';

/**
 * A controller lives as long as its signal, which `fetch` keeps until the answer was read. A property of the signal, since
 * a map of weak keys is dearer to the garbage collector.
 */
const CONTROLLER = Symbol('controller');
/** When the answer is garbage, the signal of the program is left. */
const answers = new FinalizationRegistry<() => void>((unlisten) => unlisten());

/** A function by itself: what it makes must not see the controller, or the signal of the program would keep it. */
function follow(signal: AbortSignal, own: WeakRef<AbortController>): () => void {
  return onAbort(signal, () => own.deref()?.abort(signal.reason));
}

/** What is needed of what `fetch` hands to a dispatcher, which is called as undici 6 calls it, or as undici 8 does. */
interface Handler {
  onConnect?(abort: (reason?: unknown) => void, context?: unknown): unknown;
  onRequestStart?(controller: { abort(reason: unknown): void }, context?: unknown): unknown;
}

/**
 * The deadline of a try and the signal of the program.
 *
 * The deadline ends the request where it is dispatched, since a signal for each call takes a tenth of what a call takes. Where
 * the program has a signal, both are one signal. `AbortSignal.any()` is none of it: where the program has one signal for its
 * whole life, Node.js 20 keeps all that is made of it.
 */
export class Limit {
  /** For `fetch`; `undefined` where the program has none. */
  readonly signal: AbortSignal | undefined;
  /** Set when the time was over. */
  late: TimeoutError | undefined;
  #stop: (() => void) | undefined;
  readonly #unlisten: (() => void) | undefined;
  /** Ends the request, once it is about to be written. */
  #abort: ((reason: unknown) => void) | undefined;
  #reject: ((error: unknown) => void) | undefined;

  /** @param ms infinity: no deadline */
  constructor(ms: number, late: () => TimeoutError, signal: AbortSignal | undefined) {
    if (signal) {
      const own = new AbortController();
      this.signal = own.signal;
      (own.signal as { [CONTROLLER]?: AbortController })[CONTROLLER] = own;
      this.#unlisten = follow(signal, new WeakRef(own));
      this.#abort = (reason) => own.abort(reason);
      answers.register(own, this.#unlisten, own.signal);
    }
    if (ms === Number.POSITIVE_INFINITY) return;
    this.#stop = after(Math.max(1, Math.ceil(ms)), () => {
      this.late = late();
      this.#reject?.(this.late);
      this.#abort?.(this.late);
    });
  }

  /** The head of the answer; rejects when the time is over, whether `fetch` heeds that or not. */
  head(answer: Promise<Response>): Promise<Response> {
    if (!this.#stop) return answer;
    return new Promise((resolve, reject) => {
      this.#reject = reject;
      answer.then(resolve, reject);
    });
  }

  /** As a dispatcher of the built-in `fetch`: the one that it has, which is told when the time is over. */
  dispatch(options: object, handler: object): boolean {
    this.tie(handler);
    return builtInDispatcher().dispatch(options, handler);
  }

  /** The request of this handler, which is of this try alone, ends with the deadline. */
  tie(handler: Handler): void {
    if (!this.#stop || this.signal) return;
    const { onConnect, onRequestStart } = handler;
    if (onRequestStart) {
      handler.onRequestStart = (controller, context) => {
        if (this.#begun((reason) => controller.abort(reason))) onRequestStart.call(handler, controller, context);
      };
    } else if (onConnect) {
      handler.onConnect = (abort, context) => {
        if (this.#begun(abort)) onConnect.call(handler, abort, context);
      };
    }
  }

  /** The head of the answer came: the deadline ends, and the signal of the program goes on while the rest is read. */
  answered(): void {
    this.#stop?.();
  }

  /** The try failed. */
  end(): void {
    this.#stop?.();
    if (!this.signal) return;
    answers.unregister(this.signal);
    this.#unlisten?.();
  }

  /** Whether there is time for it yet. */
  #begun(abort: (reason: unknown) => void): boolean {
    this.#abort = abort;
    if (this.late) abort(this.late);
    return this.late === undefined;
  }
}
