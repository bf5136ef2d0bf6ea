/** A dispatcher of undici that calls services by name. */

import type { ConnectionOptions } from 'node:tls';
import { integer, invalid, kindOf, onlyKnown, optional, text } from '../common/shape.js';
import { ClosedError, UnsupportedError } from '../errors.js';
import { checked } from '../registry/call.js';
import type { ServiceOptions } from '../service/options.js';
import type { Picked } from '../service/ticket.js';
import { isArgument } from './failure.js';
import { isHostName, type NamedUrl, Names, namedUrl, type ServiceRegistry } from './names.js';
import { type HttpSettings, httpSettings } from './options.js';
import { type PoolSettings, Pools } from './pools.js';
import { Relay, tellFailure } from './relay.js';
import { isLoading, NOT_CALLED, Tries } from './retry.js';
import { UNDICI_RANGE, type UndiciModule, undiciOf } from './undici.js';

/** What may be said of TLS, as `tls.connect()` of Node.js takes it. */
export type ServiceTlsOptions = Pick<ConnectionOptions, (typeof TLS)[number]>;

/** How services are called through undici. */
export interface ServiceAgentOptions {
  /** undici 6, 7 or 8, as `import * as undici from 'undici'` gives it. Default: the one that is installed beside rollcall. */
  undici?: UndiciModule | undefined;
  /** As `registry.service(name, options)` takes them; of each service that is called. */
  service?: ServiceOptions | undefined;
  /** The name that an instance must prove over TLS, where its metadata has no `serverName`. Default: that of its service. */
  serverName?: string | undefined;
  /** Authorities, certificates and the like. Default: those of the process. */
  tls?: ServiceTlsOptions | undefined;
  /** For a connection, TLS included, in milliseconds. Default 1000. */
  connectTimeoutMs?: number | undefined;
  /** How long requests to an instance that has left may take to end, in milliseconds; then they fail. Default 30,000. */
  drainTimeoutMs?: number | undefined;
}

/** What is needed of the options of a dispatch. */
export interface DispatchOptions {
  readonly origin?: string | URL | undefined;
  readonly [more: string]: unknown;
}

const OPTIONS = [
  'undici',
  'service',
  'serverName',
  'tls',
  'connectTimeoutMs',
  'drainTimeoutMs',
] as const satisfies readonly (keyof ServiceAgentOptions)[];
const TLS = [
  'ca',
  'cert',
  'key',
  'passphrase',
  'pfx',
  'crl',
  'ciphers',
  'minVersion',
  'maxVersion',
  'secureContext',
  'rejectUnauthorized',
] as const;

/** Origins that are kept taken apart. */
const MOST_ORIGINS = 256;

/** Options that were checked. */
export interface AgentSettings extends Omit<PoolSettings, 'undici'> {
  readonly service: ServiceOptions | undefined;
  readonly http: HttpSettings;
}

/** Judged by what is needed of it: a test may have put something else in its place. */
export function checkRegistry(registry: unknown): void {
  if (typeof (registry as Partial<ServiceRegistry> | undefined)?.service === 'function') return;
  throw invalid('registry', `expected a registry, as connect() gives it, got ${kindOf(registry)}`);
}

/** Checks all options but `undici`. */
export function agentSettings(value: unknown): AgentSettings {
  const given = optional('options', value);
  onlyKnown('options', given, OPTIONS);
  const tls = optional('options.tls', given.tls);
  onlyKnown('options.tls', tls, TLS);
  const serverName = text('options.serverName', given.serverName);
  if (serverName !== undefined && !isHostName(serverName)) {
    throw invalid('options.serverName', 'expected a name that a certificate can carry, such as "orders.internal"');
  }
  const service = optional('options.service', given.service);
  return {
    service: given.service as ServiceOptions | undefined,
    http: httpSettings('options.service.http', service.http),
    serverName,
    tls: tls as ConnectionOptions,
    connectTimeoutMs: integer('options.connectTimeoutMs', given.connectTimeoutMs, 1000, { min: 1 }),
    drainTimeoutMs: integer('options.drainTimeoutMs', given.drainTimeoutMs, 30_000, { min: 0 }),
  };
}

/**
 * A dispatcher of undici that takes the host of a URL for the name of a service: `fetch('http://orders/7', { dispatcher })`.
 * It serves `fetch` and `request` of undici 6, 7 and 8 and the built-in `fetch` of any Node.js, whichever undici it is made with.
 *
 * Each request goes to an instance that is picked, through a pool of connections to that instance. The Host header is the name
 * of the service, or `serverName`, and over TLS the instance has to prove it. Where no connection comes about another instance
 * is tried, whatever the request is, up to `retries` of `service.http` times and within the service's budget; what was sent is
 * not sent again. `https://orders/` calls `https://` endpoints alone, `http://orders/` both. It waits for the first list.
 *
 * An instance that leaves the registry gets no further request: what is under way ends, and its connections are closed then.
 *
 * Requests fail with the errors of `pick()`, `NoInstanceError` among them; `ERR_INVALID_ARGUMENT` for a URL with a port or a
 * user in it, or with a name that the URL has changed; and those of undici. It keeps no process alive.
 */
export class ServiceAgent {
  readonly #settings: AgentSettings;
  readonly #names: Names<Pools>;
  readonly #origins = new Map<unknown, NamedUrl>();

  /** @throws `ERR_INVALID_ARGUMENT`; `ERR_UNSUPPORTED` where there is no undici, or one that does not fit. */
  constructor(registry: ServiceRegistry, options?: ServiceAgentOptions) {
    const { settings, undici } = checked('ServiceAgent', () => {
      checkRegistry(registry);
      return { settings: agentSettings(options), undici: undiciOf('options.undici', options?.undici) };
    });
    if (!undici) throw new UnsupportedError(`ServiceAgent: there is no undici: install ${UNDICI_RANGE}`);
    this.#settings = settings;
    this.#names = new Names((name) => new Pools(registry.service(name, settings.service), { ...settings, undici }));
  }

  /** As undici's `Dispatcher.dispatch()`, which calls it. */
  dispatch(options: DispatchOptions, handler: object): boolean {
    try {
      if (this.#names.closed) throw new ClosedError('this ServiceAgent is closed', { operation: 'dispatch' });
      const { name, secure } = this.#named(options.origin);
      const pools = this.#names.get(name);
      const request = new Dispatch(pools, options, { handler, secure, retries: this.#settings.http.retries });
      request.failedStatuses = this.#settings.http.failedStatuses;
      request.start();
    } catch (error) {
      tellFailure(handler, error);
    }
    return true;
  }

  /** Takes an origin apart, once for all requests that have it as text. */
  #named(origin: unknown): NamedUrl {
    const known = this.#origins.get(origin);
    if (known) return known;
    const named = namedUrl('url', origin);
    if (typeof origin === 'string') {
      if (this.#origins.size === MOST_ORIGINS) this.#origins.clear();
      this.#origins.set(origin, named);
    }
    return named;
  }

  /** Refuses new requests, and resolves when those under way have ended, `drainTimeoutMs` at the latest. */
  async close(): Promise<void> {
    const pools = this.#names.close();
    await Promise.all(pools.map((each) => each.closed()));
  }

  /** Ends all requests with an error. */
  async destroy(
    error: Error = new ClosedError('this ServiceAgent was destroyed', { operation: 'dispatch' }),
  ): Promise<void> {
    for (const pools of this.#names.close()) pools.destroy(error);
  }
}

/** What the program's own stream failed with. */
const bodyError = (body: unknown): unknown => (body as { errored?: unknown } | null | undefined)?.errored ?? NOT_CALLED;

/** One request: dispatched to an instance, and to another one while nothing was sent. */
class Dispatch {
  failedStatuses: readonly number[] = [];
  readonly #pools: Pools;
  readonly #options: DispatchOptions;
  readonly #handler: object;
  readonly #tries: Tries;

  constructor(
    pools: Pools,
    options: DispatchOptions,
    { handler, secure, retries }: { handler: object; secure: boolean; retries: number },
  ) {
    this.#pools = pools;
    this.#options = options;
    this.#handler = handler;
    this.#tries = new Tries(pools.service, { key: undefined, retries, filter: secure ? pools.secure : pools.any });
  }

  start(): void {
    const { service } = this.#pools;
    const first = () => this.#try(this.#tries.first());
    if (!isLoading(service)) first();
    else
      service
        .ready()
        .then(first)
        .catch((error) => tellFailure(this.#handler, error));
  }

  #try(picked: Picked): void {
    let isTold = false;
    const done = (result?: Parameters<Picked['done']>[0]) => {
      if (!isTold) picked.done(result);
      isTold = true;
    };
    const next = (error: unknown): boolean => {
      done({ error });
      const other = this.#tries.next(picked, { sent: false, repeatable: false, late: false });
      // Not within what tells of the failure.
      if (other) queueMicrotask(() => this.#try(other));
      return other !== undefined;
    };
    // undici destroys the stream of a request that is ended: it could not go elsewhere.
    const isStream = typeof (this.#options.body as { pipe?: unknown } | null | undefined)?.pipe === 'function';
    const relay = new Relay(this.#handler, {
      refusal: () => (isStream ? undefined : this.#pools.refusal(picked)),
      head: (status) => done(this.failedStatuses.includes(status) ? { failed: true } : undefined),
      failed: (error, { sent, isAborted }) => {
        const isOurs = isAborted || isArgument(error) || bodyError(this.#options.body) === error;
        if (!sent && !isOurs) return next(error);
        done(isOurs ? NOT_CALLED : { error });
        return false;
      },
    });
    try {
      const origin = this.#pools.originOf(picked);
      this.#pools.at(picked).dispatch({ ...this.#options, origin, allowH2: false }, relay);
    } catch (error) {
      if (!next(error)) tellFailure(this.#handler, error);
    }
  }
}
