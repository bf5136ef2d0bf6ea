/** rollcall/uid: ids that no two processes make, whatever becomes of their leases and clocks. Enter at `createUid()` and `uuidv7()`. */

export { createUid } from './create.js';
export { type ClockDetails, ClockError, type NoWorkerIdDetails, NoWorkerIdError } from './errors.js';
export type { Layout, ParsedId } from './layout.js';
export type { ClockBack } from './snowflake.js';
export type { CoordUidOptions, FixedUidOptions, IdOptions, Uid, UidEvents } from './uid.js';
export { parseUuidv7, uuidv7 } from './uuid.js';
