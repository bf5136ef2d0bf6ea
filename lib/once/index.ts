/** rollcall/once: what is done once, however often it is asked for. Enter at `createOnce()`. */

export type { IoRedisLike, NodeRedisLike, RedisLike } from '../common/redis.js';
export type { CoordOnce, CoordOnceOptions, OnceCoord } from './coord.js';
export { coordOnce, createOnce, memoryOnce, redisOnce } from './create.js';
export {
  type InProgressDetails,
  InProgressError,
  KeyReusedError,
  OutcomeUnknownError,
  type TakenOverDetails,
  TakenOverError,
} from './errors.js';
export type { Codec } from './exact.js';
export type { MemoryOnce, MemoryOnceOptions } from './memory.js';
export type { ClearOptions, Once } from './once.js';
export type { OnceOptions, RunOptions, ScopeOptions } from './options.js';
export type { RedisOnce, RedisOnceOptions } from './redis.js';
export type { Run } from './run.js';
export type { State } from './state.js';
