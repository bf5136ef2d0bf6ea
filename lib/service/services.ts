/** The services of one registry. */

import { after, now } from '../common/clock.js';
import { invalid } from '../common/shape.js';
import { checked } from '../registry/call.js';
import { ServiceCache } from './cache.js';
import { type ServiceSource, SharedService } from './followed.js';
import type { ServiceMetrics } from './metrics.js';
import { checkOptions, type SharedSettings, sharedDefaults } from './options.js';

/** Names that are followed and that nobody uses; over it the one that was let go first is ended. */
const LINGERING = 256;

/** The services of one registry. */
export class Services {
  readonly #source: ServiceSource;
  readonly #services = new Map<string, SharedService>();
  /** Those that nobody uses, and until when they are followed; in the order in which they were let go. */
  readonly #lingering = new Map<SharedService, number>();
  #sweepAt = Number.POSITIVE_INFINITY;
  #ownKey: string | undefined;

  constructor(source: ServiceSource) {
    this.#source = source;
  }

  /** A cache of a service. */
  open(name: string, options: unknown): ServiceCache {
    const { shared, view, http } = checked('service', () => checkOptions(options, () => this.#key()));
    let service = this.#services.get(name);
    if (service && (service.closed || !service.fits(shared))) {
      if (service.users > 0 && !service.closed) throw refusal(name, service, shared);
      this.#end(service);
      service = undefined;
    }
    if (!service) {
      const settings = { ...sharedDefaults(this.#source.allowLocal), ...shared };
      service = new SharedService(name, settings, this.#source, {
        left: (one) => this.#linger(one),
        joined: (one) => void this.#lingering.delete(one),
      });
      this.#services.set(name, service);
    }
    return new ServiceCache(service, view ? service.view(view) : service.usual, http);
  }

  /** What was counted of each service that is followed. */
  metrics(): Record<string, ServiceMetrics> {
    return Object.fromEntries([...this.#services].map(([name, service]) => [name, service.metrics()]));
  }

  /** The registry is closed: no more comes. Lists that are known stay. */
  close(): void {
    for (const service of this.#services.values()) service.end();
    this.#services.clear();
    this.#lingering.clear();
  }

  #linger(service: SharedService): void {
    if (this.#services.get(service.name) !== service) return;
    const { lingerMs } = service.settings;
    if (lingerMs === 0) {
      this.#end(service);
      return;
    }
    const until = now() + lingerMs;
    this.#lingering.set(service, until);
    if (this.#lingering.size > LINGERING) this.#end(this.#lingering.keys().next().value as SharedService);
    this.#sweepBy(until);
  }

  #end(service: SharedService): void {
    this.#lingering.delete(service);
    this.#services.delete(service.name);
    service.end();
  }

  #sweepBy(at: number): void {
    if (at >= this.#sweepAt) return;
    this.#sweepAt = at;
    const self = new WeakRef(this);
    after(Math.max(1, Math.ceil(at - now())), () => {
      const services = self.deref();
      if (services) services.#sweep(at);
    });
  }

  #sweep(at: number): void {
    if (at !== this.#sweepAt) return; // an earlier one took its place
    this.#sweepAt = Number.POSITIVE_INFINITY;
    let next = Number.POSITIVE_INFINITY;
    for (const [service, until] of [...this.#lingering]) {
      if (until <= now()) this.#end(service);
      else next = Math.min(next, until);
    }
    if (next < Number.POSITIVE_INFINITY) this.#sweepBy(next);
  }

  /** Of subsets without a key: of this registry alone. */
  #key(): string {
    this.#ownKey ??= `${Math.random()}`;
    return this.#ownKey;
  }
}

/** Another user has it with other options. */
function refusal(name: string, service: SharedService, shared: Partial<SharedSettings>): unknown {
  const keys = Object.keys(shared) as (keyof SharedSettings)[];
  const other = keys.find((key) => !service.fits({ [key]: shared[key] }));
  const problem = `others use ${name} with another; leave it out, or give the same`;
  return Object.assign(invalid(`options.${other}`, problem), { operation: 'service' });
}
