/** Methods that run while this instance of the program leads an election. */

import { invalid, kindOf, onlyKnown, optional } from '../common/shape.js';
import type { Campaign, CampaignOptions, Coord, Guard, Held } from '../coord/index.js';
import { AbortedError, type RollcallError } from '../errors.js';
import { lockOptions, locks } from './locks.js';
import type { AppLogger } from './logger.js';
import { around, FilledParameter, type Method, type Place } from './methods.js';
import { explained } from './open.js';
import { LEAVING_MS, Running, stillRun } from './running.js';

/** How this instance stands for election. Methods of one election have the same, or one of them has them. */
export interface LeaderOnlyOptions extends Omit<CampaignOptions, 'keepCampaigning'> {
  /** What others learn of the leader, such as its address. Default: `instance` of the client, if it has one. */
  value?: string | undefined;
}

const KNOWN = ['value', 'ttlMs', 'stallTimeoutMs'] as const;

/** The parameter that gets the term. */
export const HELD_TERM = new FilledParameter('@HeldTerm');

/** What a decorated method has. */
export interface LeaderMark {
  /** Which election; `undefined`: that of the service. */
  readonly election: string | undefined;
  readonly options: LeaderOnlyOptions;
  readonly path: string;
}

/** A term in which this instance leads. */
export class Term {
  readonly #held: Held;
  readonly #leaving: AbortSignal;
  #signal: AbortSignal | undefined;

  /** @internal */
  constructor(held: Held, leaving: AbortSignal) {
    this.#held = held;
    this.#leaving = leaving;
  }

  /** The fencing token, higher than that of every leader before. */
  get token(): bigint {
    return this.#held.token;
  }

  /** Whether it leads at this moment, by the clock. */
  get isHeld(): boolean {
    return this.#held.isHeld;
  }

  /** How many milliseconds it leads without another renewal; 0 when it does not. */
  get remainingMs(): number {
    return this.#held.remainingMs;
  }

  /**
   * Fires when it leads no more, with a `LockLostError`, as `signal` of what is held under a lock does; and with an `AbortedError` when
   * the application stops: then it still leads, for ten seconds at the most, until the methods have come to their end.
   */
  get signal(): AbortSignal {
    this.#signal ??= AbortSignal.any([this.#held.signal, this.#leaving]);
    return this.#signal;
  }

  /** A compare for a transaction of `rollcall/etcd`: see `Held.guard()`. */
  guard(): Guard {
    return this.#held.guard();
  }
}

/** An election in which this instance stands. */
interface Standing {
  readonly name: string;
  readonly options: LeaderOnlyOptions;
  readonly campaign: Campaign;
  readonly running: Running;
  held?: Held;
  failure?: RollcallError;
}

/** The elections of an application: one campaign for each, from the start of the application to its end. */
export class Leadership {
  readonly #coord: Coord;
  readonly #log: AppLogger;
  readonly #standing = new Map<string, Standing>();
  readonly #leaving = new AbortController();
  #isStarted = false;

  constructor(coord: Coord, log: AppLogger) {
    this.#coord = coord;
    this.#log = log;
  }

  /** Stands for the elections of these methods. @throws `ERR_INVALID_ARGUMENT` where two of an election don't agree. */
  start(marks: Iterable<LeaderMark>): void {
    const all = [...marks].map((mark) => ({ mark, name: this.#nameOf(mark) }));
    const asked = new Map<string, LeaderMark>();
    for (const { mark, name } of all) {
      const known = asked.get(name);
      if (known) refuseOther(mark, known.options, name, known.path);
      asked.set(name, known ? { ...known, options: { ...known.options, ...mark.options } } : mark);
    }
    this.#isStarted = true;
    for (const [name, mark] of asked) this.#stand(name, mark);
  }

  /** Runs `work` if this instance leads; else it is not run, and `undefined`. Rejects where it led no more before that was done. */
  async run<T>(mark: LeaderMark, work: (term: Term) => Promise<T>): Promise<T | undefined> {
    if (!this.#isStarted || this.#leaving.signal.aborted) return undefined;
    const name = this.#nameOf(mark);
    // One that was not found at the start: a class that is made later.
    const standing = this.#standing.get(name) ?? this.#stand(name, mark);
    refuseOther(mark, standing.options, name, 'another method');
    const { held, running } = standing;
    if (!held?.isHeld) return undefined;
    return await running.run(async () => await locks().unlost(held, () => work(new Term(held, this.#leaving.signal))));
  }

  /** The elections in which this instance leads now. */
  get leads(): string[] {
    return this.#names(({ held }) => held?.isHeld === true);
  }

  /** The elections for which the store lets this instance not stand. */
  get refused(): string[] {
    return this.#names(({ failure }) => failure !== undefined);
  }

  /**
   * Begins no method any more, tells those that run by the signal of their term, waits for them, and lets another lead. Where one
   * does not come to its end in ten seconds, another leads when coord is closed. Never rejects.
   */
  async leave(): Promise<void> {
    if (this.#leaving.signal.aborted) return;
    this.#leaving.abort(new AbortedError('the application is stopping'));
    await Promise.all(
      [...this.#standing.values()].map(async ({ name, campaign, running }) => {
        const count = await running.over(LEAVING_MS);
        if (count > 0) {
          this.#log.warn(`${stillRun(count)} as leader of ${name}: another leads when coord is closed`);
          return;
        }
        await campaign
          .resign()
          .catch((error) => this.#log.warn(`${name}: another leads after the time to live: ${error.message}`));
      }),
    );
  }

  #stand(name: string, { options }: LeaderMark): Standing {
    const value = this.#coord.identity?.instance;
    const campaign = this.#coord.elections.campaign(name, { value, ...options });
    const standing: Standing = { name, options, campaign, running: new Running() };
    this.#standing.set(name, standing);
    campaign.on('elected', (held) => {
      standing.held = held;
      this.#log.log(`this instance leads ${name}, with token ${held.token}`);
    });
    campaign.on('lost', ({ message }) => {
      this.#log.warn(`this instance does not lead ${name} any more, and stands for it again: ${message}`);
    });
    campaign.on('failed', (error) => {
      standing.failure = error;
      this.#log.error(`this instance can not stand for ${name}, and runs none of its methods: ${error.message}`);
    });
    return standing;
  }

  #nameOf({ election, path }: LeaderMark): string {
    if (election !== undefined) return election;
    const { service, env } = this.#coord.identity ?? {};
    if (service !== undefined) return env === undefined ? service : `${env}:${service}`;
    throw invalid(path, 'expected the name of an election, or the option service of coord, whose election it is then');
  }

  #names(fits: (standing: Standing) => boolean): string[] {
    return [...this.#standing.values()].filter(fits).map(({ name }) => name);
  }
}

function refuseOther({ path, options }: LeaderMark, known: LeaderOnlyOptions, name: string, other: string): void {
  for (const each of KNOWN) {
    if (options[each] === undefined || known[each] === undefined || options[each] === known[each]) continue;
    throw invalid(`${path}: options.${each}`, `expected that of ${other}, since both are of the election ${name}`);
  }
}

/**
 * What stands in the place of a method that runs only while its instance leads, and what it stands for. `leadershipOf` gives the
 * elections of the application that an object is of.
 *
 * @throws `ERR_INVALID_ARGUMENT`.
 */
export function leaderMethod(
  place: Place,
  election: string | undefined,
  given: LeaderOnlyOptions | undefined,
  leadershipOf: (self: object) => Leadership,
): { method: Method; mark: LeaderMark } {
  const mark = { election, options: checked(place, election, given), path: place.path };
  const method = around(place.method, async (self, args) => {
    return await leadershipOf(self).run(mark, async (term) => {
      return await place.method.apply(
        self,
        HELD_TERM.fill(place, args, () => term),
      );
    });
  });
  return { method, mark };
}

function checked({ path }: Place, election: unknown, given: unknown): LeaderOnlyOptions {
  try {
    if (election !== undefined) lockOptions().pathOf('election', '/', election);
    const bag = optional('options', given);
    onlyKnown('options', bag, KNOWN);
    const { value, ...how } = bag;
    lockOptions().holding(how);
    if (value !== undefined && typeof value !== 'string') {
      throw invalid('options.value', `expected a string, got ${kindOf(value)}`);
    }
    return Object.fromEntries(Object.entries(bag).filter(([, one]) => one !== undefined));
  } catch (error) {
    throw explained(path, error);
  }
}
