/** The way in. What it needs is loaded with the first client: a module that defines configuration costs none of it. */

import type { RegistryOptions } from '../registry/backends/index.js';
import type { Coord } from './coord.js';
import type { CoordIdentity, CoordOptions } from './options.js';

const opening = () => require('./opening.js') as typeof import('./opening.js');
const calls = () => require('../registry/call.js') as typeof import('../registry/call.js');

/**
 * Connects to the store of configuration: given by a URL, by options, by a client that is there (`registry`, `etcd`), or
 * without any of these by the environment variable `ROLLCALL_COORD`, else by `ROLLCALL_REGISTRY`, else the memory of this process.
 * All options of `connect()` can be given beside those of coord.
 *
 * Resolves and rejects as `connect()` does: after the first contact, or at once with `lazy: true`, which a program needs that
 * is to start without its store, and which is the default with `cacheDir`.
 */
export async function connectCoord(
  target?: string | URL | CoordOptions | (RegistryOptions & CoordIdentity),
): Promise<Coord> {
  try {
    return await opening().opened(target);
  } catch (error) {
    throw calls().named(error, 'connectCoord');
  }
}
