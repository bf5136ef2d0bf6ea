// An observer hears of every call: of what, for how long, with how many attempts, and how it ended; it can harm none.
import type { RegistryCall, RegistryCallEnd, RegistryMetrics, RegistryObserver } from 'rollcall';
import { expect } from 'vitest';
import { forEveryBackend } from './backends.js';
import { listsUntil, nextList, refused, waitFor } from './kit.js';

interface Told extends RegistryCall {
  error?: Error | undefined;
  end?: RegistryCallEnd;
  times: number;
}

/** Writes down what it is told. */
function recorder() {
  const told: Told[] = [];
  const clients: { backend: string; read(): RegistryMetrics }[] = [];
  const observe: RegistryObserver = {
    begin(call) {
      const entry: Told = { ...call, times: 0 };
      told.push(entry);
      return (error, end) => void Object.assign(entry, { error, end, times: entry.times + 1 });
    },
    attach(client) {
      clients.push(client);
      return () => void clients.splice(clients.indexOf(client), 1);
    },
  };
  /** The only call of a method since the last question. */
  const only = (method: string): Told => {
    const some = told.splice(0);
    expect(some.map((one) => [one.method, one.times])).toEqual([[method, 1]]);
    return some[0] as Told;
  };
  return { observe, told, clients, only };
}

forEveryBackend('an observer', (it) => {
  it('hears of each call once, with its service, its attempts and how long it took', async (scope) => {
    const { observe, clients, told, only } = recorder();
    const registry = await scope.connect({ observe });
    const { backend } = registry;
    expect(only('connect')).toMatchObject({ backend, name: undefined, error: undefined, end: { attempts: 1 } });
    expect(clients.map((client) => client.backend)).toEqual([backend]);

    const began = performance.now();
    const registration = await registry.register({ name: 'orders', id: 'a' });
    const ms = performance.now() - began;
    const registered = only('register');
    expect(registered).toMatchObject({ backend, name: 'orders', error: undefined, end: { attempts: 1 } });
    expect(registered.end?.durationMs).toBeGreaterThan(0);
    expect(registered.end?.durationMs).toBeLessThanOrEqual(ms);

    const about = { backend, name: 'orders', error: undefined };
    await registry.getService('orders');
    expect(only('getService')).toMatchObject({ ...about, end: { attempts: 1 } });
    const watcher = registry.watch('orders');
    await listsUntil(watcher, ['a']);
    await waitFor(() => told[0]?.times === 1, { what: 'the end of the call' });
    expect(only('watch')).toMatchObject({ ...about, end: { attempts: 1 } });
    await registry.getService('orders'); // from the watch
    expect(only('getService')).toMatchObject({ ...about, end: { attempts: 0 } });
    const another = registry.watch('orders');
    await nextList(another);
    await waitFor(() => told[0]?.times === 1, { what: 'the end of the call' });
    expect(only('watch')).toMatchObject({ ...about, end: { attempts: 0 } });

    await registration.update({ version: '2' });
    expect(only('update')).toMatchObject({ ...about, end: { attempts: 1 } });
    await registration.withdraw();
    expect(only('withdraw')).toMatchObject({ ...about, end: { attempts: 1 } });
    await registration.restore();
    expect(only('restore')).toMatchObject({ ...about, end: { attempts: 1 } });
    await registration.deregister();
    expect(only('deregister')).toMatchObject({ ...about, end: { attempts: 1 } });
    const drained = await registry.register({ name: 'orders', id: 'b' });
    told.splice(0);
    await drained.drain(1);
    expect(only('drain').end?.attempts).toBeGreaterThanOrEqual(1);
    await registry.ping();
    expect(only('ping')).toMatchObject({ backend, name: undefined, end: { attempts: 1 } });
    await registry.ready();
    expect(only('ready')).toMatchObject({ error: undefined, end: { attempts: 0 } });
    if (registry.capabilities.listsNames) {
      await registry.services({ consistent: true });
      expect(only('services')).toMatchObject({ name: undefined, error: undefined, end: { attempts: 1 } });
      const names = registry.watchServices();
      await names.next();
      await waitFor(() => told[0]?.times === 1, { what: 'the end of the call' });
      expect(only('watchServices')).toMatchObject({ name: undefined, error: undefined, end: { attempts: 1 } });
    }

    await registry.register({ name: 'orders', id: 'c' });
    told.splice(0);
    await registry.close();
    expect(only('close')).toMatchObject({ error: undefined, end: { attempts: 1 } });
    expect(clients).toEqual([]);
  });

  it('hears of what fails, with the error that the caller gets', async (scope) => {
    const { observe, told, only } = recorder();
    const registry = await scope.connect({ observe });
    told.splice(0);
    const wrong = await refused(registry.register({ name: 'a/b' }), 'ERR_INVALID_ARGUMENT');
    expect(only('register')).toMatchObject({ name: 'a/b', error: wrong, end: { attempts: 0 } });
    await refused(registry.register(null as never), 'ERR_INVALID_ARGUMENT');
    expect(only('register').name).toBeUndefined();

    await scope.outage();
    const [late, timeoutMs] = [['ERR_TIMEOUT', 'ERR_UNAVAILABLE'] as const, 1500];
    const unread = await refused(registry.getService('orders', { timeoutMs }), [...late]);
    const read = only('getService');
    expect(read.error).toBe(unread);
    expect(read.end?.attempts).toBeGreaterThanOrEqual(1);
    expect(read.end?.durationMs).toBeGreaterThanOrEqual(unread.code === 'ERR_TIMEOUT' ? timeoutMs - 100 : 0);
    const unwritten = await refused(registry.register({ name: 'orders', id: 'a' }, { timeoutMs }), [...late]);
    const written = only('register');
    expect(written.error).toBe(unwritten);
    expect(written.end?.attempts).toBeGreaterThanOrEqual(1);

    const abort = new AbortController();
    const aborted = registry.getService('orders', { signal: abort.signal });
    abort.abort();
    const error = await refused(aborted, 'ERR_ABORTED');
    expect(only('getService').error).toBe(error);
    const watcher = registry.watch('orders');
    expect(told.map(({ method, times }) => [method, times])).toEqual([['watch', 0]]); // it waits
    watcher.stop();
    expect(only('watch').error).toMatchObject({ code: 'ERR_ABORTED', operation: 'watch' });
    await scope.restore();
    await registry.close({ timeoutMs: 20_000 });
    told.splice(0);
    const closed = await refused(registry.getService('orders'), 'ERR_CLOSED');
    expect(only('getService').error).toBe(closed);
    await refused(registry.watch('orders').next(), 'ERR_CLOSED');
    expect(only('watch').error).toMatchObject({ code: 'ERR_CLOSED' });
  });

  it('that throws, rejects or gives nonsense harms nothing, and is logged once', async (scope) => {
    const boom = () => {
      throw new Error('boom');
    };
    const reject = () => Promise.reject(new Error('boom'));
    const bad = [
      { begin: boom, attach: boom },
      { begin: () => boom, attach: () => boom },
      { begin: reject, attach: reject },
      { begin: () => reject, attach: () => reject },
      { begin: () => 5, attach: () => 5 },
    ] as unknown as RegistryObserver[];
    for (const [place, observe] of bad.entries()) {
      const logged: string[] = [];
      const logger = { error: (text: string) => void logged.push(text) };
      const registry = await scope.connect({ observe, logger });
      const registration = await registry.register({ name: 'orders', id: `i${place}` });
      const watcher = registry.watch('orders');
      await listsUntil(watcher, [`i${place}`]);
      expect(await registry.getService('orders', { consistent: true })).toHaveLength(1);
      await registration.deregister();
      await registry.close();
      expect(logged.filter((line) => line.includes('the observer of the registry failed'))).toHaveLength(
        place === 4 ? 0 : 1,
      );
    }
  });
});
