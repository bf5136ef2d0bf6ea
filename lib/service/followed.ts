/** One service as all of its users share it. */

import { isDeepStrictEqual } from 'node:util';
import { onAbort } from '../common/abort.js';
import { after, now } from '../common/clock.js';
import { fromNative } from '../common/failure.js';
import type { Log } from '../common/logger.js';
import { aborted, type NoInstanceError, type RollcallError, TimeoutError } from '../errors.js';
import type { ServiceInstance, ServiceList } from '../registry/instance.js';
import type { Teller } from '../registry/observe.js';
import type { Watcher } from '../registry/watcher.js';
import { Balancer, type Ejection } from './balance.js';
import { RetryBudget } from './budget.js';
import type { ServiceChange } from './diff.js';
import { lag } from './lag.js';
import type { ServiceMetrics } from './metrics.js';
import { DEFAULT_VIEW, type SharedSettings } from './options.js';
import { Tickets } from './ticket.js';
import { View, type ViewSettings } from './view.js';

/** What is needed of a registry. */
export interface ServiceSource {
  /** Follows a name. `refused` hears that the registry refuses, and is asked again. Doesn't keep the process alive. */
  watch(name: string, refused: (error: RollcallError) => void): Watcher;
  /** Keeps the process alive until `release()` of the same object. */
  hold(waiting: object): void;
  release(waiting: object): void;
  readonly log: Log;
  readonly timeoutMs: number;
  /** Tells the observer, if there is one. */
  readonly teller?: Teller | undefined;
  /** The default of the option. */
  readonly allowLocal: boolean;
}

/** What a cache tells. */
export interface ServiceCacheEvents {
  /** The list is another: after the first one, which `ready()` waits for. */
  change: [change: ServiceChange];
  /** The registry can't be reached, or isn't believed yet: the last list stays. */
  stale: [];
  /** The list is again what the registry says. */
  fresh: [];
  /** An instance is set aside because calls to it failed. */
  ejected: [ejection: Ejection];
  /** It is back. */
  restored: [instance: ServiceInstance];
  /** All instances that fit are set aside, so that all of them are used. */
  panic: [];
}

/** Who hears what a service tells. */
interface Listener {
  tell<E extends keyof ServiceCacheEvents>(event: E, ...args: ServiceCacheEvents[E]): void;
}

/** Who keeps the services. */
interface Lifetime {
  /** Its last user let go. */
  left(service: SharedService): void;
  /** It has a user again. */
  joined(service: SharedService): void;
}

/** For so long, in milliseconds, the native side is not asked again: a question takes as long as several picks. */
const NEWS_MS = 1;

/** One service: its watch, its list, its balancer. */
export class SharedService {
  readonly name: string;
  readonly settings: SharedSettings;
  readonly budget = new RetryBudget({}, now);
  /** How many caches there are of it. */
  users = 0;
  retries = 0;
  /** The registry was closed, or nobody uses it any more. */
  closed = false;
  readonly #source: ServiceSource;
  readonly #lifetime: Lifetime;
  readonly #balancer: Balancer;
  readonly #tickets: Tickets;
  readonly #watcher: Watcher;
  readonly #listeners = new Set<Listener>();
  readonly #waits = new Set<() => void>();
  #ejections = 0;
  #usual: View | undefined;
  #list: ServiceList | undefined;
  #askedAt = Number.NEGATIVE_INFINITY;
  #refusal: RollcallError | undefined;

  constructor(name: string, settings: SharedSettings, source: ServiceSource, lifetime: Lifetime) {
    this.name = name;
    this.settings = settings;
    this.#source = source;
    this.#lifetime = lifetime;
    const tools = { now, random: Math.random, lag, log: source.log };
    this.#balancer = new Balancer(name, settings, tools, {
      ejected: (ejection) => {
        this.#ejections++;
        this.#tell('ejected', ejection);
        this.wake();
      },
      restored: (instance) => {
        this.#tell('restored', instance);
        this.wake();
      },
      panic: () => this.#tell('panic'),
    });
    this.#tickets = new Tickets(this.#balancer);
    this.#watcher = source.watch(name, (error) => {
      this.#refusal = error;
      this.wake();
    });
    this.#watcher.on('stale', () => this.#tell('stale')).on('fresh', () => this.#tell('fresh'));
    // Where the registry follows the name already, its list is there, stale or not.
    const known = this.#watcher.current;
    if (known) this.#take(known);
    void this.#follow();
  }

  /** The latest list; `undefined` before the first one. */
  get list(): ServiceList | undefined {
    return this.#list;
  }

  get log(): Log {
    return this.#source.log;
  }

  get teller(): Teller | undefined {
    return this.#source.teller;
  }

  get timeoutMs(): number {
    return this.#source.timeoutMs;
  }

  get state(): 'loading' | 'live' | 'stale' | 'refused' {
    if (this.#isRefused) return 'refused';
    if (!this.#list) return 'loading';
    return this.closed || this.#watcher.stale ? 'stale' : 'live';
  }

  get #isRefused(): boolean {
    return this.#refusal !== undefined && (this.closed || this.#watcher.refused);
  }

  /** Throws what the registry refuses with, if it does. */
  refuse(): void {
    if (this.#isRefused) throw this.#refusal;
  }

  /** The view of users without options of their own. */
  get usual(): View {
    this.#usual ??= this.view(DEFAULT_VIEW);
    return this.#usual;
  }

  /** A view of one user. */
  view(settings: ViewSettings): View {
    return new View(this.#balancer, this.#tickets, settings);
  }

  /** Whether these are what it was opened with. */
  fits(shared: Partial<SharedSettings>): boolean {
    return Object.entries(shared).every(([key, value]) =>
      isDeepStrictEqual(value, this.settings[key as keyof SharedSettings]),
    );
  }

  join(): void {
    if (this.users++ === 0) this.#lifetime.joined(this);
  }

  leave(): void {
    if (--this.users === 0) this.#lifetime.left(this);
  }

  listen(cache: Listener): void {
    this.#listeners.add(cache);
  }

  unlisten(cache: Listener): void {
    this.#listeners.delete(cache);
  }

  metrics(): ServiceMetrics {
    const { picks } = this.#tickets;
    const budget = Math.floor(this.budget.balance);
    return { picks, inFlight: this.#balancer.inFlight, ejections: this.#ejections, retries: this.retries, budget };
  }

  /** Nothing more comes. */
  end(): void {
    if (this.closed) return;
    this.closed = true;
    this.#watcher.stop();
    this.#listeners.clear();
    this.wake();
  }

  /**
   * Takes over the list that the native side has. It hears of a change at once, and this thread when its turn comes: on a busy
   * machine that is too late for a request to an instance that has left.
   */
  refresh(): void {
    const at = now();
    if (at - this.#askedAt < NEWS_MS) return;
    this.#askedAt = at;
    const list = this.closed ? undefined : this.#watcher.current;
    if (list) this.#take(list);
  }

  /** Calls back with those who wait, and keeps no process alive. */
  onWake(look: () => void): () => void {
    this.#waits.add(look);
    return () => void this.#waits.delete(look);
  }

  /** Those who wait look again. */
  wake(): void {
    for (const look of [...this.#waits]) look();
  }

  /**
   * Waits until `test` gives something. It looks now, and again whenever something has changed.
   *
   * @throws what `test` throws; `ERR_ABORTED`; when the time is over what `late` gives, else `ERR_TIMEOUT`.
   */
  until<T>(
    operation: string,
    test: () => T | undefined,
    timeoutMs: number,
    signal: AbortSignal | undefined,
    late: () => NoInstanceError | undefined = () => undefined,
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (signal?.aborted) throw aborted(signal, operation);
      const first = test();
      if (first !== undefined) {
        resolve(first);
        return;
      }
      const over = () =>
        late() ?? new TimeoutError(`${operation}: ${this.name} is not ready within ${timeoutMs} ms`, { operation });
      if (timeoutMs === 0) throw over();

      const stop = after(timeoutMs, () => end(() => reject(over()))); // keeps no process alive: the hold does
      const unlisten = signal ? onAbort(signal, () => end(() => reject(aborted(signal, operation)))) : () => {};
      const look = () => {
        try {
          const found = test();
          if (found !== undefined) end(() => resolve(found));
        } catch (error) {
          end(() => reject(error));
        }
      };
      const end = (settle: () => void) => {
        this.#waits.delete(look);
        this.#source.release(look);
        stop();
        unlisten();
        settle();
      };
      this.#waits.add(look);
      this.#source.hold(look);
    });
  }

  async #follow(): Promise<void> {
    try {
      for await (const list of this.#watcher) this.#take(list);
    } catch (error) {
      this.#refusal = fromNative(error, 'service');
    }
    this.end(); // the registry was closed
  }

  #take(list: ServiceList): void {
    if (list === this.#list) return;
    const isFirst = this.#list === undefined;
    const change = this.#balancer.setList(list);
    this.#list = list;
    this.#refusal = undefined;
    if (!isFirst) this.#tell('change', change);
    this.wake();
  }

  #tell<E extends keyof ServiceCacheEvents>(event: E, ...args: ServiceCacheEvents[E]): void {
    for (const cache of [...this.#listeners]) cache.tell(event, ...args);
  }
}
