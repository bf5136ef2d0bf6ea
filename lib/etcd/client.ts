/** The client of one etcd cluster. */

import { Role, User } from './auth.js';
import { EtcdPermissionDeniedError } from './errors.js';
import { Namespace } from './namespace.js';
import type { CallOptions, ICallable } from './rpc/calls.js';
import { AuthClient, ClusterClient, MaintenanceClient } from './rpc/clients.js';
import { Connection } from './transport/connection.js';
import { type IMetrics, toMetrics } from './transport/metrics.js';
import type { IOptions } from './transport/options.js';

/**
 * The client of one etcd cluster, with the methods of a `Namespace` for its whole store.
 *
 * ```js
 * const client = new Etcd3({ hosts: ['10.0.0.1:2379', '10.0.0.2:2379'] });
 * await client.put('greeting').value('hello');
 * console.log(await client.get('greeting').string());
 * await client.close();
 * ```
 *
 * It connects at the first call, and tries other hosts by itself when one fails. It keeps the process alive while a call
 * is under way, and while it has leases, watchers or campaigns, unless `unref()` was called.
 */
export class Etcd3 extends Namespace {
  /** The service Auth as it is. */
  readonly auth: AuthClient;
  /** The service Maintenance as it is. */
  readonly maintenance: MaintenanceClient;
  /** The service Cluster as it is. */
  readonly cluster: ClusterClient;

  /**
   * Makes a client. Does no I/O: a server that can't be reached shows in the calls, or in `ready()`.
   *
   * @param options default: a server at `127.0.0.1:2379`, without TLS and user.
   * @throws Error for wrong options.
   */
  constructor(options: IOptions = { hosts: '127.0.0.1:2379' }) {
    super(Buffer.alloc(0), new Connection(options));
    this.auth = new AuthClient(this.connection);
    this.maintenance = new MaintenanceClient(this.connection);
    this.cluster = new ClusterClient(this.connection);
  }

  /** Handles on all roles. A read: tried again on other members. */
  async getRoles(options?: CallOptions): Promise<Role[]> {
    const { roles } = await this.auth.roleList(options);
    return roles.map((role) => this.role(role));
  }

  /** A handle on a role, whether it exists or not. */
  role(name: string): Role {
    return new Role(this.auth, name);
  }

  /** Handles on all users. A read: tried again on other members. */
  async getUsers(options?: CallOptions): Promise<User[]> {
    const { users } = await this.auth.userList(options);
    return users.map((user) => this.user(user));
  }

  /** A handle on a user, whether it exists or not. */
  user(name: string): User {
    return new User(this.auth, name);
  }

  /**
   * Resolves when a member has answered that has a leader, the user was let in, and so the client can work. Until then it
   * tries, as any read does; give it `timeoutMs` or a `signal` to wait for less or more than the client's default.
   */
  async ready(options?: CallOptions): Promise<void> {
    try {
      await this.kv.range({ key: Buffer.from([0]), limit: 1, keys_only: true }, options);
    } catch (error) {
      // Who may not read this key was let in all the same.
      if (!(error instanceof EtcdPermissionDeniedError)) throw error;
    }
  }

  /** The ids of all leases of the cluster. A read: tried again on other members. */
  async leases(options?: CallOptions): Promise<bigint[]> {
    const { leases } = await this.leaseClient.leaseLeases(options);
    return leases.map(({ ID }) => BigInt(ID));
  }

  /** What the client has counted since it was made: a copy, by method, with a histogram of how long calls took. */
  metrics(): IMetrics {
    return toMetrics(this.connection.metrics());
  }

  /**
   * Puts something in the place of the servers, for tests: every call of the client and of its namespaces goes to
   * `callable.exec(service, method, request)`, and every stream to `callable.withConnection(service, fn)`. Calls under way
   * are not touched.
   *
   * @returns what it was given.
   */
  // biome-ignore lint/suspicious/noExplicitAny: as etcd3 has it, so that typed mocks fit
  mock<T extends Partial<ICallable<any>>>(callable: T): T {
    return this.connection.mock(callable);
  }

  /** Back to the servers. */
  unmock(): void {
    this.connection.unmock();
  }

  /** Keeps the process alive again while the client has leases, watchers or campaigns, which is the default. */
  ref(): this {
    this.connection.ref();
    return this;
  }

  /** Lets the process end although the client has leases, watchers or campaigns. Calls under way still keep it alive. */
  unref(): this {
    this.connection.unref();
    return this;
  }

  /**
   * Ends everything: calls under way reject with `ClientClosedError`, watchers end, campaigns and observers stop, leases
   * are revoked (those given up by `release()` excepted), registries that share the connection are closed with what they have
   * registered, connections are closed. What can't be revoked in time expires.
   *
   * Resolves when all that is done, and never rejects. Without `await` it happens all the same. It may be called again.
   */
  close(): Promise<void> {
    return this.connection.close();
  }

  /** The same as `close()`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
