/** The breakers of a program, by their names. */

import { Harmless } from '../common/harmless.js';
import { type Log, logOf } from '../common/logger.js';
import { integer, invalid, kindOf, onlyKnown, optional, text } from '../common/shape.js';
import type { Coord } from '../coord/index.js';
import { Events } from '../registry/events.js';
import { Breaker, type BreakerState, type Shared } from './breaker.js';
import type { BreakerOpenError } from './errors.js';
import { isFailure } from './failures.js';
import { type GrpcInterceptor, type GrpcName, grpcInterceptor } from './grpc.js';
import { type InstanceBreakers, instanceBreakers, type PickedFrom } from './instances.js';
import { Policies, type PoliciesRef } from './policies.js';
import { type Policy, rulesOf } from './policy.js';
import { type UndiciInterceptor, type UndiciName, undiciInterceptor } from './undici.js';

/** Policies that lie in the store of `rollcall/coord`, each below `path` by the name of its breaker, such as `users.json`. */
export interface StoredPolicies {
  readonly coord: Pick<Coord, 'config'>;
  /** Such as `/config/{env}/{service}/breakers/`. */
  readonly path: string;
}

/** How breakers are made. */
export interface BreakersOptions {
  /**
   * Policies by the names of breakers: as they are, or what changes them. The name `default` stands for all that have none, and a
   * `.json` at the end of a name is left out. Default: none.
   */
  policies?: Readonly<Record<string, Policy>> | PoliciesRef | StoredPolicies | undefined;
  /** The policy of who has none. Default: each field of it by its default. */
  default?: Policy | undefined;
  /**
   * Whether what was thrown is a failure of who was called. Default: everything but what a caller has ended, such as an `AbortError`, codes of
   * gRPC such as `INVALID_ARGUMENT` and `NOT_FOUND`, and errors with an HTTP status below 500. What a caller has ended and is no failure counts
   * as no success either. It is not async.
   */
  isFailure?: ((error: unknown) => boolean) | undefined;
  /** How many breakers are kept, at least 1: then those that were not asked for the longest are forgotten. Default 1024. */
  maxKeys?: number | undefined;
  /** Where to log; `false` for silence. Default: `console`. */
  logger?: unknown;
}

/** The events of breakers. */
export interface BreakersEvents {
  /** One has changed its state. */
  state: [
    change: { readonly name: string; readonly from: BreakerState; readonly to: BreakerState; readonly why: string },
  ];
  /** One has refused a call. */
  rejected: [error: BreakerOpenError];
  /** The policies have changed. */
  policies: [];
  /** A policy is wrong: the one before it stays. */
  refused: [name: string, error: Error];
}

const EVENTS = ['state', 'rejected', 'policies', 'refused'] as const;
const OPTIONS = ['policies', 'default', 'isFailure', 'maxKeys', 'logger'] as const;

/** Breakers by name. Enter at `createBreakers()`. */
export class Breakers {
  readonly #events: Events<BreakersEvents>;
  /** When there are as many as may be: the one that was asked for the longest ago first. */
  #breakers = new Map<string, Breaker>();
  #asked = 0;
  #isFull = false;
  readonly #maxKeys: number;
  readonly #log: Log;
  readonly #policies: Policies;
  readonly #shared: Shared;

  /** @internal */
  constructor(options: BreakersOptions | undefined) {
    const given = optional('options', options);
    onlyKnown('options', given, OPTIONS);
    this.#maxKeys = integer('options.maxKeys', given.maxKeys, 1024, { min: 1, max: 1_000_000 });
    this.#log = logOf('options.logger', given.logger);
    this.#events = new Events<BreakersEvents>(EVENTS, this.#log);
    const judge = given.isFailure ?? isFailure;
    if (typeof judge !== 'function') throw invalid('options.isFailure', `expected a function, got ${kindOf(judge)}`);
    const hearer = {
      log: this.#log,
      changed: () => this.#events.deliver('policies'),
      refused: (name: string, error: Error) => this.#events.deliver('refused', name, error),
    };
    this.#policies = new Policies(rulesOf('options.default', given.default ?? {}), hearer, given.policies);
    this.#shared = this.#share(judge as (error: unknown) => boolean);
  }

  /** The breaker of this name, made at the first call. */
  get(name: string): Breaker {
    const known = this.#breakers.get(name);
    if (known) {
      if (this.#breakers.size === this.#maxKeys) {
        // Only where some are forgotten is the order kept: it takes as long as all else of this.
        this.#breakers.delete(name);
        this.#breakers.set(name, known);
      } else {
        known.asked = ++this.#asked;
      }
      return known;
    }
    if (text('name', name) === undefined) throw invalid('name', 'expected a string, got undefined');
    if (this.#breakers.size >= this.#maxKeys) this.#forget();
    const breaker = new Breaker(name, this.#shared);
    breaker.asked = ++this.#asked;
    this.#breakers.set(name, breaker);
    if (this.#breakers.size === this.#maxKeys && !this.#isFull) this.#order();
    return breaker;
  }

  /**
   * Resolves when the policies of a store were read; at once without. Until then breakers go by `default`. Where the store can't be reached they
   * are taken when it is there.
   *
   * @throws as `config.open()`.
   */
  ready(): Promise<void> {
    return this.#policies.ready();
  }

  /**
   * An interceptor for `interceptors` of a client of `@grpc/grpc-js`, 1.10 or later. Each method has a breaker of its own: `name` is the
   * service in `grpc:<service>:<method>`, or makes the name of the path of the method. Default: the service of the path. A call
   * that is refused ends with `UNAVAILABLE`; one that is cancelled counts neither way. `timeoutMs` is not for it: set a deadline.
   *
   * @throws `ERR_INVALID_ARGUMENT`.
   */
  grpcInterceptor(name?: GrpcName): GrpcInterceptor {
    return grpcInterceptor((of) => this.get(of), name);
  }

  /**
   * An interceptor for `compose()` of a dispatcher of undici 6, 7 or 8. Each host has a breaker of its own, `http:<host>`, unless `name`
   * says otherwise. A request that is refused fails with the `BreakerOpenError`; a status of 500 and above is a failure; a request
   * that is aborted counts neither way. `timeoutMs` is not for it: undici has its own.
   *
   * @throws `ERR_INVALID_ARGUMENT`.
   */
  undici(name?: UndiciName): UndiciInterceptor {
    return undiciInterceptor((of) => this.get(of), name);
  }

  /**
   * Breakers for the instances of a service that is called by name, one for each: `<service>/<id>`. It goes by the policy of that name,
   * else by that of the service, so one `force` can take one instance, or all of them, out of the calls of a fleet. The ejection of
   * the service goes on beside them: `outlier: false` leaves it to the breakers.
   *
   * @throws `ERR_INVALID_ARGUMENT`.
   */
  instancesOf(service: PickedFrom): InstanceBreakers {
    return instanceBreakers((of) => this.get(of), service);
  }

  on<E extends keyof BreakersEvents>(event: E, listener: (...args: BreakersEvents[E]) => void): this {
    this.#events.add(event, listener, false);
    return this;
  }

  off<E extends keyof BreakersEvents>(event: E, listener: (...args: BreakersEvents[E]) => void): this {
    this.#events.remove(event, listener);
    return this;
  }

  /** Hears of no other policies any more. The breakers go on with those that they have. */
  close(): void {
    this.#policies.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #share(judge: (error: unknown) => boolean): Shared {
    const events = this.#events;
    const harmless = new Harmless('isFailure', this.#log);
    return {
      policies: this.#policies,
      isFailure(error) {
        let told: unknown = true; // it was to say that it is none
        harmless.try(() => {
          told = judge(error);
          return told;
        });
        return Boolean(told);
      },
      moved: (name, from, to, why) => events.deliver('state', { name, from, to, why }),
      refused: (_, error) => events.deliver('rejected', error),
    };
  }

  /** Puts them in the order in which they were asked for, from where on it is kept. */
  #order(): void {
    this.#isFull = true;
    this.#breakers = new Map([...this.#breakers].sort(([, a], [, b]) => a.asked - b.asked));
  }

  #forget(): void {
    for (const [name, breaker] of this.#breakers) {
      if (breaker.state !== 'closed') continue;
      this.#breakers.delete(name);
      return;
    }
    const [oldest] = this.#breakers.keys();
    this.#breakers.delete(oldest as string);
  }
}
