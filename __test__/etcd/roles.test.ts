/** Roles, users and their permissions: like etcd3, except that what is revoked is gone. */

import { Etcd3 as Theirs } from 'etcd3';
import {
  Etcd3,
  EtcdPermissionDeniedError,
  EtcdRoleExistsError,
  EtcdRoleNotFoundError,
  EtcdRoleNotGrantedError,
  EtcdUserExistsError,
  EtcdUserNotFoundError,
  InvalidArgumentError,
  Range,
  type Role,
  RollcallError,
} from 'rollcall/etcd';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ETCD_VERSIONS, type EtcdCluster, startEtcd } from '../support/etcd.js';
import { uniqueName } from '../support/process.js';

describe.each(ETCD_VERSIONS)('on etcd %s', (version) => {
  let etcd: EtcdCluster;
  let client: Etcd3;
  let theirs: Theirs;

  beforeAll(async () => {
    etcd = await startEtcd({ version, users: [] });
    client = new Etcd3({ hosts: [...etcd.hosts] });
    theirs = new Theirs({ hosts: [...etcd.hosts] });
  });
  afterAll(async () => {
    theirs?.close();
    await client?.close();
    await etcd?.close();
  });

  const newRole = async (): Promise<Role> => await client.role(uniqueName('role')).create();
  const granted = async (role: Role) =>
    (await role.permissions())
      .map(({ permission, range }) => `${permission} ${range.start}..${range.end.toString('latin1')}`)
      .sort();

  it('a role is made, listed and deleted', async () => {
    const role = client.role(uniqueName('role'));
    expect(await role.create()).toBe(role);
    expect((await client.getRoles()).map(({ name }) => name)).toContain(role.name);
    await expect(role.create()).rejects.toBeInstanceOf(EtcdRoleExistsError);
    expect(await role.delete()).toBe(role);
    expect((await client.getRoles()).map(({ name }) => name)).not.toContain(role.name);
    await expect(role.delete()).rejects.toBeInstanceOf(EtcdRoleNotFoundError);
    await expect(role.permissions()).rejects.toBeInstanceOf(EtcdRoleNotFoundError);
  });

  it('permissions are granted, alone and several, and are what etcd3 reads', async () => {
    const role = await newRole();
    expect(await role.grant({ permission: 'Read', key: 'one' })).toBe(role);
    await role.grant([
      { permission: 'Readwrite', range: client.range({ prefix: 'p/' }) },
      { permission: 'Write', range: new Range('r', '\0') },
      { permission: 'Read', range: client.range('two') },
    ]);
    expect(await granted(role)).toEqual(['Read one..', 'Read two..', 'Readwrite p/..p0', 'Write r..\0']);
    const read = await theirs.role(role.name).permissions();
    const seen = read.map(({ permission, range }) => `${permission} ${range.start}..${range.end.toString('latin1')}`);
    expect(seen.sort()).toEqual(await granted(role));
    expect((await role.permissions())[0]?.range).toBeInstanceOf(Range);
    await role.grant({ permission: 'Write', key: 'one' });
    expect(await granted(role)).toContain('Write one..');
    await role.grant([]);
    expect((await granted(role)).length).toBe(4);
  });

  it('permissions are revoked, alone and several', async () => {
    const role = await newRole();
    const all = [
      { permission: 'Read' as const, key: 'one' },
      { permission: 'Read' as const, key: Buffer.from('two') },
      { permission: 'Readwrite' as const, range: client.range({ prefix: 'p/' }) },
    ];
    await role.grant(all);
    expect((await granted(role)).length).toBe(3);
    expect(await role.revoke(all[0] as (typeof all)[0])).toBe(role);
    expect(await granted(role)).toEqual(['Read two..', 'Readwrite p/..p0']);
    await role.revoke(all.slice(1));
    expect(await granted(role)).toEqual([]);
    await expect(role.revoke(all)).rejects.toMatchObject({
      details: expect.stringContaining('permission is not granted'),
    });
  });

  it('what etcd3 has granted can be revoked, and the other way round', async () => {
    const role = await newRole();
    const requests = [
      { permission: 'Read' as const, key: 'one' },
      { permission: 'Read' as const, range: client.range({ prefix: 'p/' }) },
    ];
    for (const request of requests) {
      await theirs.role(role.name).grant(request);
      await role.revoke(request);
      await role.grant(request);
      await theirs.role(role.name).revoke(request);
    }
    expect(await granted(role)).toEqual([]);
  });

  it('options reach every call, of the array forms as well', async () => {
    const role = await newRole();
    await role.grant({ permission: 'Read', key: 'a' });
    const late = { signal: AbortSignal.abort() };
    const aborted = { code: 'ERR_ABORTED' };
    await expect(role.grant([{ permission: 'Read', key: 'b' }], late)).rejects.toMatchObject(aborted);
    await expect(role.revoke([{ permission: 'Read', key: 'a' }], late)).rejects.toMatchObject(aborted);
    await expect(role.revoke({ permission: 'Read', key: 'a' }, late)).rejects.toMatchObject(aborted);
    await expect(role.permissions(late)).rejects.toMatchObject(aborted);
    await expect(client.getUsers(late)).rejects.toMatchObject(aborted);
    expect(await granted(role)).toEqual(['Read a..']);
  });

  it('several are all tried, and the first failure is told when all are done', async () => {
    const role = await newRole();
    await role.grant({ permission: 'Read', key: 'a' });
    await expect(
      role.revoke([
        { permission: 'Read', key: 'missing' },
        { permission: 'Read', key: 'a' },
      ]),
    ).rejects.toBeInstanceOf(RollcallError);
    expect(await granted(role)).toEqual([]);
  });

  it('a wrong request is told by name', async () => {
    const role = client.role('any');
    for (const wrong of [{}, null, { permission: 'Read' }, { permission: 'Read', range: 'a' }]) {
      await expect(role.grant(wrong as never)).rejects.toBeInstanceOf(InvalidArgumentError);
      await expect(role.revoke([wrong as never])).rejects.toBeInstanceOf(InvalidArgumentError);
    }
    await expect(role.grant({ permission: 'All' as 'Read', key: 'a' })).rejects.toThrow(/Unexpected "All" in/);
  });

  it('users have roles, given from either side', async () => {
    const role = await newRole();
    const other = await newRole();
    const user = client.user(uniqueName('user'));
    expect(await user.create('secret')).toBe(user);
    await expect(user.create('secret')).rejects.toBeInstanceOf(EtcdUserExistsError);
    expect((await client.getUsers()).map(({ name }) => name)).toContain(user.name);
    const roles = async () => (await user.roles()).map(({ name }) => name).sort();
    expect(await role.addUser(user)).toBe(role);
    expect(await user.addRole(other)).toBe(user);
    expect(await roles()).toEqual([role.name, other.name].sort());
    expect(await role.removeUser(user.name)).toBe(role);
    expect(await user.removeRole(other.name)).toBe(user);
    expect(await roles()).toEqual([]);
    await expect(user.removeRole(other)).rejects.toBeInstanceOf(EtcdRoleNotGrantedError);
    await expect(user.addRole('none')).rejects.toBeInstanceOf(EtcdRoleNotFoundError);
    await user.setPassword('other');
    expect(await user.delete()).toBe(user);
    await expect(user.roles()).rejects.toBeInstanceOf(EtcdUserNotFoundError);
    await expect(role.addUser(user)).rejects.toBeInstanceOf(EtcdUserNotFoundError);
  });
});

describe.each(ETCD_VERSIONS)('with authentication on etcd %s', (version) => {
  it('a role allows its prefix and nothing else, until it is revoked', async () => {
    const etcd = await startEtcd({ version, users: [{ name: 'guest', password: 'guest', roles: [] }] });
    const root = new Etcd3({ hosts: [...etcd.hosts], auth: { username: 'root', password: 'root' } });
    const guest = new Etcd3({ hosts: [...etcd.hosts], auth: { username: 'guest', password: 'guest' } });
    try {
      await guest.ready(); // may read nothing yet, and is in
      const role = await root.role('readers').create();
      const permission = { permission: 'Readwrite' as const, range: root.range({ prefix: 'pub/' }) };
      await role.grant(permission);
      await role.addUser('guest');
      const ns = guest.namespace('pub/');
      await ns.put('a').value('1');
      expect(await ns.getAll()).toEqual({ a: '1' });
      await expect(guest.get('secret')).rejects.toBeInstanceOf(EtcdPermissionDeniedError);
      await expect(guest.put('secret').value('')).rejects.toBeInstanceOf(EtcdPermissionDeniedError);
      await role.revoke([permission]);
      await expect(ns.get('a')).rejects.toBeInstanceOf(EtcdPermissionDeniedError);
    } finally {
      await guest.close();
      await root.close();
      await etcd.close();
    }
  });
});
