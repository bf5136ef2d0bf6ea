/** The forms in which a module takes options that are not there yet. */

import type { InjectionToken, ModuleMetadata, OptionalFactoryDependency, Provider, Type } from '@nestjs/common';

/** Static beside a factory: which client the options are for, and who sees it. */
export interface ModuleExtras {
  /** The name of the client. Default: the default client. */
  name?: string | undefined;
  /** Whether all modules see it without importing this one. Default true. */
  isGlobal?: boolean | undefined;
}

/** Options that are made by the program: by a function, a class, or a provider that is there. One of the three. */
export interface AsyncOptions<Options, Factory> extends ModuleExtras, Pick<ModuleMetadata, 'imports'> {
  /** Makes the options of what is injected. */
  // biome-ignore lint/suspicious/noExplicitAny: what is injected, which the program annotates, or not
  useFactory?: ((...args: any[]) => Options | Promise<Options>) | undefined;
  /** A class that makes the options; it is made for this module. */
  useClass?: Type<Factory> | undefined;
  /** The token of a provider of `imports` that makes the options. */
  useExisting?: InjectionToken | undefined;
  /** What `useFactory` is called with. */
  inject?: (InjectionToken | OptionalFactoryDependency)[] | undefined;
  /** More providers, for `inject`. */
  extraProviders?: Provider[] | undefined;
}

/** The providers of the options of `token`. `method` is what the factories of the program have. */
export function asyncProviders<Options, Factory>(
  where: string,
  token: string,
  method: keyof Factory & string,
  options: AsyncOptions<Options, Factory>,
): Provider[] {
  const { name, useFactory, useClass, useExisting, inject = [], extraProviders = [] } = options;
  if ([useFactory, useClass, useExisting].filter((given) => given !== undefined).length !== 1) {
    throw new TypeError(`${where}.forRootAsync: expected one of useFactory, useClass and useExisting`);
  }
  if (useFactory) return [...extraProviders, { provide: token, useFactory: useFactory as () => unknown, inject }];
  const maker = useClass ?? (useExisting as InjectionToken);
  const made = async (factory: Factory) => (factory[method] as (name?: string) => unknown).call(factory, name);
  return [
    ...extraProviders,
    ...(useClass ? [{ provide: useClass, useClass }] : []),
    { provide: token, useFactory: made, inject: [maker] },
  ];
}
