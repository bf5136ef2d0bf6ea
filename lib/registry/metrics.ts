/** What a registry client has counted, as a plain object. */

import type { ClientHandle } from '../native.js';
import type { ServiceMetrics } from '../service/metrics.js';

/** The counters of one kind of call. */
export interface CallMetrics {
  /** Calls that asked the server. What a watch of this registry answered is none. */
  readonly calls: number;
  /** Of those, calls that failed, tries again included. A call that was aborted is none. */
  readonly failed: number;
}

/** What a registry client has counted since it was made, and how many of some things there are now. */
export interface RegistryMetrics {
  /** What this client registers. */
  readonly registrations: {
    /** Those that have not ended, now: neither replaced nor deregistered. */
    readonly alive: number;
    /** Of those, the ones that something holds out of traffic, now: `outFor` is not empty. */
    readonly out: number;
    /** Attempts to publish an instance. An update and a repair are attempts too, and so is each try again. */
    readonly attempts: number;
    /** Of those, the ones that failed. */
    readonly failed: number;
    /** Records that were lost: one for each event `lost`. */
    readonly losses: number;
    /** Records that are back after a loss: one for each event `restored`. */
    readonly repairs: number;
    /** Registrations that a newer owner of their id ended. */
    readonly replaced: number;
  };
  /** What this client follows, by `watch()`, `watchServices()` and `service()`: one stream for each name. */
  readonly watches: {
    /** Names that are followed, and one more while `watchServices()` is, now. */
    readonly followed: number;
    /** Of those, the ones whose list is stale, now. */
    readonly stale: number;
    /** Whole lists that came of the registry, changed or not. */
    readonly reads: number;
    /** How often a list became stale. */
    readonly breaks: number;
    /** Lists delivered: they differed from the one before, and watchers were told. */
    readonly lists: number;
  };
  /** The calls that read, by method. */
  readonly methods: {
    readonly getService: CallMetrics;
    readonly services: CallMetrics;
  };
  /** The calls by name: each service that is followed for callers, by its name. */
  readonly services: Readonly<Record<string, ServiceMetrics>>;
}

/** @internal */
export function toMetrics(
  raw: ReturnType<ClientHandle['metrics']>,
  called: Record<string, ServiceMetrics>,
): RegistryMetrics {
  const { registered: alive, out, attempts, failedAttempts: failed, losses, repairs, replaced } = raw;
  const { followed, stale, reads, breaks, lists, getService, services } = raw;
  return Object.freeze({
    registrations: Object.freeze({ alive, out, attempts, failed, losses, repairs, replaced }),
    watches: Object.freeze({ followed, stale, reads, breaks, lists }),
    methods: Object.freeze({ getService: Object.freeze(getService), services: Object.freeze(services) }),
    services: Object.freeze(called),
  });
}
