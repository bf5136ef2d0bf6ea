/** The elections of a client. */

import { onAbort } from '../../common/abort.js';
import { abortSignal, boolean, invalid, kindOf, onlyKnown, optional, wellFormed } from '../../common/shape.js';
import type { CancelHandle } from '../../native.js';
import { call, checked } from '../../registry/call.js';
import { Campaign } from './campaign.js';
import type { Keeper } from './held.js';
import { Lock } from './lock.js';
import { holding, pathOf } from './options.js';

/** Where elections lie that are not named by a whole path. */
const FOLDER = '/elections/';

/** Options of `campaign()`. */
export interface CampaignOptions {
  /** What others learn of the leader, such as its address. Default: empty. */
  value?: string | undefined;
  /** The time to live of the lease of each term, in milliseconds: see `LockOptions`. Default 15000. */
  ttlMs?: number | undefined;
  /** Gives a term up when the event loop was blocked for so long: see `LockOptions`. Default 0: never. */
  stallTimeoutMs?: number | undefined;
  /** Whether to stand again, at the end of the queue, after a term or a place in the queue was lost. Default true. */
  keepCampaigning?: boolean | undefined;
}

/** Who leads. */
export interface Leader {
  /** Its key. */
  readonly key: string;
  /** What it tells of itself. Bytes that are no UTF-8 are U+FFFD. */
  readonly value: string;
  /** Its fencing token. */
  readonly token: bigint;
}

/**
 * Elections. They are those of `concurrency.Election` of etcd's Go client and of `etcdctl elect`: candidates of both stand in one
 * queue. An election such as `scheduler` lies at `/elections/scheduler/`; a name that begins with a slash is the path itself.
 */
export class Elections {
  readonly #keeper: Keeper;
  readonly #campaigns = new Set<Campaign>();

  /** @internal */
  constructor(keeper: Keeper) {
    this.#keeper = keeper;
  }

  /**
   * Stands for election until `resign()`, or until coord is closed. It begins at once, waits as long as it takes, and keeps the
   * process alive.
   *
   * @throws `ERR_INVALID_ARGUMENT`, `ERR_CLOSED`. What the store refuses is told by `failed`.
   */
  campaign(name: string, options?: CampaignOptions): Campaign {
    const [lock, keeps] = checked('campaign', () => {
      const given = optional('options', options);
      onlyKnown('options', given, ['value', 'ttlMs', 'stallTimeoutMs', 'keepCampaigning']);
      const path = pathOf('name', FOLDER, name);
      const { ttlMs, stallTimeoutMs } = given;
      const how = { ...holding({ ttlMs, stallTimeoutMs }), value: textOfValue(given.value) };
      const keeps = boolean('options.keepCampaigning', given.keepCampaigning, true);
      return [new Lock(this.#keeper, path, { kind: 'mutex' }, how), keeps] as const;
    });
    this.#keeper.refuseClosed('campaign');
    const campaign = Campaign.start(lock, keeps, this.#keeper.inside.log, () => this.#campaigns.delete(campaign));
    this.#campaigns.add(campaign);
    return campaign;
  }

  /**
   * Who leads, then each change, the latest; `null`: nobody. One who was replaced while nobody looked is not told. Store
   * outages are waited for. Ends when the signal fires, without an error, and after `return()`.
   *
   * @throws at once `ERR_INVALID_ARGUMENT`; from `next()` what the store refuses, and `ERR_CLOSED`.
   */
  observe(name: string, options?: { signal?: AbortSignal | undefined }): AsyncIterableIterator<Leader | null> {
    const [path, signal] = checked('observe', () => {
      const given = optional('options', options);
      onlyKnown('options', given, ['signal']);
      return [pathOf('name', FOLDER, name), abortSignal('options.signal', given.signal)] as const;
    });
    return this.#observe(path, signal);
  }

  async *#observe(path: string, signal: AbortSignal | undefined): AsyncIterableIterator<Leader | null> {
    const { inside, live } = this.#keeper;
    const ending = new AbortController();
    const observer = { close: async () => ending.abort() };
    const unlisten = signal && onAbort(signal, () => ending.abort());
    let seen: Leader | null | undefined;
    live.add(observer);
    try {
      while (!signal?.aborted) {
        this.#keeper.refuseClosed('observe');
        const known = seen && { token: seen.token, value: seen.value };
        inside.holds.add(observer);
        const next = (cancel: CancelHandle | null) =>
          inside.client.nextLeader(path, seen !== undefined, known ?? null, cancel);
        seen = await call('observe', ending.signal, next);
        inside.holds.delete(observer); // what nobody asks for keeps nothing alive
        yield seen && Object.freeze({ ...seen });
      }
    } catch (error) {
      if (signal?.aborted) return;
      this.#keeper.refuseClosed('observe');
      throw error;
    } finally {
      unlisten?.();
      inside.holds.delete(observer);
      live.delete(observer);
    }
  }

  /** @internal */
  async close(): Promise<void> {
    await Promise.all([...this.#campaigns].map((campaign) => campaign.close().catch(() => {})));
  }
}

function textOfValue(value: unknown): string {
  if (value === undefined) return '';
  if (typeof value !== 'string') throw invalid('options.value', `expected a string, got ${kindOf(value)}`);
  return wellFormed('options.value', value);
}
