/** What tests of the rules ask of a history. */

import { expect } from 'vitest';
import { check } from './check.js';
import { type Entry, THE_NAMES } from './history.js';
import { NAME } from './made.js';
import type { Violation } from './violation.js';

/** The one violation of a history, which is of this rule. */
export function only(rule: Violation['rule'], history: readonly Entry[]): Violation {
  const violations = check(history);
  expect(violations.map((violation) => violation.rule)).toEqual([rule]);
  return violations[0] as Violation;
}

/** All of them, as text. */
export const found = (history: readonly Entry[]) => check(history).map(({ rule, says }) => `${rule}: ${says}`);

/** It has none. */
export const none = (history: readonly Entry[]) => expect(found(history)).toEqual([]);

/** A watcher tells a list of the one name, or of the names. */
export const list = (who: string, at: number, list: Record<string, number>, stale = false, name = NAME): Entry => {
  return { kind: 'list', at, who, name, stale, list };
};
export const names = (who: string, at: number, told: Record<string, number>, stale = false) =>
  list(who, at, told, stale, THE_NAMES);
