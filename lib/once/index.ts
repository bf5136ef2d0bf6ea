/** rollcall/once: what is done once, however often it is asked for. Enter at `createOnce()`. */

export type { IoRedisLike, NodeRedisLike, RedisLike } from '../common/redis.js';
export { type CoordOnce, type CoordOnceOptions, coordOnce, type OnceCoord } from './coord.js';
export {
  type InProgressDetails,
  InProgressError,
  KeyReusedError,
  OutcomeUnknownError,
  type TakenOverDetails,
  TakenOverError,
} from './errors.js';
export type { Codec } from './exact.js';
export { type MemoryOnce, type MemoryOnceOptions, memoryOnce } from './memory.js';
export { type ClearOptions, createOnce, type Once } from './once.js';
export type { OnceOptions, RunOptions, ScopeOptions } from './options.js';
export { type RedisOnce, type RedisOnceOptions, redisOnce } from './redis.js';
export type { Run } from './run.js';
export type { State } from './state.js';
