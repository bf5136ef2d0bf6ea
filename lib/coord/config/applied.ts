/**
 * Which instance has applied what. Each that reports has one key below `/config-applied/{env}/{service}/`, without a lease, since not
 * every store has them: it is written anew from time to time, and what nobody writes anew is removed by the others.
 */

import { after } from '../../common/clock.js';
import { invalid } from '../../common/shape.js';
import { under } from '../keys.js';
import type { Identity } from '../options.js';
import type { Change, Limits, Store } from '../store.js';
import type { Entry } from './entry.js';

/** Changes that come within so many milliseconds are one report. */
const COALESCE_MS = 1000;
/** A report is written anew after so long, and a tenth more or less, whatever happens. */
const AGAIN_MS = 600_000;
/** And after so long where it could not be written. */
const RETRY_MS = 10_000;
/** A report that is older is of an instance that is no more: several were missed. */
const OLD_MS = 3_600_000;
/** So many of these are removed at once, so that a transaction takes them. */
const REMOVED_MOST = 30;
/** The longest reason that is reported. */
const REASON_MOST = 500;

/** What one instance has of a configuration. */
export interface Applied {
  /** Its option `instance`. */
  readonly instance: string;
  /** The revision of the store at which its value was read: it has applied all that was written until then, and was accepted. */
  readonly revision: bigint;
  /** Why what lies there since then was refused, if it was. */
  readonly rejected?: string;
  /** When it reported, by its clock; at least every 11 minutes while it lives. */
  readonly at: Date;
}

/**
 * What is reported of a configuration that is open, by the key of its definition.
 *
 * @internal
 */
export interface State {
  readonly revision: bigint;
  readonly rejected: Error | undefined;
}

/**
 * The folder of the reports of a service.
 *
 * @internal
 */
export function reportsOf({ env, service }: Identity): string {
  if (service !== undefined) return `/config-applied/${env ?? '-'}/${service}/`;
  throw invalid(
    'options.service',
    'expected the name of the service, below which its instances report what they have applied',
  );
}

/**
 * Reads the reports of a service. What can't be read is left out.
 *
 * @internal
 */
export function appliedOf(key: string, reports: readonly Entry[], folder: string): Applied[] {
  return reports.flatMap((report): Applied[] => {
    const content = contentOf(report);
    const state = content?.keys[key];
    if (!content || !state) return [];
    const { revision, rejected } = state as { revision?: unknown; rejected?: unknown };
    if (typeof revision !== 'string' || !/^\d{1,19}$/.test(revision)) return [];
    const reason = typeof rejected === 'string' && { rejected };
    const instance = report.key.slice(folder.length);
    return [Object.freeze({ instance, revision: BigInt(revision), ...reason, at: content.at })];
  });
}

function contentOf({ value }: Entry): { at: Date; keys: Record<string, unknown> } | undefined {
  try {
    const { at, keys } = JSON.parse(value) as { at: string; keys: Record<string, unknown> };
    const date = new Date(at);
    if (Number.isNaN(date.getTime()) || typeof keys !== 'object' || keys === null) return undefined;
    return { at: date, keys };
  } catch {
    return undefined;
  }
}

/**
 * Reports what one client has applied.
 *
 * @internal
 */
export class Reporter {
  readonly #store: Store;
  readonly #states: () => ReadonlyMap<string, State>;
  readonly #folder: string;
  readonly #key: string;
  #stop = () => {};
  #isDue = false;
  #isOver = false;
  #hasFailed = false;
  #writing: Promise<unknown> = Promise.resolve();

  /** `states` tells what is open. */
  constructor(store: Store, identity: Identity, states: () => ReadonlyMap<string, State>) {
    this.#store = store;
    this.#states = states;
    this.#folder = reportsOf(identity);
    if (identity.instance === undefined) {
      throw invalid('options.instance', 'expected the name of this instance, by which it reports what it has applied');
    }
    this.#key = `${this.#folder}${identity.instance}`;
  }

  /** Something was applied, or refused, or closed. */
  changed(): void {
    if (this.#isDue || this.#isOver) return;
    this.#isDue = true;
    this.#after(COALESCE_MS);
  }

  /** Takes the report away, for this instance goes; as far as that is possible within `timeoutMs`. */
  async leave(timeoutMs: number): Promise<void> {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#stop();
    const limits = { timeoutMs, signal: undefined };
    // Begun before what is under way has ended: the store makes changes in the order in which they come.
    const gone = this.#store.commit('close', [], [{ key: this.#key, value: null }], limits).catch(() => {});
    await this.#writing;
    await gone;
  }

  #after(ms: number): void {
    this.#stop();
    this.#stop = after(ms, () => {
      this.#isDue = false;
      this.#writing = this.#write();
    });
  }

  async #write(): Promise<void> {
    const limits: Limits = { timeoutMs: this.#store.timeoutMs, signal: undefined };
    try {
      const old = await this.#old(limits);
      if (this.#isOver) return;
      await this.#store.commit('open', [], [{ key: this.#key, value: this.#report() }, ...old], limits);
      this.#hasFailed = false;
      if (!this.#isDue && !this.#isOver) this.#after(AGAIN_MS * (0.9 + Math.random() / 5));
    } catch (error) {
      if (this.#isOver) return;
      if (!this.#hasFailed) {
        this.#store.log.write('warn', `what was applied could not be reported: ${(error as Error).message}`);
      }
      this.#hasFailed = true;
      if (!this.#isDue) this.#after(RETRY_MS);
    }
  }

  #report(): string {
    const keys: Record<string, object> = {};
    for (const [key, { revision, rejected }] of this.#states()) {
      keys[key] = { revision: String(revision), ...(rejected && { rejected: rejected.message.slice(0, REASON_MOST) }) };
    }
    return JSON.stringify({ at: new Date().toISOString(), keys });
  }

  /** The removal of what nobody has written anew. */
  async #old(limits: Limits): Promise<Change[]> {
    const reports = await this.#store.read('open', [under(this.#folder)], limits);
    const until = Date.now() - OLD_MS;
    const old = reports.filter((report) => report.key !== this.#key && (contentOf(report)?.at.getTime() ?? 0) < until);
    return old.slice(0, REMOVED_MOST).map(({ key }) => ({ key, value: null }));
  }
}
