/** A semaphore is never held by more than it has permits. */

import { clock, type Story } from '../story.js';
import type { Violation } from '../violation.js';
import { endsOf, termsOf } from './one-holder.js';

export function permits(story: Story): Violation[] {
  return [...termsOf(story)].flatMap(([of, terms]) => {
    const most = terms.find((term) => term.permits !== undefined)?.permits;
    if (most === undefined) return [];
    const isEnded = endsOf(story, of);
    return terms.flatMap((won): Violation[] => {
      const at = won.held;
      // Who looks later and still holds has held all the time: what is lost stays lost.
      const beside = terms.filter(
        (other) => other !== won && other.held <= at && other.seen > at && !isEnded(other.token, at),
      );
      if (beside.length < most) return [];
      const others = beside.map(({ who, token }) => `${who} (${token})`).join(', ');
      const says = `${won.who} won ${of} with token ${won.token} at ${clock(story, at)}, while ${others} held it: ${most} is the most.`;
      return [{ rule: 'permits', at, who: won.who, of, says }];
    });
  });
}
