/** rollcall/coord: configuration that is never half applied, and locks that say when they are lost. Enter at `connectCoord()`. */

export type { Applied } from './config/applied.js';
export type {
  ChangeOptions,
  ConfigCenter,
  DiffOptions,
  HistoryOptions,
  OpenOptions,
  SetAllOptions,
  SetOptions,
} from './config/center.js';
export { type ConfigDef, type ConfigDefinition, defineConfig, type RecordDefinition } from './config/definition.js';
export type { Entry } from './config/entry.js';
export type { ConfigSource } from './config/evaluate.js';
export type { Version } from './config/history.js';
export type { ConfigCheck, ConfigListener, ConfigRef, ConfigRefEvents } from './config/ref.js';
export type { InputOf, OutputOf, StandardIssue, StandardResult, StandardSchema } from './config/standard-schema.js';
export type { ConfigFormat } from './config/text.js';
export type { ConfigWatcher, ConfigWatcherEvents } from './config/watcher.js';
export { connectCoord } from './connect.js';
export type { Coord } from './coord.js';
export type { RunCoordinator } from './cron/coordinator.js';
export type { CronEvents, CronJob } from './cron/job.js';
export type { CronOptions, CronTick } from './cron/options.js';
export {
  type ConfigIssue,
  type ConflictDetails,
  ConflictError,
  type InvalidConfigDetails,
  InvalidConfigError,
  NotFoundError,
} from './errors.js';
export type { Campaign, CampaignEvents } from './locks/campaign.js';
export type { CampaignOptions, Elections, Leader } from './locks/elections.js';
export { type LockLostDetails, LockLostError } from './locks/errors.js';
export type { Guard, Held } from './locks/held.js';
export type { Lock } from './locks/lock.js';
export type { Locks } from './locks/locks.js';
export type { AcquireOptions, LockOptions, PermitsRef } from './locks/options.js';
export type { CoordIdentity, CoordOptions } from './options.js';
export type { Slot, SlotLimits, SlotOptions, SlotRefusal, Slots, SlotUser, SlotWindow } from './slots.js';
