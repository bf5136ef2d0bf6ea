/** A service to be called: its latest list, and one instance of it at a time. Loaded with the first `registry.service()`. */

import { abortSignal, integer, onlyKnown, optional } from '../common/shape.js';
import { ClosedError, NoInstanceError } from '../errors.js';
import { checked } from '../registry/call.js';
import { Events } from '../registry/events.js';
import type { ServiceList } from '../registry/instance.js';
import type { Tally } from '../registry/observe.js';
import type { RetryBudget } from './budget.js';
import type { ServiceCacheEvents, SharedService } from './followed.js';
import type { FetchOfService, ServiceRequestInit } from './http.js';
import type { ServiceMetrics } from './metrics.js';
import { checkPick } from './options.js';
import type { Candidate } from './pick/types.js';
import type { Picked } from './ticket.js';
import type { Explanation, PickOptions, View } from './view.js';

/** Of lib/http, once it was loaded. */
let fetchOfService: FetchOfService | undefined;

/** Where a cache is. */
export type ServiceCacheState =
  /** The first list has not come. */
  | 'loading'
  /** The list is what the registry says. */
  | 'live'
  /** The registry can't be reached, isn't believed yet, or was closed: the last list is used. */
  | 'stale'
  /** The registry refuses to tell of the service, and is asked again. A list that had come is used. */
  | 'refused'
  /** It was let go, or the registry was closed before the first list. */
  | 'released';

/** Options of `ready()`. */
export interface ReadyOptions {
  /** In milliseconds. Default: `timeoutMs` of the registry. */
  timeoutMs?: number | undefined;
  /** Ends the wait with `ERR_ABORTED`. */
  signal?: AbortSignal | undefined;
  /** Waits for so many instances that could be picked. Default 0: for the first list. */
  min?: number | undefined;
}

/** Options of `waitFor()`. */
export interface WaitForOptions extends PickOptions {
  /** For how long to wait, in milliseconds; 0: not at all. Required. */
  waitForReadyMs: number;
  /** Ends the wait with `ERR_ABORTED`. */
  signal?: AbortSignal | undefined;
}

const EVENTS = ['change', 'stale', 'fresh', 'ejected', 'restored', 'panic'] as const;
const VOIDS = { stale: ['stale', 'fresh'], fresh: ['stale', 'fresh'] };

/** What a cache holds of its service: given back once, by `release()` or with the cache as garbage. */
interface Hold {
  readonly service: SharedService;
  isOver: boolean;
}

function giveBack(hold: Hold): void {
  if (hold.isOver) return;
  hold.isOver = true;
  hold.service.leave();
}

const garbage = new FinalizationRegistry<Hold>(giveBack);

/**
 * A service to be called, made by `registry.service()`. All caches of one name of a registry share its watch, its list and
 * what is known of its instances; filters and strategy are of each.
 *
 * It does not keep the process alive, except while `ready()` or `waitFor()` waits. It is let go by `release()`, with the
 * registry, or as garbage when it has no listeners.
 */
export class ServiceCache {
  /** The service. */
  readonly name: string;
  readonly #service: SharedService;
  readonly #view: View;
  readonly #hold: Hold;
  /** How calls over HTTP are tried, as lib/http has it. */
  readonly #http: unknown;
  #events: Events<ServiceCacheEvents> | undefined;

  /** @internal */
  constructor(service: SharedService, view: View, http?: unknown) {
    this.name = service.name;
    this.#service = service;
    this.#view = view;
    this.#http = http;
    this.#hold = { service, isOver: false };
    service.join();
    garbage.register(this, this.#hold, this.#hold);
  }

  /** The latest list, frozen; empty before the first one. */
  get instances(): ServiceList {
    return this.#service.list ?? [];
  }

  /** Whether the list may be out of date. True after the registry was closed; false before the first list. */
  get stale(): boolean {
    return this.#service.list !== undefined && this.#service.state !== 'live';
  }

  /** Where it is. */
  get state(): ServiceCacheState {
    const { closed, list, state } = this.#service;
    return this.#hold.isOver || (closed && !list) ? 'released' : state;
  }

  /** How many retries the service can bear, shared by all of its users. For callers that retry. */
  get budget(): RetryBudget {
    return this.#service.budget;
  }

  /**
   * Resolves when the first list has come, be it stale; with `min`, when so many instances could be picked.
   *
   * @throws `ERR_TIMEOUT`, `ERR_ABORTED`, `ERR_CLOSED`, and while there is no list what the registry refuses with:
   *   `ERR_PERMISSION_DENIED`, `ERR_UNAUTHENTICATED`, `ERR_INVALID_ARGUMENT`.
   */
  async ready(options?: ReadyOptions): Promise<this> {
    const { timeoutMs, signal, min } = checked('ready', () => {
      const given = optional('options', options);
      onlyKnown('options', given, ['timeoutMs', 'signal', 'min']);
      return {
        timeoutMs: integer('options.timeoutMs', given.timeoutMs, this.#service.timeoutMs, { min: 1 }),
        signal: abortSignal('options.signal', given.signal),
        min: integer('options.min', given.min, 0, { min: 0 }),
      };
    });
    const test = () => {
      this.#refuseReleased('ready');
      const { list, closed } = this.#service;
      if (list && (min === 0 || this.#view.usable >= min)) return this;
      if (!list) this.#service.refuse();
      if (closed) throw new ClosedError('ready: the registry is closed', { operation: 'ready' });
      return undefined;
    };
    return await this.#service.until('ready', test, timeoutMs, signal);
  }

  /**
   * One instance, at once. Tell its `done()` when the call is over.
   *
   * @throws `NoInstanceError` (`ERR_UNAVAILABLE`), also before the first list; `ERR_INVALID_ARGUMENT`; `ERR_CLOSED` when it
   *   was released; and while there is no list what the registry refuses with. After the registry was closed it goes on with
   *   the last list.
   */
  pick(options?: PickOptions): Picked {
    if (options !== undefined) return this.#pick(checked('pick', () => checkPick(options)));
    return this.#pick(undefined);
  }

  /**
   * The same, but waits until there is one to pick.
   *
   * @throws as `pick()`: `NoInstanceError` when the time is over; and `ERR_ABORTED`, `ERR_CLOSED`.
   */
  async waitFor(options: WaitForOptions): Promise<Picked> {
    const { pick, waitForReadyMs, signal } = checked('waitFor', () => {
      const { waitForReadyMs, signal } = optional('options', options ?? null);
      return {
        pick: checkPick(options, ['waitForReadyMs', 'signal']),
        waitForReadyMs: integer('options.waitForReadyMs', waitForReadyMs ?? null, 0, { min: 0 }),
        signal: abortSignal('options.signal', signal),
      };
    });
    let last: NoInstanceError | undefined;
    const test = () => {
      try {
        return this.#pick(pick);
      } catch (error) {
        if (!(error instanceof NoInstanceError)) throw error;
        if (this.#service.closed) throw new ClosedError('waitFor: the registry is closed', { operation: 'waitFor' });
        last = error;
        return undefined;
      }
    };
    return await this.#service.until('waitFor', test, waitForReadyMs, signal, () => last);
  }

  /**
   * Calls the service over HTTP: `orders.fetch('/orders/7', init)`. It is the built-in `fetch` with the address of an instance
   * in the place of the name, at its first `http://` or `https://` endpoint; a path in the endpoint counts for nothing. `init`
   * is that of `fetch()`, and says how the call is tried. It waits for the first list.
   *
   * A try that failed goes to another instance, up to `retries` times and within the service's `budget`: any request where no
   * connection came about; where one broke or there was no answer in time, what is safe to repeat (`idempotent`) and has a
   * body that can be sent again. An answer is never tried again, whatever its status. The outcome of each try is told as
   * `done()` would tell it, with the head of the answer.
   *
   * A redirect to a path, or to the address that was called, goes to the service again. One to another origin is followed
   * without `Authorization`, `Cookie` and `Proxy-Authorization`.
   *
   * What the built-in `fetch` can't do: the Host header, and the name that a certificate must carry, are those of the
   * address, not of the service; a header `host` in `init` is left out. The rest of TLS is that of the process
   * (`NODE_EXTRA_CA_CERTS`). Unix sockets are not called.
   *
   * @throws as `pick()`, `NoInstanceError` (`ERR_UNAVAILABLE`) among them; `ERR_UNAVAILABLE` when there was no answer, or a
   *   redirect can't be followed (`retryable` is false where an instance may have acted on it); `ERR_TIMEOUT`; `ERR_ABORTED`;
   *   `ERR_CLOSED`; `ERR_INVALID_ARGUMENT`; what a stream in `init.body` fails with.
   */
  fetch(path: string, init?: ServiceRequestInit): Promise<Response> {
    const { teller } = this.#service;
    const make = (tally?: Tally) => this.#fetch(path, init, tally);
    return teller ? teller.call('fetch', this.name, make) : make();
  }

  #fetch(path: string, init?: ServiceRequestInit, tally?: Tally): Promise<Response> {
    try {
      this.#refuseReleased('fetch');
      // Loaded at use, and known by its type alone: lib/http stands above this folder.
      fetchOfService ??= (require('../http/fetch.js') as { fetchOfService: FetchOfService }).fetchOfService;
      return fetchOfService(this, path, init, this.#http, { tally });
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** What was counted of the service since it is followed, for all of its users. */
  metrics(): ServiceMetrics {
    return this.#service.metrics();
  }

  /**
   * Looks at what the native side has heard and this thread not yet: before a request, to send none to who has left.
   *
   * @internal
   */
  refresh(): void {
    this.#service.refresh();
  }

  /**
   * A call is tried again.
   *
   * @internal
   */
  noteRetry(): void {
    this.#service.retries++;
  }

  /**
   * Of each instance that fits, set aside or not, the endpoint to call; `undefined` before the first list.
   *
   * @internal
   */
  get fitting(): readonly Candidate[] | undefined {
    return this.#service.list && this.#view.fitting;
  }

  /**
   * Why there is no list: what the registry refuses with, or that it is closed.
   *
   * @internal
   */
  get refusal(): Error | undefined {
    try {
      this.#service.refuse();
    } catch (error) {
      return error as Error;
    }
    return this.#service.closed ? new ClosedError('the registry is closed', { operation: 'service' }) : undefined;
  }

  /**
   * Says why nobody fits.
   *
   * @internal
   */
  get nobody(): NoInstanceError {
    return this.#view.nobody;
  }

  /**
   * Calls back whenever something may have changed, the first list too. Keeps no process alive.
   *
   * @internal
   */
  onWake(look: () => void): () => void {
    return this.#service.onWake(look);
  }

  /**
   * A filter of this cache would judge otherwise now.
   *
   * @internal
   */
  refilter(): void {
    this.#view.refilter();
  }

  /**
   * One more call to an instance that was picked before, while it fits.
   *
   * @internal
   */
  again(picked: Picked): Picked | undefined {
    return this.#view.again(picked);
  }

  /** Why this one and why not those: which instances a pick with these options could give now. Nothing is picked. */
  explain(options?: PickOptions): Explanation {
    const how = checked('explain', () => checkPick(options));
    this.#refuseReleased('explain');
    return this.#view.explain(how);
  }

  /** Adds a listener. One that throws is logged, and stops nothing. A cache with listeners is no garbage: release it. */
  on<E extends keyof ServiceCacheEvents>(event: E, listener: (...args: ServiceCacheEvents[E]) => void): this {
    this.#listen(event, listener, false);
    return this;
  }

  /** Adds a listener for the next time only. */
  once<E extends keyof ServiceCacheEvents>(event: E, listener: (...args: ServiceCacheEvents[E]) => void): this {
    this.#listen(event, listener, true);
    return this;
  }

  /** Takes a listener back. */
  off<E extends keyof ServiceCacheEvents>(event: E, listener: (...args: ServiceCacheEvents[E]) => void): this {
    this.#events?.remove(event, listener);
    return this;
  }

  /** The same as `off()`: the name by which `once()` and `on()` of `node:events` know it. */
  removeListener<E extends keyof ServiceCacheEvents>(
    event: E,
    listener: (...args: ServiceCacheEvents[E]) => void,
  ): this {
    return this.off(event, listener);
  }

  /** Lets it go: the service is followed for `lingerMs` more, unless others use it. May be called again. */
  release(): void {
    if (this.#hold.isOver) return;
    garbage.unregister(this.#hold);
    if (this.#events) this.#service.unlisten(this);
    giveBack(this.#hold);
    this.#service.wake(); // its own waits end
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.release();
  }

  /**
   * What the service tells its listeners.
   *
   * @internal
   */
  tell<E extends keyof ServiceCacheEvents>(event: E, ...args: ServiceCacheEvents[E]): void {
    this.#events?.tell(event, ...args);
  }

  #pick(options: PickOptions | undefined): Picked {
    if (this.#hold.isOver) this.#refuseReleased('pick');
    const service = this.#service;
    if (service.list === undefined) {
      service.refuse();
      if (service.closed) throw new ClosedError('pick: the registry is closed', { operation: 'pick' });
      const message = `no instance of ${this.name}: its list has not come yet; await ready(), or use waitFor()`;
      const none = { service: this.name, known: 0, removedBy: {}, ejected: 0 };
      throw new NoInstanceError(message, { ...none, operation: 'pick' });
    }
    return this.#view.pick(options);
  }

  #listen(event: string, listener: unknown, once: boolean): void {
    this.#refuseReleased('on');
    if (!this.#events) {
      const events = new Events<ServiceCacheEvents>(EVENTS, this.#service.log, VOIDS);
      events.add(event, listener, once); // which may refuse
      this.#events = events;
      this.#service.listen(this);
    } else this.#events.add(event, listener, once);
  }

  #refuseReleased(operation: string): void {
    if (!this.#hold.isOver) return;
    throw new ClosedError(`${operation}: this cache of ${this.name} was released`, { operation });
  }
}
