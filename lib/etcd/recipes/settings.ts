/** What campaigns and locks share: why they ended, as an error, and what their options may be. */

import { InvalidArgumentError, type RollcallError } from '../../errors.js';
import type { NativeCampaignFailure } from '../../native.js';
import {
  abortedCall,
  EtcdLockFailedError,
  fromFailure,
  GRPCDeadlineExceededError,
  leaseGone,
  NotCampaigningError,
} from '../errors.js';
import type { CallOptions } from '../rpc/calls.js';
import type { ICompare } from '../rpc/messages.js';
import { timeLeft } from '../transport/options.js';

/**
 * How long `close()` of a client waits for the revocation of the lease of one campaign or lock, in milliseconds.
 *
 * @internal
 */
export const CLOSING_MS = 500;

/** What is asked of the lease of a lock or campaign besides its time to live. */
export interface IStallOptions {
  /**
   * Gives the lease up when the JavaScript thread has not ticked for so long, in milliseconds: then a program that hangs
   * does not hold a lock or the leadership for ever. What it held is lost, and stays lost when it goes on. Default: off,
   * so that a busy thread loses nothing; the lease is kept alive by another one.
   */
  stallTimeoutMs?: number | undefined;
}

/**
 * The `stallTimeoutMs` of options, 0 for none.
 *
 * @internal
 */
export function stallMs(options: IStallOptions | undefined, operation: string): number {
  const value = options?.stallTimeoutMs ?? 0;
  if (!Number.isFinite(value) || value < 0) {
    throw new InvalidArgumentError(`stallTimeoutMs: expected milliseconds from 0 on, got ${String(value)}`, {
      operation,
    });
  }
  return value;
}

/** What is said of who led or held, and what class says so when the key is gone and the lease is not. */
type Kind = 'campaign' | 'lock';

/**
 * The public error for why a campaign or a lock ended. `lease` is its id, where the failure itself knows none.
 *
 * @internal
 */
export function errorOf(
  failure: NativeCampaignFailure,
  kind: Kind,
  operation: string,
  lease?: bigint | null,
): RollcallError {
  const id = failure.lease ?? lease?.toString();
  const { text } = failure;
  switch (failure.reason) {
    case 'lease':
    case 'stalled': {
      const error = leaseGone(id, text, { operation, details: text });
      if (failure.reason === 'stalled') error.message += `: ${text}`;
      return error;
    }
    case 'call':
      return fromFailure(failure.call, operation, id);
    case 'key':
      return kind === 'campaign' ? notCampaigning(operation, text) : new EtcdLockFailedError(text, { operation });
    case 'taken':
      return new EtcdLockFailedError(text, { operation });
    default:
      return notCampaigning(operation);
  }
}

/** @internal */
export function notCampaigning(
  operation: string,
  why = 'it has resigned or failed',
  cause?: unknown,
): NotCampaigningError {
  return new NotCampaigningError(`The campaign is over: ${why}`, { operation, cause });
}

/**
 * What the addon rejects with where it can't go on: aborted, closed.
 *
 * @internal
 */
export function thrown(raw: unknown, operation: string, signal: AbortSignal | undefined): RollcallError {
  if (signal?.aborted && (raw as { code?: unknown } | null)?.code === 'ERR_ABORTED')
    return abortedCall(signal, operation);
  return fromFailure(raw, operation);
}

/**
 * What is left of the time of options, in milliseconds; 0 for no limit. Throws when it is over.
 *
 * @internal
 */
export function timeFor(options: CallOptions | undefined, fallbackMs: number, operation: string): number {
  const left = timeLeft(options, fallbackMs, 'options');
  if (left !== undefined && left <= 0) {
    const text = '4 DEADLINE_EXCEEDED: the deadline had passed before anything was sent';
    throw new GRPCDeadlineExceededError(text, { operation });
  }
  return left ?? 0;
}

/**
 * A compare for transactions: whether the key is still the one that was created then.
 *
 * @internal
 */
export function stillCreated(key: Buffer, revision: bigint): ICompare {
  return { key, result: 'Equal', target: 'Create', create_revision: String(revision) };
}
