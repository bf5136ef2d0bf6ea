/** How a key stands, for people. */

import { errorOf, type Seen } from './record.js';

/** How a key stands. */
export interface State {
  /** `interrupted`: it was begun, and its runner died or can't be reached. */
  readonly state: 'running' | 'interrupted' | 'done' | 'failed';
  /** Of a run: its token; else the version of the record. */
  readonly token: bigint;
  /** Of a run: which it is. */
  readonly attempt?: number;
  /** What came of it, where that is kept. */
  readonly result?: unknown;
  /** Why it is not, where it could not be. */
  readonly refused?: string;
  /** How it failed. */
  readonly error?: Error;
  /** After how many milliseconds it is forgotten; of a run after its runner's last sign of life. */
  readonly expiresInMs: number;
}

/** @param decode what `decoded()` does for this key. */
export function stateOf(
  { record, version, isAlive, expiresInMs }: Seen,
  decode: (text: string) => unknown,
): State | null {
  if (record === undefined) return null;
  const common = { token: version, expiresInMs };
  switch (record.state) {
    case 'running':
      return { state: isAlive ? 'running' : 'interrupted', attempt: record.attempt, ...common };
    case 'failed':
      return { state: 'failed', error: errorOf(record.error), ...common };
    case 'done': {
      const { result, refused } = record;
      return {
        state: 'done',
        ...(result !== undefined && { result: decode(result) }),
        ...(refused !== undefined && { refused }),
        ...common,
      };
    }
  }
}
