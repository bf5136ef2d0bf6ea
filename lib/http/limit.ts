/** What ends a try: its deadline and the signal of the program. */

import { onAbort } from '../common/abort.js';
import { after } from '../common/clock.js';
import type { TimeoutError } from '../errors.js';

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

/**
 * The deadline of a try and the signal of the program as one signal. `AbortSignal.any()` is none of it: where the program has
 * one signal for its whole life, Node.js 20 keeps all that is made of it.
 */
export class Limit {
  readonly signal: AbortSignal;
  /** Set when the time was over. */
  late: TimeoutError | undefined;
  readonly #stop: () => void;
  readonly #unlisten: () => void;

  /** @param ms infinity: no deadline */
  constructor(ms: number, late: () => TimeoutError, signal: AbortSignal | undefined) {
    const own = new AbortController();
    this.signal = own.signal;
    (own.signal as { [CONTROLLER]?: AbortController })[CONTROLLER] = own;
    this.#unlisten = signal ? follow(signal, new WeakRef(own)) : () => {};
    if (signal) answers.register(own, this.#unlisten, own.signal);
    if (ms === Number.POSITIVE_INFINITY) {
      this.#stop = () => {};
      return;
    }
    this.#stop = after(Math.max(1, Math.ceil(ms)), () => {
      this.late = late();
      own.abort(this.late);
    });
  }

  /** The head of the answer came: the deadline ends, and the signal of the program goes on while the rest is read. */
  answered(): void {
    this.#stop();
  }

  /** The try failed. */
  end(): void {
    this.#stop();
    answers.unregister(this.signal);
    this.#unlisten();
  }
}
