/** What is known of the instances of one service, for all who pick from it. */

import type { Log } from '../common/logger.js';
import type { ServiceInstance, ServiceList } from '../registry/instance.js';
import { placesOf, type ServiceChange } from './diff.js';
import { type EjectionReason, Ejector, type Outcome, type OutlierSettings, type Verdict } from './ejector.js';
import { type Endpoint, isLocal, parseEndpoint } from './endpoint.js';
import type { LagMeter } from './lag.js';
import { LoadRecord } from './load.js';
import type { Candidate, Picker, Tools } from './pick/types.js';

/** A candidate, with what the ejector knows of its address. */
export interface ServiceCandidate extends Candidate {
  readonly load: LoadRecord;
}

/** The clock, chance and more of a balancer. */
export interface BalancerTools {
  now(): number;
  random(): number;
  readonly lag: Pick<LagMeter, 'wanted' | 'want' | 'within'>;
  readonly log: Log;
}

/** What all who pick from a service share. */
export interface BalancerSettings {
  readonly outlier: OutlierSettings | false;
  /** 0: off. */
  readonly warmUpMs: number;
  readonly allowLocal: boolean;
}

/** What a balancer tells. */
export interface BalancerEvents {
  ejected(ejection: Ejection): void;
  restored(instance: ServiceInstance): void;
  panic(): void;
}

/** An instance is set aside. */
export interface Ejection {
  readonly instance: ServiceInstance;
  readonly endpoint: Endpoint;
  readonly reason: EjectionReason;
  /** For how long at least, in milliseconds: then one call tries. */
  readonly forMs: number;
}

/** Why an instance can't be picked by anybody. */
type Unusable = 'endpoint' | 'local' | 'weight';

interface Member {
  readonly instance: ServiceInstance;
  readonly candidates: readonly ServiceCandidate[];
  readonly unusable?: Unusable;
}

/** An address that at least one instance has. */
interface Address {
  readonly load: LoadRecord;
  users: number;
}

/** What was known of an instance that left. */
interface Departed {
  readonly load: LoadRecord;
  readonly bornAt: number;
}

/** The weight of an instance that has none. */
const WEIGHT = 100;
const MOST_WEIGHT = 1_000_000;
/** Instances that left and may come back as they were; over it the oldest goes. */
const DEPARTED = 256;

/**
 * The instances of one service: candidates out of them, what is known of their addresses, and who is set aside. All users
 * of the service share it; each picks through a `View`.
 *
 * Only what changed is made anew: an instance that is the very same object keeps its candidates, and a changed one keeps
 * what is known of its addresses.
 */
export class Balancer {
  /** Grows with every list. */
  listVersion = 0;
  /** Grows with every ejection and restoration. */
  healthVersion = 0;
  /** The endpoints of all instances that can be called, those of one instance side by side. */
  candidates: readonly ServiceCandidate[] = [];
  /** How many instances can't be picked by anybody, and why. */
  unusableBy: Readonly<Record<string, number>> = {};
  /** Calls under way. */
  inFlight = 0;
  /** The time of the last pick or done: the clock is read once for each. */
  clock: number;
  readonly name: string;
  readonly settings: BalancerSettings;
  readonly tools: BalancerTools;
  /** What pickers are given. */
  readonly forPickers: Tools;
  readonly ejector: Ejector | undefined;
  #list: ServiceList = [];
  #members: readonly Member[] = [];
  #hasList = false;
  readonly #events: BalancerEvents;
  readonly #addresses = new Map<string, Address>();
  readonly #known = new Set<LoadRecord>();
  readonly #departed = new Map<string, Departed>();
  readonly #told = new Set<string>();

  constructor(name: string, settings: BalancerSettings, tools: BalancerTools, events: BalancerEvents) {
    this.name = name;
    this.settings = settings;
    this.tools = tools;
    this.#events = events;
    this.clock = tools.now();
    this.forPickers = { now: () => this.clock, random: tools.random, inFlight: () => this.inFlight };
    if (settings.outlier) this.ejector = new Ejector(settings.outlier, () => this.clock);
  }

  /** The list as it was set. */
  get list(): ServiceList {
    return this.#list;
  }

  /** What nobody can pick, and why. */
  unusable(): { instance: ServiceInstance; by: string }[] {
    return this.#members.flatMap(({ instance, unusable }) => (unusable ? [{ instance, by: unusable }] : []));
  }

  /** Goes over to a list, which is sorted by id; gives what is other in it. */
  setList(list: ServiceList): ServiceChange {
    const before = this.#members;
    this.clock = this.tools.now();
    const { kept, gone } = placesOf<{ id: string }>(this.#list, list, (instance) => instance);
    const bornAt = this.#hasList && before.length > 0 ? this.clock : Number.NEGATIVE_INFINITY;
    const [added, updated]: [ServiceInstance[], ServiceInstance[]] = [[], []];
    // First who is gone: a new id at the address of an old one is another process.
    for (const place of gone) for (const candidate of before[place]?.candidates ?? []) this.#drop(candidate);
    const members = new Array<Member>(list.length);
    const candidates: ServiceCandidate[] = [];
    const unusableBy: Record<string, number> = {};
    for (let place = 0; place < list.length; place++) {
      const instance = list[place] as ServiceInstance;
      const old = before[kept[place] as number];
      let member = old;
      if (!member || member.instance !== instance) {
        (old ? updated : added).push(instance);
        member = this.#member(instance, bornAt, old);
      }
      members[place] = member;
      for (const candidate of member.candidates) candidates.push(candidate);
      if (member.unusable) unusableBy[member.unusable] = (unusableBy[member.unusable] ?? 0) + 1;
    }
    const removed = gone.map((place) => this.#list[place] as ServiceInstance);
    this.#hasList = true;
    this.#list = list;
    this.#members = members;
    this.candidates = candidates;
    this.unusableBy = unusableBy;
    this.listVersion++;
    return Object.freeze({ list, added, removed, updated });
  }

  /** A call is done: what is told of it goes to the strategy and to the ejector. */
  done(
    candidate: ServiceCandidate,
    picker: Picker,
    told: { outcome: Outcome; latencyMs: number; startedAt: number; isProbe: boolean },
  ): void {
    const { load } = candidate;
    const { latencyMs, startedAt, isProbe } = told;
    const { lag } = this.tools;
    // Answers that waited for a blocked loop, and deadlines that ran out meanwhile, say nothing of the instance.
    const isBlurred = told.outcome !== 'refused' && latencyMs > 0 && latencyMs <= 2 * lag.within(startedAt, this.clock);
    const outcome = isBlurred && told.outcome === 'failure' ? 'cancelled' : told.outcome;
    if (outcome !== 'cancelled' && !isBlurred) picker.feed?.(candidate, latencyMs, outcome !== 'success');
    const verdicts = this.ejector?.note(load, outcome, this.#known, startedAt, isProbe);
    if (verdicts && verdicts.length > 0) this.#apply(verdicts);
  }

  /** A view found that all of its instances are set aside. */
  panics(): void {
    this.#events.panic();
  }

  /** Says something about the service, once. */
  tellOnce(what: string, message: string): void {
    if (this.#told.has(what)) return;
    this.#told.add(what);
    this.tools.log.write('warn', `${this.name}: ${message}`);
  }

  #apply(verdicts: readonly Verdict[]): void {
    this.healthVersion++;
    for (const { load, reason } of verdicts) {
      for (const { instance, endpoint, load: own } of this.candidates) {
        if (own !== load) continue;
        if (reason === undefined) this.#events.restored(instance);
        else
          this.#events.ejected(
            Object.freeze({ instance, endpoint, reason, forMs: Math.round(load.until - load.ejectedAt) }),
          );
      }
    }
  }

  #member(instance: ServiceInstance, bornAt: number, old: Member | undefined): Member {
    const given = weightOf(instance.metadata.weight);
    if (given === undefined) {
      const what = 'metadata.weight of an instance is not a number from 0 to 1,000,000: 100 is taken in its place';
      this.tellOnce('weight', `${what} (${instance.id})`);
    }
    const weight = given ?? WEIGHT;
    const candidates: ServiceCandidate[] = [];
    let local = 0;
    for (const url of weight === 0 ? [] : instance.endpoints) {
      const endpoint = parseEndpoint(url);
      if (!endpoint)
        this.tellOnce('endpoint', `an endpoint has no host and port that could be called (${instance.id})`);
      else if (!this.settings.allowLocal && isLocal(endpoint)) local++;
      else {
        const known = old?.candidates.find((candidate) => addressOf(candidate.endpoint) === addressOf(endpoint));
        const { load, bornAt: since } = known ?? this.#back(instance.id, endpoint) ?? this.#new(endpoint, bornAt);
        this.#use(endpoint, load);
        candidates.push({ instance, endpoint, weight, bornAt: since, load });
      }
    }
    for (const candidate of old?.candidates ?? []) this.#drop(candidate);
    if (local > 0) {
      const why =
        'loopback and link-local addresses and Unix sockets are another place for each caller: see allowLocal';
      this.tellOnce('local', `endpoints are left out: ${why} (${instance.id})`);
    }
    if (candidates.length > 0) return { instance, candidates };
    return { instance, candidates, unusable: weight === 0 ? 'weight' : local > 0 ? 'local' : 'endpoint' };
  }

  /** What another instance at the address is known for; else nothing. */
  #new(endpoint: Endpoint, bornAt: number): Departed {
    return { load: this.#addresses.get(addressOf(endpoint))?.load ?? new LoadRecord(), bornAt };
  }

  #back(id: string, endpoint: Endpoint): Departed | undefined {
    const key = `${id}\n${addressOf(endpoint)}`;
    const departed = this.#departed.get(key);
    if (!departed || this.#addresses.has(addressOf(endpoint))) return undefined;
    this.#departed.delete(key);
    return departed;
  }

  #use(endpoint: Endpoint, load: LoadRecord): void {
    const key = addressOf(endpoint);
    const address = this.#addresses.get(key);
    if (address) {
      address.users++;
      return;
    }
    this.#addresses.set(key, { load, users: 1 });
    this.#known.add(load);
    this.ejector?.remember(load);
  }

  #drop({ instance, endpoint, load, bornAt }: ServiceCandidate): void {
    const key = addressOf(endpoint);
    const address = this.#addresses.get(key);
    if (!address || --address.users > 0) return;
    this.#addresses.delete(key);
    this.#known.delete(load);
    this.ejector?.forget(load);
    this.#departed.set(`${instance.id}\n${key}`, { load, bornAt });
    if (this.#departed.size > DEPARTED) this.#departed.delete(this.#departed.keys().next().value as string);
  }
}

const addressOf = ({ scheme, host, port, path }: Endpoint): string =>
  scheme === 'unix' ? `unix:${path}` : `${scheme}://${host}:${port}`;

/** `undefined` for what is no weight. */
function weightOf(text: string | undefined): number | undefined {
  if (text === undefined) return WEIGHT;
  const weight = /^\d{1,9}(\.\d{1,9})?$/.test(text) ? Number(text) : Number.NaN;
  return weight >= 0 && weight <= MOST_WEIGHT ? weight : undefined;
}
