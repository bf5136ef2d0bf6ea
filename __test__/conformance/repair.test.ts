// The registration contract, second half: what the backend loses is put back, and a loss is told exactly once.
import { expect } from 'vitest';
import { forEveryBackend } from './backends.js';
import { hear, inTime, quiet, refused, sees, unstamped, waitFor } from './kit.js';

const instance = {
  name: 'orders',
  id: 'a',
  version: '1',
  metadata: { zone: 'a' },
  endpoints: ['grpc://10.1.2.3:9000'],
};

forEveryBackend('repair', (it, { lateMs = 0 }) => {
  it('a key deleted by hand is put back, with one lost and one restored', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const registration = await registry.register(instance);
    const heard = hear(registration);
    const start = performance.now();
    expect(await scope.remove('orders', 'a')).toBe(true);
    await waitFor(() => heard.count('restored') === 1, { timeoutMs: scope.ttlMs + 3000, what: '"restored"' });
    expect(unstamped(await other.getService('orders', { consistent: true }))).toEqual([instance]);
    expect(registration.state).toBe('registered');
    expect(performance.now() - start).toBeLessThan(scope.ttlMs + 2000);
    await quiet(1500); // a second telling of the same loss would come with the next look at the record
    expect(heard.events).toEqual(['lost', 'restored']);
    expect(heard.reasons[0]).toMatch(/\w/);
  });

  it('a lost session or lease is replaced, with one lost and one restored', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const registration = await registry.register(instance);
    const heard = hear(registration);
    await scope.loseSession('orders', 'a');
    await waitFor(() => heard.count('restored') === 1, { timeoutMs: scope.ttlMs + 3000, what: '"restored"' });
    expect(unstamped(await other.getService('orders', { consistent: true }))).toEqual([instance]);
    await quiet(scope.ttlMs + 500); // one more life of the new lease: it must be renewed
    expect(heard.events).toEqual(['lost', 'restored']);
    expect(unstamped(await other.getService('orders', { consistent: true }))).toEqual([instance]);
  });

  it(
    'when the lease of many registrations is lost, each tells one lost and one restored',
    async (scope) => {
      const [registry, other] = [await scope.connect(), await scope.observer()];
      const names = Array.from({ length: 20 }, (_, i) => String(i).padStart(2, '0'));
      const heards = await Promise.all(names.map(async (id) => hear(await registry.register({ name: 'orders', id }))));
      for (const id of names) await scope.loseSession('orders', id).catch(() => undefined); // gone already, if one lease held them all
      await waitFor(() => heards.every((heard) => heard.count('restored') >= 1), {
        timeoutMs: scope.ttlMs + 6000,
        what: 'all to be restored',
      });
      await sees(other, 'orders', names);
      // On a busy machine one may be lost once more, and be on its way back now.
      await waitFor(() => heards.every((heard) => heard.count('lost') === heard.count('restored')), {
        what: 'as many "restored" as "lost"',
      });
    },
    { needs: ['singleLosses'] },
  );

  it('a registry that lost its data gets the instance back, with one lost and one restored', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const registration = await registry.register(instance);
    const heard = hear(registration);
    await scope.wipe();
    await waitFor(() => heard.count('restored') === 1, { timeoutMs: scope.ttlMs + 3000, what: '"restored"' });
    expect(unstamped(await other.getService('orders', { consistent: true }))).toEqual([instance]);
    expect(heard.events).toEqual(['lost', 'restored']);
  });

  it(
    'an outage shorter than the TTL fires nothing',
    async (scope) => {
      const ttlMs = scope.ttlMs * 4;
      const [registry, other] = [await scope.connect({ ttlMs }), await scope.observer()];
      const registration = await registry.register(instance);
      const heard = hear(registration);
      await scope.outage();
      await quiet(ttlMs / 3); // one interval of renewal passes unheard
      expect(registration.state).toBe('registered');
      await scope.restore();
      await quiet(ttlMs); // if the renewal had not come back, the loss would be told by now
      expect(heard.events).toEqual([]);
      expect(unstamped(await other.getService('orders', { consistent: true }))).toEqual([instance]);
    },
    { needs: ['ownTtl'] },
  );

  it(
    'an outage longer than the TTL fires one lost while it lasts and one restored after it',
    async (scope) => {
      const [registry, other] = [await scope.connect(), await scope.observer()];
      const registration = await registry.register(instance);
      const heard = hear(registration);
      await scope.outage();
      const start = performance.now();
      await waitFor(() => registration.state === 'lost', { timeoutMs: scope.ttlMs + 3000, what: 'the loss' });
      expect(performance.now() - start, 'lost means not renewed for a TTL').toBeGreaterThan(scope.ttlMs * 0.5);
      await quiet(3000); // several failed tries: each must stay silent
      expect(heard.events).toEqual(['lost']);
      await scope.restore();
      await waitFor(() => heard.count('restored') === 1, { timeoutMs: 12_000, what: '"restored"' });
      expect(heard.events).toEqual(['lost', 'restored']);
      expect(registration.state).toBe('registered');
      expect(unstamped(await other.getService('orders', { consistent: true }))).toEqual([instance]);
    },
    { needs: ['expires'] },
  );

  it('every loss is told: two losses are two lost and two restored', async (scope) => {
    const registration = await (await scope.connect()).register(instance);
    const heard = hear(registration);
    for (let round = 1; round <= 2; round++) {
      await scope.remove('orders', 'a');
      await waitFor(() => heard.count('restored') === round, {
        timeoutMs: scope.ttlMs + 12_000,
        what: `"restored" no. ${round}`,
      });
    }
    expect(heard.events).toEqual(['lost', 'restored', 'lost', 'restored']);
  });

  it('after the record has held for a TTL the back-off starts anew: it is back within its first step', async (scope) => {
    const registration = await (await scope.connect()).register(instance);
    const heard = hear(registration);
    for (let round = 1; round <= 3; round++) {
      await scope.remove('orders', 'a');
      await waitFor(() => heard.count('restored') === round, {
        timeoutMs: scope.ttlMs + 12_000,
        what: `"restored" no. ${round}`,
      });
    }
    await quiet(scope.ttlMs * 1.5); // what the rule asks for: the record holds for a TTL
    let lostAt = 0;
    registration.once('lost', () => {
      lostAt = performance.now();
    });
    await scope.remove('orders', 'a');
    await waitFor(() => heard.count('restored') === 4, { timeoutMs: scope.ttlMs + 12_000, what: '"restored" no. 4' });
    // A random 0.5 s, until others are told, and room for a busy machine.
    expect(performance.now() - lostAt).toBeLessThan(inTime(1200) + lateMs);
  });

  it('a loss that nobody listens to ends nothing: no event is called error', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    await registry.register(instance);
    await scope.remove('orders', 'a');
    await sees(other, 'orders', ['a'], scope.ttlMs + 5000);
  });

  it('a registration made in the background during an outage tells no loss', async (scope) => {
    const registry = await scope.connect();
    await scope.outage();
    const registration = await registry.register(instance, { background: true });
    const heard = hear(registration);
    await quiet(scope.ttlMs + 500); // it was never there, so a TTL without it is no loss
    expect(registration.state).toBe('registering');
    await scope.restore();
    await waitFor(() => registration.state === 'registered', { timeoutMs: 15_000, what: 'the registration' });
    expect(heard.count('lost')).toBe(0);
  });

  it(
    'update() while the instance is lost is what the repair publishes',
    async (scope) => {
      const [registry, other] = [await scope.connect(), await scope.observer()];
      const registration = await registry.register(instance);
      await scope.outage();
      await waitFor(() => registration.state === 'lost', { timeoutMs: scope.ttlMs + 3000, what: 'the loss' });
      await refused(registration.update({ version: '2' }, { timeoutMs: 300 }), ['ERR_TIMEOUT', 'ERR_UNAVAILABLE']);
      await scope.restore();
      await waitFor(() => registration.state === 'registered', { timeoutMs: 12_000, what: 'the repair' });
      await waitFor(async () => (await other.getService('orders', { consistent: true }))[0]?.version === '2', {
        timeoutMs: 2000,
        what: 'version 2',
      });
    },
    { needs: ['expires'] },
  );

  it(
    'the id taken by another while ours was lost: replaced, not restored',
    async (scope) => {
      const [registry, other] = [await scope.connect(), await scope.observer()];
      const registration = await registry.register(instance);
      const heard = hear(registration);
      await scope.outage();
      await waitFor(() => registration.state === 'lost', { timeoutMs: scope.ttlMs + 3000, what: 'the loss' });
      await other.register({ ...instance, version: 'newer' });
      await scope.restore();
      await waitFor(() => heard.count('replaced') > 0, { timeoutMs: 12_000, what: 'the end' });
      expect(heard.events).toEqual(['lost', 'replaced']);
      expect(await other.getService('orders', { consistent: true })).toMatchObject([{ version: 'newer' }]);
    },
    { needs: ['oneSided', 'owners', 'expires'] },
  );

  it(
    'close() ends a repair under way',
    async (scope) => {
      const [registry, other] = [await scope.connect(), await scope.observer()];
      const registration = await registry.register(instance);
      await scope.outage();
      await waitFor(() => registration.state === 'lost', { timeoutMs: scope.ttlMs + 3000, what: 'the loss' });
      await registry.close({ timeoutMs: 500 }).catch(() => undefined);
      await scope.restore();
      const until = performance.now() + 3000; // longer than the first tries of a surviving repair
      while (performance.now() < until) {
        expect(await other.getService('orders', { consistent: true })).toEqual([]);
        await quiet(50);
      }
    },
    { needs: ['expires', 'goesByTtl'] },
  );

  it(
    'an instance whose owner dies without a word is gone within its TTL',
    async (scope) => {
      const other = await scope.observer();
      const owner = await scope.mortal('orders', 'x');
      await sees(other, 'orders', ['x']);
      const start = performance.now();
      await owner.die();
      await sees(other, 'orders', [], scope.ttlMs + 3000);
      expect(performance.now() - start).toBeLessThan(scope.ttlMs + 2000); // etcd looks for expired leases twice a second
    },
    { needs: ['goesByTtl'] },
  );

  it(
    'the record is renewed: after five TTLs nothing has happened to it',
    async (scope) => {
      const ttlMs = scope.ttlMs * 2; // a server that others keep busy may be late by a second and more
      const registry = await scope.connect({ ttlMs });
      const registration = await registry.register(instance);
      const heard = hear(registration);
      const before = await scope.stored('orders', 'a');
      await quiet(ttlMs * 5);
      expect(heard.events).toEqual([]);
      expect(await scope.stored('orders', 'a')).toEqual(before);
    },
    { needs: ['rawRead'] },
  );
});

forEveryBackend('a blocked thread', (it) => {
  it('the JavaScript thread is blocked for three TTLs and the instance stays', async (scope) => {
    const other = await scope.observer();
    const owner = await scope.run([
      ['register', instance],
      ['block', scope.ttlMs * 3],
      ['sleep', 300],
      ['state', 'a'],
      ['hold'],
    ]);
    await owner.until('register:done');
    const until = performance.now() + scope.ttlMs * 3;
    while (performance.now() < until) {
      expect(unstamped(await other.getService('orders', { consistent: true }))).toEqual([instance]);
      await quiet(50);
    }
    expect((await owner.until('state:done')).state).toBe('registered');
    expect([owner.count('lost'), owner.count('stalled'), owner.count('restored')]).toEqual([0, 0, 0]);
  });

  it('blocked beyond stallTimeoutMs the instance leaves, and comes back as soon as the thread ticks', async (scope) => {
    const other = await scope.observer();
    const owner = await scope.run([['register', instance], ['block', 6000], ['hold']], {
      stallTimeoutMs: 1500,
      ttlMs: 60_000,
    });
    await owner.until('register:done');
    const start = performance.now();
    await sees(other, 'orders', [], 5000);
    expect(performance.now() - start, 'not before stallTimeoutMs').toBeGreaterThan(1200);
    const back = await owner.until('restored');
    const ticked = await owner.until('block:done');
    expect(back.at - ticked.at, 'at once, not after a back-off of seconds').toBeLessThan(inTime(1500));
    await sees(other, 'orders', ['a'], 1000);
    const lost = await owner.until('lost');
    expect(lost.reason).toMatch(/^stalled/);
    expect([owner.count('lost'), owner.count('stalled'), owner.count('restored')]).toEqual([1, 1, 1]);
  });

  it('stallTimeoutMs: 0 turns the guard off', async (scope) => {
    const other = await scope.observer();
    const owner = await scope.run([['register', instance], ['block', 4000], ['sleep', 300], ['state', 'a'], ['hold']], {
      stallTimeoutMs: 0,
    });
    await owner.until('state:done');
    expect([owner.count('lost'), owner.count('stalled')]).toEqual([0, 0]);
    await sees(other, 'orders', ['a']);
  });

  it(
    'stallTimeoutMs of register() counts before that of the client',
    async (scope) => {
      const other = await scope.observer();
      const owner = await scope.run(
        [
          ['register', { ...instance, id: 'guarded' }, { stallTimeoutMs: 1000 }],
          ['register', { ...instance, id: 'unguarded', endpoints: ['grpc://10.1.2.4:9000'] }],
          ['block', 5000],
          ['hold'],
        ],
        { stallTimeoutMs: 0 },
      );
      await owner.until('register:done', { nth: 2 });
      await sees(other, 'orders', ['unguarded'], 4500);
      await owner.until('restored');
      await sees(other, 'orders', ['guarded', 'unguarded'], 2000);
    },
    { needs: ['manyRegistrations'] },
  );

  it('a short block, below stallTimeoutMs, changes nothing', async (scope) => {
    const owner = await scope.run(
      [
        ['register', instance],
        ['block', 1000],
        ['sleep', 50],
        ['block', 1000],
        ['sleep', 50],
        ['block', 1000],
        ['sleep', 1000],
        ['hold'],
      ],
      { stallTimeoutMs: 2500 },
    );
    await owner.until('sleep:done', { nth: 3 });
    expect([owner.count('lost'), owner.count('stalled')]).toEqual([0, 0]);
  });
});
