/** A lease on a client with `mock()`: every call goes there, nothing is renewed by itself, and there is no deadline. */

import { EtcdLeaseInvalidError, GRPCUnavailableError } from '../errors.js';
import type { CallOptions } from '../rpc/calls.js';
import { LeaseClient } from '../rpc/clients.js';
import type { ILeaseKeepAliveResponse } from '../rpc/messages.js';
import type { Connection } from '../transport/connection.js';
import type { Keeper, Kept } from './keeper.js';

/** @internal */
export class MockKeeper implements Keeper {
  readonly id = undefined;
  readonly ttl: number;
  readonly #connection: Connection;
  readonly #kept: Kept;

  constructor(connection: Connection, ttl: number, options: CallOptions, kept: Kept) {
    this.ttl = Math.ceil(ttl);
    this.#connection = connection;
    this.#kept = kept;
    connection.exec<{ ID: string }>('Lease', 'leaseGrant', { TTL: ttl }, options).then(
      ({ ID: id }) => kept.hear({ kind: 'granted', id }),
      (error: Error) => kept.hear({ kind: 'refused', error }),
    );
  }

  isAlive(): boolean {
    return true;
  }

  remainingMs(): number {
    return Number.POSITIVE_INFINITY;
  }

  loss(): Error {
    return new EtcdLeaseInvalidError();
  }

  async keepaliveOnce(options: CallOptions): Promise<ILeaseKeepAliveResponse> {
    const client = new LeaseClient(this.#connection);
    const [stream, id] = await Promise.all([client.leaseKeepAlive(options), this.#kept.grant]);
    const response = await new Promise<ILeaseKeepAliveResponse>((resolve, reject) => {
      stream.on('data', resolve);
      stream.on('error', reject);
      stream.on('end', () => reject(new GRPCUnavailableError('the stream ended without an answer')));
      stream.write({ ID: id });
    });
    stream.end();
    if (response.TTL === '0') throw new EtcdLeaseInvalidError(id);
    return response;
  }

  async revoke(options: CallOptions): Promise<void> {
    let id: string;
    try {
      id = await this.#kept.grant;
    } catch {
      return; // there is none
    }
    try {
      await this.#connection.exec('Lease', 'leaseRevoke', { ID: id }, options);
    } catch (error) {
      if (!(error instanceof EtcdLeaseInvalidError)) throw error;
    }
  }

  async close(): Promise<void> {}

  look(): void {}

  tellRenewals(): void {}

  orphan(): void {}

  over(): void {}
}
