/** The ids of an application. */

import { optional } from '../common/shape.js';
import type { Coord } from '../coord/index.js';
import type { CoordUidOptions, FixedUidOptions, Uid } from '../uid/index.js';
import { keptAlive } from './alive.js';
import type { AppLogger } from './logger.js';
import { explained } from './open.js';
import type { FindCoord } from './recipes.js';

/** Not before a program makes ids: what it does not use is not loaded. */
const uidModule = () => require('../uid/index.js') as typeof import('../uid/index.js');

/** Ids with a worker id that the store of a client of coord of the application gives. */
export interface UidOfApplication extends Omit<CoordUidOptions, 'coord'> {
  /** The name of the client of coord, or a client. Default: the default one. */
  coord?: string | Pick<Coord, 'slots'> | undefined;
  workerId?: undefined;
}

/** How the ids of an application are made: as `createUid()` takes it, where without `workerId` and `coord` its client of coord gives the worker id. */
export type UidSettings = UidOfApplication | FixedUidOptions;

/** Makes what makes the ids of a module; `where` is how messages call the module. */
export async function openUid(where: string, options: UidSettings, log: AppLogger, findCoord: FindCoord): Promise<Uid> {
  try {
    const { ...given } = optional('options', options);
    const isNamed = given.coord === undefined ? given.workerId === undefined : typeof given.coord === 'string';
    if (isNamed) given.coord = await findCoord(given.coord as string | undefined);
    return await keptAlive(() => uidModule().createUid({ logger: log, ...given } as never));
  } catch (error) {
    throw explained(where, error);
  }
}
