/** What is done to whom, and when: a plan made from a seed alone, so that the same seed does the same again. */
import { seeded } from '../__test__/support/random.js';
import type { Begin } from './history.js';

export type Backend = Begin['backend'];

export const ZONES = ['a', 'b', 'c'] as const;
export type Zone = (typeof ZONES)[number];

export type Part = 'registrar' | 'watcher' | 'candidate' | 'caller' | 'holder' | 'sharer' | 'maker' | 'doer';

/** A process under test. */
export interface Actor {
  /** For example `registrar 3`. */
  readonly who: string;
  readonly part: Part;
  /** Whose network it shares: faults of a link hit a zone. */
  readonly zone: Zone;
  /** Of a registrar: the service it is an instance of. */
  readonly name: string;
}

/** Of ten registrars: a name with several instances, and names that come and go with their only one. */
const SERVICES = ['orders', 'users', 'stock', 'orders', 'mail', 'users', 'audit', 'orders', 'users', 'orders'] as const;

export const NAMES: readonly string[] = [...new Set(SERVICES)];

/** Those that are called: with four instances, with three, and with one. */
export const CALLED: readonly string[] = ['orders', 'users', 'stock'];

/**
 * Ten register, five watch all names, three call some of them; where there is configuration three share one, and on etcd three
 * compete for a lock and an election, three more for locks of every kind, and three make ids.
 */
export function cast(backend: Backend): Actor[] {
  const parts: [Part, number][] = [
    ['registrar', SERVICES.length],
    ['watcher', 5],
    ['candidate', backend === 'etcd' ? 3 : 0],
    ['caller', 3],
    ['holder', backend === 'etcd' ? 3 : 0],
    ['sharer', backend === 'zookeeper' ? 0 : 3],
    ['maker', backend === 'etcd' ? 3 : 0],
    ['doer', backend === 'etcd' ? 3 : 0],
  ];
  return parts.flatMap(([part, count]) =>
    Array.from({ length: count }, (_, i) => ({
      who: `${part} ${i + 1}`,
      part,
      zone: ZONES[i % ZONES.length] as Zone,
      name: SERVICES[i % SERVICES.length] as string,
    })),
  );
}

/** Done to servers; `leader` is who leads when it begins. */
export type ServerDeed = {
  readonly to: 'servers';
  readonly what: 'kill' | 'freeze';
  readonly which: 'member 1' | 'member 2' | 'member 3' | 'leader' | 'two' | 'all';
};

/** Done to the links of a zone: to one member or to all. */
export type LinkDeed = {
  readonly to: 'links';
  readonly what: 'black hole' | 'lost answers' | 'lost requests' | 'reset' | 'refused' | 'latency';
  readonly zone: Zone;
  readonly member: number | 'all';
};

/**
 * Done to a process; `remove` takes its record away behind its back, `revoke` (etcd) the lease of what it has. After `withdraw`
 * comes a `restore`, and everything else in between.
 */
export type ActorDeed = {
  readonly to: 'actor';
  readonly what: 'kill' | 'freeze' | 'block' | 'update' | 'reregister' | 'withdraw' | 'restore' | 'remove' | 'revoke';
  readonly who: string;
};

/** Something the servers do by themselves as a rule, at a moment. */
export type EventDeed = { readonly to: 'cluster'; readonly what: 'move the leader' | 'compact' };

export type Deed = (ServerDeed | LinkDeed | ActorDeed | EventDeed) & {
  /** Milliseconds after the beginning. */
  readonly at: number;
  readonly lastsMs: number;
};

export interface Plan {
  readonly deeds: readonly Deed[];
  /** When the last fault is healed at the latest, and nothing more is done. */
  readonly quietFromMs: number;
}

const SETTLING_MS = 4000;

/** Before the end: repairs, and some time in which all must be well. */
export const CALM_MS = 6000;

class Chance {
  readonly #next: () => number;
  constructor(seed: number) {
    this.#next = seeded(seed);
  }
  between(least: number, most: number): number {
    return Math.round(least + this.#next() * (most - least));
  }
  happens(share: number): boolean {
    return this.#next() < share;
  }
  of<T>(...all: readonly T[]): T {
    return all[Math.floor(this.#next() * all.length)] as T;
  }
}

/** Most are short; some are longer than every deadline. */
const length = (chance: Chance): number =>
  chance.happens(0.25) ? chance.between(12_000, 20_000) : chance.between(1500, 9000);

function serverDeed(chance: Chance, at: number): Deed {
  const which = chance.of('member 1', 'member 2', 'member 3', 'leader', 'leader', 'two', 'all' as const);
  return { to: 'servers', what: chance.of('kill', 'freeze'), which, at, lastsMs: length(chance) };
}

function linkDeed(chance: Chance, at: number): Deed {
  const what = chance.of(
    'black hole',
    'black hole',
    'lost answers',
    'lost requests',
    'reset',
    'refused',
    'latency' as const,
  );
  const member = chance.of<number | 'all'>(0, 1, 2, 'all', 'all');
  return { to: 'links', what, zone: chance.of(...ZONES), member, at, lastsMs: length(chance) };
}

const HARM = ['kill', 'freeze', 'block'] as const;
const LIFE = ['update', 'update', 'update', 'reregister', 'reregister', 'withdraw', 'withdraw', 'withdraw'] as const;

const DEEDS: Record<Part, readonly ActorDeed['what'][]> = {
  registrar: [...LIFE, ...HARM, 'remove', 'revoke'],
  watcher: HARM,
  candidate: [...HARM, 'revoke'],
  caller: HARM,
  holder: [...HARM, 'revoke'],
  sharer: HARM,
  maker: HARM,
  doer: HARM,
};

function actorDeed(chance: Chance, backend: Backend, actor: Actor, at: number): Deed {
  const drawn = chance.of(...DEEDS[actor.part]);
  const what = drawn === 'revoke' && backend !== 'etcd' ? 'remove' : drawn;
  const instant = what !== 'kill' && what !== 'freeze' && what !== 'block';
  return { to: 'actor', who: actor.who, at, what, lastsMs: instant ? 0 : length(chance) };
}

/**
 * Harm comes in rounds, to the servers, to a network or to both, with pauses in between that are as often too short for a
 * repair as not. Harm to single processes goes on all the time.
 */
export function plan(seed: number, backend: Backend, minutes: number, repairMs: number): Plan {
  const chance = new Chance(seed);
  const quietFromMs = minutes * 60_000 - repairMs - CALM_MS;
  const deeds: Deed[] = [];
  const fits = (deed: Deed): boolean => deed.at + deed.lastsMs <= quietFromMs;

  for (let at = SETTLING_MS + chance.between(0, 3000); at < quietFromMs; ) {
    const first = chance.happens(0.5) ? serverDeed(chance, at) : linkDeed(chance, at);
    const round = [first];
    if (chance.happens(0.4)) {
      const later = at + chance.between(0, 4000);
      round.push(first.to === 'servers' ? linkDeed(chance, later) : serverDeed(chance, later));
    }
    if (backend === 'etcd' && chance.happens(0.6)) {
      round.push({
        to: 'cluster',
        what: chance.of('move the leader', 'compact'),
        at: at + chance.between(0, 8000),
        lastsMs: 0,
      });
    }
    // What does not fit any more is made as short as it must be.
    for (const deed of round) {
      const cut = { ...deed, lastsMs: Math.min(deed.lastsMs, quietFromMs - deed.at) };
      if (cut.lastsMs > 0 || (deed.lastsMs === 0 && fits(deed))) deeds.push(cut);
    }
    at = Math.max(...round.map((deed) => deed.at + deed.lastsMs)) + chance.between(1000, 1.6 * repairMs);
  }

  const free = new Map<string, number>(); // from when on a process may be harmed again
  const actors = cast(backend);
  for (let at = SETTLING_MS; at < quietFromMs; at += chance.between(400, 2200)) {
    const actor = chance.of(...actors);
    const deed = actorDeed(chance, backend, actor, at);
    if (at < (free.get(actor.who) ?? 0) || !fits(deed)) continue;
    deeds.push(deed);
    if (deed.what === 'withdraw') {
      // In the end everybody is to be there.
      const back = Math.min(at + length(chance), quietFromMs);
      deeds.push({ to: 'actor', who: actor.who, what: 'restore', at: back, lastsMs: 0 });
    }
    free.set(actor.who, at + deed.lastsMs + chance.between(500, 8000));
  }
  return { deeds: deeds.sort((a, b) => a.at - b.at), quietFromMs };
}
