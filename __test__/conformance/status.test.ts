// What a client tells of itself: whether it reaches its registry, and what it has counted.
import type { Registry } from 'rollcall';
import { expect } from 'vitest';
import { forEveryBackend, record } from './backends.js';
import { hear, inTime, listsUntil, nextList, refused, timed, waitFor } from './kit.js';

const turns = (registry: Registry): string[] => {
  const told: string[] = [];
  registry.on('connected', () => told.push('connected')).on('disconnected', () => told.push('disconnected'));
  return told;
};

forEveryBackend('status and metrics', (it) => {
  it('an outage shows in status, events, breaks and stale lists, a loss in losses and repairs', async (scope) => {
    const registry = await scope.connect();
    expect(registry.status).toBe('connected');
    const told = turns(registry);
    const registration = await registry.register({ name: 'mine', id: 'a' });
    const heard = hear(registration);
    await scope.put('orders', 'x', record('orders', 'x'));
    const watcher = registry.watch('orders');
    await listsUntil(watcher, ['x']);
    const before = registry.metrics();
    expect(before.registrations).toMatchObject({ alive: 1, out: 0, losses: 0, repairs: 0, replaced: 0 });
    expect(before.registrations.attempts).toBeGreaterThan(before.registrations.failed);
    expect(before.watches).toMatchObject({ followed: 1, stale: 0, breaks: 0 });
    expect(before.watches.lists).toBeGreaterThan(0);

    await scope.outage();
    await waitFor(() => registry.metrics().watches.stale === 1, { what: 'a stale list' });
    expect(registry.metrics().watches.breaks).toBe(1);
    await waitFor(() => registry.status === 'disconnected', { what: 'the status' });
    await waitFor(() => told.at(-1) === 'disconnected', { what: '"disconnected"' });
    await refused(registry.getService('mine', { consistent: true, timeoutMs: 300 }), [
      'ERR_TIMEOUT',
      'ERR_UNAVAILABLE',
    ]);
    expect(registry.metrics().methods.getService).toEqual({ calls: 1, failed: 1 });
    await scope.restore();
    await waitFor(() => registry.metrics().watches.stale === 0, { what: 'a fresh list' });
    await waitFor(() => registry.status === 'connected', { what: 'the status' });
    await waitFor(() => told.at(-1) === 'connected', { what: '"connected"' });
    expect(registry.metrics().watches.reads).toBeGreaterThan(before.watches.reads);

    const restored = () => registration.state === 'registered' && heard.count('restored') === heard.count('lost');
    await waitFor(restored, { what: 'the registration after the outage' });
    const repairs = heard.count('restored');
    await scope.loseSession('mine', 'a');
    await waitFor(() => heard.count('restored') > repairs, { what: 'the repair' });
    const { losses, repairs: repaired, attempts } = registry.metrics().registrations;
    expect([losses, repaired]).toEqual([heard.count('lost'), heard.count('restored')]);
    expect(attempts).toBeGreaterThan(before.registrations.attempts);

    await registration.withdraw();
    expect(registry.metrics().registrations).toMatchObject({ alive: 1, out: 1 });
    await registration.deregister();
    watcher.stop();
    await waitFor(() => registry.metrics().watches.followed === 0, { what: 'the end of the watch' });
    expect(registry.metrics().registrations).toMatchObject({ alive: 0, out: 0 });
    expect(told.map((event, place) => event === ['connected', 'disconnected'][place % 2])).not.toContain(false);
    await registry.close();
    expect([registry.status, registry.metrics().watches.breaks > 0]).toEqual(['closed', true]);
  });

  it('a lazy client is connecting until something answers: ready() waits for it, ping() asks once', async (scope) => {
    await scope.outage();
    const registry = await scope.connect({ lazy: true });
    const told = turns(registry);
    expect(registry.status).toBe('connecting');
    for (const ask of ['ping', 'ready'] as const) {
      const { ms, error } = await timed<unknown>(registry[ask]({ timeoutMs: 400 }));
      await refused(Promise.reject(error), ['ERR_TIMEOUT', 'ERR_UNAVAILABLE']);
      expect(error).toMatchObject({ operation: ask, retryable: true });
      expect(ms).toBeLessThan(inTime(1500));
    }
    const abort = new AbortController();
    const aborted = registry.ready({ signal: abort.signal });
    abort.abort();
    await refused(aborted, 'ERR_ABORTED');
    expect([registry.status, told]).toEqual(['connecting', []]);

    const ready = registry.ready({ timeoutMs: 20_000 });
    await scope.restore();
    await ready;
    expect(registry.status).toBe('connected');
    await waitFor(() => told.length > 0, { what: 'the event' });
    expect(told).toEqual(['connected']);
    const began = performance.now(); // before the call, whose first half may take longer than the answer
    const took = await registry.ping();
    expect(took).toBeGreaterThan(0);
    expect(took).toBeLessThanOrEqual(performance.now() - began);

    const watcher = registry.watch('nobody');
    expect(await nextList(watcher)).toEqual([]);
    await registry.close();
    for (const ask of ['ping', 'ready'] as const) await refused(registry[ask](), 'ERR_CLOSED');
  });
});
