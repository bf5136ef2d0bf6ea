/** What happens between the making of something and its first listener is told to that listener. On the memory registry. */

import { once } from 'node:events';
import { connect, MemoryServer, type Registry, type Watcher } from 'rollcall';
import { afterEach, describe, expect, it } from 'vitest';
import { uniqueName, waitFor, within } from '../support/process.js';

const open: Registry[] = [];
const fresh = async () => {
  const namespace = uniqueName();
  const registry = await connect({ backend: 'memory', namespace, logger: false, emptyGraceMs: 0 });
  open.push(registry);
  return { registry, namespace, server: MemoryServer.of(namespace) };
};
afterEach(async () => {
  for (const registry of open.splice(0)) await registry.close().catch(() => {});
});

const pause = (ms: number) =>
  new Promise<void>((resolve) => (ms === 0 ? setImmediate(resolve) : setTimeout(resolve, ms)));
/** `node:events` wants the whole of an emitter in its types. */
const next = (emitter: unknown, event: string) => within(once(emitter as NodeJS.EventEmitter, event), 5000, event);

describe.each([0, 1, 100])('a listener that comes %i ms after', (ms) => {
  it('hears of a registration that was repaired, lost or replaced', async () => {
    const { registry, namespace, server } = await fresh();
    const ids = Array.from({ length: 200 }, (_, i) => `i${i}`);
    const all = await Promise.all(ids.map((id) => registry.register({ name: 'orders', id }, { background: true })));
    await waitFor(() => all.every(({ state }) => state === 'registered'), { what: 'all are registered' });
    for (const id of ids) server.expire('orders', id);
    await pause(ms);
    await Promise.all(all.map((registration) => next(registration, 'restored')));
    const other = await connect({ backend: 'memory', namespace, logger: false });
    open.push(other);
    await Promise.all(ids.map((id) => other.register({ name: 'orders', id })));
    await pause(ms);
    await Promise.all(all.map((registration) => next(registration, 'replaced')));
    const away = await Promise.all(ids.map((id) => registry.register({ name: 'away', id }, { background: true })));
    await waitFor(() => away.every(({ state }) => state === 'registered'), { what: 'all are registered' });
    server.setAway(true);
    server.wipe();
    await pause(ms);
    await Promise.all(away.map((registration) => next(registration, 'lost')));
    server.setAway(false);
  });

  it('hears of a watcher that is stale, and of a bad record', async () => {
    const { registry, server } = await fresh();
    server.put('bad', 'x', 'no JSON');
    const watchers: Watcher[] = Array.from({ length: 200 }, () => registry.watch('bad'));
    await pause(ms);
    expect(await next(registry, 'badRecord')).toMatchObject([{ key: expect.stringContaining('x') }]);
    server.setAway(true);
    await pause(ms);
    await Promise.all(watchers.map((watcher) => next(watcher, 'stale')));
    server.setAway(false);
    await pause(ms);
    await Promise.all(watchers.map((watcher) => next(watcher, 'fresh')));
  });
});

it('a listener of "error" may be added, and hears nothing: once() of node:events adds one', async () => {
  const { registry, server } = await fresh();
  const registration = await registry.register({ name: 'orders', id: 'a' });
  const watcher = registry.watch('orders');
  const heard = once(registration as never, 'lost', { signal: AbortSignal.timeout(5000) });
  registration.on('error' as never, () => expect.unreachable());
  registry.once('error' as never, () => expect.unreachable());
  watcher.on('error' as never, () => expect.unreachable());
  server.expire('orders', 'a');
  expect(await heard).toHaveLength(1);
  expect(() => registration.on('losst' as never, () => {})).toThrow('did you mean "lost"?');
  registration.removeListener('lost', () => {});
});
