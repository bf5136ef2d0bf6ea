/** What a registry shares with who works on its client. */

import type { Log } from '../common/logger.js';
import type { ClientHandle } from '../native.js';
import type { Holds } from './holds.js';
import type { Watches } from './watches.js';

/**
 * What a registry shares with who works on its client.
 *
 * @internal
 */
export interface Inside {
  readonly client: ClientHandle;
  readonly watches: Watches;
  readonly holds: Holds;
  readonly log: Log;
  readonly connectTimeoutMs: number;
  readonly timeoutMs: number;
  readonly stallTimeoutMs: number;
  /** Who hears of the loss of a lock, by the id of its handle. */
  readonly locks: Map<number, () => void>;
  /** Who hears of another window of a slot, by the id of its handle. */
  readonly slots: Map<number, () => void>;
  /** Why the registry is closed, if it is. */
  closedBy(): string | undefined;
}
