/** The decorators of `rollcall/nest`. */

import { Inject } from '@nestjs/common';
import type { ConfigDef, ConfigListener } from '../coord/index.js';
import {
  CoordHealthIndicator,
  configToken,
  definitionOf,
  EtcdHealthIndicator,
  expectInstance,
  getBreakerServiceToken,
  getCoordServiceToken,
  getCoordToken,
  getEtcdServiceToken,
  getEtcdToken,
  getOnceServiceToken,
  getRateLimitServiceToken,
  getRegistryServiceToken,
  getRegistryToken,
  getServiceToken,
  getUidServiceToken,
  healthTokenOf,
  markConfigHandler,
  markHandler,
  markSetting,
  methodOf,
  RegistryHealthIndicator,
} from './shared/index.js';

/** What Nest's `Inject()` gives. */
export type InjectDecorator = ReturnType<typeof Inject>;

/** Injects an etcd client, an `Etcd3`: the default one, or that of a name. */
export const InjectEtcd = (name?: string): InjectDecorator => Inject(getEtcdToken(name));
/** Injects the `EtcdService` of a client: of the default one, or of that of a name. */
export const InjectEtcdService = (name?: string): InjectDecorator => Inject(getEtcdServiceToken(name));
/** Injects the `EtcdHealthIndicator` of a client: of the default one, or of that of a name. */
export const InjectEtcdHealth = (name?: string): InjectDecorator =>
  Inject(healthTokenOf(EtcdHealthIndicator, getEtcdServiceToken, name));
/** Injects a registry client, a `Registry`: the default one, or that of a name. */
export const InjectRegistry = (name?: string): InjectDecorator => Inject(getRegistryToken(name));
/** Injects the `RegistryService` of a registry: of the default one, or of that of a name. */
export const InjectRegistryService = (name?: string): InjectDecorator => Inject(getRegistryServiceToken(name));
/** Injects a service to be called, the `ServiceCache` of `ServiceModule.forFeature(service)`; of the registry of a name. */
export const InjectService = (service: string, registry?: string): InjectDecorator =>
  Inject(getServiceToken(service, registry));
/** Injects the `RegistryHealthIndicator` of a registry: of the default one, or of that of a name. */
export const InjectRegistryHealth = (name?: string): InjectDecorator =>
  Inject(healthTokenOf(RegistryHealthIndicator, getRegistryServiceToken, name));
/**
 * Injects a configuration that `CoordModule` opens, a `ConfigRef`: `limits.value` is its value now.
 *
 * @param coord the name of the client of coord. Default: the default one.
 * @throws `ERR_INVALID_ARGUMENT` for what `defineConfig()` has not given.
 */
export const InjectConfig = <T>(definition: ConfigDef<T>, coord?: string): InjectDecorator =>
  Inject(configToken(definition, coord));
/** Injects a client of coord, a `Coord`: the default one, or that of a name. */
export const InjectCoord = (name?: string): InjectDecorator => Inject(getCoordToken(name));
/** Injects the `CoordService` of a client of coord: of the default one, or of that of a name. */
export const InjectCoordService = (name?: string): InjectDecorator => Inject(getCoordServiceToken(name));
/** Injects the `CoordHealthIndicator` of a client of coord: of the default one, or of that of a name. */
export const InjectCoordHealth = (name?: string): InjectDecorator =>
  Inject(healthTokenOf(CoordHealthIndicator, getCoordServiceToken, name));

/** Injects the `BreakerService` of a name, or the default one. */
export const InjectBreakerService = (name?: string): InjectDecorator => Inject(getBreakerServiceToken(name));
/** Injects the `OnceService` of a name, or the default one. */
export const InjectOnceService = (name?: string): InjectDecorator => Inject(getOnceServiceToken(name));
/** Injects the `RateLimitService` of a name, or the default one. */
export const InjectRateLimitService = (name?: string): InjectDecorator => Inject(getRateLimitServiceToken(name));
/** Injects the `UidService` of a name, or the default one. */
export const InjectUidService = (name?: string): InjectDecorator => Inject(getUidServiceToken(name));

/**
 * The method is called with the next value and the one before it, before a configuration changes, once the application has
 * started; and then, if the value has changed while it started. If it throws, or its promise rejects or takes longer than
 * `timeoutMs` of the client, the value is refused: `ref.value` stays everywhere, `ref.rejected` and the log say why. At the
 * start, where the value is in use already, the start fails.
 *
 * Others are asked at the same time, and may refuse what this one accepts: what can't be taken back belongs into
 * `ref.subscribe()`, which comes after the change. Without effect, and with a warning, in providers that are made for each
 * request or each user (transient), and without a `CoordModule`.
 *
 * @param coord the name of the client of coord. Default: the default one.
 * @throws `ERR_INVALID_ARGUMENT` for what `defineConfig()` has not given. One that is not in `config` of the module fails the start.
 */
export function OnConfigChange<T>(definition: ConfigDef<T>, { coord }: { coord?: string } = {}) {
  const def = definitionOf('definition', definition);
  return (target: object, key: string | symbol, descriptor: { value?: ConfigListener<T> }): void => {
    markConfigHandler(methodOf('@OnConfigChange', target, key, descriptor), { def, coord });
  };
}

/**
 * The method is called with the current list of a service once the application has started, and with every change of it.
 * While it has not returned, or its promise is pending, it is not called again; then it hears the latest list. What it
 * throws is logged. Without effect, and with a warning, in providers that are made for each request or each user (transient).
 *
 * @param registry the name of the registry. Default: the default one.
 */
export function OnServiceChange(service: string, { registry }: { registry?: string } = {}): MethodDecorator {
  return (target, key, descriptor) => {
    markHandler(methodOf('@OnServiceChange', target, key, descriptor), { service, registry });
  };
}

/** Options of `@Config`. */
export interface ConfigOptions {
  /** The name of the etcd client. Default: the default one. */
  client?: string | undefined;
  /** Makes the value of the text; `null` is for a setting that is not there. Default: the text itself. */
  parse?: ((text: string | null) => unknown) | undefined;
}

/**
 * The property holds a setting of etcd, as it is now: before the first hook of the application runs, and after every
 * change. What `parse` throws is logged, and leaves the property as it was; so does an outage. With `lazy` of the module
 * the property comes when etcd can be reached at the start, and stays `undefined` when it can't.
 *
 * ```ts
 * @Config('/config/orders/limit', { parse: (text) => Number(text ?? 10) })
 * private readonly limit!: number;
 * ```
 *
 * Without effect, and with a warning, in providers that are made for each request or each user (transient).
 */
export function Config(key: string, { client, parse = (text) => text }: ConfigOptions = {}): PropertyDecorator {
  return (prototype, property) => {
    expectInstance('@Config', prototype, property);
    markSetting(prototype.constructor, { property, key, client, parse });
  };
}

/** The same as `@Config`, for programs in which that is another's: Midway and `@nestjs/config` have names like it. */
export const EtcdConfig = Config;
