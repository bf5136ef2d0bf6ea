/** Snowflake ids of a program: with a worker id of the store, or with one that is given. */

import { hostname } from 'node:os';
import { now as monotonic } from '../common/clock.js';
import { type Log, logOf } from '../common/logger.js';
import { abortSignal, choice, integer, invalid, kindOf, onlyKnown, optional, record, text } from '../common/shape.js';
import { outcomeOf } from '../common/waiting.js';
import type { Coord, Slot, SlotRefusal } from '../coord/index.js';
import { AbortedError, ClosedError, TimeoutError } from '../errors.js';
import { Events } from '../registry/events.js';
import { ClockError, NoWorkerIdError } from './errors.js';
import { epochOf, type Layout, layoutOf, type ParsedId, parsedId } from './layout.js';
import { type ClockBack, type Rules, Snowflake } from './snowflake.js';
import { FixedWindow } from './window.js';

/** How ids are made. All processes that make ids of one kind have the same layout and epoch. */
export interface IdOptions {
  /** How the 63 bits are divided. Default: 41 for the time, 10 for the worker, 12 for the sequence. */
  layout?: Layout | undefined;
  /** What ids count their milliseconds from; it has passed. Default 1288834974657, as `im-infra` has it: 4 November 2010. */
  epoch?: number | Date | undefined;
  /**
   * What becomes of a clock that was set back: `borrow` goes on counting by the monotonic clock; `wait` blocks the thread until the clock is where it
   * was, `maxAheadMs` at the most; `error` throws. Default `borrow`.
   */
  clockBack?: ClockBack | undefined;
  /**
   * How many milliseconds ids may be ahead of the time when more are made than fit into it, from 1 to 60,000. Then `next()` blocks until there is
   * room, a millisecond at a time. Default 5000.
   */
  maxAheadMs?: number | undefined;
  /** Where to log; `false` for silence. Default: `console`. */
  logger?: unknown;
}

/** Ids with a worker id that the store gives. */
export interface CoordUidOptions extends IdOptions {
  /** A client of `rollcall/coord`. It stays open at the end; when it is closed first, the worker id is given back with it. */
  coord: Pick<Coord, 'slots'>;
  /** Whose worker ids: one part of a key. Ids are unique among all processes that name the same service. */
  service: string;
  /** For how many milliseconds ids are made without the store, from 1,000 to an hour. Default 60,000. */
  windowMs?: number | undefined;
  /** How soon the worker id of a process that died is free, in milliseconds, from 1,000. Default 15,000, or `windowMs` where that is less. */
  ttlMs?: number | undefined;
  /** Who holds the worker id, for people: at most 1,024 characters. Default: the name of the host and the id of the process. */
  holder?: string | undefined;
  /** How long to wait for a worker id, in milliseconds, at least 1. Default 10,000. */
  timeoutMs?: number | undefined;
  /** Ends that wait. */
  signal?: AbortSignal | undefined;
}

/** Ids with a worker id that is given: that no other process has it, and that the clock does not go back over a restart, is the program's. */
export interface FixedUidOptions extends IdOptions {
  /** From 0 to 2^workerBits - 1. */
  workerId: number;
}

/** The events of ids. */
export interface UidEvents {
  /** The window was extended: until when, in milliseconds of the Unix epoch. */
  renewed: [validUntil: number];
  /** The worker id is another one, because the one before was lost. */
  moved: [change: { readonly from: number; readonly to: number }];
  /** More ids are made than fit into the time, and they are `maxAheadMs` ahead: `next()` blocks. Once, until there is room again. */
  exhausted: [];
  /** The clock was set, or has jumped: by so many milliseconds. */
  clock: [byMs: number];
}

const EVENTS = ['renewed', 'moved', 'exhausted', 'clock'] as const;
/** Who listens late hears of the latest window alone, which is told so often that it would leave no room for the others. */
const VOIDS = { renewed: ['renewed'], exhausted: ['exhausted'] };
const COMMON = ['layout', 'epoch', 'clockBack', 'maxAheadMs', 'logger'] as const;
const OF_COORD = ['coord', 'service', 'windowMs', 'ttlMs', 'holder', 'timeoutMs', 'signal', ...COMMON] as const;
const OF_FIXED = ['workerId', ...COMMON] as const;
const MANY = 1_000_000;
/** How often `ready()` looks, in milliseconds, where nothing is told. */
const LOOK_MS = 1000;

/** @internal See `createUid()`. */
export async function opened(options: unknown): Promise<Uid> {
  const given = record('options', options);
  return given.workerId === undefined ? await overSlot(given) : fixed(given);
}

function rulesOf(given: Record<string, unknown>): Rules & { readonly log: Log } {
  const layout = layoutOf('options.layout', given.layout);
  return {
    layout,
    epoch: epochOf('options.epoch', given.epoch, layout, Date.now()),
    clockBack: choice<ClockBack>('options.clockBack', given.clockBack, ['borrow', 'wait', 'error'], 'borrow'),
    maxAheadMs: integer('options.maxAheadMs', given.maxAheadMs, 5000, { min: 1, max: 60_000 }),
    log: logOf('options.logger', given.logger),
  };
}

function fixed(given: Record<string, unknown>): Uid {
  if (given.coord !== undefined) throw invalid('options', 'expected coord or workerId, got both');
  onlyKnown('options', given, OF_FIXED);
  const rules = rulesOf(given);
  const max = 2 ** rules.layout.workerBits - 1;
  const workerId = integer('options.workerId', given.workerId, 0, { min: 0, max });
  let uid: Uid | undefined;
  const window = new FixedWindow(workerId, (byMs) => uid?.stepped(byMs));
  uid = new Uid(rules, undefined, () => window.now());
  return uid;
}

async function overSlot(given: Record<string, unknown>): Promise<Uid> {
  onlyKnown('options', given, OF_COORD);
  const rules = rulesOf(given);
  const slots = slotsOf(given.coord);
  const service = text('options.service', given.service);
  if (service === undefined) throw invalid('options.service', 'expected a string, got undefined');
  const windowMs = integer('options.windowMs', given.windowMs, 60_000, { min: 1000, max: 3_600_000 });
  const ttlMs = integer('options.ttlMs', given.ttlMs, Math.min(windowMs, 15_000), { min: 1000, max: 3_600_000 });
  const holder = text('options.holder', given.holder) ?? `${hostname()} (${process.pid})`;
  const timeoutMs = integer('options.timeoutMs', given.timeoutMs, 10_000, { min: 1 });
  const signal = abortSignal('options.signal', given.signal);
  let uid: Uid | undefined;
  const user = {
    changed: () => uid?.changed(),
    ended: () => uid?.ended() ?? { generation: 0, last: 0 },
  };
  const asked = { service, slots: 2 ** rules.layout.workerBits, windowMs, ttlMs, holder };
  const slot = await slots.take(asked, user, { timeoutMs, signal });
  if ('reason' in slot) throw refused(slot, service);
  uid = new Uid(rules, slot, () => slot.window());
  return uid;
}

function slotsOf(coord: unknown): Coord['slots'] {
  const slots = (coord as Partial<Coord> | null | undefined)?.slots;
  if (typeof slots?.take === 'function') return slots;
  throw invalid('options.coord', `expected a client of rollcall/coord, got ${kindOf(coord)}`);
}

function refused({ reason, holders, aheadMs }: SlotRefusal, service: string): NoWorkerIdError | ClockError {
  const operation = 'createUid';
  if (reason === 'full') {
    const text = `createUid: all ${holders.length} worker ids of ${service} are held: ${shortened(holders)}`;
    return new NoWorkerIdError(text, { operation, holders: Object.freeze([...holders]) });
  }
  const text = `createUid: the clock is ${aheadMs} ms ahead of all who have a worker id of ${service}`;
  return new ClockError(text, { operation, offMs: aheadMs });
}

const shortened = (holders: readonly string[]): string =>
  holders.slice(0, 10).join('; ') + (holders.length > 10 ? '; …' : '');

/** Ids of one worker id. Made by `createUid()`. It belongs to the thread that made it, and keeps no process alive. */
export class Uid {
  readonly #rules: Rules;
  readonly #events: Events<UidEvents>;
  readonly #slot: Slot | undefined;
  readonly #ids: Snowflake;
  /** What was told last: `next()` may have looked at the window before its change is told. */
  #told: { readonly worker: number; readonly until: number };
  #steps: number;
  readonly #waiting = new Set<() => void>();
  #isClosed = false;

  /** @internal */
  constructor(
    rules: Rules & { readonly log: Log },
    slot: Slot | undefined,
    window: ConstructorParameters<typeof Snowflake>[1],
  ) {
    this.#rules = rules;
    this.#slot = slot;
    this.#events = new Events<UidEvents>(EVENTS, rules.log, VOIDS);
    this.#ids = new Snowflake(rules, window, {
      exhausted: () => this.#events.tell('exhausted'),
      clock: (byMs) => this.#events.tell('clock', byMs),
    });
    this.#steps = this.#ids.look().steps;
    this.#told = { worker: this.#ids.workerId, until: this.#ids.until };
  }

  /** The worker id of the next id. */
  get workerId(): number {
    return this.#ids.workerId;
  }

  /**
   * Until when ids can be made without the store, in milliseconds of the Unix epoch, as it is known at this moment. `Infinity` with a worker id
   * that is given; 0 once it is closed.
   */
  get validUntil(): number {
    if (this.#isClosed) return 0;
    if (!this.#slot) return Number.POSITIVE_INFINITY;
    this.#ids.look();
    return this.#ids.until;
  }

  /**
   * An id, greater than each before it. It asks nobody, and is not async.
   *
   * @throws `ERR_UNAVAILABLE` when the window has ended because the store is away: at once, and again until it is back; `ERR_CLOCK` when the clock has jumped
   * ahead, or back with `clockBack: 'error'`; `ERR_CLOSED`.
   */
  next(): bigint {
    return this.#ids.next();
  }

  /** The same in digits: a JavaScript number has too few bits for it. @throws as `next()`. */
  nextString(): string {
    return this.#ids.nextString();
  }

  /** So many ids at once, from 1 to 1,000,000, each greater than the one before it. @throws as `next()`; then none of them is of any use; and `ERR_INVALID_ARGUMENT`. */
  nextMany(count: number): BigInt64Array {
    return this.#ids.nextMany(integer('count', count, 0, { min: 1, max: MANY }));
  }

  /** What an id of this layout and epoch is made of. @throws `ERR_INVALID_ARGUMENT`. */
  parse(id: bigint | string): ParsedId {
    return parsedId(id, this.#rules.layout, this.#rules.epoch);
  }

  /**
   * Resolves when an id can be made: at once as a rule; after an outage when the window is extended again.
   *
   * @param options `timeoutMs`: how long to wait, default 10,000; `signal` ends it.
   * @throws `ERR_TIMEOUT`, `ERR_ABORTED`, `ERR_CLOSED`, `ERR_INVALID_ARGUMENT`.
   */
  async ready(options?: { timeoutMs?: number | undefined; signal?: AbortSignal | undefined }): Promise<void> {
    const given = optional('options', options);
    onlyKnown('options', given, ['timeoutMs', 'signal']);
    const timeoutMs = integer('options.timeoutMs', given.timeoutMs, 10_000, { min: 1 });
    const signal = abortSignal('options.signal', given.signal);
    const end = monotonic() + timeoutMs;
    const operation = 'ready';
    for (;;) {
      if (this.#isClosed) throw new ClosedError('ready: it is closed', { operation });
      if (signal?.aborted) throw new AbortedError('ready: aborted', { operation, cause: signal.reason });
      const wait = this.#ids.waitMs();
      if (wait === 0) return;
      const left = end - monotonic();
      if (left <= 0) throw new TimeoutError(`ready: no id can be made within ${timeoutMs} ms`, { operation });
      let wake = () => {};
      const change = new Promise<void>((resolve) => {
        wake = resolve;
      });
      this.#waiting.add(wake);
      await outcomeOf(change, signal, Math.min(left, wait ?? LOOK_MS));
      this.#waiting.delete(wake);
    }
  }

  on<E extends keyof UidEvents>(event: E, listener: (...args: UidEvents[E]) => void): this {
    this.#events.add(event, listener, false);
    return this;
  }

  off<E extends keyof UidEvents>(event: E, listener: (...args: UidEvents[E]) => void): this {
    this.#events.remove(event, listener);
    return this;
  }

  /**
   * Makes no more ids, and gives the worker id back with the millisecond that was stamped last, so that the next holder begins after it. Harmless a
   * second time.
   *
   * @throws `ERR_UNAVAILABLE`, `ERR_TIMEOUT` where the store could not be asked: the lease expires, and the next holder begins after the window.
   */
  async close(): Promise<void> {
    if (this.#slot) await this.#slot.release();
    else this.ended();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** @internal */
  changed(): void {
    if (this.#isClosed) return;
    const { worker, until } = this.#told;
    const { steps, stepMs } = this.#ids.look();
    const { workerId: to, until: validUntil } = this.#ids;
    this.#told = { worker: to, until: validUntil };
    const isSet = steps !== this.#steps;
    this.#steps = steps;
    if (to !== worker) this.#events.tell('moved', { from: worker, to });
    if (isSet) this.#events.tell('clock', stepMs);
    if (validUntil !== until) this.#events.tell('renewed', validUntil);
    this.#wake();
  }

  /** @internal */
  stepped(byMs: number): void {
    this.#events.tell('clock', byMs);
  }

  /** @internal */
  ended(): { readonly generation: number; readonly last: number } {
    const { generation, last } = this.#ids;
    this.#isClosed = true;
    this.#ids.close();
    this.#wake();
    return { generation, last };
  }

  #wake(): void {
    for (const wake of this.#waiting) wake();
  }
}
