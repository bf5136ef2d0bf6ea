/** One way to pick from a service: filters, then those who are not set aside, then a strategy. */

import { invalid } from '../common/shape.js';
import { NoInstanceError } from '../errors.js';
import type { ServiceInstance } from '../registry/instance.js';
import type { Balancer, ServiceCandidate } from './balance.js';
import { changeOf } from './diff.js';
import type { Endpoint } from './endpoint.js';
import { scheme as schemeFilter } from './pick/filters.js';
import { warmth } from './pick/slow-start.js';
import type { Candidate, Filter, Picker, Skip, Strategy } from './pick/types.js';
import type { Picked, Tickets } from './ticket.js';

/** Options of one pick. */
export interface PickOptions {
  /** For `consistentHash()`: the same key gives the same instance. */
  key?: string | undefined;
  /** Ids that are not to be picked: those that were tried before. */
  exclude?: ReadonlySet<string> | undefined;
  /** Only endpoints with this scheme, such as `http`. */
  scheme?: string | undefined;
  /** One more filter. Make it once and hand in the same one each time: its outcome is then remembered until the next change. */
  filter?: Filter | undefined;
  /** In the place of the strategy of the service. Make it once. */
  strategy?: Strategy | undefined;
}

/** Why an instance may be picked, or not. */
export interface Explanation {
  readonly service: string;
  readonly strategy: string;
  /** Those that may be picked now. */
  readonly usable: readonly ExplainedInstance[];
  /** Those that a filter took out, and by which name `removedBy` counts them. */
  readonly removed: readonly { readonly instance: ServiceInstance; readonly by: string }[];
  /** Those that are set aside because calls to them failed, and for how many milliseconds yet. */
  readonly ejected: readonly { readonly instance: ServiceInstance; readonly forMs: number }[];
  /** All that fit are set aside, so that all of them are used. */
  readonly panic: boolean;
  /** Where the strategy goes by the key alone: the instance that it leads to. */
  readonly picked: ServiceInstance | undefined;
}

/** An instance that may be picked. */
export interface ExplainedInstance {
  readonly instance: ServiceInstance;
  readonly endpoint: Endpoint;
  readonly weight: number;
  /** Calls under way to its address. */
  readonly inFlight: number;
  /** How much of its share it gets while it is new, from 0.1 to 1. */
  readonly warmth: number;
  /** What the strategy says of it; may be empty. */
  readonly why: string;
}

/** What a view does. */
export interface ViewSettings {
  readonly filters: readonly Filter[];
  readonly strategy: Strategy;
}

/** Views of a view that are remembered, of picks with options of their own. */
const REMEMBERED = 16;
/** How often a strategy is asked again for one that may be taken. */
const TRIES = 8;

/** A list in which there was nobody to try is not searched again for so long, or until something changed. */
const PROBE_PAUSE_MS = 10;

interface Derived {
  readonly scheme: string | undefined;
  readonly filter: Filter | undefined;
  readonly strategy: Strategy | undefined;
  readonly view: View;
}

/**
 * It looks at what changed when it is asked for the next pick, so that it costs nothing while nobody picks, and many
 * changes are one. Its pickers go over from one list to the next and keep their place.
 */
export class View {
  readonly #balancer: Balancer;
  readonly #tickets: Tickets;
  readonly #settings: ViewSettings;
  readonly #isLive: boolean;
  #listVersion = 0;
  #healthVersion = 0;
  /** One candidate for each instance that fits. */
  #fitting: readonly ServiceCandidate[] = [];
  /** What the picker chooses from. */
  #bound: readonly Candidate[] = [];
  #picker: Picker | undefined;
  #removedBy: Readonly<Record<string, number>> = {};
  #ejected = 0;
  #panic = false;
  /** Those who are set aside, for a picker that keeps them. */
  #skip: Skip | undefined;
  /** The last one used first. They go over to a new list by themselves. */
  readonly #derived: Derived[] = [];
  /** Before this time no instance of this view is to be tried. */
  #probeFrom = 0;

  constructor(balancer: Balancer, tickets: Tickets, settings: ViewSettings) {
    this.#balancer = balancer;
    this.#tickets = tickets;
    this.#settings = settings;
    this.#isLive = settings.filters.some(({ live }) => live);
  }

  /** One pick. */
  pick(options: PickOptions | undefined): Picked {
    if (options && (options.scheme !== undefined || options.filter || options.strategy)) {
      return this.#derive(options).#pick(options.key, options.exclude);
    }
    return this.#pick(options?.key, options?.exclude);
  }

  /** How many instances could be picked now. */
  get usable(): number {
    this.#sync();
    return this.#fitting.length === 0 ? 0 : this.#panic ? this.#fitting.length : this.#fitting.length - this.#ejected;
  }

  /** Of each instance that fits, set aside or not, the endpoint to call. */
  get fitting(): readonly Candidate[] {
    this.#sync();
    return this.#fitting;
  }

  /** Why nobody fits. */
  get nobody(): NoInstanceError {
    return this.#nobody(0);
  }

  /** A live filter would judge otherwise now. */
  refilter(): void {
    this.#healthVersion = -1;
  }

  /** One more call to an instance that was picked before, while it fits. */
  again({ endpoint }: Picked): Picked | undefined {
    this.#sync();
    const candidate = this.#fitting.find((one) => one.endpoint === endpoint);
    if (!candidate || !this.#picker) return undefined;
    this.#balancer.clock = this.#balancer.tools.now();
    return this.#tickets.issue(candidate, this.#picker, false);
  }

  explain(options: PickOptions | undefined): Explanation {
    if (options && (options.scheme !== undefined || options.filter || options.strategy)) {
      return this.#derive(options).#explain(options);
    }
    return this.#explain(options);
  }

  #pick(key: string | undefined, exclude: ReadonlySet<string> | undefined): Picked {
    const balancer = this.#balancer;
    balancer.clock = balancer.tools.now();
    const { lag } = balancer.tools;
    if (!lag.wanted) lag.want();
    this.#sync();
    const picker = this.#picker;
    if (!picker) throw this.#nobody(0);
    if (this.#settings.strategy.keyed && key === undefined) {
      throw invalid('options.key', `expected a string: ${this.#settings.strategy.name} goes by it`);
    }
    if (balancer.ejector && balancer.ejector.due <= balancer.clock && this.#probeFrom <= balancer.clock) {
      const probe = this.#probe(key, exclude);
      if (probe) return this.#tickets.issue(probe, picker, true);
    }
    const skip = exclude && exclude.size > 0 ? this.#without(exclude) : this.#skip;
    let candidate = picker.pick(key, skip) as ServiceCandidate;
    if (balancer.settings.warmUpMs > 0 && !this.#settings.strategy.keyed) {
      for (let left = TRIES; left > 0 && !this.#isWarm(candidate); left--)
        candidate = picker.pick(key) as ServiceCandidate;
    }
    if (skip?.has(candidate)) candidate = this.#another(picker, key, skip);
    return this.#tickets.issue(candidate, picker, false);
  }

  /** A new instance is passed over by chance, until it is warm. */
  #isWarm({ bornAt }: Candidate): boolean {
    const { clock, settings, tools } = this.#balancer;
    const share = warmth(bornAt, clock, settings.warmUpMs);
    return share >= 1 || tools.random() < share;
  }

  /** One that may be taken, from a picker that knows nothing of `skip`. */
  #another(picker: Picker, key: string | undefined, skip: Skip): ServiceCandidate {
    for (let left = TRIES; left > 0; left--) {
      const candidate = picker.pick(key, skip) as ServiceCandidate;
      if (!skip.has(candidate)) return candidate;
    }
    const { length } = this.#bound;
    const start = Math.floor(this.#balancer.tools.random() * length);
    for (let step = 0; step < length; step++) {
      const candidate = this.#bound[(start + step) % length] as ServiceCandidate;
      if (!skip.has(candidate)) return candidate;
    }
    throw this.#nobody(length);
  }

  /** An instance whose time is over, for one call. Where a key decides, for a call that would be its own. */
  #probe(key: string | undefined, exclude: ReadonlySet<string> | undefined): ServiceCandidate | undefined {
    const { ejector, clock } = this.#balancer;
    const own = this.#settings.strategy.keyed ? [this.#picker?.pick(key) as ServiceCandidate] : this.#fitting;
    for (const candidate of own) {
      const { load, instance } = candidate;
      if (!load.ejected || load.until > clock || exclude?.has(instance.id)) continue;
      if (ejector?.probe(load)) return candidate;
    }
    // It may be an instance that this view does not have: not to look for it at every pick.
    if (!this.#settings.strategy.keyed) this.#probeFrom = clock + PROBE_PAUSE_MS;
    return undefined;
  }

  #without(exclude: ReadonlySet<string>): Skip {
    const aside = this.#skip;
    return {
      left: Math.max(1, (aside?.left ?? this.#bound.length) - exclude.size),
      has: (candidate) => exclude.has(candidate.instance.id) || (aside?.has(candidate) ?? false),
    };
  }

  #sync(): void {
    const { listVersion, healthVersion } = this.#balancer;
    if (this.#listVersion === listVersion && this.#healthVersion === healthVersion) return;
    if (this.#listVersion !== listVersion || this.#isLive) this.#filter();
    this.#listVersion = listVersion;
    this.#healthVersion = healthVersion;
    this.#probeFrom = 0;
    this.#bind();
  }

  #filter(): void {
    const removedBy: Record<string, number> = { ...this.#balancer.unusableBy };
    const count = (by: string, instances: number) => {
      if (instances > 0) removedBy[by] = (removedBy[by] ?? 0) + instances;
    };
    let left: readonly Candidate[] = this.#balancer.candidates;
    let firsts = onePerInstance(left);
    for (const filter of this.#settings.filters) {
      left = filter(left);
      const next = onePerInstance(left);
      count(filter.name || 'filter', firsts.length - next.length);
      firsts = next;
    }
    this.#removedBy = Object.freeze(removedBy);
    this.#fitting = firsts as readonly ServiceCandidate[];
  }

  #bind(): void {
    const fitting = this.#fitting;
    const { strategy } = this.#settings;
    let ejected = 0;
    const isAnyOut = (this.#balancer.ejector?.out.size ?? 0) > 0;
    if (isAnyOut) for (const { load } of fitting) if (load.ejected) ejected++;
    const panic = ejected > 0 && ejected === fitting.length;
    if (panic && !this.#panic) this.#balancer.panics();
    this.#ejected = ejected;
    this.#panic = panic;
    // A ring keeps those who are set aside: their keys come back to them.
    const all = ejected === 0 || panic || strategy.keyed;
    const bound = all ? fitting : fitting.filter(({ load }) => !load.ejected);
    this.#skip =
      all && ejected > 0 && !panic
        ? { left: fitting.length - ejected, has: (candidate) => candidate.load.ejected }
        : undefined;
    if (bound.length === 0) {
      this.#picker = undefined;
      this.#bound = bound;
      return;
    }
    const picker = this.#picker;
    const change = picker?.update ? changeOf(this.#bound, bound) : undefined;
    this.#bound = bound;
    if (picker?.update && (change === undefined || picker.update(change))) return;
    this.#picker = strategy.bind(bound, this.#balancer.forPickers);
  }

  /** The view of picks with these options. */
  #derive({ scheme, filter, strategy }: PickOptions): View {
    const found = this.#derived.findIndex(
      (one) => one.scheme === scheme && one.filter === filter && one.strategy === strategy,
    );
    if (found === 0) return (this.#derived[0] as Derived).view;
    let derived: Derived;
    if (found > 0) {
      derived = this.#derived.splice(found, 1)[0] as Derived;
    } else {
      const filters = [...this.#settings.filters];
      if (scheme !== undefined) filters.push(schemeFilter(scheme));
      if (filter) filters.push(filter);
      const settings = { filters, strategy: strategy ?? this.#settings.strategy };
      derived = { scheme, filter, strategy, view: new View(this.#balancer, this.#tickets, settings) };
    }
    this.#derived.unshift(derived);
    if (this.#derived.length > REMEMBERED) this.#derived.pop();
    return derived.view;
  }

  #nobody(excluded: number): NoInstanceError {
    const { name, list } = this.#balancer;
    const removedBy = excluded > 0 ? { ...this.#removedBy, exclude: excluded } : this.#removedBy;
    const why = Object.entries(removedBy).map(([by, count]) => `${by} took out ${count}`);
    const known = list.length === 0 ? 'the registry has none' : `of ${list.length}, ${why.join(', ') || 'none fits'}`;
    return new NoInstanceError(`no instance of ${name}: ${known}`, {
      service: name,
      known: list.length,
      removedBy,
      ejected: this.#ejected,
      operation: 'pick',
    });
  }

  #explain(options: PickOptions | undefined): Explanation {
    const balancer = this.#balancer;
    balancer.clock = balancer.tools.now();
    this.#sync();
    const { strategy, filters } = this.#settings;
    const { exclude, key } = options ?? {};
    const removed: { instance: ServiceInstance; by: string }[] = balancer.unusable();
    let left: readonly Candidate[] = balancer.candidates;
    let firsts = onePerInstance(left);
    for (const filter of filters) {
      left = filter(left);
      const next = onePerInstance(left);
      const stay = new Set(next.map(({ instance }) => instance));
      for (const { instance } of firsts)
        if (!stay.has(instance)) removed.push({ instance, by: filter.name || 'filter' });
      firsts = next;
    }
    const aside = firsts.filter(({ load }) => load.ejected) as ServiceCandidate[];
    const usable = firsts.filter(({ instance, load }) => {
      if (load.ejected && !this.#panic) return false;
      if (!exclude?.has(instance.id)) return true;
      removed.push({ instance, by: 'exclude' });
      return false;
    });
    const { warmUpMs } = balancer.settings;
    const skip = exclude && exclude.size > 0 ? this.#without(exclude) : this.#skip;
    const picked = strategy.keyed && key !== undefined && usable.length > 0 ? this.#picker?.pick(key, skip) : undefined;
    return {
      service: balancer.name,
      strategy: strategy.name,
      usable: usable.map((candidate) => ({
        instance: candidate.instance,
        endpoint: candidate.endpoint,
        weight: candidate.weight,
        inFlight: candidate.load.inFlight,
        warmth: warmUpMs > 0 ? warmth(candidate.bornAt, balancer.clock, warmUpMs) : 1,
        why: this.#picker?.explain?.(candidate) ?? '',
      })),
      removed,
      ejected: aside.map(({ instance, load }) => ({ instance, forMs: Math.max(0, load.until - balancer.clock) })),
      panic: this.#panic,
      picked: picked?.instance,
    };
  }
}

/** The first endpoint of each instance; they lie side by side. */
function onePerInstance(candidates: readonly Candidate[]): readonly Candidate[] {
  let last: ServiceInstance | undefined;
  let repeated = false;
  for (const { instance } of candidates) {
    if (instance === last) {
      repeated = true;
      break;
    }
    last = instance;
  }
  if (!repeated) return candidates;
  last = undefined;
  return candidates.filter(({ instance }) => {
    const isFirst = instance !== last;
    last = instance;
    return isFirst;
  });
}
