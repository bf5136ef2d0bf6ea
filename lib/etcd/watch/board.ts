/**
 * Who is told that the native side has something for a watch. One board for each client, made with its first watch: a
 * wake-up of its own for watches is cheaper than an event for each.
 *
 * @internal
 */

import type { Connection } from '../transport/connection.js';
import type { Backoff, BackoffFactory } from '../transport/fault-handling.js';

const boards = new WeakMap<Connection, Board>();
let lastId = 0;

/** The watches of one client by their ids. */
export class Board {
  readonly #wakes = new Map<number, () => void>();

  static of(connection: Connection): Board {
    const known = boards.get(connection);
    if (known) return known;
    const board = new Board();
    const pauses = pausesOf(connection.options.faultHandling.watchBackoff);
    connection.native.watchesTell((ids) => {
      if (typeof ids === 'number') board.#wake(ids);
      else for (const id of ids) board.#wake(id);
    }, pauses);
    boards.set(connection, board);
    return board;
  }

  /** An id for a watch: of no other watch of this thread. */
  static newId(): number {
    return ++lastId;
  }

  join(id: number, wake: () => void): void {
    this.#wakes.set(id, wake);
  }

  leave(id: number): void {
    this.#wakes.delete(id);
  }

  #wake(id: number): void {
    try {
      this.#wakes.get(id)?.();
    } catch (error) {
      rethrow(error); // the other watches are not to be lost with it
    }
  }
}

/** What a listener of the program threw is not ours to swallow. */
export function rethrow(error: unknown): void {
  queueMicrotask(() => {
    throw error;
  });
}

/** The most pauses that are asked of a backoff: by then it is at its longest. */
const PAUSES = 32;
/** The longest pause, in milliseconds: an hour. */
const PAUSE_MOST_MS = 3_600_000;

/** The pauses of a backoff, or of what makes one, asked for once: the native side waits, not JavaScript. */
function pausesOf(given: Backoff | BackoffFactory | undefined): number[] {
  const pauses: number[] = [];
  let backoff = given && 'duration' in given ? given : given?.next(undefined);
  // One that is over keeps its last pause.
  while (backoff && pauses.length < PAUSES) {
    const { duration } = backoff;
    pauses.push(Number.isFinite(duration) ? Math.min(Math.max(duration, 0), PAUSE_MOST_MS) : 0);
    backoff = backoff.next(undefined);
  }
  return pauses;
}
