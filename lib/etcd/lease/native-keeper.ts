/** A lease on a server: granted and renewed by the native side, on a thread of its own. */

import { onAbort } from '../../common/abort.js';
import { MAX_MS } from '../../common/shape.js';
import { type CancelHandle, type LeaseHandle, type NativeLeaseEvent, native } from '../../native.js';
import {
  ClientClosedError,
  type EtcdLeaseInvalidError,
  fromFailure,
  GRPCDeadlineExceededError,
  GRPCUnavailableError,
  leaseGone,
} from '../errors.js';
import { type CallOptions, resolveCallOptions } from '../rpc/calls.js';
import type { ILeaseKeepAliveResponse } from '../rpc/messages.js';
import type { Connection } from '../transport/connection.js';
import { abortFailure } from '../transport/failure.js';
import { timeLeft } from '../transport/options.js';
import { failed, type Keeper, type Kept, type News } from './keeper.js';

/** How long the leases of a client may take to be revoked when it is closed, in milliseconds. */
const CLOSE_MS = 800;

/** What is asked for. */
export interface Asked {
  /** In whole seconds; 0 for a lease that is there already. */
  readonly ttl: number;
  /** The id of that one. */
  readonly attachTo: bigint | undefined;
  readonly renewsItself: boolean;
  /** Whether the grant is tried until it is answered. */
  readonly insists: boolean;
  /** 0 for never. */
  readonly stallTimeoutMs: number;
}

/** @internal */
export class NativeKeeper implements Keeper {
  readonly id: string;
  readonly #connection: Connection;
  readonly #kept: Kept;
  readonly #handle: LeaseHandle;
  readonly #listenId: number;
  readonly #letGo: () => void;
  readonly #asked: number;

  /** Throws where nothing can be sent: of a closed client, with a signal that has fired, with a deadline that has passed. */
  constructor(connection: Connection, asked: Asked, options: CallOptions, kept: Kept) {
    const { signal } = options;
    if (signal?.aborted) throw abortFailure(signal, false);
    this.#connection = connection;
    this.#kept = kept;
    this.#asked = asked.ttl;
    const timeoutMs = this.#timeOf(options, 'leaseGrant', { TTL: asked.ttl });
    this.#listenId = connection.listen(() => this.look());
    try {
      this.#handle = native().LeaseHandle.open(connection.native, this.#listenId, {
        ttl: asked.ttl,
        lease: asked.attachTo ?? null,
        renewsItself: asked.renewsItself,
        timeoutMs,
        insists: asked.insists,
        stallTimeoutMs: asked.stallTimeoutMs,
      });
    } catch (error) {
      connection.unlisten(this.#listenId);
      throw error;
    }
    this.id = this.#handle.leaseId().toString();
    this.#letGo = connection.hold({ end: () => kept.end() });
    const done = connection.work();
    kept.grant.then(done, done);
    if (signal) {
      const unlisten = onAbort(signal, () => this.#handle.abortGrant());
      kept.grant.then(unlisten, unlisten);
    }
  }

  get ttl(): number {
    return this.#handle.ttl() ?? this.#asked;
  }

  isAlive(): boolean {
    return this.#handle.isAlive();
  }

  remainingMs(): number {
    return this.#handle.expiresInMs() ?? 0;
  }

  loss(): Error {
    return this.#gone(this.#handle.loss() ?? 'its lease was not renewed for its time to live');
  }

  look(): void {
    for (const event of this.#handle.take()) this.#kept.hear(this.#newsOf(event));
  }

  tellRenewals(): void {
    this.#handle.tellAll(true);
  }

  async keepaliveOnce(options: CallOptions): Promise<ILeaseKeepAliveResponse> {
    if (this.#connection.closed) throw new ClientClosedError('lease');
    try {
      const timeoutMs = this.#timeOf(options, 'leaseKeepAlive', undefined);
      const { answer, failure } = await cancellable(options.signal, (cancel) =>
        this.#handle.keepaliveOnce(timeoutMs, cancel),
      );
      if (answer !== null) return this.#response(answer);
      throw failure;
    } catch (failure) {
      throw failed(failure, 'leaseKeepAlive', options, this.id);
    }
  }

  async revoke(options: CallOptions): Promise<void> {
    const timeoutMs = this.#timeOf(options, 'leaseRevoke', { ID: this.id });
    const failure = await cancellable(options.signal, (cancel) => this.#handle.revoke(timeoutMs, cancel));
    if (failure) throw failure;
  }

  orphan(): void {
    this.#handle.orphan();
  }

  async close(): Promise<void> {
    await this.#handle.revoke(CLOSE_MS, null).catch(() => {});
  }

  over(): void {
    this.#connection.unlisten(this.#listenId);
    this.#letGo();
  }

  #newsOf({ kind, text, failure }: NativeLeaseEvent): News {
    switch (kind) {
      case 'granted':
        return { kind, id: this.id };
      case 'refused':
        return { kind, error: fromFailure(failure, 'Lease.leaseGrant', this.id) };
      case 'lost':
        return { kind, error: this.#gone(text ?? '') };
      case 'succeeded':
        return { kind, response: this.#response(text as string) };
      case 'failed':
        return { kind, error: new GRPCUnavailableError(text ?? '', { operation: 'Lease.leaseKeepAlive' }) };
      default:
        return { kind: kind as 'established' | 'fired' };
    }
  }

  #gone(why: string): EtcdLeaseInvalidError {
    return leaseGone(this.id, why, { operation: 'Lease.leaseKeepAlive', cause: why });
  }

  #response(text: string): ILeaseKeepAliveResponse {
    const [cluster_id = '0', member_id = '0', revision = '0', raft_term = '0', TTL = '0'] = text.split(',');
    return { header: { cluster_id, member_id, revision, raft_term }, ID: this.id, TTL };
  }

  /** The time of a call in milliseconds, by its options and those of the client. Throws when it is over. */
  #timeOf(options: CallOptions, method: string, params: unknown): number {
    const context = { service: 'Lease', method, params, isStream: method === 'leaseKeepAlive' };
    const resolved = resolveCallOptions(options, this.#connection.callOptionsFactory, context as never);
    const left = timeLeft(resolved, this.#connection.options.timeoutMs, 'options') ?? MAX_MS;
    if (left > 0) return left;
    throw new GRPCDeadlineExceededError('the deadline of the call had passed before it was sent', {
      operation: `Lease.${method}`,
    });
  }
}

async function cancellable<T>(
  signal: AbortSignal | undefined,
  start: (cancel: CancelHandle | null) => Promise<T>,
): Promise<T> {
  if (!signal) return await start(null);
  const cancel: CancelHandle = new (native().CancelHandle)();
  if (signal.aborted) cancel.cancel();
  const unlisten = onAbort(signal, () => cancel.cancel());
  try {
    return await start(cancel);
  } finally {
    unlisten();
  }
}
