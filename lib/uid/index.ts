/** rollcall/uid: ids that no two processes make, whatever becomes of their leases and clocks. Enter at `createUid()` and `uuidv7()`. */

export { type ClockDetails, ClockError, type NoWorkerIdDetails, NoWorkerIdError } from './errors.js';
export type { Layout, ParsedId } from './layout.js';
export type { ClockBack } from './snowflake.js';
export {
  type CoordUidOptions,
  createUid,
  type FixedUidOptions,
  type IdOptions,
  type Uid,
  type UidEvents,
} from './uid.js';
export { parseUuidv7, uuidv7 } from './uuid.js';
