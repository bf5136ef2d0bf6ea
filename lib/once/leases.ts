/** The leases that say that this process lives: one for each `lockMs`, as long as something runs under it. */

import { randomBytes } from 'node:crypto';
import { onAbort } from '../common/abort.js';
import { after } from '../common/clock.js';
import type { Coord, Held } from '../coord/index.js';
import { type RollcallError, UnavailableError } from '../errors.js';

/** A lease that is held. */
export interface Lease {
  /**
   * By what others know whether it is: the key that stands as long as it does, or, in a store that does not show that key among its
   * others (the memory of `memory://`), the name of its lock.
   */
  readonly owner: string;
  /** What must be so in a transaction that is made under it: that its key stands. */
  readonly stands: Readonly<Record<string, bigint>>;
  readonly held: Held;
  /** How many use it. */
  users: number;
  /** Takes back that it is given back. */
  stay(): void;
}

/** Where their locks lie. */
const FOLDER = '/once/owners/';
/** What the name of an owner begins with that is that of a lock. */
const LOCK = 'lock:';
/** How long one is held that nobody uses, in milliseconds: the next who runs something has it at once. */
const IDLE_MS = 1000;

/** What must be so for the lease of an owner to be gone. */
export const isGone = (owner: string): Readonly<Record<string, number>> =>
  owner.startsWith(LOCK) ? {} : { [owner]: 0 };

export class Leases {
  readonly #coord: Pick<Coord, 'config' | 'lock'>;
  readonly #limits: { readonly timeoutMs?: number };
  /** By their time to live. */
  readonly #leases = new Map<number, Promise<Lease>>();

  constructor(coord: Pick<Coord, 'config' | 'lock'>, limits: { readonly timeoutMs?: number }) {
    this.#coord = coord;
    this.#limits = limits;
  }

  /** Whether the lease of an owner stands. Once it does not it never will. */
  async isAlive(owner: string): Promise<boolean> {
    if (!owner.startsWith(LOCK)) return (await this.#coord.config.raw(owner, this.#limits)) !== null;
    const held = await this.#tryAcquire(owner.slice(LOCK.length), 1000);
    await held?.release();
    return held === null;
  }

  /** Uses a lease, until `leave()`. @throws what the store rejects with; nothing is held then. */
  async enter(lockMs: number): Promise<Lease> {
    const ttlMs = 1000 * Math.ceil(lockMs / 1000);
    for (;;) {
      const known = this.#get(ttlMs);
      const lease = await known;
      if (lease.held.isHeld) {
        lease.users++;
        lease.stay();
        return lease;
      }
      if (this.#leases.get(ttlMs) === known) this.#leases.delete(ttlMs);
    }
  }

  leave(lease: Lease): void {
    if (--lease.users > 0) return;
    lease.stay();
    lease.stay = after(IDLE_MS, () => this.#release(lease));
  }

  /** Uses one until what it gives is called, and tells when it is lost meanwhile. */
  keep(lease: Lease, lost: (why: string) => void): () => void {
    const { signal } = lease.held;
    const tell = () => lost(`the lease of this process was lost: ${(signal.reason as Error | undefined)?.message}`);
    lease.users++;
    lease.stay();
    const unlisten = signal.aborted ? () => {} : onAbort(signal, tell);
    if (signal.aborted) tell();
    return () => {
      unlisten();
      this.leave(lease);
    };
  }

  async close(): Promise<void> {
    const leases = await Promise.allSettled(this.#leases.values());
    this.#leases.clear();
    await Promise.allSettled(
      leases.map(async (lease) => {
        if (lease.status !== 'fulfilled') return;
        lease.value.stay();
        await lease.value.held.release();
      }),
    );
  }

  #get(ttlMs: number): Promise<Lease> {
    const known = this.#leases.get(ttlMs);
    if (known) return known;
    const made = this.#acquire(ttlMs);
    this.#leases.set(ttlMs, made);
    made.catch(() => {
      if (this.#leases.get(ttlMs) === made) this.#leases.delete(ttlMs);
    });
    return made;
  }

  async #acquire(ttlMs: number): Promise<Lease> {
    // A name that nobody has, so nobody is waited for: not even a lease of one's own that is lost and not yet gone.
    const name = `${FOLDER}${randomBytes(12).toString('hex')}`;
    const held = await this.#tryAcquire(name, ttlMs);
    if (!held) throw new UnavailableError('once: the lease of this process could not be had');
    const isShown = (await this.#coord.config.raw(held.key, this.#limits)) !== null;
    const owner = isShown ? held.key : LOCK + name;
    return { owner, stands: isShown ? { [held.key]: held.token } : {}, held, users: 0, stay() {} };
  }

  async #tryAcquire(name: string, ttlMs: number): Promise<Held | null> {
    try {
      return await this.#coord.lock.tryAcquire(name, { ttlMs, ...this.#limits });
    } catch (cause) {
      const { code, message } = cause as RollcallError;
      if (code !== 'ERR_LOCK_LOST') throw cause;
      throw new UnavailableError(`once: the lease of this process was lost: ${message}`, { cause });
    }
  }

  #release(lease: Lease): void {
    for (const [ttlMs, known] of this.#leases) {
      void known.then((of) => {
        if (of === lease && lease.users === 0) {
          this.#leases.delete(ttlMs);
          lease.held.release().catch(() => {}); // its lease expires at the latest
        }
      });
    }
  }
}
