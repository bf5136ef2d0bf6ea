/** What tests of the rules ask of a history. */

import { expect } from 'vitest';
import { check } from './check.js';
import type { Entry } from './history.js';
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
