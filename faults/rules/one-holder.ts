/** Never two holders of a lock, never two leaders; the token of a later one is larger, also where several may hold. */

import type { Time } from '../history.js';
import { type Call, clock, type Kind, type Life, type Story, succeeded } from '../story.js';
import type { Violation } from '../violation.js';
import { firstIndex } from '../windows.js';

/** A term of a holder: it begins with `held`. */
export interface Term {
  readonly of: string;
  readonly token: number;
  readonly who: string;
  readonly held: Time;
  /** The last look at which it held still. */
  readonly seen: Time;
  /** That, or when it said that the term was over. */
  readonly until: Time;
  readonly life: Life;
  /** When the call that won it began, if the history has it. */
  readonly called?: Time;
  /** Of a semaphore: how many may hold it. */
  readonly permits?: number;
}

/** The terms of each lock and election, in order of their tokens. */
export function termsOf(story: Story): ReadonlyMap<string, readonly Term[]> {
  type Open = Term & { seen: Time; until: Time };
  const terms = new Map<string, Open[]>();
  for (const life of story.lives) {
    const wins = winsOf(life.calls);
    const open = new Map<string, Open>();
    for (const entry of life.told) {
      if (entry.kind === 'held') {
        const { of, token, who, at, permits } = entry;
        const term = { of, token, who, held: at, seen: at, until: at, life, called: wins(of, at)?.at, permits };
        open.set(of, term);
        const others = terms.get(of);
        if (others === undefined) terms.set(of, [term]);
        else others.push(term);
      } else if (entry.kind === 'holding' || entry.kind === 'over') {
        const term = open.get(entry.of);
        if (term?.token !== entry.token) continue;
        term.until = Math.max(term.until, entry.at);
        if (entry.kind === 'holding') term.seen = Math.max(term.seen, entry.at);
      }
    }
  }
  for (const list of terms.values()) list.sort((a, b) => a.token - b.token || a.held - b.held);
  return terms;
}

/** The last call that had won `of` at a time. */
function winsOf(calls: readonly Call[]): (of: string, at: Time) => Call | undefined {
  const wins = new Map<string, Call[]>();
  for (const call of calls) {
    if ((call.what !== 'acquire' && call.what !== 'campaign') || !succeeded(call)) continue;
    const earlier = wins.get(call.of);
    if (earlier === undefined) wins.set(call.of, [call]);
    else earlier.push(call);
  }
  for (const list of wins.values()) list.sort((a, b) => (a.settled as Time) - (b.settled as Time));
  return (of, time) => {
    const list = wins.get(of) ?? [];
    return list[firstIndex(list, ({ settled }) => (settled as Time) > time) - 1];
  };
}

export function oneHolder(story: Story): Violation[] {
  const looks = looksOf(story);
  return [...termsOf(story)].flatMap(([of, terms]) => {
    const grows = growth(story, terms);
    const all = looks.get(of) ?? [];
    const shared = terms.some(({ permits }) => permits !== undefined);
    return [...unique(story, of, terms, all), ...(shared ? falls(terms, grows) : later(story, of, terms, all, grows))];
  });
}

type Look = Kind<'holding'> | Kind<'held'>;

function looksOf(story: Story): Map<string, Look[]> {
  const looks = new Map<string, Look[]>();
  for (const entry of story.lives.flatMap(({ told }) => told)) {
    if (entry.kind !== 'holding' && entry.kind !== 'held') continue;
    const earlier = looks.get(entry.of);
    if (earlier === undefined) looks.set(entry.of, [entry]);
    else earlier.push(entry);
  }
  for (const list of looks.values()) list.sort((a, b) => a.at - b.at);
  return looks;
}

/** A token is of one term, and of the one process that won it. */
function unique(story: Story, of: string, terms: readonly Term[], looks: readonly Look[]): Violation[] {
  const found = new Map<number, Violation>();
  const owners = new Map<number, Term>();
  const twice = (token: number, at: Time, who: string, first: Term) => {
    if (found.has(token)) return;
    const says = `Token ${token} of ${of} is ${who}'s at ${clock(story, at)}, though ${first.who} won it at ${clock(story, first.held)}.`;
    found.set(token, { rule: 'one-holder', at, who, of, says });
  };
  for (const term of terms) {
    const first = owners.get(term.token);
    if (first === undefined) owners.set(term.token, term);
    else twice(term.token, term.held, term.who, first);
  }
  for (const { at, who, token } of looks) {
    const owner = owners.get(token);
    if (owner !== undefined && owner.who !== who) twice(token, at, who, owner);
  }
  return [...found.values()];
}

/** For each term: the one with a larger token that was held before the call of this one began. */
function growth(story: Story, terms: readonly Term[]): Map<number, string> {
  const byTime = [...terms].sort((a, b) => a.held - b.held);
  let most: Term | undefined;
  const largest = byTime.map((term) => {
    if (most === undefined || term.token > most.token) most = term;
    return most;
  });
  const wrong = new Map<number, string>();
  for (const { token, who, of, held, called } of terms) {
    if (called === undefined) continue;
    const before = largest[firstIndex(byTime, (term) => term.held >= called) - 1];
    if (before === undefined || before.token <= token) continue;
    const says = `Tokens of ${of} fall: ${who} won ${token} at ${clock(story, held)} by a call of ${clock(story, called)}, though ${before.who} had won ${before.token} at ${clock(story, before.held)}.`;
    wrong.set(token, says);
  }
  return wrong;
}

/** Where several may hold, an earlier token is as good as a later one, but none is won after a larger one. */
function falls(terms: readonly Term[], wrong: ReadonlyMap<number, string>): Violation[] {
  return terms.flatMap(({ token, held, who, of }): Violation[] => {
    const says = wrong.get(token);
    return says === undefined ? [] : [{ rule: 'one-holder', at: held, who, of, says }];
  });
}

/** Whether a term may have been ended behind its holder's back, so short a time ago that it may not know. */
export function endsOf(story: Story, of: string): (token: number, at: Time) => boolean {
  const ends = story.faults.flatMap(({ at, until, ended }) =>
    ended !== undefined && (ended.of === undefined || ended.of === of)
      ? [{ at: ended.token === undefined ? until : at, until: until + story.begin.ttlMs, token: ended.token }]
      : [],
  );
  return (token, at) => ends.some((end) => (end.token ?? token) === token && at >= end.at && at <= end.until);
}

/**
 * Nobody holds an earlier token once somebody has won with a later one. Told once for each earlier token.
 *
 * A holder whose term was ended behind its back can't know at once: it has the TTL to learn of it.
 */
function later(
  story: Story,
  of: string,
  terms: readonly Term[],
  looks: readonly Look[],
  wrong: ReadonlyMap<number, string>,
): Violation[] {
  // For each term, the earliest win of those with larger tokens.
  const first: (Term | undefined)[] = new Array(terms.length + 1);
  for (let i = terms.length - 1; i >= 0; i--) {
    const term = terms[i] as Term;
    const known = first[i + 1];
    first[i] = known === undefined || term.held < known.held ? term : known;
  }
  const isEnded = endsOf(story, of);
  const found = new Map<number, Violation>();
  for (const { at, who, token, kind } of looks) {
    const over = first[firstIndex(terms, (term) => term.token > token)];
    if (over === undefined || at <= over.held || found.has(token)) continue;
    if (isEnded(token, at)) continue;
    const verb = kind === 'held' ? 'won' : 'still held';
    const overlap = `${who} ${verb} ${of} with token ${token} at ${clock(story, at)}, ${(at - over.held).toFixed(1)} ms after ${over.who} had won token ${over.token}.`;
    found.set(token, { rule: 'one-holder', at, who, of, says: wrong.get(token) ?? overlap });
  }
  return [...found.values()];
}
