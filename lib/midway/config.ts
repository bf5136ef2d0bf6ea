/** What the component takes from the configuration of an application. */

import type { IMidwayContainer } from '@midwayjs/core';
import type { Policy } from '../breaker/index.js';
import type { CoordIdentity } from '../coord/index.js';
import type { IOptions } from '../etcd/index.js';
import type { BreakerOptions } from '../frameworks/breakers.js';
import type { AnyConfigDef } from '../frameworks/configurations.js';
import type { OnceSettings } from '../frameworks/idempotency.js';
import type { RegistryOnEtcd } from '../frameworks/open.js';
import type { CoordPlace } from '../frameworks/open-coord.js';
import type { RateLimitSettings } from '../frameworks/rate-limits.js';
import type { SelfOptions } from '../frameworks/self-registration.js';
import type { UidOfApplication } from '../frameworks/uids.js';
import type { CommonOptions, InstanceInput, RegistryOptions, ServiceInstance } from '../index.js';
import type { RateRule } from '../ratelimit/index.js';
import type { FixedUidOptions } from '../uid/index.js';

/** An etcd client: the options of `Etcd3`, and these. */
export interface EtcdClientOptions extends Omit<IOptions, 'hosts'> {
  /** The members, such as `10.0.0.1:2379`. */
  hosts?: string[] | string | undefined;
  /** The same as `hosts`, which counts where both are given. */
  host?: string[] | string | undefined;
  /** Time for the whole first contact, in milliseconds. Default 10000. Midway 4 ends a start after 30000. */
  connectTimeoutMs?: number | undefined;
  /** `true`: start although etcd can't be reached. Default false: the start fails unless etcd answers in time. */
  lazy?: boolean | undefined;
  /** A class in the place of `Etcd3`; it gets the options that are not of this list. No contact is made with it. */
  customClientClass?: (new (options: object) => unknown) | undefined;
}

/** The key `etcd`, as `@midwayjs/etcd` has it. */
export interface EtcdConfig {
  /** Goes into the options of every client. */
  default?: EtcdClientOptions | undefined;
  /** The client `default`. */
  client?: EtcdClientOptions | undefined;
  /** Clients by name. */
  clients?: Record<string, EtcdClientOptions> | undefined;
  /** Whose client `ETCDService` is. Default: `default`, or the only one. */
  defaultClientName?: string | undefined;
  /** Given by `getClientPriority()` of the factory. */
  clientPriority?: Record<string, number> | undefined;
}

/** A registry by its URL, as `connect()` takes it; what stands beside it counts before what the URL says. */
export interface RegistryUrlOptions extends CommonOptions {
  /** Such as `etcd://10.0.0.1:2379`. Default: the environment variable `ROLLCALL_REGISTRY`. */
  url?: string | undefined;
}

/** A registry: a URL, or options; `{ etcd: 'default' }` shares the connection of that client of `etcd.clients`. With `lazy: true` the application starts, and is registered, without waiting for it. */
export type RegistryClientOptions = string | RegistryUrlOptions | RegistryOptions | RegistryOnEtcd;

/** Chooses one of the instances of a service; there is at least one. */
export interface InstanceBalancer {
  select(instances: ServiceInstance[]): ServiceInstance;
}

/** How `RegistryServiceDiscovery` of `rollcall/midway/discovery` works. */
export interface RegistryDiscoveryOptions {
  /** The name of the registry. Default: the default one. */
  serviceDiscoveryClient?: string | undefined;
  /** Goes into every instance that is registered by a discovery client. */
  serviceOptions?: Partial<InstanceInput> | undefined;
  /** Default `roundRobin`, for each service by itself. */
  loadBalancer?: 'roundRobin' | 'random' | InstanceBalancer | undefined;
}

/** The key `registry`. Without clients and without `register` there is no registry, unless `ROLLCALL_REGISTRY` names one. */
export interface RegistryConfig {
  /** Goes into the options of every client. */
  default?: RegistryClientOptions | undefined;
  /** The client `default`. */
  client?: RegistryClientOptions | undefined;
  /** Clients by name. */
  clients?: Record<string, RegistryClientOptions> | undefined;
  /** Whose client `RegistryService` is, and where the application is registered. Default: `default`, or the only one. */
  defaultClientName?: string | undefined;
  /** How the application itself is registered. Default: it is not. */
  register?: SelfOptions | false | undefined;
  /** For Midway 4. */
  serviceDiscovery?: RegistryDiscoveryOptions | undefined;
}

/** A configuration whose value at the start goes into the configuration of the application too. */
export interface PlacedConfig {
  /** Of `defineConfig()`. */
  definition: AnyConfigDef;
  /** Where: what `@Config()` takes, such as `redis.client`. Before other components read theirs; what stands there is merged with it. */
  as: string;
}

/** The key `coord`: a store, as `connectCoord()` of `rollcall/coord` takes it, and what is opened there. Without it there is none. */
export type CoordConfig = (CoordPlace | (RegistryOptions & CoordIdentity)) & {
  /**
   * What is opened at the start, and closed at the end. One that can't be opened, because what lies there is refused for instance,
   * fails the start. Default: none.
   */
  config?: readonly (AnyConfigDef | PlacedConfig)[] | undefined;
};

/**
 * The key `breakers`: circuit breakers, as `createBreakers()` of `rollcall/breaker` takes them. `policies: { path }` are those in the store of the key
 * `coord`. Without it there are none.
 */
export type BreakersConfig = Omit<BreakerOptions, 'policies'> & {
  /** Policies by the names of breakers, or where they lie in the store. Default: none. */
  policies?: Readonly<Record<string, Policy>> | { readonly path: string } | undefined;
};

/** What a function of a configuration makes of the container. Midway copies its configuration, and the copy of a client is none. */
export type Made<T> = (container: IMidwayContainer) => T | Promise<T>;

/** The key `once`: what is done once, as `createOnce()` of `rollcall/once` takes it, in one of `redis`, `coord` and `store`. Without it there is none. */
export type OnceConfig = Omit<OnceSettings, 'store' | 'redis' | 'coord'> & {
  /** Gives a client of ioredis or node-redis, such as `(container) => container.getAsync(RedisService)` of `@midwayjs/redis`. */
  redis?: Made<NonNullable<OnceSettings['redis']>> | undefined;
  /** Gives another store, such as `() => memoryOnce()`. */
  store?: Made<NonNullable<OnceSettings['store']>> | undefined;
  /** `default`: it is kept in the store of the key `coord`. */
  coord?: 'default' | undefined;
};

/** The key `rateLimit`: limits, as `createRateLimiter()` of `rollcall/ratelimit` takes them. Without it there are none. */
export type RateLimitConfig = Omit<RateLimitSettings, 'rules' | 'redis' | 'registry'> & {
  /** Rules by their names, or where they lie in the store of the key `coord`. */
  rules: Readonly<Record<string, RateRule>> | { readonly path: string };
  /** Gives a client of ioredis or node-redis, such as `(container) => container.getAsync(RedisService)` of `@midwayjs/redis`. */
  redis?: Made<NonNullable<RateLimitSettings['redis']>> | undefined;
  /** Where the live instances of this service are known, for rules that are `shared`: `registry` is the name of a client. Default: nowhere. */
  registry?: { service: string; registry?: string | undefined } | undefined;
};

/**
 * The key `uid`: how ids are made, as `createUid()` of `rollcall/uid` takes it. Without `workerId` the store of the key `coord` gives the worker
 * id. Without the key there are none.
 */
export type UidConfig = Omit<UidOfApplication, 'coord' | 'signal'> | FixedUidOptions;

declare module '@midwayjs/core' {
  interface MidwayConfig {
    etcd?: EtcdConfig;
    registry?: RegistryConfig;
    coord?: CoordConfig;
    breakers?: BreakersConfig;
    once?: OnceConfig;
    rateLimit?: RateLimitConfig;
    uid?: UidConfig;
  }
}
