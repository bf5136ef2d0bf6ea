/** Resolvers of channels: `discovery:///orders` is the service `orders` of a registry. */

import { after } from '../common/clock.js';
import { invalid } from '../common/shape.js';
import { UnavailableError } from '../errors.js';
import { checked } from '../registry/call.js';
import type { Registry } from '../registry/registry.js';
import type { ServiceCache } from '../service/cache.js';
import type { Filter, Strategy } from '../service/pick/types.js';
import type { ChannelResolver, Grpc, Push, Target } from './compat.js';
import { callable, endpointsOf } from './endpoints.js';
import { copies } from './modules.js';
import { authorityOf, type GrpcSettings, grpcSettings, type ResolverOptions, registryOf } from './options.js';
import { type ChannelService, registerPolicies, SERVICE_ATTRIBUTE } from './policy.js';
import { merged, type Pushed } from './service-config.js';

/** The schemes of targets, and which of them takes endpoints with TLS: a channel can't mix them. */
const SCHEMES = { discovery: false, 'discovery+tls': true } as const;
/** Idle channels whose service is followed on, so that they come back while the registry is away. */
const IDLE = 256;

/** A registry that channels can ask, and how. */
export class Directory {
  readonly registry: Registry;
  readonly settings: GrpcSettings;

  constructor(registry: Registry, settings: GrpcSettings) {
    this.registry = registry;
    this.settings = settings;
  }

  /** grpc-js writes the options of each channel into its trace. */
  toJSON(): string {
    return 'rollcall';
  }
}

/** Under which `grpcClient()` hands a registry of its own to a channel, in the channel's options. */
export const DIRECTORY_OPTION = 'grpc.internal.no_subchannel.rollcall.directory';

/** Of each copy of grpc-js: which registry answers for which authority. */
const tables = new WeakMap<Grpc, Map<string, Directory>>();

/** What `registerResolver()` gives. */
export interface ResolverRegistration extends Disposable {
  /** New channels don't find the registry any more; those that have it keep it. May be called again. */
  unregister(): void;
}

/**
 * From now on any client of `@grpc/grpc-js` may dial `discovery:///orders`, or `discovery+tls:///orders` for endpoints with TLS
 * (`grpcs://`), and is connected to all instances of `orders`. Register before the first client is made.
 *
 * A channel follows its service: changes reach it by themselves, and drop no call. While the registry is away the last list
 * stays. A call waits for the first list until its deadline, at most for `firstListTimeoutMs`. The service config of the channel
 * (`grpc.service_config`) counts, the policy in it too.
 *
 * The name that a certificate must carry is that of the service; of an instance with the metadata `serverName` it is that;
 * the channel option `grpc.ssl_target_name_override` stands in between. With the policy `round_robin` the metadata don't count.
 *
 * @throws `ERR_INVALID_ARGUMENT`: also when the authority is taken, or no grpc-js is found.
 */
export function registerResolver(registry: Registry, options?: ResolverOptions): ResolverRegistration {
  const { directory, authority, grpcs } = checked('registerResolver', () => {
    const settings = grpcSettings(options, ['authority', 'grpc']);
    return {
      directory: new Directory(registryOf(registry), settings),
      authority: authorityOf(options?.authority),
      grpcs: copies(options?.grpc),
    };
  });
  const all = grpcs.map(tableOf);
  if (all.some((table) => table.has(authority))) {
    const where = authority ? `discovery://${authority}/` : 'discovery:///';
    const error = invalid(
      'options.authority',
      `${where} is another registry's: unregister it, or take another authority`,
    );
    throw Object.assign(error, { operation: 'registerResolver' });
  }
  for (const table of all) table.set(authority, directory);
  const unregister = () => {
    for (const table of all) if (table.get(authority) === directory) table.delete(authority);
  };
  return Object.freeze({ unregister, [Symbol.dispose]: unregister });
}

/** The registries that a copy of grpc-js can ask; it learns our schemes and policies with the first one. */
export function tableOf(grpc: Grpc): Map<string, Directory> {
  let table = tables.get(grpc);
  if (table) return table;
  table = new Map();
  tables.set(grpc, table);
  const known = table;
  if (grpc.takesPolicies) registerPolicies(grpc);
  else
    process.emitWarning(
      'rollcall: this @grpc/grpc-js takes no policies, so round_robin is used: install 1.10 or later',
    );
  for (const [scheme, tls] of Object.entries(SCHEMES)) {
    grpc.registerResolver(
      scheme,
      ({ path }) => authorityHeader(serviceOf(path)),
      (target, push, channelOptions) => {
        const directory = channelOptions[DIRECTORY_OPTION] ?? known.get(target.authority ?? '');
        if (!directory) throw unknownAuthority(target, [...known.keys()]);
        const pushed = merged(channelOptions['grpc.service_config'], (directory as Directory).settings.policies);
        return new ServiceResolver(directory as Directory, serviceOf(target.path), tls, push, pushed);
      },
    );
  }
  return table;
}

const serviceOf = (path: string): string => path.replace(/^\//, '');
/** What HTTP/2 takes for an authority. */
const authorityHeader = (name: string): string => (/^[\w.~-]+$/.test(name) ? name : encodeURIComponent(name));

function unknownAuthority({ scheme, authority = '', path }: Target, known: readonly string[]): Error {
  const shown = known.map((one) => `discovery://${one}/`).join(', ');
  return invalid(
    'target',
    `no registry answers for ${scheme}://${authority}/${serviceOf(path)}: ${shown ? `known: ${shown}` : 'none is registered'}`,
  );
}

/** Caches of channels that are idle, or closed: nobody can tell. Those of the latter are garbage soon. */
const idle = new Set<WeakRef<ServiceCache>>();

/** Follows a service for one channel. */
class ServiceResolver implements ChannelResolver {
  readonly #directory: Directory;
  readonly #name: string;
  readonly #tls: boolean;
  readonly #push: Push;
  readonly #pushed: Pushed;
  readonly #scheme: Filter;
  #cache: ServiceCache | undefined;
  #parked: WeakRef<ServiceCache> | undefined;
  #unlisten: (() => void) | undefined;
  #stopClock: (() => void) | undefined;
  /** What `registry.service()` refused. */
  #refusal: Error | undefined;
  #isLate = false;
  #isDue = false;
  #service: ChannelService | undefined;
  #problem = '';
  /** The endpoints as they were pushed last, to tell whether there is something new. */
  #last = '';

  constructor(directory: Directory, name: string, tls: boolean, push: Push, pushed: Pushed) {
    this.#directory = directory;
    this.#name = name;
    this.#tls = tls;
    this.#push = push;
    this.#pushed = pushed;
    this.#scheme = callable(tls);
  }

  updateResolution(): void {
    if (!this.#unlisten || !this.#cache) this.#start(); // what was refused may be taken now
    this.#last = ''; // it may have forgotten
    this.#soon();
  }

  destroy(): void {
    this.#unlisten?.();
    this.#unlisten = undefined;
    this.#stopClock?.();
    this.#isLate = false;
    this.#last = '';
    if (!this.#cache) return;
    this.#parked = new WeakRef(this.#cache);
    idle.add(this.#parked);
    if (idle.size <= IDLE) return;
    for (const one of idle) if (!one.deref()) idle.delete(one);
    if (idle.size <= IDLE) return;
    const [oldest] = idle;
    oldest?.deref()?.release();
    idle.delete(oldest as WeakRef<ServiceCache>);
  }

  #start(): void {
    if (this.#parked) idle.delete(this.#parked);
    this.#parked = undefined;
    if (!this.#cache || this.#cache.state === 'released') this.#open();
    this.#stopClock?.();
    this.#unlisten = this.#cache?.onWake(() => this.#soon()) ?? (() => {});
    const { firstListTimeoutMs } = this.#directory.settings;
    this.#stopClock = after(firstListTimeoutMs, () => {
      this.#isLate = true;
      this.#soon();
    });
  }

  #open(): void {
    const { registry, settings } = this.#directory;
    const { service, zone } = settings;
    const filters = [this.#scheme, ...(service.filters ?? [])];
    this.#cache = undefined;
    this.#refusal = undefined;
    try {
      this.#cache = registry.service(this.#name, { ...service, filters });
    } catch (error) {
      this.#refusal = error as Error; // of the name, or the registry is closed
      return;
    }
    const problem = () => this.#problem;
    this.#service = {
      name: this.#name,
      open: (ready: Filter, strategy: Strategy) =>
        registry.service(this.#name, { ...service, filters: [...filters, ready], zone, strategy }),
      get problem() {
        return problem();
      },
    };
  }

  /** In a later turn: a channel must not be told while it asks. Many changes at once are one. */
  #soon(): void {
    if (this.#isDue) return;
    this.#isDue = true;
    setImmediate(() => {
      this.#isDue = false;
      if (!this.#unlisten) return;
      try {
        this.#tell();
      } catch (error) {
        this.#push.error(textOf(error as Error), this.#pushed.config); // a filter of the program has thrown
      }
    });
  }

  #tell(): void {
    const cache = this.#cache;
    const { config, isOurs } = this.#pushed;
    if (!cache) {
      this.#push.error(textOf(this.#refusal), config);
      return;
    }
    const candidates = cache.fitting;
    if (candidates === undefined) {
      const refusal = cache.refusal;
      if (refusal) this.#push.error(textOf(refusal), config);
      else if (this.#isLate) this.#push.error(this.#late(), config);
      return;
    }
    this.#stopClock?.();
    const endpoints = endpointsOf(candidates, this.#tls);
    if (endpoints.length === 0) this.#problem = this.#nobody(cache);
    const now = JSON.stringify(endpoints) + (endpoints.length === 0 ? this.#problem : '');
    if (now === this.#last) return;
    this.#last = now;
    if (endpoints.length === 0 && !isOurs) {
      this.#push.error(this.#problem, config); // a policy of grpc-js may throw for an empty list, or wait for ever
    } else {
      this.#push.list(endpoints, config, { [SERVICE_ATTRIBUTE]: this.#service });
    }
  }

  #nobody(cache: ServiceCache): string {
    const { message } = cache.nobody;
    const hint = this.#tls ? 'discovery+tls:/// takes grpcs:// alone' : 'discovery:/// takes grpc:// alone';
    return /\bscheme took out/.test(message) ? `${message}; ${hint}` : message;
  }

  #late(): string {
    const { firstListTimeoutMs } = this.#directory.settings;
    return textOf(
      new UnavailableError(`no list of ${this.#name} within ${firstListTimeoutMs} ms: the registry does not answer`),
    );
  }
}

const textOf = (error: Error | undefined): string => error?.message ?? 'unknown';
