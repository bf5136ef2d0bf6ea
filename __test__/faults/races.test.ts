// Answers that are lost on the way, and owners that meet.
import { describe, expect, test } from 'vitest';
import { hear, ids, quiet, refused, sees, waitFor, within } from '../conformance/kit.js';
import { ETCD_VERSIONS } from '../support/etcd.js';
import { child, client, server, way } from './kit.js';

const instance = { name: 'orders', id: 'a', version: '1' };
const key = '/microservices/orders/a';

describe.concurrent.each(ETCD_VERSIONS)('lost answers, etcd %s', (version) => {
  // The first registration of a client needs a lease and a write: each of its requests loses its answer once.
  for (const lost of [1, 2, 3, 4]) {
    test(`the answer of request no. ${lost} of the first registration is lost: registered once, no false replaced, nothing left behind`, async (context) => {
      const etcd = await server(context, { version });
      const link = await way(context, etcd);
      const registry = await client(context, link, { ttlMs: 60_000, lazy: true });
      // Requests before the one to lose pass: the way is told to lose one when enough have gone.
      const from = link.requests;
      const armed = (async () => {
        await waitFor(() => link.requests - from >= lost - 1, {
          timeoutMs: 2000,
          intervalMs: 0,
          what: 'the requests before',
        });
        await link.loseNextAnswer();
        return true;
      })().catch(() => false);
      const registration = await within(registry.register(instance, { timeoutMs: 9000 }), 9500, 'register()');
      const heard = hear(registration);
      await Promise.race([armed, quiet(1500)]); // later requests are those of renewal and watch: theirs may be lost as well
      await sees(registry, 'orders', ['a']);
      expect(registration.state).toBe('registered');
      await quiet(2000); // a rival seen by mistake in our own write would be told by the next look at the record
      expect(heard.count('replaced')).toBe(0);
      expect(await etcd.keys('/microservices/')).toEqual([key]);
      await registration.deregister();
      expect(await etcd.keys('/microservices/')).toEqual([]);
      await waitFor(async () => (await etcd.leases()).length === 0, { timeoutMs: 5000, what: 'no lease to be left' });
    });
  }

  test('the answer of a publication is lost while the lease stands: no false replaced, nothing left behind', async (context) => {
    const etcd = await server(context, { version });
    const link = await way(context, etcd);
    const registry = await client(context, link, { ttlMs: 60_000 });
    const before = await registry.register({ ...instance, id: 'before' });
    const heardBefore = hear(before);
    const losing = link.loseNextAnswer();
    const registration = await registry.register(instance);
    const heard = hear(registration);
    await within(losing, 5000, 'the loss');
    await quiet(2000); // as above
    expect([registration.state, before.state]).toEqual(['registered', 'registered']);
    expect([...heard.events, ...heardBefore.events]).toEqual([]);
    await registration.deregister();
    await before.deregister();
    expect(await etcd.keys('/microservices/')).toEqual([]);
    await waitFor(async () => (await etcd.leases()).length === 0, { timeoutMs: 5000, what: 'no lease to be left' });
  });

  test('register() gives up because answers are lost: record and lease are taken back', async (context) => {
    const etcd = await server(context, { version });
    const link = await way(context, etcd);
    const registry = await client(context, link, { ttlMs: 60_000 });
    link.dropAnswers();
    await refused(registry.register(instance, { timeoutMs: 1500 }), 'ERR_TIMEOUT');
    link.dropAnswers(false);
    link.sever();
    await waitFor(async () => (await etcd.keys('/microservices/')).length + (await etcd.leases()).length === 0, {
      timeoutMs: 20_000,
      what: 'key and lease to go',
    });
    await quiet(3000); // nothing may come later
    expect([await etcd.keys('/microservices/'), await etcd.leases()]).toEqual([[], []]);
  });

  test('the answer of a repair is lost: restored once, no false replaced', async (context) => {
    const etcd = await server(context, { version });
    const link = await way(context, etcd);
    const registry = await client(context, link, { ttlMs: 30_000 });
    const registration = await registry.register(instance);
    const heard = hear(registration);
    registration.once('lost', () => void link.loseNextAnswer());
    await etcd.del(key);
    await waitFor(() => heard.count('restored') >= 1 && registration.state === 'registered', {
      timeoutMs: 15_000,
      what: '"restored"',
    });
    await quiet(2000); // as above
    expect(heard.count('replaced')).toBe(0);
    expect(heard.count('lost')).toBe(heard.count('restored'));
    expect(await etcd.get(key)).toContain('"version":"1"');
  });

  test('the answer of an update is lost: it is published, no false replaced', async (context) => {
    const etcd = await server(context, { version });
    const link = await way(context, etcd);
    const registry = await client(context, link, { ttlMs: 30_000 });
    const registration = await registry.register(instance);
    const heard = hear(registration);
    const losing = link.loseNextAnswer();
    await registration.update({ version: '2' }).catch(() => undefined);
    await within(losing, 5000, 'the loss');
    await waitFor(async () => (await etcd.get(key))?.includes('"version":"2"'), {
      timeoutMs: 12_000,
      what: 'version 2',
    });
    await quiet(1500); // as above
    expect([registration.state, heard.count('replaced')]).toEqual(['registered', 0]);
  });

  test('the answer of a deregistration is lost: it still resolves, and nothing is left', async (context) => {
    const etcd = await server(context, { version });
    const link = await way(context, etcd);
    const registry = await client(context, link, { ttlMs: 60_000 });
    const registration = await registry.register(instance);
    const losing = link.loseNextAnswer();
    await within(registration.deregister(), 9000, 'deregister()');
    await within(losing, 5000, 'the loss');
    expect(await etcd.keys('/microservices/')).toEqual([]);
    await waitFor(async () => (await etcd.leases()).length === 0, { timeoutMs: 5000, what: 'no lease to be left' });
  });

  test("the answer of an update is lost and a rival claims the id meanwhile: replaced, and the record stays the rival's", async (context) => {
    const etcd = await server(context, { version });
    const link = await way(context, etcd);
    const [one, two] = [await client(context, link, { ttlMs: 30_000 }), await client(context, etcd, { ttlMs: 30_000 })];
    const older = await one.register({ ...instance, version: 'older' });
    const heard = hear(older);
    link.hold('down');
    const updating = older.update({ version: 'updated' }, { timeoutMs: 8000 }).catch((error: unknown) => error);
    await waitFor(async () => (await etcd.get(key))?.includes('updated'), { what: 'the update to be applied' });
    const newer = await two.register({ ...instance, version: 'newer' });
    link.sever();
    link.release();
    await waitFor(() => heard.count('replaced') === 1, { timeoutMs: 15_000, what: 'the older to be replaced' });
    await updating;
    await quiet(2000); // a fight would go on
    expect(heard.events).toEqual(['replaced']);
    expect(newer.state).toBe('registered');
    expect(await etcd.get(key)).toContain('"newer"');
  });
});

describe.concurrent.each(ETCD_VERSIONS)('owners that meet, etcd %s', (version) => {
  test('an old process that deregisters after a newer one has claimed the id: the newer record stays', async (context) => {
    const etcd = await server(context, { version });
    const old = await child(
      context,
      etcd,
      [['register', { ...instance, version: 'old' }], ['sleep', 4000], ['deregister', 'a'], ['close']],
      { ttlMs: 30_000 },
    );
    await old.until('register:done');
    old.kill('SIGSTOP'); // it hears nothing of the newer one
    const registry = await client(context, etcd, { ttlMs: 30_000 });
    const registration = await registry.register({ ...instance, version: 'new' });
    const heard = hear(registration);
    await quiet(4500); // so that the old one deregisters as its first act after the thaw
    old.kill('SIGCONT');
    await within(old.exited, 15_000, 'the end of the old process');
    expect(await etcd.get(key)).toContain('"new"');
    expect(heard.events).toEqual([]);
  });

  test('an old process that ends by process.exit() after a newer one has claimed the id: the newer record stays', async (context) => {
    const etcd = await server(context, { version });
    const old = await child(
      context,
      etcd,
      [
        ['register', { ...instance, version: 'old' }],
        ['sleep', 3000],
        ['exit', 0],
      ],
      { ttlMs: 30_000 },
    );
    await old.until('register:done');
    old.kill('SIGSTOP');
    const registry = await client(context, etcd, { ttlMs: 30_000 });
    const heard = hear(await registry.register({ ...instance, version: 'new' }));
    await quiet(3500); // as above
    old.kill('SIGCONT');
    await within(old.exited, 10_000, 'the end of the old process');
    await quiet(500); // a removal on its way would have arrived
    expect(await etcd.get(key)).toContain('"new"');
    expect(heard.events).toEqual([]);
  });

  test('a process that was killed and is started again with the same id takes over at once', async (context) => {
    const etcd = await server(context, { version });
    const first = await child(context, etcd, [['register', instance], ['hold']], { ttlMs: 3000 });
    await first.until('register:done');
    await first.stop();
    const registry = await client(context, etcd, { ttlMs: 3000 });
    const registration = await registry.register({ ...instance, version: 'again' });
    const heard = hear(registration);
    await quiet(6000); // the lease of the dead one ends within this, and must not take the record with it
    expect(heard.events).toEqual([]);
    expect(ids(await registry.getService('orders', { consistent: true }))).toEqual(['a']);
  });

  test('ten clients claim one id at once: one stands, nine are replaced, and the record is its own', async (context) => {
    const etcd = await server(context, { version });
    const clients = await Promise.all(Array.from({ length: 10 }, () => client(context, etcd, { ttlMs: 10_000 })));
    const registrations = await Promise.all(
      clients.map((registry, i) => registry.register({ ...instance, version: `v${i}` })),
    );
    await waitFor(() => registrations.filter(({ state }) => state === 'replaced').length === 9, {
      timeoutMs: 10_000,
      what: 'nine to be replaced',
    });
    const standing = registrations.filter(({ state }) => state === 'registered');
    expect(standing).toHaveLength(1);
    expect(await etcd.get(key)).toContain(`"${standing[0]?.instance.version}"`);
  });
});
