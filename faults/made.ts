/**
 * Histories that tests make: say what happened, and the reads of the servers and the lists of the watchers follow from it.
 * Times are milliseconds after the start of the run.
 */

import { type Begin, type Entry, type Fault, type Listed, THE_NAMES, type Time } from './history.js';
import type { Kind } from './story.js';
import { firstIndex } from './windows.js';

/** The clock of a machine does not begin with the run. */
export const ORIGIN = 7_000_000;

export const BOUNDS = { ttlMs: 5000, repairMs: 4000, removalMs: 1000, deliveryMs: 1000, staleMs: 3000 } as const;
export const NAME = 'orders';
export const LOCK = 'locks/one';

const READ_EVERY_MS = 500;
const READ_MS = 4;
const CALL_MS = 10;
const DELIVERY_MS = 20;

interface Watch {
  readonly who: string;
  readonly from: Time;
  readonly to: Time;
  /** Stretches in which it hears nothing, and says that it is stale. */
  readonly deaf: readonly { at: Time; until: Time }[];
}

type Call = Kind<'call'>;
export type CallOptions = { takes?: number; error?: string; n?: number; withinMs?: number; open?: boolean };

export class Made {
  readonly #entries: Entry[] = [];
  readonly #held: { at: Time; id: string; n?: number }[] = [];
  #lists: { at: Time; list: Listed }[] = [];
  readonly #watches: Watch[] = [];
  readonly #calls = new Map<string, number>();
  readonly #begin: Begin;
  readonly #calm: Time;
  readonly #end: Time;

  constructor({ calm = 40_000, end = 50_000, seed = 7 } = {}) {
    [this.#calm, this.#end] = [calm, end];
    this.#begin = { kind: 'begin', at: 0, seed, backend: 'etcd', minutes: end / 60_000, ...BOUNDS };
  }

  add(...entries: Entry[]): this {
    this.#entries.push(...entries);
    return this;
  }

  start(who: string, at: Time): this {
    return this.add({ kind: 'started', at, who });
  }

  die(who: string, at: Time, how: Kind<'died'>['how'], why?: string): this {
    return this.add({ kind: 'died', at, who, how, why });
  }

  /** Gives when it is settled. */
  call(who: string, what: Call['what'], of: string, at: Time, options: CallOptions = {}): Time {
    const { takes = CALL_MS, error, n, withinMs = 5000, open = false } = options;
    const id = (this.#calls.get(who) ?? 0) + 1;
    this.#calls.set(who, id);
    this.add({ kind: 'call', at, who, id, what, of, withinMs, ...(n !== undefined && { n }) });
    if (!open) this.add({ kind: 'settled', at: at + takes, who, id, ...(error !== undefined && { error }) });
    return at + takes;
  }

  /** The servers hold the instance with this number from `at` on, or no longer. */
  holds(id: string, at: Time, n?: number): this {
    this.#held.push({ at, id, n });
    return this;
  }

  register(who: string, id: string, at: Time, n: number, what: 'register' | 'update' = 'register'): this {
    this.call(who, what, id, at, { n });
    return this.holds(id, at + CALL_MS / 2, n);
  }

  deregister(who: string, id: string, at: Time): this {
    this.call(who, 'deregister', id, at);
    return this.holds(id, at + CALL_MS / 2);
  }

  withdraw(who: string, id: string, at: Time): this {
    this.call(who, 'withdraw', id, at);
    return this.holds(id, at + CALL_MS / 2);
  }

  restore(who: string, id: string, at: Time, n: number): this {
    this.call(who, 'restore', id, at);
    return this.holds(id, at + CALL_MS / 2, n);
  }

  watch(who: string, from: Time, to = this.#end, deaf: Watch['deaf'] = []): this {
    this.#watches.push({ who, from, to, deaf });
    return this;
  }

  /** A term that is won by a call of `from` and lasts until `to`, with a look every 100 ms. */
  term(who: string, of: string, token: number, from: Time, to: Time): this {
    const held = this.call(who, 'acquire', of, from) + 1;
    this.add({ kind: 'held', at: held, who, of, token });
    for (let at = held + 1; at < to; at += 100) this.add({ kind: 'holding', at, who, of, token });
    return this.add({ kind: 'over', at: to, who, of, token, why: 'released' });
  }

  fault(at: Time, until: Time, touches: readonly string[], more: Partial<Fault> = {}): this {
    const said = { what: 'black hole', target: touches.join(), servers: false, mute: false };
    return this.add({ kind: 'fault', at, until, touches, ...said, ...more });
  }

  samples(who: string, from: Time, values: readonly Partial<Kind<'sample'>>[]): this {
    const usual = { kind: 'sample', who, rssMb: 90, threads: 14, descriptors: 30 } as const;
    return this.add(...values.map((value, i) => ({ ...usual, at: from + i * 1000, ...value })));
  }

  /** The whole history, in the order of time. */
  history(): Entry[] {
    this.#lists = this.#changes();
    const { at: _, ...begin } = this.#begin;
    return [
      { ...begin, at: 0 },
      ...this.#entries,
      ...this.#truths(),
      ...this.#watches.flatMap((watch) => this.#toldBy(watch)),
      { kind: 'calm', at: this.#calm } as const,
      { kind: 'end', at: this.#end } as const,
    ]
      .sort((a, b) => a.at - b.at)
      .map((entry) => ({ ...entry, at: entry.at + ORIGIN, ...('until' in entry && { until: entry.until + ORIGIN }) }));
  }

  /** What the servers hold, from change to change. */
  #changes(): { at: Time; list: Listed }[] {
    const list: Record<string, number> = {};
    return this.#held
      .toSorted((a, b) => a.at - b.at)
      .map(({ at, id, n }) => {
        if (n === undefined) delete list[id];
        else list[id] = n;
        return { at, list: { ...list } };
      });
  }

  #heldAt(time: Time): Listed {
    return this.#lists[firstIndex(this.#lists, ({ at }) => at > time) - 1]?.list ?? {};
  }

  #truths(): Kind<'truth'>[] {
    return Array.from({ length: Math.floor(this.#end / READ_EVERY_MS) }, (_, i) => {
      const at = i * READ_EVERY_MS;
      return { kind: 'truth', at, until: at + READ_MS, names: { [NAME]: this.#heldAt(at) } };
    });
  }

  #toldBy({ who, from, to, deaf }: Watch): Entry[] {
    const isDeaf = (time: Time) => deaf.some(({ at, until }) => time >= at && time <= until);
    const times = [from, ...this.#held.map(({ at }) => at)].filter((at) => at >= from && !isDeaf(at + DELIVERY_MS));
    const list = (name: string, at: Time): Entry => {
      const held = this.#heldAt(at);
      const count = Object.keys(held).length;
      return {
        kind: 'list',
        at,
        who,
        name,
        stale: false,
        list: name === NAME ? held : count > 0 ? { [NAME]: count } : {},
      };
    };
    const tells = (name: string): Entry[] => [
      ...times.map((at) => list(name, at + DELIVERY_MS)),
      ...deaf.flatMap(({ at, until }): Entry[] => [
        { kind: 'stale', at, who, name },
        list(name, until),
        { kind: 'fresh', at: until + 1, who, name },
      ]),
    ];
    return [NAME, THE_NAMES].flatMap(tells).filter(({ at }) => at < to);
  }
}

/** A run in which all goes well: two registrars, two watchers, two candidates. */
export function well(): Made {
  const made = new Made();
  for (const part of ['registrar', 'watcher', 'candidate']) made.start(`${part} 1`, 1).start(`${part} 2`, 2);
  made.register('registrar 1', 'a', 100, 1).register('registrar 1', 'a', 10_000, 2, 'update');
  made.register('registrar 2', 'b', 200, 1);
  made.watch('watcher 1', 50).watch('watcher 2', 60);
  made.term('candidate 1', LOCK, 11, 1000, 9000).term('candidate 2', LOCK, 12, 9100, 15_000);
  return made.samples('registrar 1', 1000, Array(9).fill({}));
}
