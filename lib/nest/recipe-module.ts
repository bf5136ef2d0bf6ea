/** What the modules of the recipes have in common: made at the start of what other modules give, closed when all else has stopped. */

import type { InjectionToken, Type } from '@nestjs/common';
import type { Coord } from '../coord/index.js';
import type { Registry } from '../index.js';
import type { ClientKind, ClientPlace } from './client-module.js';
import { REFUSAL_FILTER } from './refusal-filter.js';
import {
  closedBefore,
  Definitions,
  type FindCoord,
  getCoordToken,
  getRegistryToken,
  invalid,
  keptAlive,
  recipeToken,
} from './shared/index.js';

/** The clients of the application that a recipe may use. */
export interface Clients {
  /** @throws `ERR_INVALID_ARGUMENT` that says what to import. */
  readonly coord: FindCoord;
  /** @throws `ERR_INVALID_ARGUMENT` that says what to import. */
  registry(name: string | undefined): Registry;
}

/** A recipe: what its module has of its own. */
export interface Recipe<Options extends object, Service> {
  readonly modules: ClientKind['modules'];
  readonly title: string;
  readonly logName: string;
  readonly tokens: { readonly options: (name?: string) => string; readonly service: (name?: string) => string };
  readonly service: Type<Service>;
  /** Which decorators need it, as a message says: `@Breaker needs`. Default: none. */
  readonly decorators?: string;
  /** Which clients of the application it may use: these are made before it. */
  readonly uses: readonly ['coord'] | readonly ['coord', 'registry'];
  /** Which of them known options name, where not the default ones. */
  needs(known: Options): { readonly coord?: string | undefined; readonly registry?: string | undefined };
  open(place: ClientPlace, options: Options, clients: Clients): Service | Promise<Service>;
  close(service: Service): unknown;
}

/** The kind of client that a recipe is. */
export function recipeKind<Options extends object, Service>(recipe: Recipe<Options, Service>): ClientKind {
  const { modules, title, logName, tokens, decorators } = recipe;
  return {
    modules,
    title,
    logName,
    tokens: { ...tokens, client: tokens.service },
    definitions: new Definitions(),
    classes: { service: recipe.service as Type },
    holdsClients: true,
    providers: ({ options, only, service }, place, known) => {
      const needs = known ? recipe.needs(known as Options) : {};
      // Where one of them is not there, it may not be needed.
      const shared = { coord: getCoordToken(needs.coord), registry: getRegistryToken(needs.registry) };
      return [
        REFUSAL_FILTER,
        {
          provide: service,
          inject: [
            options,
            only,
            ...recipe.uses.map((kind) => ({ token: shared[kind], optional: true })),
          ] as InjectionToken[],
          useFactory: async (given: Options, _: unknown, coord?: Coord, registry?: Registry) => {
            const find =
              <Client>(kind: string, module: string, of: string | undefined, client: Client | undefined) =>
              (name: string | undefined): Client => {
                if (client && (name ?? 'default') === (of ?? 'default')) return client;
                throw noClient(kind, module, name, known !== undefined);
              };
            const made = await recipe.open(place, given ?? {}, {
              coord: find('coord', 'CoordModule', needs.coord, coord),
              registry: find('registry', 'RegistryModule', needs.registry, registry),
            });
            if (coord) closedBefore(coord, () => close(recipe, made));
            return made;
          },
        },
      ];
    },
    features: ({ service }, { name }: { name?: string }) =>
      decorators ? [{ provide: recipeToken(title, decorators, name), useExisting: service }] : [],
    resident: {
      inject: ({ service }) => [service],
      make: ({ log }, service: Service) => ({
        start: async () => {},
        leave: async () => {},
        close: async () => {
          try {
            await close(recipe, service);
          } catch (error) {
            log.warn(`it was not closed in order: ${(error as Error).message}`);
          }
        },
      }),
    },
  };
}

/** Its clients may keep nothing alive any more. */
const close = <Service>(recipe: Pick<Recipe<never, Service>, 'close'>, service: Service) =>
  keptAlive(async () => await recipe.close(service));

function noClient(kind: string, module: string, name: string | undefined, isKnown: boolean): Error {
  if (name === undefined) return invalid(kind, `there is no ${module}: import ${module}.forRoot(…) in the root module`);
  return invalid(
    kind,
    isKnown
      ? `there is no client "${name}": import ${module}.forRoot(…) for it in the root module`
      : `a name is for forRoot(): in forRootAsync() inject the client, and give it in the place of its name`,
  );
}
