/**
 * What becomes of a key: its states, and what each call comes to in each of them. Nothing here asks a store or a clock.
 *
 * ```
 *            claim                end
 *    none ─────────► running ───────────► done
 *     ▲                │ ▲ │ ▲       └───► failed   (only what `cacheErrors` says)
 *     ├── it failed ───┘ │ └─┘ takeover: its runner died
 *     └── clear, expiry ─┘
 * ```
 */

import { InProgressError, KeyReusedError, OutcomeUnknownError } from './errors.js';
import { type Done, errorOf, type Failed, type OnceRecord, type Running, type Seen } from './record.js';

/** After how many milliseconds to ask again for what somebody runs. */
export const RETRY_AFTER_MS = 1000;

/** What a call asks for. */
export interface Ask {
  /** How errors name it. */
  readonly operation: string;
  readonly key: string;
  readonly ttlMs: number;
  readonly lockMs: number;
  readonly fingerprint: string | undefined;
  readonly whenRunning: 'join' | 'reject';
  readonly afterCrash: 'retry' | 'unknown';
}

/** What a call comes to. */
export type Verdict =
  /** It may claim the key, in the place of what was seen. */
  | { readonly is: 'run'; readonly attempt: number }
  | { readonly is: 'wait' }
  | { readonly is: 'done'; readonly record: Done }
  | { readonly is: 'refused'; readonly error: Error };

/** Judges a call by what was seen. `wasBegun`: whether the run of this nonce may have begun, as far as this process knows. */
export function judge(ask: Ask, { record, isAlive }: Seen, wasBegun: (nonce: string) => boolean): Verdict {
  if (record === undefined) return { is: 'run', attempt: 1 };
  // Claimed by this process, which had no answer and so did not begin.
  if (record.state === 'running' && !wasBegun(record.nonce)) return { is: 'run', attempt: record.attempt };
  if (differs(ask.fingerprint, record.fingerprint)) return { is: 'refused', error: keyReused(ask) };
  if (record.state === 'done') return { is: 'done', record };
  if (record.state === 'failed') return { is: 'refused', error: errorOf(record.error) };
  if (isAlive) return ask.whenRunning === 'join' ? { is: 'wait' } : { is: 'refused', error: inProgress(ask) };
  if (ask.afterCrash === 'retry' && !record.isUnknown) return { is: 'run', attempt: record.attempt + 1 };
  return { is: 'refused', error: outcomeUnknown(ask) };
}

/** The record of a claim. */
export const claimed = (ask: Ask, attempt: number, nonce: string): Running => ({
  state: 'running',
  nonce,
  attempt,
  ttlMs: ask.ttlMs,
  lockMs: ask.lockMs,
  isUnknown: ask.afterCrash === 'unknown',
  ...(ask.fingerprint !== undefined && { fingerprint: ask.fingerprint }),
});

/** How a run ends. */
export type End = Pick<Done, 'state' | 'result' | 'refused'> | Pick<Failed, 'state' | 'error'>;

/** The record of an end, of a run or by `resolve()`. */
export function ended({ ttlMs, fingerprint }: OnceRecord, nonce: string, end: End): OnceRecord {
  return { ...end, nonce, ttlMs, ...(fingerprint !== undefined && { fingerprint }) };
}

/** Whether `resolve()` has something to say: it was begun and nobody runs it, or it has no result. */
export const isOpen = ({ record, isAlive }: Seen): boolean =>
  record?.state === 'running' ? !isAlive : record?.state === 'done' && record.refused !== undefined;

/** Both have to be there for them to differ. */
const differs = (a: string | undefined, b: string | undefined): boolean =>
  a !== undefined && b !== undefined && a !== b;

export const inProgress = ({ operation, key }: Pick<Ask, 'operation' | 'key'>): InProgressError =>
  new InProgressError(`${operation}: somebody runs it already`, { operation, key, retryAfterMs: RETRY_AFTER_MS });

export const keyReused = ({ operation, key }: Ask): KeyReusedError =>
  new KeyReusedError(`${operation}: this key was used before, for something else`, { operation, key });

const outcomeUnknown = ({ operation, key }: Ask): OutcomeUnknownError =>
  new OutcomeUnknownError(
    `${operation}: it was begun, and its runner died or can't be reached: nobody knows whether it was done`,
    { operation, key },
  );
