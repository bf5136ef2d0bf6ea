// What ZooKeeper refuses, and what is no ZooKeeper: typed errors in time, nothing lost that was registered.
import { writeFileSync } from 'node:fs';
import type { Registry, ZookeeperOptions } from 'rollcall';
import { connect } from 'rollcall';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { hear, ids, nextList, quiet, refused, sees, timed, within } from '../conformance/kit.js';
import { inTime, temporaryFolder, uniqueName } from '../support/process.js';
import { startSilentServer } from '../support/tcp.js';
import type { ZookeeperEnsemble } from '../support/zookeeper.js';
import { startZookeeper } from '../support/zookeeper.js';

let zookeeper: ZookeeperEnsemble;
beforeAll(async () => {
  zookeeper = await startZookeeper();
});
afterAll(() => zookeeper?.close());

const open = (more: Partial<ZookeeperOptions> = {}): Promise<Registry> =>
  connect({ backend: 'zookeeper', hosts: [...zookeeper.hosts], ttlMs: 4000, logger: false, ...more });

/** Two levels, none shared: parents belong to who makes them. */
const prefixed = (): string => `/${uniqueName('bad')}/scope`;

describe('access lists', () => {
  test('with a user the nodes are its own, parents included, as Kratos has them', async ({ onTestFinished }) => {
    const prefix = prefixed();
    const registry = await open({ prefix, username: 'me', password: 'secret' });
    onTestFinished(() => registry.close());
    await registry.register({ name: 'orders', id: 'a' });
    const around = await zookeeper.client();
    await around.auth('digest', 'me:secret');
    for (const path of [prefix, `${prefix}/orders`, `${prefix}/orders/a`]) {
      expect(await around.acls(path)).toEqual([
        { perms: 31, scheme: 'digest', id: expect.stringMatching(/^me:[A-Za-z0-9+/]{27}=$/) },
      ]);
    }
    const again = await open({ prefix, username: 'me', password: 'secret' });
    onTestFinished(() => again.close());
    expect(ids(await again.getService('orders'))).toEqual(['a']);
  });

  test('a wrong password, or none: ERR_PERMISSION_DENIED at connect(), reading, watching and registering', async ({
    onTestFinished,
  }) => {
    const prefix = prefixed();
    const owner = await open({ prefix, username: 'me', password: 'secret' });
    onTestFinished(() => owner.close());
    const registration = await owner.register({ name: 'orders', id: 'a' });
    const heard = hear(registration);
    for (const user of [{ username: 'me', password: 'wrong' }, {}]) {
      const error = await refused(open({ prefix, ...user }), 'ERR_PERMISSION_DENIED', /ZooKeeper does not let us read/);
      expect(error).toMatchObject({ retryable: false, operation: 'connect' });
      expect(error.message).not.toContain('wrong');
      const lazy = await open({ prefix, ...user, lazy: true });
      onTestFinished(() => lazy.close());
      const refusal = await refused(lazy.getService('orders'), 'ERR_PERMISSION_DENIED');
      expect(refusal).toMatchObject({ endpoint: expect.stringMatching(/^127\.0\.0\.1:\d+$/), key: `${prefix}/orders` });
      expect(String(refusal.cause)).toContain('not authorized');
      await refused(lazy.services(), 'ERR_PERMISSION_DENIED');
      await refused(within(lazy.watch('orders').next(), 3000, 'next()'), 'ERR_PERMISSION_DENIED');
      await refused(within(lazy.watchServices().next(), 3000, 'next()'), 'ERR_PERMISSION_DENIED');
      await refused(lazy.register({ name: 'orders', id: 'b' }), 'ERR_PERMISSION_DENIED');
      await refused(lazy.register({ name: 'orders', id: 'a' }), 'ERR_PERMISSION_DENIED');
    }
    await quiet(1000); // what the refused ones might have broken would be told
    expect([registration.state, heard.events]).toEqual(['registered', []]);
    await sees(owner, 'orders', ['a']);
  });

  test('creator-anyone-reads: others read and may not register', async ({ onTestFinished }) => {
    const prefix = prefixed();
    const owner = await open({ prefix, username: 'me', password: 'secret', acl: 'creator-anyone-reads' });
    const other = await open({ prefix });
    onTestFinished(() => owner.close().then(() => other.close()));
    await owner.register({ name: 'orders', id: 'a' });
    expect(ids(await other.getService('orders'))).toEqual(['a']);
    await refused(other.register({ name: 'orders', id: 'b' }), 'ERR_PERMISSION_DENIED');
  });

  test('one record that only another may read is bad; the others are listed', async ({ onTestFinished }) => {
    const prefix = prefixed();
    const owner = await open({ prefix, username: 'me', password: 'secret', acl: 'creator' });
    const around = await zookeeper.client();
    await around.createAll(`${prefix}/orders/x`, '{"id":"x","name":"orders"}');
    onTestFinished(() => owner.close());
    const other = await open({ prefix });
    onTestFinished(() => other.close());
    const bad: string[] = [];
    other.on('badRecord', ({ key, reason }) => bad.push(`${key}: ${reason}`));
    await owner.register({ name: 'orders', id: 'a' });
    expect(ids(await nextList(other.watch('orders')))).toEqual(['x']);
    expect(bad.join()).toMatch(/orders\/a: we may not read it/);
  });
});

describe('SASL', { timeout: 60_000 }, () => {
  // A ZooKeeper lets a user that it does not know go on as nobody.
  test('DIGEST-MD5: the right password is in, a wrong one is ERR_UNAUTHENTICATED, an unknown user may do nothing', async ({
    onTestFinished,
  }) => {
    const folder = temporaryFolder('rollcall-jaas-');
    const jaas = `${folder.path}/jaas.conf`;
    writeFileSync(jaas, 'Server { org.apache.zookeeper.server.auth.DigestLoginModule required user_me="secret"; };');
    const server = await startZookeeper({
      config: ['authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider'],
      java: [`-Djava.security.auth.login.config=${jaas}`],
    });
    onTestFinished(() => server.close().then(() => folder.remove()));
    const hosts = [...server.hosts];
    const registry = await open({ hosts, username: 'me', password: 'secret', auth: 'sasl' });
    onTestFinished(() => registry.close());
    await registry.register({ name: 'orders', id: 'a' });
    for (const [username, password] of [
      ['me', 'wrong'],
      ['nobody', 'secret'],
    ] as const) {
      const { ms, error } = await timed(open({ hosts, username, password, auth: 'sasl', connectTimeoutMs: 8000 }));
      await refused(Promise.reject(error), username === 'me' ? 'ERR_UNAUTHENTICATED' : 'ERR_PERMISSION_DENIED');
      expect(ms).toBeLessThan(4000);
    }
  });
});

describe('paths', () => {
  test('illegal ones are ERR_INVALID_ARGUMENT, by the name of the option', async () => {
    for (const prefix of ['a', '/a//b', '/a/../b', '/a\u0001', '/\uf8ff']) {
      await refused(open({ prefix }), 'ERR_INVALID_ARGUMENT', /^options\.prefix: |options\.prefix: /);
    }
    await refused(open({ chroot: 'x' }), 'ERR_INVALID_ARGUMENT', /options\.chroot/);
    await refused(open({ username: 'a:b', password: 'c' }), 'ERR_INVALID_ARGUMENT', /options\.username: .*":"/);
    await refused(open({ acl: 'creator' }), 'ERR_INVALID_ARGUMENT', /options\.acl/);
    await refused(open({ tls: { ca: 'no PEM' } }), 'ERR_INVALID_ARGUMENT', /options\.tls\.ca/);
  });

  test('names and ids that ZooKeeper takes in no path are encoded, and do not meet others', async ({
    onTestFinished,
  }) => {
    const registry = await open({ prefix: prefixed() });
    onTestFinished(() => registry.close());
    const odd = ['.', '..', '%', '%2E', '%~%2E', '%~', 'a\ue000b', '...', ' ', 'ä'];
    for (const name of odd) {
      await Promise.all(odd.map((id) => registry.register({ name, id })));
      expect(ids(await registry.getService(name, { consistent: true })).sort()).toEqual([...odd].sort());
      expect(ids(await nextList(registry.watch(name))).sort()).toEqual([...odd].sort());
    }
    expect([...(await registry.services())].sort()).toEqual([...odd].sort());
  });

  test('names are found by the bare metadata as well, where only the path tells them', async ({ onTestFinished }) => {
    const registry = await open({ prefix: prefixed(), codec: 'metadata' });
    onTestFinished(() => registry.close());
    await registry.register({ name: '..', id: '.', metadata: { zone: 'a' } });
    expect(await registry.services()).toEqual(['..']);
    expect(await registry.getService('..')).toMatchObject([{ name: '..', id: '.', metadata: { zone: 'a' } }]);
  });

  test("ZooKeeper's own node is no service where the prefix is the root", async ({ onTestFinished }) => {
    const registry = await open({ prefix: '/' });
    onTestFinished(() => registry.close());
    await refused(registry.register({ name: 'zookeeper', id: 'a' }), 'ERR_INVALID_ARGUMENT', /zookeeper/);
    await registry.register({ name: 'orders-at-the-root', id: 'a' });
    expect(await registry.services()).toEqual(['orders-at-the-root']);
  });

  test('a node with nodes below it is no instance: it is passed over, and its id is refused', async ({
    onTestFinished,
  }) => {
    const prefix = prefixed();
    const registry = await open({ prefix });
    onTestFinished(() => registry.close());
    const around = await zookeeper.client();
    await around.createAll(`${prefix}/orders/deep/er`, '{"id":"er","name":"orders"}');
    expect(await registry.getService('orders')).toEqual([]);
    await refused(registry.register({ name: 'orders', id: 'deep' }), 'ERR_INVALID_ARGUMENT', /nodes below it/);
  });
});

describe('a chroot', () => {
  test('everything lies below it; a missing one is a registry that is not there', async ({ onTestFinished }) => {
    const chroot = `/${uniqueName('chroot')}`;
    const [host] = zookeeper.hosts;
    const url = `zookeeper://${host}${chroot}?ttlMs=4000`;
    await refused(
      connect(`${url}&connectTimeoutMs=800`),
      ['ERR_UNAVAILABLE', 'ERR_TIMEOUT'],
      /chroot .* does not exist/,
    );
    const lazy = await open({ chroot, lazy: true });
    onTestFinished(() => lazy.close());
    await refused(lazy.getService('orders', { timeoutMs: 500 }), ['ERR_UNAVAILABLE', 'ERR_TIMEOUT'], /chroot/);
    await refused(
      lazy.register({ name: 'orders', id: 'a' }, { timeoutMs: 500 }),
      ['ERR_UNAVAILABLE', 'ERR_TIMEOUT'],
      /chroot/,
    );
    const around = await zookeeper.client();
    await around.create(chroot);
    const registry = await connect(url);
    onTestFinished(() => registry.close());
    await registry.register({ name: 'orders', id: 'a' });
    expect(await around.children(`${chroot}/microservices/orders`)).toEqual(['a']);
    const watcher = registry.watch('orders');
    expect(ids(await nextList(watcher))).toEqual(['a']);
    await registry.register({ name: 'orders', id: 'b' });
    expect(ids(await nextList(watcher))).toEqual(['a', 'b']);
  });
});

describe('servers', { timeout: 60_000 }, () => {
  test('a record above 512 KiB is refused before it is sent, one below it can be claimed, and the others stay', async ({
    onTestFinished,
  }) => {
    const prefix = prefixed();
    const registry = await open({ prefix });
    onTestFinished(() => registry.close());
    const heard = hear(await registry.register({ name: 'orders', id: 'a' }));
    const metadata = Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [String(i), 'x'.repeat(1100)]));
    await refused(registry.register({ name: 'orders', id: 'big', metadata }), 'ERR_INVALID_ARGUMENT');
    const most = Object.fromEntries(Array.from({ length: 400 }, (_, i) => [String(i), 'x'.repeat(1200)]));
    const registration = await registry.register({ name: 'orders', id: 'most', metadata: most });
    await registration.update({ version: '2' });
    const rival = await open({ prefix });
    onTestFinished(() => rival.close());
    await rival.register({ name: 'orders', id: 'most', metadata: most });
    await sees(registry, 'orders', ['a', 'most']);
    expect(heard.events).toEqual([]);
  });

  test('a server whose limit is lower breaks the connection: typed error in time, and the others stay', async ({
    onTestFinished,
  }) => {
    const small = await startZookeeper({ java: ['-Djute.maxbuffer=65536'] });
    onTestFinished(() => small.close());
    const registry = await open({ hosts: [...small.hosts], ttlMs: 10_000 });
    onTestFinished(() => registry.close());
    const registration = await registry.register({ name: 'orders', id: 'a' });
    const heard = hear(registration);
    const metadata = Object.fromEntries(Array.from({ length: 200 }, (_, i) => [String(i), 'x'.repeat(1000)]));
    const { ms } = await timed(
      refused(registry.register({ name: 'orders', id: 'big', metadata }, { timeoutMs: 2000 }), [
        'ERR_TIMEOUT',
        'ERR_UNAVAILABLE',
      ]),
    );
    expect(ms).toBeLessThan(inTime(3000));
    await quiet(3000); // tries that went on in the background would break the connection again
    await sees(registry, 'orders', ['a']);
    expect([registration.state, heard.events]).toEqual(['registered', []]);
  });

  test('a member without a quorum that serves reads only is no registry', async ({ onTestFinished }) => {
    const ensemble = await startZookeeper({ members: 3, readOnlyMode: true });
    onTestFinished(() => ensemble.close());
    const [first, second, third] = ensemble.members;
    await first?.kill();
    await second?.kill();
    await quiet(1500); // it takes its time to see that it is alone
    const { ms } = await timed(
      refused(
        open({ hosts: [third?.host as string], connectTimeoutMs: 2000 }),
        ['ERR_TIMEOUT', 'ERR_UNAVAILABLE'],
        /quorum/,
      ),
    );
    expect(ms).toBeLessThan(inTime(3500));
  });

  test('hosts that refuse, are silent, or are something else: in time', async ({ onTestFinished }) => {
    const silent = await startSilentServer();
    onTestFinished(() => silent.close());
    for (const host of ['127.0.0.1:1', silent.host, 'no-such-host.invalid:2181']) {
      const { ms } = await timed(
        refused(open({ hosts: [host], connectTimeoutMs: 1000 }), ['ERR_TIMEOUT', 'ERR_UNAVAILABLE']),
      );
      expect(ms, host).toBeLessThan(inTime(2500));
    }
  });

  test('a dead host beside a living one is passed over', async ({ onTestFinished }) => {
    const registry = await open({ hosts: ['127.0.0.1:1', zookeeper.hosts[0] as string] });
    onTestFinished(() => registry.close());
    expect(await registry.getService(uniqueName())).toEqual([]);
  });
});
