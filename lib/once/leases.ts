/** The leases that say that this process lives: one for each `lockMs`, as long as something runs under it. */

import { randomBytes } from 'node:crypto';
import { onAbort } from '../common/abort.js';
import { after } from '../common/clock.js';
import type { Coord, Held } from '../coord/index.js';
import { type RollcallError, UnavailableError } from '../errors.js';

/** A lease that is held. */
export interface Lease {
  /** The key that stands as long as it does: by that others know whether it is. */
  readonly owner: string;
  readonly held: Held;
  readonly ttlMs: number;
  /** How many use it. */
  users: number;
  /** Takes back that it is given back. */
  stay(): void;
  /** Whoever begins has another: it was lost or idle, or something in the store may name it that nobody here runs. */
  isRetired: boolean;
}

/** Where their locks lie. */
const FOLDER = '/once/owners/';
/** How long one is held that nobody uses, in milliseconds: the next who runs something has it at once. */
const IDLE_MS = 1000;

export class Leases {
  readonly #coord: Pick<Coord, 'config' | 'lock'>;
  readonly #limits: { readonly timeoutMs?: number };
  /** Those that are used anew, or are on their way, by their time to live. */
  readonly #leases = new Map<number, Promise<Lease>>();
  /** All that are held. */
  readonly #held = new Set<Lease>();

  constructor(coord: Pick<Coord, 'config' | 'lock'>, limits: { readonly timeoutMs?: number }) {
    this.#coord = coord;
    this.#limits = limits;
  }

  /** Whether the lease of an owner stands. Once it does not it never will. */
  async isAlive(owner: string): Promise<boolean> {
    return (await this.#coord.config.raw(owner, this.#limits)) !== null;
  }

  /** Uses a lease, until `leave()`. @throws what the store rejects with; nothing is held then. */
  async enter(lockMs: number): Promise<Lease> {
    const ttlMs = 1000 * Math.ceil(lockMs / 1000);
    for (;;) {
      const known = this.#get(ttlMs);
      const lease = await known;
      if (lease.held.isHeld && !lease.isRetired) {
        lease.users++;
        lease.stay();
        return lease;
      }
      this.retire(lease); // it was lost
    }
  }

  leave(lease: Lease): void {
    if (--lease.users > 0) return;
    lease.stay();
    if (lease.isRetired) void this.#release(lease);
    else lease.stay = after(IDLE_MS, () => this.retire(lease));
  }

  /**
   * A claim under this lease may stand in the store that nobody here will bring to its end, so it is given back as soon as what runs under it
   * is over. What begins from now on has another.
   */
  retire(lease: Lease): void {
    if (lease.isRetired) return;
    lease.isRetired = true;
    this.#leases.delete(lease.ttlMs);
    if (lease.users === 0) void this.#release(lease);
  }

  /** Uses one that was entered until what it gives is called, and tells when it is lost meanwhile. */
  keep(lease: Lease, lost: (why: string) => void): (isSettled: boolean) => void {
    const { signal } = lease.held;
    const tell = () => lost(`the lease of this process was lost: ${(signal.reason as Error | undefined)?.message}`);
    const unlisten = signal.aborted ? () => {} : onAbort(signal, tell);
    if (signal.aborted) tell();
    return (isSettled) => {
      unlisten();
      if (!isSettled) this.retire(lease);
      this.leave(lease);
    };
  }

  async close(): Promise<void> {
    await Promise.allSettled(this.#leases.values());
    this.#leases.clear();
    await Promise.all([...this.#held].map((lease) => this.#release(lease)));
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
    const lease: Lease = { owner: held.key, held, ttlMs, users: 0, isRetired: false, stay() {} };
    this.#held.add(lease);
    return lease;
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

  async #release(lease: Lease): Promise<void> {
    lease.stay();
    this.#held.delete(lease);
    await lease.held.release().catch(() => {}); // tried again by itself; its lease expires at the latest
  }
}
