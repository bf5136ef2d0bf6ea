/** Methods that run under a lock. */

import { boolean, onlyKnown, optional } from '../common/shape.js';
import type { AcquireOptions, Coord, Held, LockOptions } from '../coord/index.js';
import { KeyTemplate } from './key-template.js';
import { lockOptions, locks } from './locks.js';
import { around, FilledParameter, type Method, type Place } from './methods.js';
import { explained } from './open.js';
import { Running } from './running.js';

/** How a method is locked. */
export interface WithLockOptions extends LockOptions {
  /**
   * How long a call waits for the lock, in milliseconds; 0: as long as it takes. Default: `timeoutMs` of the client, 5000 unless it
   * was given. With `skip`: how long the store may take to answer.
   */
  timeoutMs?: number | undefined;
  /** `true`: a call that finds the lock held does not wait, and resolves with `undefined` without running. Default false. */
  skip?: boolean | undefined;
}

const KNOWN = ['ttlMs', 'stallTimeoutMs', 'name', 'timeoutMs', 'skip'];

/** The parameter that gets what is held. */
export const HELD_LOCK = new FilledParameter('@HeldLock');

/** The locks of the methods of an application. */
export class MethodLocks {
  readonly #coord: Coord;
  readonly #running = new Running();

  constructor(coord: Coord) {
    this.#coord = coord;
  }

  async run<T>(
    key: string,
    { skip, ...how }: { skip: boolean } & LockOptions & AcquireOptions,
    work: (held: Held) => Promise<T>,
  ): Promise<T | undefined> {
    const { lock } = this.#coord;
    return await this.#running.run(async () => {
      if (!skip) return await lock.withLock(key, work, how);
      const held = await lock.tryAcquire(key, how);
      return held ? await locks().under(held, work) : undefined;
    });
  }

  /** Waits until no method runs under a lock, for so many milliseconds at the most; says how many then still do. */
  async over(limitMs: number): Promise<number> {
    return await this.#running.over(limitMs);
  }
}

/**
 * What stands in the place of a method that runs under a lock. `locksOf` gives those of the application that an object is of.
 *
 * @throws `ERR_INVALID_ARGUMENT`.
 */
export function lockedMethod(
  place: Place,
  key: string,
  given: WithLockOptions | undefined,
  locksOf: (self: object) => MethodLocks,
): Method {
  const template = new KeyTemplate(place.path, key);
  const how = checked(place, given);
  return around(place.method, async (self, args) => {
    const methodLocks = locksOf(self);
    return await methodLocks.run(template.fill(args), how, async (held) => {
      return await place.method.apply(
        self,
        HELD_LOCK.fill(place, args, () => held),
      );
    });
  });
}

function checked({ path }: Place, given: WithLockOptions | undefined) {
  try {
    const bag = optional('options', given);
    onlyKnown('options', bag, KNOWN);
    const { skip, ...how } = bag;
    lockOptions().both(how, 0);
    return { ...how, skip: boolean('options.skip', skip, false) };
  } catch (error) {
    throw explained(path, error);
  }
}
