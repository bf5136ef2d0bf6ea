/**
 * The event loop gets its turn. What the native side has for JavaScript is taken in shares, a few milliseconds of the thread
 * at a time, counted with what the program does in answer; timers, sockets and everybody else run between two shares.
 *
 * Without it they would starve: Node.js makes up to 1,000 calls of a native callback in a row while more keep coming, and
 * each brings answers whose `await` asks for the next.
 *
 * @internal
 */

import { AsyncResource } from 'node:async_hooks';
import { performance } from 'node:perf_hooks';
import { setImmediate } from 'node:timers';

// As they are when the package is imported: fake timers of test runners are not to stop what comes from the network.
const later = setImmediate;
const microtask = queueMicrotask;
const tick = process.nextTick.bind(process);
const clock = performance;

/** How long the thread is taken for in one turn of the event loop, by all clients together, in milliseconds. */
const SHARE_MS = 4;
/** The most that one share is, in answers, events or the like. It bounds the first one that turns out to be dear. */
const MOST = 256;
/** What one of them is thought to cost before anything was measured, in milliseconds. */
const FIRST_COST_MS = 0.05;
/**
 * So few, if they were all there was, are not measured. It would take of the thread what an eighth of a get takes, and the
 * clock tells of them in time: a turn that has lasted its share hands over no more.
 */
const FEW = 4;
/** How much of a lower cost is believed at a time. A higher one is believed at once. */
const EASING = 0.25;

/** When the last turn of the event loop that is known of began. */
let began = Number.NEGATIVE_INFINITY;
/** What one item has cost, with what the program did for it. */
let cost = FIRST_COST_MS;
/** Items handed over whose cost the clock does not show yet. */
let taken = 0;
let measuring = false;

const due: Share[] = [];
let isArmed = false;

// The work of one program is not to run in the async context of another's request.
const nowhere = new AsyncResource('rollcall.turn');

/** Where something comes in. Make one for each source, and `wake()` it when there is something. */
export class Share {
  readonly #hand: (most: number) => boolean;
  #isDue = false;
  /** Somebody woke it while it was due: the news may be that there is nothing any more. */
  #wasWoken = false;

  /** `hand` takes `most` items at the most (a little more does not matter), calls `took()`, and says whether there are more. */
  constructor(hand: (most: number) => boolean) {
    this.#hand = hand;
  }

  /**
   * There is something: it is handed over at once if the thread has time, else in the next turn of the event loop. Who is
   * woken while it is due looks once more when it has handed over all there was.
   */
  wake(): void {
    if (this.#isDue) {
      this.#wasWoken = true;
      return;
    }
    if (due.length === 0 && clock.now() - began < SHARE_MS) {
      settle();
      this.run();
    } else this.#enqueue();
  }

  /** @internal */
  run(): void {
    this.#isDue = false;
    const most = share();
    if (most === 0) {
      this.#enqueue();
      return;
    }
    const start = clock.now();
    let more = true; // what throws has not said that there is nothing
    try {
      more = this.#hand(most);
    } finally {
      if (taken > FEW || more) measure(start);
      // The look that was asked for is one that finds nothing.
      if (!more && this.#wasWoken) {
        this.#wasWoken = false;
        more = true;
      }
      if (more) this.#enqueue();
    }
  }

  #enqueue(): void {
    if (this.#isDue) return;
    this.#isDue = true;
    due.push(this);
    arm();
  }
}

/** `count` items were handed over. */
export function took(count: number): void {
  taken += count;
}

/** How many more may be handed over in this turn; 0 when the thread was taken for long enough. */
export function share(): number {
  // What was handed over in this turn is paid for in microtasks that have not run yet.
  const left = SHARE_MS - Math.max(clock.now() - began, taken * cost);
  if (left <= 0) return 0;
  return Math.min(Math.max(Math.floor(left / cost), 1), MOST);
}

function arm(): void {
  if (isArmed) return;
  isArmed = true;
  nowhere.runInAsyncScope(() => {
    later(turn);
  });
}

/** Runs when everything else of this turn of the event loop had its time. */
function turn(): void {
  isArmed = false;
  began = clock.now();
  settle();
  for (let count = due.length; count > 0; count--) {
    if (share() === 0) break;
    const next = due.shift() as Share;
    try {
      next.run();
    } catch (error) {
      microtask(() => {
        throw error;
      });
    }
  }
  if (due.length > 0) arm();
}

/** What few items cost that nobody measures is in the clock by the next turn, or the next call of the native side. */
function settle(): void {
  if (!measuring) taken = 0;
}

/** Measures what is being handed over since `start` to its end: all that the program does for it in microtasks, too. */
function measure(start: number): void {
  if (measuring) return;
  measuring = true;
  // A tick that is asked for in a microtask comes when there are no more microtasks.
  microtask(() => tick(measured, start));
}

function measured(start: number): void {
  measuring = false;
  if (taken > 0) {
    const one = (clock.now() - start) / taken;
    cost = one > cost ? one : cost + (one - cost) * EASING;
  }
  taken = 0;
}
