/**
 * Judges the history of a fault run: what may not happen, and did. It does no input or output and reads no clock, so the
 * same history has the same violations for ever.
 */

import type { Entry } from './history.js';
import { called } from './rules/called.js';
import { config } from './rules/config.js';
import { fenced } from './rules/fenced.js';
import { ids } from './rules/ids.js';
import { named } from './rules/names.js';
import { once } from './rules/once.js';
import { oneHolder } from './rules/one-holder.js';
import { permits } from './rules/permits.js';
import { alive, flat, quiet, settled } from './rules/processes.js';
import { dead, deregistered, registered, withdrawn } from './rules/registrations.js';
import { sound, unreadable } from './rules/sound.js';
import { watching } from './rules/watching.js';
import { storyOf } from './story.js';
import type { Rule, RuleName, Violation } from './violation.js';

export { type Figures, figures } from './figures.js';
export type { RuleName, Violation } from './violation.js';

/** In the order in which a report tells of them. */
const rules: Readonly<Record<Exclude<RuleName, 'sound'>, Rule>> = {
  registered,
  dead,
  deregistered,
  withdrawn,
  watching,
  named,
  called,
  'one-holder': oneHolder,
  permits,
  fenced,
  once,
  config,
  ids,
  settled,
  flat,
  alive,
  quiet,
};

export const RULES: readonly RuleName[] = ['sound', ...(Object.keys(rules) as Exclude<RuleName, 'sound'>[])];

/** The violations of a history, by rule and then by time; none means that the run is good. */
export function check(history: readonly Entry[]): Violation[] {
  const nothing = unreadable(history);
  if (nothing.length > 0) return nothing;
  const story = storyOf(history);
  const found = [...sound(history, story), ...Object.values(rules).flatMap((rule) => rule(story))];
  return found.sort((a, b) => RULES.indexOf(a.rule) - RULES.indexOf(b.rule) || a.at - b.at);
}
