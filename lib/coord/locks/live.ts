/** What a client holds and waits for, until it is closed. */

import { closedError } from '../../registry/call.js';
import type { Inside } from '../../registry/inside.js';
import type { Keeper } from './held.js';

export class LiveHolds implements Keeper {
  readonly inside: Inside;
  readonly live: Keeper['live'] = new Set();
  isClosed = false;

  constructor(inside: Inside) {
    this.inside = inside;
  }

  refuseClosed(operation: string): void {
    const why = this.isClosed ? 'coord is closed' : this.inside.closedBy();
    if (why !== undefined) throw closedError(operation, why);
  }

  /** Gives everything back that is held, and ends who waits. */
  async close(): Promise<void> {
    this.isClosed = true;
    await Promise.all([...this.live].map((held) => held.close().catch(() => {})));
  }
}
