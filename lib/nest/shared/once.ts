/** One `forRoot` for each client of an application: what else is imported is refused at its start, with what to do. */

import { isDeepStrictEqual } from 'node:util';
import { InvalidArgumentError } from '../../errors.js';

/** What is needed of a module in Nest's container. */
interface ModuleRef {
  readonly metatype: unknown;
  readonly providers: ReadonlyMap<unknown, unknown>;
  readonly imports: Iterable<unknown>;
}

/** A client's module, in its parts. */
export interface ClientModules {
  /** How messages call it. */
  readonly title: string;
  /** The module that programs import. */
  readonly whole: unknown;
  /** The module that has the providers. */
  readonly first: unknown;
}

/** How many of what was asked for is remembered. An application has a few; a hundred tests may make one each. */
const REMEMBERED = 64;

/**
 * Gives the same module for equal options, so that an application that asks twice has one client. What it gives describes
 * a module: each container of Nest makes its own of it.
 */
export class Definitions<Definition> {
  readonly #known: { readonly asked: unknown; readonly made: Definition }[] = [];

  of(asked: unknown, make: () => Definition): Definition {
    const known = this.#known.find((one) => isSame(one.asked, asked));
    if (known) return known.made;
    const made = make();
    this.#known.push({ asked, made });
    if (this.#known.length > REMEMBERED) this.#known.shift();
    return made;
  }
}

/** Two clients that are handed over are the same only if they are one: what they are connected to can't be seen. */
function isSame(a: unknown, b: unknown): boolean {
  const [one, other] = [clientsOf(a), clientsOf(b)];
  return (
    one.length === other.length && one.every((client, place) => client === other[place]) && isDeepStrictEqual(a, b)
  );
}

function clientsOf(asked: unknown): unknown[] {
  const rest = ((asked as { rest?: object } | undefined)?.rest ?? {}) as Record<string, Record<string, unknown>>;
  const { registry, coord, redis, policies, rules, store } = rest;
  return [
    ...[registry?.client, coord?.client, coord?.registry, coord?.etcd],
    ...[registry, coord, redis, policies, policies?.coord, rules, rules?.coord, store].filter(isMade),
  ];
}

/** An object of a class, and no list of options. */
function isMade(value: unknown): boolean {
  if (typeof value !== 'object' || value === null || value instanceof URL || Array.isArray(value)) return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype !== null && prototype !== Object.prototype;
}

/** Refuses a second `forRoot` with other options. `token` is a provider that the client's module has. */
export function refuseSecond(
  container: Iterable<unknown>,
  { title, whole, first }: ClientModules,
  token: string,
  name: string | undefined,
): void {
  const modules = [...container] as ModuleRef[];
  const cores = modules.filter(({ metatype, providers }) => metatype === first && providers.has(token));
  if (cores.length < 2) return;
  const wholes = modules.filter(
    (one) => one.metatype === whole && cores.some((core) => [...one.imports].includes(core)),
  );
  const called = name === undefined ? '' : ` for "${name}"`;
  throw new InvalidArgumentError(
    `${title}: forRoot was called with different options${called}${places(modules, wholes)}: call it once, in the root ` +
      `module, since all modules see it; a second client has a name of its own, such as forRoot({ name: 'second', … })`,
    { operation: 'forRoot' },
  );
}

/** Refuses the class alone among `imports`. `token` is a provider that only a module with options has. */
export function refuseBare(
  given: unknown,
  container: Iterable<unknown> | undefined,
  { title, whole }: Pick<ClientModules, 'title' | 'whole'>,
  token: string,
): void {
  if (given !== undefined) return;
  const modules = [...(container ?? [])] as ModuleRef[];
  const bare = modules.filter(({ metatype, providers }) => metatype === whole && !providers.has(token));
  throw new InvalidArgumentError(
    `${title}: imported without options${places(modules, bare)}: import ${title}.forRoot(…) or forRootAsync(…) once, in ` +
      'the root module; all other modules see what it gives without importing it',
    { operation: 'imports' },
  );
}

/** The modules that import one of these. */
function places(modules: readonly ModuleRef[], imported: readonly ModuleRef[]): string {
  const names = modules
    .filter(({ imports }) => [...imports].some((one) => imported.includes(one as ModuleRef)))
    .map(({ metatype }) => (metatype as { name?: string }).name ?? '?');
  return names.length === 0 ? '' : ` in ${[...new Set(names)].sort().join(' and ')}`;
}
