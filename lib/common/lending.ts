/** One connection for two clients: what an etcd client lends to registries. */

import { ClosedError, UnsupportedError } from '../errors.js';
import type { ClientHandle, NativeOptions } from '../native.js';
import { invalid, isRecord, kindOf } from './shape.js';

/** A client whose connection a registry can share: an `Etcd3` of `rollcall/etcd`, or the `ETCDService` of Midway. */
export interface SharedClient {
  readonly prefix: Uint8Array;
  ready(options?: { timeoutMs?: number | undefined; signal?: AbortSignal | undefined }): Promise<void>;
  metrics(): object;
  close(): Promise<void>;
}

/** @internal */
export const LENDER_CLOSED = 'the etcd client that the registry shares was closed';

/**
 * How long a client that closes waits for what its registries have registered, in milliseconds: as for its own leases.
 *
 * @internal
 */
export const LEAVE_MS = 800;

/**
 * Who works on the connection of another.
 *
 * @internal
 */
export interface Borrower {
  /** The lender is about to close: ends it, within a second. Must not reject. */
  lenderCloses(): Promise<void>;
}

/**
 * A connection that is lent. By its shape, as everything that programs hand in: `connection` of a client has it.
 *
 * @internal
 */
export interface Lender {
  readonly closed: boolean;
  readonly mocked: boolean;
  /** Makes the native client of a registry over this connection. */
  openRegistry(options: NativeOptions, wake: () => void): ClientHandle;
  /** `borrower` is told before this connection closes. Gives what takes it back. */
  lendTo(borrower: Borrower): () => void;
}

/**
 * The connection of a client of the program. Refuses what has none, or none any more.
 *
 * @internal
 */
export function lenderOf(path: string, client: unknown): Lender {
  const wanted = 'expected an Etcd3 of rollcall/etcd';
  if (typeof client !== 'object' || client === null) throw invalid(path, `${wanted}, got ${kindOf(client)}`);
  const { connection, prefix } = client as { connection?: Partial<Lender> | null; prefix?: unknown };
  if (typeof connection?.openRegistry !== 'function' || typeof connection.lendTo !== 'function') {
    throw invalid(path, `${wanted}, got ${isRecord(client) ? nameOf(client) : kindOf(client)}`);
  }
  if ((prefix as Uint8Array | undefined)?.length) {
    throw invalid(path, `${wanted}, got a namespace of one: give the client, and the prefix as options.prefix`);
  }
  const lender = connection as Lender;
  if (lender.closed) throw new ClosedError(`${path}: the etcd client is closed`);
  if (lender.mocked) {
    throw new UnsupportedError(
      `${path}: the etcd client is mocked and has no connection: take the memory registry in tests, "memory://"`,
    );
  }
  return lender;
}

function nameOf(client: object): string {
  const name = (client as { constructor?: { name?: unknown } }).constructor?.name;
  return typeof name === 'string' && /^[A-Z]\w{0,31}$/.test(name) && name !== 'Object'
    ? `an object of another class, ${name}`
    : 'another object';
}
