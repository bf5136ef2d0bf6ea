/** Health checks for `@nestjs/terminus`, which needs no more of them than the shape of their answers. */

import type { Etcd3 } from '../../etcd/client.js';
import type { RegistryService } from './registry-service.js';
import { unreadSettings } from './setting.js';

/** What a health check says. */
export interface HealthStatus {
  status: 'up' | 'down';
  [detail: string]: unknown;
}

/** What a health check answers: one entry, under its key. */
export type HealthResult<Key extends string = string> = Record<Key, HealthStatus>;

const result = <Key extends string>(key: Key, status: HealthStatus) => ({ [key]: status }) as HealthResult<Key>;

/**
 * Whether the application is in the registry and hears of changes: `down` while it is to be registered and isn't, and
 * while a service that is followed is stale, or the registry refuses to tell of it.
 *
 * For dashboards and alarms. Think twice before you make it a readiness probe: an outage of the registry beyond the TTL
 * would then take all instances of all services out of traffic, which could have gone on with what they know.
 */
export class RegistryHealthIndicator {
  readonly #service: RegistryService;

  /** @internal */
  constructor(service: RegistryService) {
    this.#service = service;
  }

  /** Looks at what is known here; asks no server. */
  async isHealthy<Key extends string = 'registry'>(key = 'registry' as Key): Promise<HealthResult<Key>> {
    const { registration, registersItself, wanted, stale, refused } = this.#service;
    const state = registration?.state ?? (registersItself ? 'waiting' : undefined);
    const takenOut = registration !== undefined && !wanted;
    const isIn = state === undefined || state === 'registered' || takenOut;
    const up = isIn && stale.length === 0 && refused.length === 0;
    const details = {
      ...(state === undefined ? {} : { registration: state }),
      ...(registration ? { id: registration.id } : {}),
      ...(stale.length > 0 ? { stale } : {}),
      ...(refused.length > 0 ? { refused } : {}),
    };
    return result(key, { status: up ? 'up' : 'down', ...details });
  }
}

/** Whether etcd answers, and lets the settings be read. */
export class EtcdHealthIndicator {
  readonly #client: Etcd3;

  /** @internal */
  constructor(client: Etcd3) {
    this.#client = client;
  }

  /**
   * Asks etcd; `down` when no member answers within `timeout` milliseconds, by default 1000, and while a setting that is
   * followed can't be read.
   */
  async isHealthy<Key extends string = 'etcd'>(
    key = 'etcd' as Key,
    { timeout = 1000 }: { timeout?: number } = {},
  ): Promise<HealthResult<Key>> {
    try {
      await this.#client.ready({ timeoutMs: timeout });
      const settings = unreadSettings(this.#client);
      return result(key, settings.length === 0 ? { status: 'up' } : { status: 'down', unreadSettings: settings });
    } catch (error) {
      return result(key, { status: 'down', message: (error as Error).message });
    }
  }
}
