// The registration contract, first half: becoming visible, updating, giving way to a newer owner, leaving.
import { connect } from 'rollcall';
import { expect } from 'vitest';
import { forEveryBackend, record } from './backends.js';
import { hear, ids, inTime, quiet, refused, sees, timed, unstamped, waitFor, within } from './kit.js';

const instance = {
  name: 'orders',
  id: 'a',
  version: '1.4.0',
  metadata: { zone: 'a', weight: '10' },
  endpoints: ['grpc://10.1.2.3:9000', 'http://10.1.2.3:8000'], // in the order that every registry keeps
};

forEveryBackend('registering', (it) => {
  it('register() resolves when another client sees the whole instance', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const registration = await registry.register(instance);
    expect(unstamped(await other.getService('orders', { consistent: true }))).toEqual([instance]);
    expect(registration.instance).toEqual(instance);
    expect([registration.name, registration.id, registration.state]).toEqual(['orders', 'a', 'registered']);
  });

  it('an id is a fresh UUID unless given, and version, metadata and endpoints are empty', async (scope) => {
    const registry = await scope.connect();
    const [first, second] = await Promise.all([
      registry.register({ name: 'orders' }),
      registry.register({ name: 'orders' }),
    ]);
    expect(first?.id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/);
    expect(first?.id).not.toBe(second?.id);
    expect(first?.instance).toEqual({ id: first?.id, name: 'orders', version: '', metadata: {}, endpoints: [] });
    expect(unstamped(await registry.getService('orders'))).toContainEqual(first?.instance);
  });

  it('what register() was given can be changed afterwards without any effect', async (scope) => {
    const registry = await scope.connect();
    const given = { name: 'orders', id: 'a', metadata: { zone: 'a' }, endpoints: ['grpc://10.0.0.1:1'] };
    const pending = registry.register(given);
    given.metadata.zone = 'changed';
    given.endpoints.push('grpc://10.0.0.2:2');
    const registration = await pending;
    expect(registration.instance.metadata).toEqual({ zone: 'a' });
    expect(await registry.getService('orders')).toMatchObject([
      { metadata: { zone: 'a' }, endpoints: ['grpc://10.0.0.1:1'] },
    ]);
  });

  it(
    'awkward text arrives as it was given',
    async (scope) => {
      const registry = await scope.connect();
      const metadata = {
        '': 'empty key',
        html: 'a&b<c>é',
        quotes: '"\\\'`',
        white: '\t\r\n\b\f',
        lines: '\u2028\u2029',
        control: '\u0001\u001f\u007f',
        wide: '𝒳 漢字 🛎️',
        __proto__x: 'constructor',
        empty: '',
      };
      await registry.register({
        name: 'späte bestellungen',
        id: 'ä & b?c#d%2F',
        version: '<é>',
        metadata,
        endpoints: ['tcp://[::1]:80/p?q=a&b=<>'],
      });
      expect(unstamped(await registry.getService('späte bestellungen', { consistent: true }))).toEqual([
        {
          id: 'ä & b?c#d%2F',
          name: 'späte bestellungen',
          version: '<é>',
          metadata,
          endpoints: ['tcp://[::1]:80/p?q=a&b=<>'],
        },
      ]);
    },
    { needs: ['anyMetadata', 'anyText'] },
  );

  it('a metadata key "__proto__" is a key like any other', async (scope) => {
    const registry = await scope.connect();
    const metadata = JSON.parse('{"__proto__":"x","constructor":"y"}') as Record<string, string>;
    await registry.register({ name: 'orders', id: 'a', metadata });
    const [seen] = await registry.getService('orders', { consistent: true });
    expect(Object.entries(seen?.metadata ?? {}).sort()).toEqual([
      ['__proto__', 'x'],
      ['constructor', 'y'],
    ]);
    expect(({} as { x?: string }).x).toBeUndefined();
  });

  it('while the registry is away, register() rejects with a typed error within its timeout', async (scope) => {
    const registry = await scope.connect();
    await scope.outage();
    const { ms, error } = await timed(registry.register(instance, { timeoutMs: 1000 }));
    expect(error).toMatchObject({ retryable: true, operation: 'register' });
    await refused(Promise.reject(error), ['ERR_TIMEOUT', 'ERR_UNAVAILABLE']);
    expect(ms).toBeLessThan(inTime(1800));
  });

  it('a rejected register() leaves nothing half-registered: the instance does not come later', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    await scope.outage();
    await refused(registry.register(instance, { timeoutMs: 500 }), ['ERR_TIMEOUT', 'ERR_UNAVAILABLE']);
    await scope.restore();
    // Longer than two tries of the back-off (0.5 s and 1 s) would take.
    const until = performance.now() + 2500;
    while (performance.now() < until) {
      expect(await other.getService('orders', { consistent: true })).toEqual([]);
      await quiet(50);
    }
  });

  it(
    'what a slow server applies after register() has rejected is taken back',
    async (scope) => {
      const registry = await scope.connect({ ttlMs: 60_000 }); // so long that expiry can't be what removes it
      await registry.register({ name: 'orders', id: 'before' }); // so that the lease is there and only the write is slow
      scope.link.hold('down');
      await refused(registry.register(instance, { timeoutMs: 1500 }), 'ERR_TIMEOUT');
      scope.link.release();
      await sees(await scope.observer(), 'orders', ['before'], 15_000);
      await quiet(1000); // a late write would be on its way for less than this on a loopback
      expect((await scope.storedUnder('orders')).map(({ key }) => key)).toEqual([scope.key('orders', 'before')]);
    },
    { needs: ['slowWay', 'rawRead'] },
  );

  it(
    'requests held up until register() has rejected leave nothing behind when they get through',
    async (scope) => {
      const registry = await scope.connect({ ttlMs: 60_000 });
      await registry.getService('orders');
      scope.link.hold();
      await refused(registry.register(instance, { timeoutMs: 1000 }), 'ERR_TIMEOUT');
      scope.link.release();
      await sees(registry, 'orders', []);
      const until = performance.now() + 3000; // what was held up is through within this on a loopback
      while (performance.now() < until) await quiet(100);
      expect(await scope.storedUnder('orders')).toEqual([]);
    },
    { needs: ['slowWay', 'rawRead'] },
  );

  it('an aborted register() rejects with ERR_ABORTED and leaves nothing', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    await refused(registry.register(instance, { signal: AbortSignal.abort() }), 'ERR_ABORTED');
    await scope.outage();
    const stop = new AbortController();
    const pending = registry.register(instance, { signal: stop.signal });
    stop.abort(new Error('changed my mind'));
    const error = await refused(within(pending, 2000, 'register()'), 'ERR_ABORTED');
    expect(error.name).toBe('AbortError');
    await scope.restore();
    await sees(other, 'orders', []);
    await quiet(1500); // the first tries of a registration forgotten by mistake would fall into this
    await sees(other, 'orders', []);
  });

  it('with background: true, register() resolves at once during an outage and the instance comes when it can', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    await scope.outage();
    const { ms, value: registration } = await timed(registry.register(instance, { background: true }));
    expect(ms).toBeLessThan(inTime(1000)); // the registry is away for as long as we like
    expect(registration?.state).toBe('registering');
    await scope.restore();
    await sees(other, 'orders', ['a'], 15_000);
    await waitFor(() => registration?.state === 'registered', { timeoutMs: 2000, what: 'the state to say so' });
  });

  it('with lazy: true nothing is asked of the registry before the first call, and background registration still works', async (scope) => {
    await scope.outage();
    const { ms, value: registry } = await timed(scope.connect({ lazy: true }));
    expect(ms).toBeLessThan(inTime(1000)); // the registry is away for as long as we like
    const registration = await registry?.register(instance, { background: true });
    await scope.restore();
    await sees(await scope.observer(), 'orders', ['a'], 15_000);
    expect(registration?.name).toBe('orders');
  });

  it('update() replaces the fields given, whole, and leaves the others', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const registration = await registry.register(instance);
    await registration.update({ metadata: { colour: 'red' } });
    expect(unstamped(await other.getService('orders', { consistent: true }))).toEqual([
      { ...instance, metadata: { colour: 'red' } },
    ]);
    await registration.update({ version: '2', endpoints: [] });
    const expected = { ...instance, version: '2', metadata: { colour: 'red' }, endpoints: [] };
    expect(unstamped(await other.getService('orders', { consistent: true }))).toEqual([expected]);
    expect(registration.instance).toEqual(expected);
    await registration.update({ metadata: {} });
    expect(unstamped(await other.getService('orders', { consistent: true }))).toEqual([{ ...expected, metadata: {} }]);
  });

  it('an update fires no event of loss', async (scope) => {
    const registration = await (await scope.connect()).register(instance);
    const heard = hear(registration);
    for (let i = 0; i < 10; i++) await registration.update({ version: String(i) });
    await quiet(1000); // a loss seen by the watch of the own record would be told within this
    expect(heard.events).toEqual([]);
    expect(registration.state).toBe('registered');
  });

  it('updates that overlap end with the last one wanted', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const registration = await registry.register(instance);
    await Promise.all(Array.from({ length: 30 }, (_, i) => registration.update({ version: String(i) })));
    expect(await other.getService('orders', { consistent: true })).toMatchObject([{ version: '29' }]);
  });

  it('update() never changes name or id', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const registration = await registry.register(instance);
    await registration.update({ name: 'other', id: 'b', version: '2' } as never).catch(() => undefined);
    expect([registration.name, registration.id, registration.instance.name, registration.instance.id]).toEqual([
      'orders',
      'a',
      'orders',
      'a',
    ]);
    await sees(other, 'orders', ['a']);
    expect(await other.services()).toEqual(['orders']);
  });

  it('update() during an outage rejects in time, and the next repair publishes what it wanted', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const registration = await registry.register(instance);
    await scope.outage();
    const { ms, error } = await timed(registration.update({ metadata: { zone: 'b' } }, { timeoutMs: 800 }));
    expect(error).toMatchObject({ retryable: true });
    expect(ms).toBeLessThan(inTime(1600));
    expect(registration.instance.metadata).toEqual({ zone: 'b' });
    await scope.restore();
    await waitFor(async () => (await other.getService('orders', { consistent: true }))[0]?.metadata.zone === 'b', {
      timeoutMs: 15_000,
      what: 'the update to be published',
    });
  });

  it('an aborted update() rejects with ERR_ABORTED', async (scope) => {
    const registration = await (await scope.connect()).register(instance);
    await refused(registration.update({ version: '2' }, { signal: AbortSignal.abort() }), 'ERR_ABORTED');
    await scope.outage();
    const stop = new AbortController();
    const pending = registration.update({ version: '3' }, { signal: stop.signal });
    stop.abort();
    await refused(within(pending, 2000, 'update()'), 'ERR_ABORTED');
  });
});

forEveryBackend('the newest owner', (it) => {
  it(
    'when another client registers the same id, the newest wins and the older fires replaced, once, and stops',
    async (scope) => {
      const [older, newer] = [await scope.connect(), await scope.connect()];
      const first = await older.register(instance);
      const heard = hear(first);
      const second = await newer.register({ ...instance, version: 'newer' });
      await waitFor(() => heard.count('replaced') === 1, { timeoutMs: 5000, what: '"replaced"' });
      expect(first.state).toBe('replaced');
      await quiet(scope.ttlMs + 1000); // a fight would show within one TTL: renewal, loss, repair
      expect(heard.events).toEqual(['replaced']);
      expect(second.state).toBe('registered');
      expect(unstamped(await newer.getService('orders', { consistent: true }))).toEqual([
        { ...instance, version: 'newer' },
      ]);
    },
    { needs: ['owners'] },
  );

  it(
    'two owners never fight: the record is written no more after the newest has claimed it',
    async (scope) => {
      const [older, newer] = [await scope.connect(), await scope.connect()];
      await older.register(instance);
      await newer.register({ ...instance, version: 'newer' });
      const before = await scope.stored('orders', 'a');
      await quiet(scope.ttlMs * 2); // twice the time in which either would renew or repair
      expect(await scope.stored('orders', 'a')).toEqual(before);
    },
    { needs: ['rawRead', 'owners'] },
  );

  it(
    'two registrations of one client with one id: the newest wins as well',
    async (scope) => {
      const registry = await scope.connect();
      const first = await registry.register(instance);
      const heard = hear(first);
      const second = await registry.register({ ...instance, version: 'newer' });
      await waitFor(() => first.state === 'replaced', { timeoutMs: 5000, what: 'the older to be replaced' });
      await quiet(scope.ttlMs + 1000); // as above
      expect(heard.events).toEqual(['replaced']);
      expect(second.state).toBe('registered');
      expect(await registry.getService('orders', { consistent: true })).toMatchObject([{ version: 'newer' }]);
    },
    { needs: ['owners'] },
  );

  it(
    'a replaced registration that deregisters leaves the record of the newer owner',
    async (scope) => {
      const [older, newer] = [await scope.connect(), await scope.connect()];
      const first = await older.register(instance);
      await newer.register({ ...instance, version: 'newer' });
      await first.deregister();
      await older.close();
      await quiet(500); // a removal sent by mistake would have arrived
      expect(await newer.getService('orders', { consistent: true })).toMatchObject([{ version: 'newer' }]);
    },
    { needs: ['owners'] },
  );

  it(
    'an owner cut off while a newer one claims the id fires replaced when it is back, and does not take it again',
    async (scope) => {
      const [older, newer] = [await scope.connect(), await scope.observer()];
      const first = await older.register(instance);
      const heard = hear(first);
      await scope.outage();
      await newer.register({ ...instance, version: 'newer' });
      await scope.restore();
      await waitFor(() => first.state === 'replaced', { timeoutMs: 15_000, what: 'the older to be replaced' });
      // The state is there at once, the event with the next wake-up.
      await waitFor(() => heard.count('replaced') > 0, { what: 'the event' });
      expect(heard.count('replaced')).toBe(1);
      expect(heard.count('restored')).toBe(0);
      expect(await newer.getService('orders', { consistent: true })).toMatchObject([{ version: 'newer' }]);
    },
    { needs: ['oneSided', 'owners'] },
  );

  it(
    'deregister() of an owner that was cut off while a newer one claimed the id leaves the newer record',
    async (scope) => {
      const [older, newer] = [await scope.connect(), await scope.observer()];
      const first = await older.register(instance);
      await scope.outage();
      await newer.register({ ...instance, version: 'newer' });
      const leaving = first.deregister({ timeoutMs: 5000 });
      await scope.restore();
      await leaving;
      await quiet(1000); // a removal on its way would have arrived
      expect(await newer.getService('orders', { consistent: true })).toMatchObject([{ version: 'newer' }]);
    },
    { needs: ['oneSided', 'owners'] },
  );

  it(
    'update() of a replaced registration rejects with ERR_REPLACED',
    async (scope) => {
      const registry = await scope.connect();
      const first = await registry.register(instance);
      await registry.register({ ...instance, version: 'newer' });
      await waitFor(() => first.state === 'replaced', { timeoutMs: 5000, what: 'the older to be replaced' });
      await refused(first.update({ version: 'older' }), 'ERR_REPLACED');
      expect(await registry.getService('orders', { consistent: true })).toMatchObject([{ version: 'newer' }]);
    },
    { needs: ['owners'] },
  );

  it(
    'a foreign record with our id, written around us, counts as a newer owner',
    async (scope) => {
      const registry = await scope.connect();
      const registration = await registry.register(instance);
      await scope.put('orders', 'a', record('orders', 'a', { version: 'foreign' }));
      await waitFor(() => registration.state === 'replaced', { timeoutMs: 10_000, what: 'the older to be replaced' });
      expect(await registry.getService('orders', { consistent: true })).toMatchObject([{ version: 'foreign' }]);
    },
    { needs: ['owners'] },
  );
});

forEveryBackend('deregistering', (it) => {
  it('deregister() removes the record, is idempotent, and fires nothing', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const registration = await registry.register(instance);
    const heard = hear(registration);
    await registration.deregister();
    expect(await other.getService('orders', { consistent: true })).toEqual([]);
    expect(registration.state).toBe('deregistered');
    await Promise.all([registration.deregister(), registration.deregister()]);
    await registration[Symbol.asyncDispose]();
    expect(heard.events).toEqual([]);
  });

  it('two deregister() at once both resolve', async (scope) => {
    const registration = await (await scope.connect()).register(instance);
    await Promise.all([registration.deregister(), registration.deregister()]);
    expect(registration.state).toBe('deregistered');
  });

  it(
    'the lease goes with the last registration that uses it, not before',
    async (scope) => {
      const registry = await scope.connect({ ttlMs: 60_000 });
      const [first, second] = [await registry.register(instance), await registry.register({ ...instance, id: 'b' })];
      const leaseOf = async (id: string): Promise<string> => (await scope.stored('orders', id))?.lease ?? '0';
      const used = [await leaseOf('a'), await leaseOf('b')];
      expect(used).not.toContain('0');
      await first.deregister();
      expect(await scope.grantedTtl(used[1] as string)).toBe(60);
      await sees(registry, 'orders', ['b']);
      await second.deregister();
      for (const lease of used) {
        await waitFor(async () => (await scope.grantedTtl(lease)) === undefined, {
          timeoutMs: 3000,
          what: 'the lease to be revoked',
        });
      }
    },
    { needs: ['leases', 'rawRead'] },
  );

  it(
    'after deregister() the instance never comes back, also when a repair was under way',
    async (scope) => {
      const [registry, other] = [await scope.connect(), await scope.observer()];
      const registration = await registry.register(instance);
      await scope.outage();
      await waitFor(() => registration.state === 'lost', { timeoutMs: scope.ttlMs + 5000, what: 'the loss' });
      const leaving = registration.deregister({ timeoutMs: 8000 });
      await scope.restore();
      await leaving;
      const until = performance.now() + 4000; // longer than the first three back-offs, so a surviving repair would show
      while (performance.now() < until) {
        expect(await other.getService('orders', { consistent: true })).toEqual([]);
        await quiet(50);
      }
    },
    { needs: ['expires'] },
  );

  it('deregister() while register() with background is still trying ends it', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    await scope.outage();
    const registration = await registry.register(instance, { background: true });
    const leaving = registration.deregister({ timeoutMs: 1000 }).catch(() => undefined);
    await within(leaving, 2500, 'deregister()');
    await scope.restore();
    const until = performance.now() + 3000; // as above
    while (performance.now() < until) {
      expect(await other.getService('orders', { consistent: true })).toEqual([]);
      await quiet(50);
    }
  });

  it('deregister() during an outage rejects with ERR_TIMEOUT in time, and the record goes when the registry is back', async (scope) => {
    const registry = await scope.connect({ ttlMs: 60_000 }); // so long that expiry can't be what removes it
    const registration = await registry.register(instance);
    await scope.outage();
    const { ms, error } = await timed(registration.deregister({ timeoutMs: 1000 }));
    await refused(Promise.reject(error), 'ERR_TIMEOUT');
    expect(ms).toBeGreaterThan(900);
    expect(ms).toBeLessThan(inTime(1800));
    await scope.restore();
    await sees(await scope.observer(), 'orders', [], 15_000);
  });

  it(
    'what could not be removed in time expires',
    async (scope) => {
      const [registry, other] = [await scope.connect(), await scope.observer()];
      const registration = await registry.register(instance);
      await scope.outage();
      await refused(registration.deregister({ timeoutMs: 200 }), 'ERR_TIMEOUT');
      await sees(other, 'orders', [], scope.silenceMs + 4000);
    },
    { needs: ['oneSided', 'expires'] },
  );

  it('drainMs of deregister() waits after the removal', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const registration = await registry.register(instance);
    const start = performance.now();
    let resolvedAt = 0;
    const leaving = registration.deregister({ drainMs: 3000 }).then(() => {
      resolvedAt = performance.now();
    });
    await sees(other, 'orders', [], 2500);
    expect(resolvedAt).toBe(0);
    await leaving;
    expect(resolvedAt - start).toBeGreaterThanOrEqual(2950);
    expect(resolvedAt - start).toBeLessThan(6000);
  });

  it('drainMs of close() waits after the removal of all that is left', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    await registry.register(instance);
    await registry.register({ ...instance, id: 'b', endpoints: ['grpc://10.1.2.4:9000'] });
    const start = performance.now();
    let resolvedAt = 0;
    const closing = registry.close({ drainMs: 3000 }).then(() => {
      resolvedAt = performance.now();
    });
    await sees(other, 'orders', [], 2500);
    expect(resolvedAt).toBe(0);
    await closing;
    expect(resolvedAt - start).toBeGreaterThanOrEqual(2950);
  });

  it('close() with nothing registered does not wait for drainMs', async (scope) => {
    const registry = await scope.connect();
    const { ms } = await timed(registry.close({ drainMs: 5000 }));
    expect(ms).toBeLessThan(inTime(1500));
  });

  it('close() deregisters all that is left', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const registrations = await Promise.all(
      Array.from({ length: 20 }, (_, i) => registry.register({ name: `orders-${i % 3}`, id: `${i}` })),
    );
    await registry.close();
    expect(await other.services()).toEqual([]);
    expect(new Set(registrations.map((registration) => registration.state))).toEqual(new Set(['deregistered']));
  });

  it('close() during an outage ends within its bound', async (scope) => {
    const registry = await scope.connect();
    await registry.register(instance);
    await scope.outage();
    const { ms, error } = await timed(registry.close({ timeoutMs: 1000 }));
    if (error) await refused(Promise.reject(error), 'ERR_TIMEOUT');
    expect(ms).toBeLessThan(inTime(2000));
    expect(registry.closed).toBe(true);
  });

  it('an instance can be registered again after deregister(), by the same client', async (scope) => {
    const registry = await scope.connect();
    for (let round = 0; round < 5; round++) {
      const registration = await registry.register({ ...instance, version: String(round) });
      expect(ids(await registry.getService('orders', { consistent: true }))).toEqual(['a']);
      await registration.deregister();
      expect(await registry.getService('orders', { consistent: true })).toEqual([]);
    }
  });

  it('register and deregister of many at once leave exactly those that stay', async (scope) => {
    const registry = await scope.connect({ timeoutMs: 60_000 }); // a hundred stand in line
    await Promise.all(
      Array.from({ length: 100 }, async (_, i) => {
        const registration = await registry.register({ name: 'orders', id: String(i).padStart(3, '0') });
        if (i % 2) await registration.deregister();
      }),
    );
    expect(ids(await registry.getService('orders', { consistent: true }))).toEqual(
      Array.from({ length: 50 }, (_, i) => String(i * 2).padStart(3, '0')),
    );
  });

  it('`await using` deregisters and closes', async (scope) => {
    const other = await scope.observer();
    const registry = await connect(scope.options());
    const registration = await registry.register(instance);
    await registration[Symbol.asyncDispose]();
    expect(await other.getService('orders', { consistent: true })).toEqual([]);
    await registry.register(instance);
    await registry[Symbol.asyncDispose]();
    expect(registry.closed).toBe(true);
    expect(await other.getService('orders', { consistent: true })).toEqual([]);
  });
});
