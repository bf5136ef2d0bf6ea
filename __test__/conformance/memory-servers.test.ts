// The memories of a process: who shares one, and the faults that tests make with `MemoryServer`.
import { MemoryServer } from 'rollcall';
import { describe, expect, test } from 'vitest';
import { record } from './backends.js';
import { hear, inThread, inTime, quiet, sees, timed, waitFor } from './kit.js';

const instance = { name: 'orders', id: 'a' };

describe.concurrent('memory servers', () => {
  test('memory is shared by the threads of a process', async () => {
    const worker = inThread({ backend: 'memory', namespace: 'threads' }, [['register', instance], ['hold']]);
    await worker.until('register:done');
    const { connect } = await import('rollcall');
    const registry = await connect('memory://threads');
    await sees(registry, 'orders', ['a']);
    await worker.stop();
    await registry.close();
  });

  test('memory://name keeps test files apart', async () => {
    const { connect } = await import('rollcall');
    const [one, two] = await Promise.all([connect('memory://apart-1'), connect('memory://apart-2')]);
    await one.register(instance);
    expect(await two.services()).toEqual([]);
    expect(await one.services()).toEqual(['orders']);
    await Promise.all([one.close(), two.close()]);
  });

  test('MemoryServer takes what a URL and the options take', () => {
    expect(() => MemoryServer.of('')).toThrow('namespace: expected a string that is not empty');
    expect(() => MemoryServer.of('x').setAway(undefined as never)).toThrow(
      'away: expected true or false, got undefined',
    );
  });

  test('MemoryServer says whether there was something to harm', async () => {
    const server = MemoryServer.of('harm');
    expect([server.crash('orders', 'a'), server.expire('orders', 'a'), server.remove('orders', 'a')]).toEqual([
      false,
      false,
      false,
    ]);
    server.put('orders', 'a', record('orders', 'a'));
    expect(server.remove('orders', 'a')).toBe(true);
    server.wipe();
    const { connect } = await import('rollcall');
    const registry = await connect({ backend: 'memory', namespace: 'harm', ttlMs: 1000 });
    const registration = await registry.register(instance);
    const heard = hear(registration);
    expect(MemoryServer.of('harm').expire('orders', 'a')).toBe(true);
    await waitFor(() => heard.count('restored') === 1);
    expect(server.crash('orders', 'a')).toBe(true);
    await sees(registry, 'orders', [], 3000);
    await quiet(2000); // two TTLs: the owner never comes back
    expect(await registry.getService('orders')).toEqual([]);
    expect((await timed(registry.close())).ms).toBeLessThan(inTime(2000));
  });
});
