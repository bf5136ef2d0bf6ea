/** The registration of the application itself: when it comes, what it says, and when it goes. */

import cluster from 'node:cluster';
import { hostname } from 'node:os';
import { isMainThread, threadId } from 'node:worker_threads';
import { after } from '../common/clock.js';
import { choice, didYouMean, integer, invalid, record, text } from '../common/shape.js';
import { aborted, ClosedError, InvalidArgumentError } from '../errors.js';
import { instanceOf } from '../registry/instance.js';
import type { Registration, TrafficOptions } from '../registry/registration.js';
import type { Registry } from '../registry/registry.js';
import { drainOf, takeOut } from './leaving.js';
import type { AppLogger } from './logger.js';

/** How the application itself is registered. */
export interface SelfOptions {
  /** The service. Required. */
  name: string;
  /**
   * The id of this instance. Default: a UUID, new with every start. In a worker of `node:cluster`, and so in PM2's cluster
   * mode, and in a worker thread, the number of the worker is added to an id that is given.
   */
  id?: string | undefined;
  /** Default: empty. */
  version?: string | undefined;
  /** Default: none. */
  metadata?: Readonly<Record<string, string>> | undefined;
  /**
   * Where callers reach it, such as `http://orders.internal:80`. Default: where the application listens: its HTTP server
   * and its microservices of the transports TCP and gRPC. `0.0.0.0` and `[::]` become the address of this machine, or
   * `advertiseHost` of the registry, or the environment variable `ROLLCALL_ADVERTISE_HOST`.
   */
  endpoints?: readonly string[] | undefined;
  /**
   * `listen`: as soon as the application listens; its start waits for that. `bootstrap`: when the hooks of the start
   * have run, for applications that listen by other means; needs `endpoints`. `manual`: when
   * `RegistryService.registerSelf()` is called. Default `listen`; `bootstrap` where endpoints are given and nothing is
   * there that could listen.
   */
  when?: 'listen' | 'bootstrap' | 'manual' | undefined;
  /**
   * How long the application goes on answering after it has left the registry, in milliseconds, so that callers hear of
   * it before it stops. Default 250, and 0 on the memory registry.
   */
  drainMs?: number | undefined;
}

const KNOWN = ['name', 'id', 'version', 'metadata', 'endpoints', 'when', 'drainMs'] as const;

/** Checks them when the modules are made: a wrong one is to stop the start, not the first registration. */
export function checkedSelf(value: unknown, path = 'register'): SelfOptions {
  const given = record(path, value);
  for (const key of Object.keys(given)) {
    if ((KNOWN as readonly string[]).includes(key) || given[key] === undefined) continue;
    throw invalid(`${path}.${key}`, `unknown option${didYouMean(key, KNOWN)}`);
  }
  if (text(`${path}.name`, given.name) === undefined) throw invalid(`${path}.name`, 'expected the name of the service');
  try {
    const { when: _, drainMs: __, ...instance } = given;
    instanceOf(instance);
  } catch (error) {
    throw error instanceof InvalidArgumentError
      ? new InvalidArgumentError(error.message.replace(/^instance\b/, path))
      : error;
  }
  choice(`${path}.when`, given.when, ['listen', 'bootstrap', 'manual'], 'listen');
  integer(`${path}.drainMs`, given.drainMs, 0, { min: 0 });
  if (given.when === 'bootstrap' && given.endpoints === undefined) {
    throw invalid(`${path}.endpoints`, 'expected, since the application registers before it listens');
  }
  return value as SelfOptions;
}

/** Long enough for a program that does something between `init()` and `listen()`. */
const PATIENCE_MS = 10_000;

/** What the registration of the application needs to know of it. */
export interface SelfSource {
  readonly registry: Registry;
  readonly options: SelfOptions;
  /** Don't wait for the registry, and don't fail because of it. */
  readonly background: boolean;
  /** What makes the framework hear of SIGTERM; completes "…, or give the registry signals". */
  readonly signalHint: string;
  /** The program hears of SIGTERM by other means than a listener. */
  readonly isSignalHeard?: boolean;
  /** How long after the start something is expected to listen, before a warning is logged, in milliseconds. Default 10000. */
  readonly patienceMs?: number;
  readonly log: AppLogger;
}

/**
 * Registers the application once it has started and listens, tells the registry of what begins to listen later, and takes
 * all that back before it stops. One thing is done at a time.
 */
export class SelfRegistration {
  readonly #source: SelfSource;
  #abort = new AbortController();
  readonly #listening = new Set<string>();
  #started = false;
  #wanted: boolean;
  #work: Promise<void> = Promise.resolve();
  #leaving: Promise<void> | undefined;
  #registration: Registration | undefined;

  constructor(source: SelfSource) {
    this.#source = source;
    this.#wanted = source.options.when !== 'manual';
  }

  /** It, once it is registered. */
  get registration(): Registration | undefined {
    return this.#registration;
  }

  /** Whether others are to see the application now: it has started, and the program has not taken it out in any way. */
  get wanted(): boolean {
    // A test may have put something else in the place of the registry.
    return this.#mayCome && !(this.#registration?.outFor?.size ?? 0);
  }

  /** How long the application goes on answering after it has left, in milliseconds; `undefined`: the default. */
  get drainMs(): number | undefined {
    return this.#source.options.drainMs;
  }

  /** The application has begun to listen there. */
  listening(endpoints: readonly string[]): Promise<void> {
    const { options } = this.#source;
    for (const endpoint of endpoints) this.#listening.add(endpoint);
    if (endpoints.length === 0 && this.#listening.size === 0) return Promise.resolve(); // a broker, a socket of Unix
    return options.when === 'bootstrap' ? Promise.resolve() : this.#publish();
  }

  /** The hooks of the start have run. `listens`: something is there that is going to listen. */
  started(listens: boolean): Promise<void> {
    const { options } = this.#source;
    this.#started = true;
    if (options.when === 'manual') return Promise.resolve();
    if (options.when === 'bootstrap' || (!listens && options.endpoints)) return this.#publish(true);
    if (!listens) {
      // A script, a REPL or a test that uses the modules of the application.
      this.#warnUnheard('it has no HTTP server and no microservice that listens');
      return Promise.resolve();
    }
    if (this.#listening.size > 0) return this.#publish();
    after(this.#source.patienceMs ?? PATIENCE_MS, () => {
      if (!this.#mayCome || this.#registration || this.#listening.size > 0) return;
      this.#warnUnheard('it has started, and nothing of it that the framework knows of listens at a port');
    });
    return Promise.resolve();
  }

  #warnUnheard(why: string): void {
    const { options, log } = this.#source;
    log.warn(
      `${options.name} is not registered: ${why}; give register.endpoints and register.when 'bootstrap', ` +
        "or register false where it isn't to be",
    );
  }

  /**
   * Registers it, whatever it waited for, and anew after `deregister()` and where another instance has taken its id over.
   *
   * Rejects as `register()`, with `ERR_ABORTED` when it is taken out meanwhile, and with `ERR_CLOSED` when the application
   * is stopping.
   */
  async now(): Promise<void> {
    this.#refuseLate();
    this.#wanted = true;
    this.#started = true;
    const { signal } = this.#abort;
    await this.#publish(true);
    this.#refuseLate();
    if (signal.aborted) throw aborted(signal, 'register');
  }

  /**
   * Takes it out of traffic, and leaves it registered: `restore()` brings it back. Rejects as `Registration.withdraw()`, and
   * with `ERR_CLOSED` where it is not registered.
   */
  async withdraw(reason?: 'withdrawn' | 'unhealthy', options?: TrafficOptions): Promise<void> {
    await (await this.#registered('withdraw')).withdraw(reason, options);
  }

  /** Takes a reason of `withdraw()` back. Rejects as `Registration.restore()`, and with `ERR_CLOSED` as `withdraw()`. */
  async restore(reason?: 'withdrawn' | 'unhealthy', options?: TrafficOptions): Promise<void> {
    await (await this.#registered('restore')).restore(reason, options);
  }

  /** Leaves the registry, then waits for the drain; `now()` registers it anew. Never rejects. */
  deregister(): Promise<void> {
    this.#wanted = false;
    this.#abort.abort(`${this.#source.options.name} was taken out of the registry meanwhile`);
    this.#abort = new AbortController();
    return this.#next(() => this.#takeOut());
  }

  /** Leaves the registry for good, then waits for the drain. Never rejects. */
  leave(): Promise<void> {
    this.#leaving ??= this.deregister();
    return this.#leaving;
  }

  /** It has started, and is to be registered. */
  get #mayCome(): boolean {
    return this.#started && this.#wanted && !this.#leaving;
  }

  /** The registration, when it has come that is on its way. What waits in the registry holds up nothing that is asked later. */
  async #registered(operation: string): Promise<Registration> {
    await this.#work;
    this.#refuseLate(operation);
    if (this.#registration && this.#wanted) return this.#registration;
    const text = `${this.#source.options.name} is not registered: it has not started, or was taken out; call registerSelf() first`;
    throw new ClosedError(text, { operation });
  }

  #refuseLate(operation = 'register'): void {
    if (!this.#leaving) return;
    const text = `${this.#source.options.name} is not registered any more: the application is stopping`;
    throw new ClosedError(text, { operation });
  }

  #next(step: () => Promise<void>): Promise<void> {
    const next = this.#work.then(step);
    this.#work = next.catch(() => {});
    return next;
  }

  #publish(unheard = false): Promise<void> {
    return this.#next(async () => {
      if (!this.#mayCome) return;
      const { options } = this.#source;
      const endpoints = options.endpoints ?? [...this.#listening];
      if (!unheard && this.#listening.size === 0) return;
      if (!this.#registration || (unheard && this.#registration.over)) await this.#register(endpoints);
      else if (!options.endpoints) await this.#registration.update({ endpoints });
    });
  }

  async #register(endpoints: readonly string[]): Promise<void> {
    const { registry, options, background, signalHint, isSignalHeard, log } = this.#source;
    const { name, version, metadata } = options;
    const instance = { name, id: ownId(options.id), version, metadata, endpoints };
    const { signal } = this.#abort;
    let registration: Registration;
    try {
      registration = await registry.register(instance, { background, signal });
    } catch (error) {
      if (signal.aborted) return; // it was taken out meanwhile, and nothing is left behind
      throw error;
    }
    this.#registration = registration;
    // What becomes of it the registry logs.
    if (background) log.log(`${name} is being registered as ${registration.id}`);
    if (process.platform !== 'win32' && !isSignalHeard && process.listenerCount('SIGTERM') === 0) {
      log.warn(
        `nothing listens to SIGTERM: ${name} would stay in the registry until its TTL is over; ` +
          `${signalHint}, or give the registry signals: ['SIGTERM']`,
      );
    }
  }

  async #takeOut(): Promise<void> {
    if (!this.#registration) return;
    const { registry, options, log } = this.#source;
    await takeOut(this.#registration, { drainMs: drainOf(registry, options.drainMs), as: options.name, log });
  }
}

/** No two workers of a cluster may have one id: they would take it from each other. */
function ownId(id: string | undefined): string | undefined {
  if (id === undefined) return id;
  if (!isMainThread) return `${id}-${process.env.NODE_APP_INSTANCE ?? process.pid}-${threadId}`;
  if (!cluster.isWorker) return id;
  return `${id}-${process.env.NODE_APP_INSTANCE ?? cluster.worker?.id ?? `${hostname()}-${process.pid}`}`;
}
