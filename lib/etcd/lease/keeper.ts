/** Who keeps a lease: the native side on a server, or a mock of the program. */

import { type EtcdClientError, fromFailure } from '../errors.js';
import type { CallOptions } from '../rpc/calls.js';
import type { ILeaseKeepAliveResponse } from '../rpc/messages.js';

/** What happens to a lease. */
export type News =
  | { readonly kind: 'granted'; readonly id: string }
  | { readonly kind: 'refused'; readonly error: Error }
  | { readonly kind: 'lost'; readonly error: Error }
  | { readonly kind: 'established' | 'fired' }
  | { readonly kind: 'succeeded'; readonly response: ILeaseKeepAliveResponse }
  | { readonly kind: 'failed'; readonly error: EtcdClientError };

/** The lease, as far as its keeper needs it. */
export interface Kept {
  /** Settles when the grant is answered. */
  readonly grant: Promise<string>;
  hear(news: News): void;
  /** The client is being closed: ends the lease. */
  end(): Promise<void>;
}

/** What a lease asks of its keeper. What `revoke()` rejects with is for `failed()`. */
export interface Keeper {
  /** Its id, where it is known before the grant. */
  readonly id: string | undefined;
  /** In seconds: what was asked for, then what was granted. */
  readonly ttl: number;
  /** Whether the deadline of a granted lease has not passed. */
  isAlive(): boolean;
  /** In milliseconds; `Infinity` where there is no deadline. */
  remainingMs(): number;
  /** Why a lease whose deadline has passed was lost. */
  loss(): Error;
  /** Tells at once what has happened and was not told yet. */
  look(): void;
  /** From here on renewals are told of. */
  tellRenewals(): void;
  keepaliveOnce(options: CallOptions): Promise<ILeaseKeepAliveResponse>;
  revoke(options: CallOptions): Promise<void>;
  /** Renews it no more. */
  orphan(): void;
  /** Revokes it within the time that the closing of a client has. Never rejects: it expires. */
  close(): Promise<void>;
  /** Nothing more happens to it: lets go of the client. */
  over(): void;
}

/** The error for a call that failed; that of an aborted one has the reason of its signal. */
export function failed(failure: unknown, method: string, { signal }: CallOptions, id: string | undefined): Error {
  const raw = failure as { code?: unknown; message?: unknown } | null;
  const reason = signal?.aborted && raw?.code === 'ERR_ABORTED';
  const told = reason ? { ...raw, message: raw.message, cause: signal.reason } : failure;
  return fromFailure(told, `Lease.${method}`, id);
}
