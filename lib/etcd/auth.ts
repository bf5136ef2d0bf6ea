/** Roles and users. */

import { InvalidArgumentError } from '../errors.js';
import { memberOf } from './check.js';
import { Keyspace } from './kv/keyspace.js';
import { Range } from './kv/range.js';
import type { CallOptions } from './rpc/calls.js';
import type { AuthClient } from './rpc/clients.js';
import { Permission } from './rpc/enums.js';
import type { IPermission } from './rpc/messages.js';

/** What a role is allowed, or no longer allowed, to do with a range or one key. Keys are those of the whole store. */
export type IPermissionRequest =
  | { permission: keyof typeof Permission; range: Range }
  | { permission: keyof typeof Permission; key: Buffer | string };

/** What a role is allowed to do. The `end` of a range that is one key is empty. */
export interface IPermissionResult {
  permission: keyof typeof Permission;
  range: Range;
}

/** Does what is asked, all at once if it is several; waits for all of it, and then rejects with the first failure. */
async function each<R>(requests: R | R[], one: (request: R) => Promise<unknown>): Promise<void> {
  if (!Array.isArray(requests)) {
    await one(requests);
    return;
  }
  for (const result of await Promise.allSettled(requests.map(one))) {
    if (result.status === 'rejected') throw result.reason;
  }
}

function rangeOf(request: IPermissionRequest, method: string): { key: Buffer; range_end?: Buffer } {
  if (typeof request === 'object' && request !== null) {
    if ('key' in request) return Keyspace.root.range(Range.from(request.key));
    if (request.range instanceof Range) return Keyspace.root.range(request.range);
  }
  throw new InvalidArgumentError(`role.${method}(): expected { permission, key } or { permission, range: a Range }`);
}

/**
 * A handle on a role, whether it exists or not. Its methods reject with `EtcdRoleNotFoundError`, `EtcdRoleExistsError`,
 * `EtcdUserNotFoundError`, `EtcdRoleNotGrantedError` and `EtcdPermissionDeniedError` as etcd refuses them.
 *
 * Reads are tried again on other members. What changes something is sent again only when it has surely not been applied;
 * when that can't be known, `outcomeUnknown` of the error is true.
 */
export class Role {
  /** The name of the role. */
  readonly name: string;
  readonly #client: AuthClient;

  constructor(client: AuthClient, name: string) {
    this.#client = client;
    this.name = name;
  }

  /** Makes the role. It is allowed nothing at first. */
  async create(options?: CallOptions): Promise<this> {
    await this.#client.roleAdd({ name: this.name }, options);
    return this;
  }

  /** Deletes the role, and takes it from all users. */
  async delete(options?: CallOptions): Promise<this> {
    await this.#client.roleDelete({ role: this.name }, options);
    return this;
  }

  /**
   * Takes permissions away, each by the exact range or key for which it was granted; which permission it was does not
   * matter. Several are taken away at once, and some may be gone when it rejects.
   */
  async revoke(req: IPermissionRequest | IPermissionRequest[], options?: CallOptions): Promise<this> {
    await each(req, async (request) => {
      await this.#client.roleRevokePermission({ role: this.name, ...rangeOf(request, 'revoke') }, options);
    });
    return this;
  }

  /**
   * Grants permissions. One for a range or key that the role has already takes the place of the old one. Several are
   * granted at once, and some may be granted when it rejects.
   */
  async grant(req: IPermissionRequest | IPermissionRequest[], options?: CallOptions): Promise<this> {
    await each(req, async (request) => {
      const range = rangeOf(request, 'grant');
      memberOf(Permission, request.permission, 'permission in role.grant(...)');
      const perm = { permType: request.permission, ...range } as IPermission;
      await this.#client.roleGrantPermission({ name: this.name, perm }, options);
    });
    return this;
  }

  /** What the role is allowed to do. */
  async permissions(options?: CallOptions): Promise<IPermissionResult[]> {
    const { perm } = await this.#client.roleGet({ role: this.name }, options);
    return perm.map(({ permType, key, range_end }) => ({ permission: permType, range: new Range(key, range_end) }));
  }

  /** Gives the role to a user. */
  async addUser(user: string | User, options?: CallOptions): Promise<this> {
    await this.#client.userGrantRole({ user: nameOf(user), role: this.name }, options);
    return this;
  }

  /** Takes the role from a user. */
  async removeUser(user: string | User, options?: CallOptions): Promise<this> {
    await this.#client.userRevokeRole({ name: nameOf(user), role: this.name }, options);
    return this;
  }
}

/**
 * A handle on a user, whether it exists or not. Its methods reject with `EtcdUserNotFoundError`, `EtcdUserExistsError`,
 * `EtcdRoleNotFoundError`, `EtcdRoleNotGrantedError` and `EtcdPermissionDeniedError` as etcd refuses them, and try again
 * as those of `Role`.
 */
export class User {
  /** The name of the user. */
  readonly name: string;
  readonly #client: AuthClient;

  constructor(client: AuthClient, name: string) {
    this.#client = client;
    this.name = name;
  }

  /** Makes the user. */
  async create(password: string, options?: CallOptions): Promise<this> {
    await this.#client.userAdd({ name: this.name, password }, options);
    return this;
  }

  /** Changes the password. The tokens of the user end. */
  async setPassword(password: string, options?: CallOptions): Promise<this> {
    await this.#client.userChangePassword({ name: this.name, password }, options);
    return this;
  }

  /** Deletes the user. */
  async delete(options?: CallOptions): Promise<this> {
    await this.#client.userDelete({ name: this.name }, options);
    return this;
  }

  /** The roles of the user. */
  async roles(options?: CallOptions): Promise<Role[]> {
    const { roles } = await this.#client.userGet({ name: this.name }, options);
    return roles.map((role) => new Role(this.#client, role));
  }

  /** Gives a role to the user. */
  async addRole(role: string | Role, options?: CallOptions): Promise<this> {
    await this.#client.userGrantRole({ user: this.name, role: nameOf(role) }, options);
    return this;
  }

  /** Takes a role from the user. */
  async removeRole(role: string | Role, options?: CallOptions): Promise<this> {
    await this.#client.userRevokeRole({ name: this.name, role: nameOf(role) }, options);
    return this;
  }
}

function nameOf(thing: string | User | Role): string {
  return typeof thing === 'string' ? thing : thing.name;
}
