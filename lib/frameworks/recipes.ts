/** What the recipes of an application have in common: what they take of it, and how they are made ready. */

import { isRecord, onlyKnown } from '../common/shape.js';
import type { Coord } from '../coord/index.js';
import { keptAlive } from './alive.js';

/** Finds a client of coord of the application, or says why there is none. */
export type FindCoord = (name: string | undefined) => Coord | Promise<Coord>;

/** The name of the client of coord that options name. */
export function coordNameOf(where: object | undefined): string | undefined {
  const { coord } = (where ?? {}) as { readonly coord?: unknown };
  return typeof coord === 'string' ? coord : undefined;
}

/** With the client of coord in the place of its name, where something lies in a store. */
export async function stored(path: string, given: unknown, findCoord: FindCoord): Promise<unknown> {
  if (!isRecord(given) || typeof given.path !== 'string') return given;
  const { coord } = given;
  if (coord !== undefined && typeof coord !== 'string') return given;
  onlyKnown(path, given, ['path', 'coord']);
  return { path: given.path, coord: await findCoord(coord) };
}

/** What was made, when it is ready; it is closed where it can't be. */
export async function readied<Made extends { ready(): Promise<void>; close(): void }>(made: Made): Promise<Made> {
  try {
    await keptAlive(() => made.ready());
    return made;
  } catch (error) {
    made.close();
    throw error;
  }
}
