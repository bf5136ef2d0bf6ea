/** Where programs begin. What it takes comes with the first use of each: it is several times what the entry point takes. */

import type { RedisLike } from '../common/redis.js';
import type { CoordOnce, CoordOnceOptions, OnceCoord } from './coord.js';
import type { MemoryOnce, MemoryOnceOptions } from './memory.js';
import type { Once } from './once.js';
import type { OnceOptions } from './options.js';
import type { RedisOnce, RedisOnceOptions } from './redis.js';

/** @throws `ERR_INVALID_ARGUMENT` that names the option. No I/O but one question to Redis, in the background. */
export function createOnce(options: OnceOptions): Once {
  const once = require('./once.js') as typeof import('./once.js');
  return new once.Once(options);
}

/**
 * Keeps records in the memory of this process. A run is its runner's as long as it runs: nobody but `clear()` with `force` takes it
 * over, and with the process all is forgotten.
 *
 * @throws `ERR_INVALID_ARGUMENT`.
 */
export function memoryOnce(options?: MemoryOnceOptions): MemoryOnce {
  const memory = require('./memory.js') as typeof import('./memory.js');
  return new memory.MemoryOnce(options);
}

/**
 * Keeps records in Redis 5 or later, by a connected client of ioredis, iovalkey or node-redis. The client stays the program's.
 *
 * @throws `ERR_INVALID_ARGUMENT`. No I/O.
 */
export function redisOnce(client: RedisLike, options?: RedisOnceOptions): RedisOnce {
  const redis = require('./redis.js') as typeof import('./redis.js');
  return new redis.RedisOnce(client, options);
}

/**
 * Keeps records in the store of `rollcall/coord`, below `/once/`: for up to about a hundred new keys a second. The client stays the
 * program's. Registries that have no locks reject with `ERR_UNSUPPORTED`.
 *
 * @throws `ERR_INVALID_ARGUMENT`. No I/O.
 */
export function coordOnce(coord: OnceCoord, options?: CoordOnceOptions): CoordOnce {
  const made = require('./coord.js') as typeof import('./coord.js');
  return new made.CoordOnce(coord, options);
}
