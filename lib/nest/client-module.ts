/** What the modules of all clients have in common: their tokens, their providers, and the two ends of their life. */

import {
  type DynamicModule,
  Inject,
  type InjectionToken,
  Logger,
  type ModuleMetadata,
  Optional,
  type Provider,
  type Type,
} from '@nestjs/common';
import { HttpAdapterHost, ModulesContainer } from '@nestjs/core';
import { type AsyncOptions, asyncProviders, type ModuleExtras } from './async-options.js';
import {
  type AppLogger,
  type Definitions,
  endsOf,
  healthTokenOf,
  isDefault,
  placeAtEnds,
  type Resident,
  refuseBare,
  refuseSecond,
  UNORDERED,
} from './shared/index.js';

/** The tokens of one client. */
export interface ClientTokens {
  /** What a client that is made must be injected with: it fails where there are two of the client. */
  readonly only: string;
  readonly options: string;
  readonly client: string;
  readonly service: string;
  /** Of the default client: the class of the indicator. Of a kind without one: the service. */
  readonly health: InjectionToken;
}

/** Of a kind of client: what a module with options has, and the class alone has not. */
const givenOf = (title: string) => `${title}:given`;

/**
 * Lets a module class refuse to be imported alone. Its constructor is to hand on what it gets.
 *
 * The class is decorated by calls: the source is compiled for programs that don't decorate parameters.
 */
export function refusesBare(whole: Type, title: string): void {
  Optional()(whole, undefined, 0);
  Inject(givenOf(title))(whole, undefined, 0);
  Optional()(whole, undefined, 1);
  Inject(ModulesContainer)(whole, undefined, 1);
}

/** What the constructor of such a class does. */
export function checkGiven(whole: Type, title: string, isGiven: unknown, modules: ModulesContainer | undefined): void {
  refuseBare(isGiven, modules?.values(), { title, whole }, givenOf(title));
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
  /** The classes by which the default client, where it has one, and its service are injected as well, and the class of the indicator, where it has one. */
  readonly classes: { readonly client?: InjectionToken; readonly service: InjectionToken; readonly health?: Type };
  /** Whether the options may have clients of the program in them. */
  readonly holdsClients?: boolean;
  /** The modules that were asked for. */
  readonly definitions: Definitions<DynamicModule>;
  /** The providers of the client, its service and its indicator. `known` are options that no factory makes. */
  providers(tokens: ClientTokens, place: ClientPlace, known?: object): Provider[];
  /** What stands beside a factory, as it does among known options, and is no option: its name, and what of it other modules get. */
  readonly extra?: string;
  features?(tokens: ClientTokens, given: object): Exclude<Provider, Type>[];
  /** What lives with the application, made of what is injected. */
  resident: {
    inject(tokens: ClientTokens): InjectionToken[];
    make(application: Application, ...injected: never[]): Resident;
  };
}

let definitions = 0;

/** The module of options that are known. */
export function ofOptions(kind: ClientKind, { name, isGlobal, ...rest }: ModuleExtras & object): DynamicModule {
  return kind.definitions.of({ ...extrasOf({ name, isGlobal }), rest }, () => {
    const known = Object.fromEntries(Object.entries(rest).filter(([option]) => option !== kind.extra));
    const token = kind.tokens.options(name);
    // Nest 10 writes values out to tell modules apart: what may hold clients is given by a function, and told apart by a number.
    const given = kind.holdsClients
      ? [
          { provide: token, useFactory: () => known },
          { provide: `${token}:definition`, useValue: ++definitions },
        ]
      : [{ provide: token, useValue: known }];
    return assembled(kind, { name, isGlobal }, given, { name, ...rest }, [], known);
  });
}

/** The module of options that the program makes; `method` is what its factories have. */
export function ofFactory<Options, Factory>(
  kind: ClientKind,
  method: keyof Factory & string,
  options: AsyncOptions<Options, Factory>,
): DynamicModule {
  return kind.definitions.of({ ...options, ...extrasOf(options) }, () => {
    const providers = asyncProviders(kind.title, kind.tokens.options(options.name), method, options);
    return assembled(kind, options, providers, options, options.imports);
  });
}

/** As they count: what is left out is the same as its default. */
function extrasOf({ name, isGlobal = true }: ModuleExtras): ModuleExtras {
  return { name: isDefault(name) ? undefined : name, isGlobal };
}

function assembled(
  kind: ClientKind,
  extras: ModuleExtras,
  options: Provider[],
  given: object,
  imports: ModuleMetadata['imports'] = [],
  known?: object,
): DynamicModule {
  const { whole, first, last } = kind.modules;
  const { name, isGlobal } = extrasOf(extras);
  const isOnly = name === undefined;
  const place: ClientPlace = {
    where: isOnly ? kind.title : `${kind.title} "${name}"`,
    name,
    log: new Logger(isOnly ? kind.logName : `${kind.logName}:${name}`),
  };
  const service = kind.tokens.service(name);
  const tokens: ClientTokens = {
    only: `${service}:only`,
    options: kind.tokens.options(name),
    client: kind.tokens.client(name),
    service,
    health: kind.classes.health ? healthTokenOf(kind.classes.health, kind.tokens.service, name) : service,
  };
  const resident = `${service}:resident`;
  const features = kind.features?.(tokens, given) ?? [];
  const aliases = isOnly
    ? [
        ...(kind.classes.client ? [{ provide: kind.classes.client, useExisting: tokens.client }] : []),
        { provide: kind.classes.service, useExisting: tokens.service },
      ]
    : [];
  const core: DynamicModule = {
    module: first,
    global: isGlobal === true,
    imports,
    providers: [
      ...options,
      {
        provide: tokens.only,
        inject: [ModulesContainer],
        useFactory: (modules: ModulesContainer) => {
          refuseSecond(modules.values(), { title: kind.title, whole, first }, tokens.only, name);
          return true; // something must be provided
        },
      },
      ...kind.providers(tokens, place, known),
      ...features,
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
      ...[...features, ...aliases].map(({ provide }) => provide),
    ] as DynamicModule['exports'] & object,
  };
  const edge: DynamicModule = {
    module: last,
    imports: [core],
    providers: [{ provide: `${resident}:last`, inject: [resident], useFactory: (ends) => ends.last }],
  };
  const mark = { provide: givenOf(kind.title), useValue: true };
  return { module: whole, imports: [core, edge], providers: [mark], exports: [core] };
}
