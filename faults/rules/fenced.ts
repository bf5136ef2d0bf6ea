/** No write of an older holder is made after one of a later holder: of two writes the later one has no smaller token. */

import type { Stamp, Time } from '../history.js';
import { clock, type Story } from '../story.js';
import type { Violation } from '../violation.js';

/** A write, told by who made it, or by who found it there: the answer to the first may have been lost. */
interface Write extends Stamp {
  readonly at: Time;
  readonly who: string;
}

export function fenced(story: Story): Violation[] {
  const registers = new Map<string, Map<number, Write>>();
  for (const entry of story.lives.flatMap(({ told }) => told)) {
    if (entry.kind !== 'wrote') continue;
    const { of, at, who, token, revision, before } = entry;
    const writes = registers.get(of) ?? new Map<number, Write>();
    registers.set(of, writes);
    writes.set(revision, { token, revision, at, who });
    if (before !== undefined && !writes.has(before.revision)) writes.set(before.revision, { ...before, at, who });
  }
  return [...registers].flatMap(([of, writes]) => late(story, of, [...writes.values()]));
}

function late(story: Story, of: string, writes: readonly Write[]): Violation[] {
  let most: Write | undefined;
  const found: Violation[] = [];
  for (const write of writes.toSorted((a, b) => a.revision - b.revision)) {
    const { token, revision, at, who } = write;
    if (most !== undefined && token < most.token) {
      const says = `${of} was written with token ${token} at revision ${revision} (${who}, ${clock(story, at)}), after token ${most.token} at revision ${most.revision} (${most.who}).`;
      found.push({ rule: 'fenced', at, who, of, says });
    } else most = write;
  }
  return found;
}
