/** Stretches of time, sorted and joined where they touch. Both ends belong to a stretch. */

import type { Time } from './history.js';

export interface Stretch {
  readonly at: Time;
  readonly until: Time;
}

export class Windows {
  readonly stretches: readonly Stretch[];
  /** How many milliseconds lie in the stretches before each one. */
  private readonly before: readonly number[];

  constructor(stretches: readonly Stretch[]) {
    const joined: { at: Time; until: Time }[] = [];
    for (const { at, until } of [...stretches].sort((a, b) => a.at - b.at)) {
      const last = joined.at(-1);
      if (last !== undefined && at <= last.until) last.until = Math.max(last.until, until);
      else joined.push({ at, until });
    }
    this.stretches = joined;
    let sum = 0;
    this.before = joined.map(({ at, until }) => {
      const before = sum;
      sum += until - at;
      return before;
    });
  }

  overlaps(at: Time, until: Time): boolean {
    const stretch = this.stretches[this.beginsBy(until)];
    return stretch !== undefined && stretch.until >= at;
  }

  covers(at: Time): boolean {
    return this.overlaps(at, at);
  }

  /** The end of the stretch in which `time` lies; in none, `time` itself. */
  endOf(time: Time): Time {
    const stretch = this.stretches[this.beginsBy(time)];
    return stretch === undefined ? time : Math.max(time, stretch.until);
  }

  /** The beginning of the stretch in which `time` lies; in none, `time` itself. */
  startOf(time: Time): Time {
    const stretch = this.stretches[this.beginsBy(time)];
    return stretch !== undefined && stretch.until >= time ? stretch.at : time;
  }

  /** How many milliseconds of the time from `at` to `until` lie in the stretches. */
  shared(at: Time, until: Time): number {
    return this.upTo(until) - this.upTo(at);
  }

  private upTo(time: Time): number {
    const index = this.beginsBy(time);
    const stretch = this.stretches[index];
    return stretch === undefined ? 0 : (this.before[index] as number) + Math.min(time, stretch.until) - stretch.at;
  }

  /** The index of the last stretch that begins at `time` or before, or -1. */
  private beginsBy(time: Time): number {
    return firstIndex(this.stretches, ({ at }) => at > time) - 1;
  }
}

/** The index of the first item for which `is` holds, of items of which all later ones hold as well; their number if none. */
export function firstIndex<T>(items: readonly T[], is: (item: T) => boolean): number {
  let [low, high] = [0, items.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (is(items[middle] as T)) high = middle;
    else low = middle + 1;
  }
  return low;
}
