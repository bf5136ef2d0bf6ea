/** The tokens of injection. Strings: the same in the ES module and in the CommonJS build. */

/** The token of the default etcd client. */
export const ETCD_CLIENT = 'ETCD_CLIENT';
/** The same as `ETCD_CLIENT`, by the name that modules which people wrote for themselves have it. */
export const ETCD_CLIENT_TOKEN = ETCD_CLIENT;
/** The token of the options of the default etcd client: what `getEtcdOptionsToken()` gives. */
export const ETCD_CLIENT_OPTIONS = 'ETCD_OPTIONS';
/** The same as `ETCD_CLIENT_OPTIONS`. */
export const ETCD_CLIENT_OPTIONS_TOKEN = ETCD_CLIENT_OPTIONS;
/** The token of the default registry client. */
export const REGISTRY_CLIENT = 'REGISTRY_CLIENT';
/** The token of the default client of coord. */
export const COORD_CLIENT = 'COORD_CLIENT';

const named = (base: string, name: string | undefined) => (isDefault(name) ? base : `${base}:${name}`);

/** Whether a name is that of the default client, which has none. */
export const isDefault = (name: string | undefined): boolean => !name || name === 'default';

/** The token of an etcd client: `ETCD_CLIENT`, or that of the client of a name. */
export const getEtcdToken = (name?: string): string => named(ETCD_CLIENT, name);
/** The token of the `EtcdService` of a client. The default one is also injected by its class. */
export const getEtcdServiceToken = (name?: string): string => named('ETCD_SERVICE', name);
/** The token of the options of an etcd client. */
export const getEtcdOptionsToken = (name?: string): string => named(ETCD_CLIENT_OPTIONS, name);
/** The token of a registry client. The default one is also injected by its class, `Registry` of `rollcall`. */
export const getRegistryToken = (name?: string): string => named(REGISTRY_CLIENT, name);
/** The token of the `RegistryService` of a registry. The default one is also injected by its class. */
export const getRegistryServiceToken = (name?: string): string => named('REGISTRY_SERVICE', name);
/** The token of the options of a registry: what a test overrides. */
export const getRegistryOptionsToken = (name?: string): string => named('REGISTRY_OPTIONS', name);
/** The token of a client of coord. */
export const getCoordToken = (name?: string): string => named(COORD_CLIENT, name);
/** The token of the `CoordService` of a client of coord. The default one is also injected by its class. */
export const getCoordServiceToken = (name?: string): string => named('COORD_SERVICE', name);
/** The token of the options of a client of coord: what a test overrides. */
export const getCoordOptionsToken = (name?: string): string => named('COORD_OPTIONS', name);
const NEEDED = 'which @WithLock, @LeaderOnly and @OncePerTick need: import it in the root module';
/**
 * What classes with `@WithLock` and the like are injected with. Nest shows the token where nobody gives it, and so it says what
 * to do.
 */
export const methodsToken = (name?: string): string =>
  isDefault(name) ? `CoordModule.forRoot(…), ${NEEDED}` : `CoordModule.forRoot({ name: '${name}', … }), ${NEEDED}`;
/** The token of the `BreakerService` of a name. The default one is also injected by its class. */
export const getBreakerServiceToken = (name?: string): string => named('BREAKER_SERVICE', name);
/** The token of the options of breakers: what a test overrides. */
export const getBreakerOptionsToken = (name?: string): string => named('BREAKER_OPTIONS', name);
/** The token of the `OnceService` of a name. The default one is also injected by its class. */
export const getOnceServiceToken = (name?: string): string => named('ONCE_SERVICE', name);
/** The token of the options of what is done once: what a test overrides. */
export const getOnceOptionsToken = (name?: string): string => named('ONCE_OPTIONS', name);
/** The token of the `RateLimitService` of a name. The default one is also injected by its class. */
export const getRateLimitServiceToken = (name?: string): string => named('RATE_LIMIT_SERVICE', name);
/** The token of the options of rate limits: what a test overrides. */
export const getRateLimitOptionsToken = (name?: string): string => named('RATE_LIMIT_OPTIONS', name);
/** The token of the `UidService` of a name. The default one is also injected by its class. */
export const getUidServiceToken = (name?: string): string => named('UID_SERVICE', name);
/** The token of the options of ids: what a test overrides. */
export const getUidOptionsToken = (name?: string): string => named('UID_OPTIONS', name);
/** What classes with a decorator of a recipe are injected with; it says what to do where nobody gives it. */
export const recipeToken = (module: string, decorators: string, name?: string): string => {
  const call = isDefault(name) ? `${module}.forRoot(…)` : `${module}.forRoot({ name: '${name}', … })`;
  return `${call}, which ${decorators}: import it in the root module`;
};
/** The token of a service that `ServiceModule.forFeature()` gives. */
export const getServiceToken = (service: string, registry?: string): string => named(`SERVICE:${service}`, registry);
/** The token of the health indicator of a client: its class for the default one, else by the token of its service. */
export const healthTokenOf = <Indicator>(
  indicator: Indicator,
  serviceToken: (name?: string) => string,
  name: string | undefined,
): Indicator | string => (isDefault(name) ? indicator : `${serviceToken(name)}:health`);
