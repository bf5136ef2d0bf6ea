// Out of traffic and in again: what is withdrawn is not seen, stays away whatever happens, and comes back when nothing holds it.
import type { OutReason, Registration } from 'rollcall';
import { expect } from 'vitest';
import { forEveryBackend } from './backends.js';
import {
  hear,
  ids,
  inTime,
  listsUntil,
  nextList,
  quiet,
  refused,
  sees,
  timed,
  unstamped,
  waitFor,
  within,
} from './kit.js';

const instance = {
  name: 'orders',
  id: 'a',
  version: '1',
  metadata: { zone: 'a' },
  endpoints: ['grpc://10.1.2.3:9000'],
};

/** Beside it, at an address of its own: some registries hold one instance of an address. */
const neighbour = { ...instance, id: 'b', endpoints: ['grpc://10.1.2.4:9000'] };

/** Rounds of the test that looks for what they leave behind. `ROUNDS=1000` is the full size. */
const ROUNDS = Number(process.env.ROUNDS ?? 25);

const outFor = (registration: Registration): OutReason[] => [...registration.outFor];

forEveryBackend('out of traffic', (it, row) => {
  const [isRead, hasLeases] = [row.cannot.rawRead === undefined, row.cannot.leases === undefined];

  it('withdraw() resolves when others do not see it, restore() when they do, and neither is a loss', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const watcher = other.watch('orders');
    expect(ids(await nextList(watcher))).toEqual([]);
    const registration = await registry.register(instance);
    const heard = hear(registration);
    await listsUntil(watcher, ['a']);

    const withdrawn = registration.withdraw();
    expect(outFor(registration), 'at once').toEqual(['withdrawn']);
    await withdrawn;
    expect(unstamped(await other.getService('orders', { consistent: true }))).toEqual([]);
    await listsUntil(watcher, [], 2000);
    expect(registration.state).toBe('out');

    await registration.restore();
    expect(unstamped(await other.getService('orders', { consistent: true }))).toEqual([instance]);
    await listsUntil(watcher, ['a'], 2000);
    expect([registration.state, outFor(registration)]).toEqual(['registered', []]);
    await waitFor(() => heard.count('in') === 1, { what: '"in"' });
    expect(heard.events).toEqual(['out withdrawn', 'in']);
  });

  it('reasons add up: the last restore() brings it back', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const registration = await registry.register(instance);
    const heard = hear(registration);
    const told: string[] = [];
    registration.on('out', (_, all) => told.push([...all].join(' ')));
    await registration.withdraw('unhealthy');
    await registration.withdraw();
    await registration.withdraw();
    expect(new Set(outFor(registration))).toEqual(new Set(['unhealthy', 'withdrawn']));
    await registration.restore('unhealthy');
    await quiet(1500); // longer than the first pause of a repair
    expect(unstamped(await other.getService('orders', { consistent: true }))).toEqual([]);
    await registration.restore();
    expect(unstamped(await other.getService('orders', { consistent: true }))).toEqual([instance]);
    await waitFor(() => heard.count('in') === 1, { what: '"in"' });
    expect(heard.events).toEqual(['out unhealthy', 'out withdrawn', 'in']);
    expect(told).toEqual(['unhealthy', 'withdrawn unhealthy']);
  });

  it('update() while out is kept, and published at the return', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const registration = await registry.register(instance);
    await registration.withdraw();
    await registration.update({ version: '2' });
    await quiet(1500); // as above
    expect(unstamped(await other.getService('orders', { consistent: true }))).toEqual([]);
    await registration.restore();
    expect(unstamped(await other.getService('orders', { consistent: true }))).toEqual([{ ...instance, version: '2' }]);
  });

  it('withdrawn for longer than its TTL, beside one whose session is lost, it stays away and comes back', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const registration = await registry.register(instance);
    const beside = await registry.register(neighbour);
    const heard = hear(beside);
    await registration.withdraw();
    await scope.loseSession('orders', 'b');
    await waitFor(() => heard.count('restored') === 1, { timeoutMs: scope.ttlMs + 6000, what: 'the one beside it' });
    const until = performance.now() + scope.ttlMs * 1.5; // longer than a lease or session of before lives
    while (performance.now() < until) {
      expect(ids(await other.getService('orders', { consistent: true }))).not.toContain('a');
      await quiet(50);
    }
    await registration.restore();
    await sees(other, 'orders', ['a', 'b']);
  });

  it('a withdraw() in an outage rejects in time, says that it is tried on, and is', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const registration = await registry.register(instance);
    const heard = hear(registration);
    await scope.outage();
    const { ms, error } = await timed(registration.withdraw('withdrawn', { timeoutMs: 700 }));
    await refused(Promise.reject(error), 'ERR_TIMEOUT', /for as long as the registration lives/);
    expect(error).toMatchObject({ operation: 'withdraw', retryable: true });
    expect(ms).toBeLessThan(inTime(1500));
    expect([registration.state, outFor(registration)]).toEqual(['out', ['withdrawn']]);
    await quiet(scope.ttlMs + 500); // what is not renewed expires meanwhile: no loss either
    await scope.restore();
    await registration.withdraw('withdrawn', { timeoutMs: 15_000 });
    await sees(other, 'orders', []);
    await quiet(1500); // as above
    expect(unstamped(await other.getService('orders', { consistent: true }))).toEqual([]);
    await registration.restore();
    expect(unstamped(await other.getService('orders', { consistent: true }))).toEqual([instance]);
    await waitFor(() => heard.count('in') === 1, { what: '"in"' });
    expect(heard.events).toEqual(['out withdrawn', 'in']);
  });

  it('a restore() in an outage rejects in time, and the instance comes with the registry', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const registration = await registry.register(instance);
    const heard = hear(registration);
    await registration.withdraw();
    await scope.outage();
    await refused(registration.restore('withdrawn', { timeoutMs: 700 }), ['ERR_TIMEOUT', 'ERR_UNAVAILABLE']);
    expect([registration.state, outFor(registration)]).toEqual(['out', []]);
    await scope.restore();
    await registration.restore('withdrawn', { timeoutMs: 15_000 }); // again: that only waits
    expect(unstamped(await other.getService('orders', { consistent: true }))).toEqual([instance]);
    await waitFor(() => heard.count('in') === 1, { what: '"in"' });
    expect(heard.events).toEqual(['out withdrawn', 'in']);
  });

  it('withdrawn and restored within one outage it is there after it', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const registration = await registry.register(instance);
    const heard = hear(registration);
    await scope.outage();
    await refused(registration.withdraw('unhealthy', { timeoutMs: 300 }), 'ERR_TIMEOUT');
    await quiet(scope.ttlMs + 500); // what was there has expired
    await refused(registration.restore('unhealthy', { timeoutMs: 300 }), ['ERR_TIMEOUT', 'ERR_UNAVAILABLE']);
    await scope.restore();
    await waitFor(() => registration.state === 'registered', { timeoutMs: 15_000, what: 'the return' });
    await sees(other, 'orders', ['a']);
    await quiet(scope.ttlMs + 500); // a removal on its way would have arrived, and what is not renewed would be gone
    expect(unstamped(await other.getService('orders', { consistent: true }))).toEqual([instance]);
    expect(heard.count('lost')).toBe(0);
  });

  it('called back before it is out, it is there', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const registration = await registry.register(instance);
    for (let round = 0; round < 5; round++) {
      const out = registration.withdraw();
      await quiet(round); // so that it is met at different places
      const back = registration.restore();
      await out.catch((error: unknown) => refused(Promise.reject(error), 'ERR_ABORTED', /taken back/));
      await back;
      expect([registration.state, outFor(registration)]).toEqual(['registered', []]);
    }
    await sees(other, 'orders', ['a']);
    await quiet(scope.ttlMs + 500); // as above
    expect(unstamped(await other.getService('orders', { consistent: true }))).toEqual([instance]);
  });

  it('stalled and withdrawn at once: it is back when both are over, and nothing was lost', async (scope) => {
    const other = await scope.observer();
    const owner = await scope.run(
      [
        ['register', instance],
        ['withdraw', 'a'],
        ['block', 3000],
        ['sleep', 2000],
        ['state', 'a'],
        ['restore', 'a'],
        ['sleep', 100], // an event may come a turn after the answer
        ['state', 'a'],
        ['hold'],
      ],
      { stallTimeoutMs: 1000, ttlMs: 60_000 },
    );
    await owner.until('withdraw:done');
    const reads: { until: number; seen: string[] }[] = [];
    while (owner.count('state:done') === 0) {
      const seen = ids(await other.getService('orders', { consistent: true }));
      reads.push({ until: Date.now(), seen });
      await quiet(50);
    }
    const still = await owner.until('state:done');
    expect(still).toMatchObject({ state: 'out', outFor: ['withdrawn'] });
    // It goes on by itself: a read that was answered later may have met the restore().
    const before = reads.filter(({ until }) => until < still.at);
    expect(before.length).toBeGreaterThan(10);
    expect(before.flatMap(({ seen }) => seen)).toEqual([]);
    expect(await owner.until('state:done', { nth: 2 })).toMatchObject({ state: 'registered', outFor: [] });
    await sees(other, 'orders', ['a']);
    const reasons = owner.lines.filter(({ event }) => event === 'out').map(({ reason }) => reason);
    expect(reasons).toEqual(['withdrawn', 'stalled']);
    expect(['lost', 'stalled', 'restored', 'in'].map((event) => owner.count(event))).toEqual([0, 0, 0, 1]);
  });

  it('a stall alone tells out and in beside stalled, lost and restored', async (scope) => {
    const owner = await scope.run([['register', instance], ['block', 3000], ['hold']], {
      stallTimeoutMs: 1000,
      ttlMs: 60_000,
    });
    await owner.until('in');
    const events = owner.lines.map(({ event }) => event);
    const told = events.filter((event) => ['out', 'in', 'stalled', 'lost', 'restored'].includes(event));
    expect(told).toEqual(['out', 'stalled', 'lost', 'restored', 'in']);
  });

  it(
    'whoever claims the id meanwhile keeps it: restore() ends with ERR_REPLACED',
    async (scope) => {
      const [registry, other] = [await scope.connect(), await scope.observer()];
      const registration = await registry.register(instance);
      const heard = hear(registration);
      await registration.withdraw();
      const newer = await other.register({ ...instance, version: 'newer' });
      await quiet(scope.ttlMs); // nothing is noticed before the return
      expect(registration.state).toBe('out');
      await refused(registration.restore(), 'ERR_REPLACED');
      expect([registration.state, outFor(registration)]).toEqual(['replaced', []]);
      await waitFor(() => heard.count('replaced') === 1, { what: '"replaced"' });
      expect(heard.events).toEqual(['out withdrawn', 'replaced']);
      await refused(registration.withdraw(), 'ERR_REPLACED');
      await refused(registration.restore(), 'ERR_REPLACED');
      await registration.deregister();
      expect(await other.getService('orders', { consistent: true })).toMatchObject([{ version: 'newer' }]);
      expect(newer.state).toBe('registered');
    },
    { needs: ['owners'] },
  );

  it('whoever claimed the id and has left again is no hindrance', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const registration = await registry.register(instance);
    await registration.withdraw();
    const guest = await other.register({ ...instance, version: 'newer' });
    await guest.deregister();
    await registration.restore();
    expect(unstamped(await other.getService('orders', { consistent: true }))).toEqual([instance]);
  });

  it('deregister() of what is out ends it, also in an outage, and it does not come back', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const [one, two] = [await registry.register(instance), await registry.register(neighbour)];
    await Promise.all([one.withdraw(), two.withdraw('unhealthy')]);
    await one.deregister();
    expect(one.state).toBe('deregistered');
    await scope.outage();
    const leaving = two.deregister({ timeoutMs: 20_000 });
    await refused(two.restore('unhealthy'), 'ERR_CLOSED', /deregistered/);
    await scope.restore();
    await leaving;
    await quiet(1500); // longer than the first pause of a repair
    expect(unstamped(await other.getService('orders', { consistent: true }))).toEqual([]);
    await refused(one.withdraw(), 'ERR_CLOSED', /deregistered/);
    await refused(one.drain(1), 'ERR_CLOSED', /deregistered/);
  });

  it('drain() takes it out, waits, and ends it; deregister() cuts the wait short', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const registration = await registry.register(instance);
    const heard = hear(registration);
    const draining = timed(registration.drain(1500));
    expect(outFor(registration)).toEqual(['draining']);
    await sees(other, 'orders', []);
    expect(registration.state).toBe('out');
    expect((await draining).ms).toBeGreaterThan(1490);
    expect(registration.state).toBe('deregistered');
    expect(heard.events).toEqual(['out draining']);

    const hurried = await registry.register(instance);
    const cut = hurried.drain(600_000);
    await sees(other, 'orders', []);
    await hurried.deregister();
    await within(cut, 5000, 'the drain that was cut short');
    expect(hurried.state).toBe('deregistered');
  });

  it('close() takes what is out with it, and what waits hears of it', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const [one, two] = [await registry.register(instance), await registry.register(neighbour)];
    await one.withdraw();
    const draining = two.drain(600_000);
    await sees(other, 'orders', []);
    await within(Promise.all([registry.close(), draining.catch(() => undefined)]), 15_000, 'close()');
    await refused(one.withdraw(), 'ERR_CLOSED', /the registry is closed/);
    await refused(one.restore(), 'ERR_CLOSED', /the registry is closed/);
    await refused(one.drain(1), 'ERR_CLOSED', /the registry is closed/);
    expect(unstamped(await other.getService('orders', { consistent: true }))).toEqual([]);
  });

  it('what was withdrawn in the background before it was ever there comes with its first restore()', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    await scope.outage();
    const registration = await registry.register(instance, { background: true });
    await registration.withdraw('withdrawn', { timeoutMs: 700 }).catch(() => undefined); // something may have been sent
    await scope.restore();
    await registration.withdraw('withdrawn', { timeoutMs: 15_000 });
    await quiet(1500); // as above
    expect(unstamped(await other.getService('orders', { consistent: true }))).toEqual([]);
    await registration.restore();
    expect(unstamped(await other.getService('orders', { consistent: true }))).toEqual([instance]);
  });

  it('arguments that can not be right are refused by name, and change nothing', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const registration = await registry.register(instance);
    for (const how of ['withdraw', 'restore'] as const) {
      const call = (...given: unknown[]) => (registration[how] as (...given: unknown[]) => Promise<void>)(...given);
      for (const [given, message] of [
        [['stalled'], /^reason: "stalled" is the stall guard's own/],
        [['draining'], /^reason: "draining" is set by drain\(\) alone/],
        [['unhealty'], /^reason: expected "withdrawn" or "unhealthy", got "unhealty"/],
        [[null], /^reason: expected/],
        [[{}], /^reason: expected/],
        [['withdrawn', { timeoutMs: 0 }], /^options\.timeoutMs/],
        [['withdrawn', { signal: 1 }], /^options\.signal/],
        [['withdrawn', { timeout: 1 }], /^options\.timeout\b/],
      ] as const) {
        expect((await refused(call(...given), 'ERR_INVALID_ARGUMENT', message)).operation).toBe(how);
      }
      await refused(call('withdrawn', { signal: AbortSignal.abort() }), 'ERR_ABORTED');
    }
    for (const ms of [undefined, -1, 1.5, '1']) {
      await refused(registration.drain(ms as number), 'ERR_INVALID_ARGUMENT', /^ms: expected/);
    }
    await refused(registration.drain(1, { drainMs: 1 } as never), 'ERR_INVALID_ARGUMENT', /^options\.drainMs/);
    const never = await refused(registration.restore(), 'ERR_INVALID_ARGUMENT', /^reason: "withdrawn" does not hold/);
    expect(never.message).toMatch(/nothing does/);
    expect([registration.state, outFor(registration)]).toEqual(['registered', []]);
    expect(unstamped(await other.getService('orders', { consistent: true }))).toEqual([instance]);
    await registration.withdraw('unhealthy');
    await refused(registration.restore(), 'ERR_INVALID_ARGUMENT', /that is unhealthy/);
    expect(outFor(registration)).toEqual(['unhealthy']);
  });

  it('a signal aborts the wait, and what is wanted stays changed', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const registration = await registry.register(instance);
    await scope.outage();
    const abort = new AbortController();
    const waiting = registration.withdraw('unhealthy', { signal: abort.signal, timeoutMs: 600_000 });
    setTimeout(() => abort.abort(), 200);
    await refused(waiting, 'ERR_ABORTED');
    expect(outFor(registration)).toEqual(['unhealthy']);
    await scope.restore();
    await sees(other, 'orders', [], 15_000 + scope.ttlMs);
  });

  it(
    'what an operator has switched off is in no list, and neither an update nor a repair of its owner brings it back',
    async (scope) => {
      const [registry, other] = [await scope.connect(), await scope.observer()];
      const registration = await registry.register(instance);
      await registry.register({ name: 'payments', id: 'p' });
      const heard = hear(registration);
      const watcher = other.watch('orders');
      await listsUntil(watcher, ['a']);
      const isOut = async () => {
        expect(await other.getService('orders', { consistent: true })).toEqual([]);
        expect(await other.services({ consistent: true })).toEqual(['payments']);
        expect(registration.state).toBe('registered');
      };

      await scope.setOwnSwitch('orders', 'a', true);
      await listsUntil(watcher, []);
      await isOut();
      await registration.update({ version: '2' });
      await isOut();
      await scope.loseSession('orders', 'a');
      await waitFor(() => heard.count('restored') === 1, { timeoutMs: 15_000, what: '"restored"' });
      await isOut();

      await scope.setOwnSwitch('orders', 'a', false);
      const lists = await listsUntil(watcher, ['a']);
      expect(lists.map((list) => list.map(({ version }) => version))).toEqual([['2']]);
      expect(await other.services({ consistent: true })).toEqual(['orders', 'payments']);
      expect(heard.events).toEqual(['lost', 'restored']);
    },
    { needs: ['ownSwitch'] },
  );

  it(
    `${ROUNDS} rounds leave no lease and no key behind`,
    async (scope) => {
      const [registry, other] = [await scope.connect(), await scope.observer()];
      const registration = await registry.register(instance);
      const heard = hear(registration);
      const leases = new Set<string>();
      const all = async () => (isRead ? await scope.storedUnder('orders') : []);
      for (let round = 0; round < ROUNDS; round++) {
        for (const { lease } of await all()) leases.add(lease);
        await registration.withdraw();
        expect(await all(), 'nothing of it is there').toEqual([]);
        await registration.restore();
      }
      await waitFor(() => heard.count('in') === ROUNDS, { what: 'the last "in"' });
      expect(heard.events).toEqual(Array.from({ length: ROUNDS }, () => ['out withdrawn', 'in']).flat());
      expect(unstamped(await other.getService('orders', { consistent: true }))).toEqual([instance]);
      const now = await all();
      expect(now).toHaveLength(isRead ? 1 : 0);
      if (!hasLeases) return;
      leases.delete(now[0]?.lease ?? '');
      expect(leases.size).toBeGreaterThanOrEqual(ROUNDS - 1);
      for (const lease of leases) expect(await scope.grantedTtl(lease), lease).toBeUndefined();
    },
    { timeoutMs: 30_000 + ROUNDS * 200 },
  );
});
