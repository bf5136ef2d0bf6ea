// What the tests of locks share.
import { fileURLToPath } from 'node:url';
import type { Held } from 'rollcall/coord';
import { expect } from 'vitest';
import { ordered, type Script } from '../support/process.js';
import type { Finish } from './kit.js';

/** The lease of what is held, or waits to be. */
export const leaseOf = ({ key }: Pick<Held, 'key'>): string =>
  key.slice(key.lastIndexOf('/') + 1).replace(/^[rws]-/, '');

export interface Line {
  /** By the clock of the machine, in milliseconds. */
  at: number;
  event: 'held' | 'acts' | 'stops' | 'lost' | 'released' | 'refused' | 'refusedWrite' | 'woke';
  token?: string;
  key?: string;
  code?: string;
  acts?: boolean;
  /** Of a write that was refused: what the store said, or the code of an error. */
  succeeded?: boolean | string;
  /** Of one that woke: for how long it was stopped. */
  silent?: number;
}

export interface Order {
  url: string;
  key: string;
  kind?: 'mutex' | 'write' | 'semaphore';
  permits?: number;
  ttlMs: number;
  register?: string;
  loops?: boolean;
}

const program = fileURLToPath(new URL('./fixtures/holder.mjs', import.meta.url));

/** A process of its own that takes a lock. */
export const holder = (finish: Finish, order: Order): Script<Line> => ordered<Line>(finish, program, order);

export interface Interval {
  who: string;
  from: number;
  to: number;
  token: bigint;
}

/** When a process said by `isHeld` that it may act; one that was killed acts until then. */
export function intervals(who: string, lines: readonly Line[], end: number): Interval[] {
  const found: Interval[] = [];
  let open: Interval | undefined;
  for (const { event, at, token } of lines) {
    if (event === 'acts') {
      open = { who, from: at, to: end, token: BigInt(token as string) };
      found.push(open);
    } else if (event === 'stops' && open?.token === BigInt(token as string)) {
      open.to = Math.min(open.to, at);
      open = undefined;
    }
  }
  return found;
}

/** At no moment more than `most` act. Of a process that says when it stops a little later than it does, `slackMs` are forgiven. */
export function expectAtMost(most: number, all: readonly Interval[], slackMs = 40): void {
  const sorted = [...all].sort((a, b) => a.from - b.from);
  for (const next of sorted) {
    const beside = sorted.filter(
      (other) => other !== next && other.from <= next.from && other.to - slackMs > next.from,
    );
    expect(beside.length, `beside ${JSON.stringify({ ...next, token: String(next.token) })}`).toBeLessThan(most);
  }
}
