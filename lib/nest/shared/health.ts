/** Health checks for `@nestjs/terminus`, which needs no more of them than the shape of their answers. */

import { invalid } from '../../common/shape.js';
import type { Etcd3 } from '../../etcd/client.js';
import type { CoordService } from './coord-service.js';
import type { RegistryService } from './registry-service.js';
import { unreadSettings } from './setting.js';

/**
 * What a health check says. With Terminus 12 and later it may be `degraded`, which is well enough to serve: the type leaves
 * that out, or it would fit no earlier one, which know up and down alone.
 */
export interface HealthStatus {
  status: 'up' | 'down';
  [detail: string]: unknown;
}

/** The same with all that may be. */
interface Told {
  status: HealthStatus['status'] | 'degraded';
  [detail: string]: unknown;
}

/** What a health check answers: one entry, under its key. */
export type HealthResult<Key extends string = string> = Record<Key, HealthStatus>;

/** What is needed of Nest's container: its modules. */
type Modules = Iterable<unknown>;

/** What Terminus makes of an answer: 12 knows `degraded`, and 10 goes by what an indicator throws, not by its answer. */
type Terminus = 'degrades' | 'reads' | 'hears throws';

function terminusOf(modules: Modules | undefined): Terminus {
  let found: Terminus = 'reads';
  for (const module of modules ?? []) {
    const { providers } = module as { providers?: ReadonlyMap<unknown, { instance?: unknown }> };
    for (const [token, { instance }] of providers ?? []) {
      const name = typeof token === 'function' ? token.name : '';
      if (name === 'HealthIndicatorService') {
        const { check } = (instance ?? {}) as { check?(key: string): { degraded?: unknown } };
        return typeof check?.call(instance, 'degraded')?.degraded === 'function' ? 'degrades' : 'reads';
      }
      if (name === 'HealthCheckService') found = 'hears throws'; // unless the other service is there too
    }
  }
  return found;
}

/** Answers as the Terminus of the application hears it. */
function answer<Key extends string>(key: Key, status: Told, terminus: Terminus): HealthResult<Key> {
  const told =
    status.status === 'degraded' && terminus !== 'degrades' ? { ...status, status: 'down' as const } : status;
  const result = { [key]: told } as HealthResult<Key>;
  if (told.status !== 'down' || terminus !== 'hears throws') return result;
  throw Object.assign(new Error(`${key} is down`), { isHealthCheckError: true, causes: result });
}

/**
 * Whether the application is in the registry and hears of changes: `down` while it is to be registered and isn't, and while
 * the registry refuses to tell of a service that is followed; `degraded` while one is stale, which with Terminus before 12,
 * that knows no such thing, is `down` too. Terminus 10 takes what an indicator throws for down, so there it throws.
 *
 * For dashboards and alarms. Think twice before you make it a readiness probe: an outage of the registry beyond the TTL
 * would then take all instances of all services out of traffic, which could have gone on with what they know.
 */
export class RegistryHealthIndicator {
  readonly #service: RegistryService;
  readonly #modules: Modules | undefined;

  /** @internal */
  constructor(service: RegistryService, modules?: { values(): Modules }) {
    this.#service = service;
    this.#modules = modules && { [Symbol.iterator]: () => modules.values()[Symbol.iterator]() };
  }

  /** Looks at what is known here; asks no server. */
  async isHealthy<Key extends string = 'registry'>(key = 'registry' as Key): Promise<HealthResult<Key>> {
    const { registration, registersItself, wanted, stale, refused } = this.#service;
    const state = registration?.state ?? (registersItself ? 'waiting' : undefined);
    const takenOut = registration !== undefined && !wanted;
    const isIn = state === undefined || state === 'registered' || takenOut;
    const working = isIn && refused.length === 0;
    const status = !working ? 'down' : stale.length > 0 ? 'degraded' : 'up';
    const details = {
      ...(state === undefined ? {} : { registration: state }),
      ...(registration ? { id: registration.id } : {}),
      ...(stale.length > 0 ? { stale } : {}),
      ...(refused.length > 0 ? { refused } : {}),
    };
    return answer(key, { status, ...details }, terminusOf(this.#modules));
  }
}

/**
 * Whether the configurations of the application are what lies in the store: `degraded` while one is stale, or its latest value
 * was refused, or the store does not let it stand for an election of `@LeaderOnly()`, which with Terminus before 12 is `down`; `down` when
 * the client is closed. The answer has their keys, and no value; and the elections in which this instance leads.
 *
 * For dashboards and alarms, as `RegistryHealthIndicator`: the application goes on with the last good values.
 */
export class CoordHealthIndicator {
  readonly #service: CoordService;
  readonly #modules: Modules | undefined;

  /** @internal */
  constructor(service: CoordService, modules?: { values(): Modules }) {
    this.#service = service;
    this.#modules = modules && { [Symbol.iterator]: () => modules.values()[Symbol.iterator]() };
  }

  /** Looks at what is known here; asks no server. */
  async isHealthy<Key extends string = 'coord'>(key = 'coord' as Key): Promise<HealthResult<Key>> {
    const { stale, rejected, coord, leads = [], refusedElections = [] } = this.#service;
    const isWell = stale.length + rejected.length + refusedElections.length === 0;
    const status = coord.registry.closed ? 'down' : isWell ? 'up' : 'degraded';
    const all = { stale, rejected, leads, refusedElections };
    const details = Object.fromEntries(Object.entries(all).filter(([, names]) => names.length > 0));
    return answer(key, { status, ...details }, terminusOf(this.#modules));
  }
}

/** How an `EtcdHealthIndicator` asks. */
export interface HealthOptions {
  /** In milliseconds. Default 1000. */
  timeoutMs?: number | undefined;
  /** The same as `timeoutMs`, as the indicators of Terminus call it. */
  timeout?: number | undefined;
  /** Gives the question up, as `down`. */
  signal?: AbortSignal | undefined;
}

/** Whether etcd answers, and lets the settings be read. */
export class EtcdHealthIndicator {
  readonly #client: Etcd3;
  readonly #modules: Modules | undefined;

  /** @internal */
  constructor(client: Etcd3, modules?: { values(): Modules }) {
    this.#client = client;
    this.#modules = modules && { [Symbol.iterator]: () => modules.values()[Symbol.iterator]() };
  }

  /**
   * Asks etcd; `down` when no member answers within `timeoutMs` milliseconds, by default 1000 (`timeout` is another name of
   * it), and while a setting that is followed can't be read.
   *
   * @throws `ERR_INVALID_ARGUMENT` where both names of the time are given.
   */
  async isHealthy<Key extends string = 'etcd'>(
    key = 'etcd' as Key,
    { timeout, timeoutMs, signal }: HealthOptions = {},
  ): Promise<HealthResult<Key>> {
    if (timeout !== undefined && timeoutMs !== undefined) {
      throw invalid('timeout', 'given together with timeoutMs, which it is another name of');
    }
    return answer(key, await this.#look(timeoutMs ?? timeout ?? 1000, signal), terminusOf(this.#modules));
  }

  async #look(timeoutMs: number, signal: AbortSignal | undefined): Promise<HealthStatus> {
    try {
      await this.#client.ready({ timeoutMs, signal });
      const settings = unreadSettings(this.#client);
      return settings.length === 0 ? { status: 'up' } : { status: 'down', unreadSettings: settings };
    } catch (error) {
      return { status: 'down', message: (error as Error).message };
    }
  }
}
