/** Lists of names: the name of an instance that stood all along is in each. */

import { THE_NAMES } from '../history.js';
import { clock, knownSince, type Registration, type Story, stood } from '../story.js';
import type { Violation } from '../violation.js';
import { type Channel, channelsOf, NOTHING, next } from './watching.js';

/** A registration with the name of its service, which the reads of the servers know. */
type Named = Registration & { readonly name: string };

/**
 * A list of names that is not stale says what the servers held at some moment of the time that a list may be old. An instance
 * that was registered all that time, while nothing harmed it, had its name among them at every moment.
 */
export function named(story: Story): Violation[] {
  const standing = story.registrations.flatMap((registration): Named[] => {
    const name = story.services.get(registration.of);
    return name === undefined ? [] : [{ ...registration, name }];
  });
  return channelsOf(story)
    .filter(({ name }) => name === THE_NAMES)
    .flatMap((channel) => missing(story, channel, standing));
}

/** What one watcher misses, each name once until it has told of it again. */
function missing(story: Story, { life: { who }, told }: Channel, standing: readonly Named[]): Violation[] {
  const mute = story.mute(who);
  const found: Violation[] = [];
  const known = new Set<string>();
  let view = NOTHING;
  for (const entry of told) {
    if (entry.at >= story.end) break; // everybody leaves
    view = next(view, entry);
    const { list, stale } = view;
    for (const name of known) if (stale || (list && name in list)) known.delete(name);
    if (stale || list === undefined) continue;
    const at = entry.at;
    const since = knownSince(story, who, at);
    if (mute.overlaps(since, at)) continue;
    for (const { of, life, from, name } of standing.filter((one) => stood(story, one, since, at))) {
      if (name in list || known.has(name)) continue;
      known.add(name);
      const says = `${who} told at ${clock(story, at)} of names without ${name} and did not call them stale, though ${of} of ${life.who} had been registered since ${clock(story, from)}, and nothing harmed it since ${clock(story, since)}.`;
      found.push({ rule: 'named', at, who, of: name, says });
    }
  }
  return found;
}
