/** From the options of a module to a client of coord, with failures that say what to change. */

import type { SharedClient } from '../common/lending.js';
import { invalid, isRecord, record } from '../common/shape.js';
import type { Coord, CoordIdentity, CoordOptions } from '../coord/index.js';
import type { RegistryOptions } from '../registry/backends/index.js';
import { VARIABLE as REGISTRY_VARIABLE, urlOfVariable } from '../registry/environment.js';
import type { Registry } from '../registry/registry.js';
import { isUrl } from '../registry/url.js';
import type { AppLogger } from './logger.js';
import { explained } from './open.js';

/** Not before a program has a store: what it does not use is not loaded. */
const coordModule = () => require('../coord/index.js') as typeof import('../coord/index.js');

const VARIABLE = 'ROLLCALL_COORD';

/** Where the store is, and who this process is. */
export interface CoordPlace extends Omit<CoordOptions, 'registry' | 'etcd'> {
  /** The name of a registry of the application, `default` for the default one, or a client: its connection is shared. */
  registry?: string | Registry | undefined;
  /** The name of an etcd client of the application, `default` for the default one, or a client: its connection is shared. */
  etcd?: string | SharedClient | undefined;
}

/** As `connectCoord()` takes it; clients of the application by their names too. */
export type CoordTarget = string | URL | CoordPlace | (RegistryOptions & CoordIdentity);

/** What is needed of the options of a module. */
export interface OpenCoordOptions {
  coord?: CoordTarget | undefined;
  lazy?: boolean | undefined;
}

/** Finds a client of the application by its name, or says why there is none. */
export interface FindClient {
  registry(name: string): Registry | Promise<Registry>;
  etcd(name: string): SharedClient | Promise<SharedClient>;
}

const SHARED = ['registry', 'etcd'] as const;

/** The name of the client of the application whose connection is shared. */
export function sharedOf({ coord }: OpenCoordOptions): { kind: 'registry' | 'etcd'; name: string } | undefined {
  if (typeof coord !== 'object' || coord === null) return undefined;
  for (const kind of SHARED) {
    const name = (coord as CoordPlace)[kind];
    if (typeof name === 'string') return { kind, name };
  }
  return undefined;
}

/** Connects to the store of a module; `where` is how messages call the module. */
export async function openCoord(
  where: string,
  options: OpenCoordOptions,
  log: AppLogger,
  find: FindClient,
): Promise<Coord> {
  try {
    const given = targetOf(options, log);
    const shared = sharedOf({ coord: given });
    const whole: Record<string, unknown> = { ...given };
    if (shared) whole[shared.kind] = await find[shared.kind](shared.name);
    if (whole.registry === undefined) whole.logger ??= log; // another's client has its own
    if (options.lazy !== undefined) whole.lazy = options.lazy;
    return await coordModule().connectCoord(whole);
  } catch (error) {
    throw explained(where, error);
  }
}

const placesOf = (given: object) => ['url', 'backend', 'client', ...SHARED].filter((name) => name in given);

/** Whether options say where the store is. */
export const hasPlace = (given: object): boolean => placesOf(given).length > 0;

function targetOf(options: OpenCoordOptions, log: AppLogger): CoordPlace {
  const { coord } = options;
  const isSaid = Boolean(process.env[VARIABLE] || urlOfVariable());
  const wanted = 'expected a URL such as "etcd://10.0.0.1:2379" or options';
  if (coord === undefined || coord === '') {
    // Written down, and yet nothing: the setting that it comes from is missing.
    if ('coord' in options && !isSaid) {
      throw invalid('coord', `${wanted}, got ${coord === '' ? 'an empty string' : 'undefined'}`);
    }
    if (!isSaid) warnOfMemory(log);
    return {};
  }
  if (typeof coord === 'string' || isUrl(coord)) return { url: coord };
  const given = record('coord', coord, 'a URL or options');
  const places = placesOf(given);
  if (places.some((name) => given[name] !== undefined && given[name] !== '')) return given;
  const [missing] = places;
  if (missing !== undefined && !isSaid) {
    const got = given[missing] === '' ? 'an empty string' : 'undefined';
    throw invalid(`coord.${missing}`, `${missing === 'url' ? wanted : 'expected a value'}, got ${got}`);
  }
  if (!isSaid) warnOfMemory(log);
  return Object.fromEntries(Object.entries(given).filter(([name]) => !places.includes(name)));
}

function warnOfMemory(log: AppLogger): void {
  log.warn(`no store given, neither as an option nor by ${VARIABLE} or ${REGISTRY_VARIABLE}: using memory://default`);
}

/** In the place of the store of a module, for a test: the memory of this process, for who the options say that this process is. */
export async function openInMemory({ coord }: OpenCoordOptions, namespace: string): Promise<Coord> {
  const given: Record<string, unknown> = isRecord(coord) ? coord : {};
  const names = ['env', 'service', 'instance', 'labels', 'settleMs'].filter((name) => given[name] !== undefined);
  const identity = Object.fromEntries(names.map((name) => [name, given[name]]));
  return await coordModule().connectCoord({ ...identity, backend: 'memory', namespace });
}

/**
 * Reads a configuration once, by a connection of its own that is closed then.
 *
 * @throws as `connectCoord()` and `coord.config.open()`.
 */
export async function readOnce<T>(
  target: Parameters<typeof import('../coord/index.js')['connectCoord']>[0],
  definition: Parameters<Coord['config']['get']>[0],
): Promise<T> {
  const coord = await coordModule().connectCoord(target);
  try {
    return (await coord.config.get(definition)) as T;
  } finally {
    await coord.close();
  }
}
