/** What the modules of all clients have in common: their tokens, their providers, and the two ends of their life. */

import {
  type DynamicModule,
  type InjectionToken,
  Logger,
  type ModuleMetadata,
  type Provider,
  type Type,
} from '@nestjs/common';
import { HttpAdapterHost, ModulesContainer } from '@nestjs/core';
import { type AsyncOptions, asyncProviders, type ModuleExtras } from './async-options.js';
import { type AppLogger, endsOf, isDefault, placeAtEnds, type Resident, UNORDERED } from './shared/index.js';

/** The tokens of one client. */
export interface ClientTokens {
  readonly options: string;
  readonly client: string;
  readonly service: string;
  /** Of the default client: the class of the indicator. */
  readonly health: InjectionToken;
}

/** Which client it is, and where it logs. */
export interface ClientPlace {
  /** How messages call its module. */
  readonly where: string;
  readonly name: string | undefined;
  readonly log: AppLogger;
}

/** What a resident needs to know of the application. */
export interface Application extends ClientPlace {
  readonly modules: ModulesContainer;
  adapter(): HttpAdapterHost['httpAdapter'];
}

/** A kind of client: what its module has of its own. */
export interface ClientKind {
  /** The module that programs import, and the two that have its hooks: see `placeAtEnds()`. */
  readonly modules: { readonly whole: Type; readonly first: Type; readonly last: Type };
  /** How messages call the module, and how the log calls the client. */
  readonly title: string;
  readonly logName: string;
  readonly tokens: { readonly [Name in 'options' | 'client' | 'service']: (name?: string) => string };
  /** The classes by which the default client and its service are injected as well, and the class of the indicator. */
  readonly classes: { readonly client: InjectionToken; readonly service: InjectionToken; readonly health: Type };
  /** The providers of the client, its service and its indicator. */
  providers(tokens: ClientTokens, place: ClientPlace): Provider[];
  /** What lives with the application, made of what is injected. */
  resident: {
    inject(tokens: ClientTokens): InjectionToken[];
    make(application: Application, ...injected: never[]): Resident;
  };
}

/** The module of options that are known. */
export function ofOptions(kind: ClientKind, { name, isGlobal, ...rest }: ModuleExtras & object): DynamicModule {
  return assembled(kind, { name, isGlobal }, [{ provide: kind.tokens.options(name), useValue: rest }]);
}

/** The module of options that the program makes; `method` is what its factories have. */
export function ofFactory<Options, Factory>(
  kind: ClientKind,
  method: keyof Factory & string,
  options: AsyncOptions<Options, Factory>,
): DynamicModule {
  const providers = asyncProviders(kind.title, kind.tokens.options(options.name), method, options);
  return assembled(kind, options, providers, options.imports);
}

function assembled(
  kind: ClientKind,
  { name, isGlobal = false }: ModuleExtras,
  options: Provider[],
  imports: ModuleMetadata['imports'] = [],
): DynamicModule {
  const { whole, first, last } = kind.modules;
  const isOnly = isDefault(name);
  const place: ClientPlace = {
    where: isOnly ? kind.title : `${kind.title} "${name}"`,
    name,
    log: new Logger(isOnly ? kind.logName : `${kind.logName}:${name}`),
  };
  const service = kind.tokens.service(name);
  const tokens: ClientTokens = {
    options: kind.tokens.options(name),
    client: kind.tokens.client(name),
    service,
    health: isOnly ? kind.classes.health : `${service}:health`,
  };
  const resident = `${service}:resident`;
  const aliases = isOnly
    ? [
        { provide: kind.classes.client, useExisting: tokens.client },
        { provide: kind.classes.service, useExisting: tokens.service },
      ]
    : [];
  const core: DynamicModule = {
    module: first,
    global: isGlobal,
    imports,
    providers: [
      ...options,
      ...kind.providers(tokens, place),
      {
        provide: resident,
        inject: [HttpAdapterHost, ModulesContainer, ...kind.resident.inject(tokens)],
        useFactory: (host: HttpAdapterHost, modules: ModulesContainer, ...injected: never[]) => {
          if (!placeAtEnds(modules.values(), first, last)) place.log.warn(UNORDERED);
          const application = { ...place, modules, adapter: () => host.httpAdapter };
          return endsOf(kind.resident.make(application, ...injected));
        },
      },
      { provide: `${resident}:first`, inject: [resident], useFactory: (ends) => ends.first },
      ...aliases,
    ],
    exports: [
      ...[tokens.options, tokens.client, tokens.service, resident, tokens.health],
      ...aliases.map(({ provide }) => provide),
    ] as DynamicModule['exports'] & object,
  };
  const edge: DynamicModule = {
    module: last,
    imports: [core],
    providers: [{ provide: `${resident}:last`, inject: [resident], useFactory: (ends) => ends.last }],
  };
  return { module: whole, imports: [core, edge], exports: [core] };
}
