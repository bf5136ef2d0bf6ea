/** What may not be read yet, or not any more: it is told, asked for again, and heard when it may be. On a real etcd. */

import { createRequire } from 'node:module';
import { connect, type ServiceList } from 'rollcall';
import { Etcd3 } from 'rollcall/etcd';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type EtcdCluster, startEtcd } from '../support/etcd.js';
import { uniqueName, waitFor } from '../support/process.js';

const load = createRequire(import.meta.url);
const { EtcdHealthIndicator, EtcdService, RegistryHealthIndicator, RegistryService } = load(
  '../../dist/cjs/nest/shared/index.js',
);
const again = { timeoutMs: 20_000 }; // it is asked again after seconds

let etcd: EtcdCluster;
let root: Etcd3;
beforeAll(async () => {
  etcd = await startEtcd({ users: [{ name: 'nobody', password: 'nobody', roles: [] }] });
});
afterAll(async () => {
  await root?.close();
  await etcd?.close();
});

/** Of a user who may read what begins with `prefix` from `allow()` to `forbid()`. */
async function visitor(prefix: string) {
  root ??= new Etcd3({ hosts: [...etcd.hosts], auth: { username: 'root', password: 'root' } });
  const name = uniqueName('guest');
  const user = await root.user(name).create('secret');
  const role = await root.role(name).create();
  await user.addRole(role);
  const permission = { permission: 'Read' as const, range: root.range({ prefix }) };
  return {
    auth: { username: name, password: 'secret' },
    allow: () => role.grant(permission),
    forbid: () => role.revoke([permission]),
  };
}

function lines() {
  const errors: string[] = [];
  const add = (line: unknown) => void errors.push(String(line));
  return { errors, log: { log() {}, warn() {}, error: add } };
}

it('a service that may not be followed at first is heard of when it may', async () => {
  const prefix = `/${uniqueName()}`;
  const guest = await visitor(prefix);
  const { errors, log } = lines();
  const hosts = [...etcd.hosts];
  const registry = await connect({ backend: 'etcd', hosts, prefix, lazy: true, logger: false, ...guest.auth });
  const owner = await connect({ backend: 'etcd', hosts, prefix, logger: false, username: 'root', password: 'root' });
  const service = new RegistryService(registry, undefined, log);
  const health = new RegistryHealthIndicator(service);
  const lists: ServiceList[] = [];
  const stop = service.onChange('orders', (list: ServiceList) => lists.push(list));
  const plain = registry.watch('orders');
  await expect(plain.next()).rejects.toMatchObject({ code: 'ERR_PERMISSION_DENIED' });
  await waitFor(() => errors.length > 0, { what: 'the line' });
  expect(errors).toEqual([expect.stringMatching(/orders.*asked again: .*may not read/)]);
  expect(service.refused).toEqual(['orders']);
  expect(await health.isHealthy()).toEqual({ registry: { status: 'down', refused: ['orders'] } });
  await owner.register({ name: 'orders', id: 'x' });
  await guest.allow();
  await waitFor(() => lists.length > 0, { ...again, what: 'the list' });
  expect(lists.at(-1)?.map(({ id }) => id)).toEqual(['x']);
  expect(await health.isHealthy()).toEqual({ registry: { status: 'up' } });
  expect([errors.length, service.refused]).toEqual([1, []]);
  stop();
  await Promise.all([registry.close(), owner.close()]);
});

it.each([true, false])('a setting that may not be read is tried again; lazy: %s', async (lazy) => {
  const prefix = `${uniqueName()}/`;
  const guest = await visitor(prefix);
  const { errors, log } = lines();
  const client = new Etcd3({ hosts: [...etcd.hosts], auth: guest.auth, logger: false });
  const service = new EtcdService(client, log);
  const health = new EtcdHealthIndicator(client);
  const heard: unknown[] = [];
  const follow = () =>
    service[lazy ? 'keepConfig' : 'watchConfig'](`${prefix}limit`, (value: unknown) => heard.push(value));
  const refusal = /limit can't be followed.*permission denied/;
  if (lazy) {
    await follow();
    await waitFor(() => errors.length === 1, { what: 'the line' });
    expect([errors, heard]).toEqual([[expect.stringMatching(refusal)], []]);
    expect(await health.isHealthy()).toMatchObject({ etcd: { status: 'down', unreadSettings: [`${prefix}limit`] } });
    await guest.allow();
  } else {
    await expect(follow()).rejects.toThrow('permission denied');
    await guest.allow();
    await follow();
    expect(heard).toEqual([null]);
  }
  await root.put(`${prefix}limit`).value('10');
  await waitFor(() => heard.at(-1) === '10', { ...again, what: 'the setting' });
  expect(await health.isHealthy()).toEqual({ etcd: { status: 'up' } });
  await client.close();
  expect(errors).toHaveLength(lazy ? 1 : 0);
});

it('services need the client that was injected, and no other', async () => {
  const { log } = lines();
  const client = new Etcd3({ hosts: [...etcd.hosts], auth: { username: 'root', password: 'root' }, logger: false });
  const service = new EtcdService(client, log);
  const name = uniqueName('svc');
  await service.registerService(name, 'x', { a: 1 });
  expect(await service.discoverService(name)).toEqual([{ a: 1 }]);
  await service.leave();
  await service.close();

  const mocked = new EtcdService(client, log);
  client.mock({ exec: async () => ({}) } as never);
  for (const replaced of [mocked, new EtcdService({ get() {} }, log)]) {
    const refused = { code: 'ERR_UNSUPPORTED', message: expect.stringContaining('overrideProvider(EtcdService)') };
    await expect(replaced.registerService(name, 'y')).rejects.toMatchObject(refused);
    await expect(replaced.discoverService(name)).rejects.toMatchObject(refused);
    await replaced.leave();
    await replaced.close();
  }
  client.unmock();
  await client.close();
});
