// Other realms and fake timers, as Jest and vm give them: arguments are judged by shape, every pause is native.
import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runInNewContext } from 'node:vm';
import { connect } from 'rollcall';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { forEveryBackend } from './backends.js';
import { hear, ids, refused, unstamped } from './kit.js';

forEveryBackend('objects of another realm', (it) => {
  it('options, instances and updates of another realm are taken', async (scope) => {
    const foreign = <T>(value: T): T => runInNewContext(`(${JSON.stringify(value)})`) as T;
    const registry = await connect(foreign(scope.options()));
    const registration = await registry.register(
      foreign({ name: 'orders', id: 'a', metadata: { k: 'v' }, endpoints: ['grpc://10.0.0.1:1'] }),
      foreign({ background: false, timeoutMs: 5000 }),
    );
    await registration.update(foreign({ metadata: { k: 'w' }, endpoints: [] }));
    expect(await registry.getService('orders', foreign({ consistent: true }))).toMatchObject([
      { metadata: { k: 'w' }, endpoints: [] },
    ]);
    await registration.deregister(foreign({ drainMs: 0 }));
    await registry.close(foreign({ timeoutMs: 5000 }));
  });

  it('objects without a prototype, class instances and read-only objects are taken', async (scope) => {
    class Instance {
      name = 'orders';
      id = 'a';
      metadata = Object.assign(Object.create(null) as Record<string, string>, { k: 'v' });
      endpoints = Object.freeze(['grpc://10.0.0.1:1']);
    }
    const registry = await scope.connect();
    await registry.register(Object.freeze(new Instance()));
    expect(unstamped(await registry.getService('orders'))).toEqual([
      { id: 'a', name: 'orders', version: '', metadata: { k: 'v' }, endpoints: ['grpc://10.0.0.1:1'] },
    ]);
  });

  it('what somebody added to Object.prototype stays out of metadata', async (scope) => {
    const registry = await scope.connect();
    Object.assign(Object.prototype, { polluted: 'yes' });
    try {
      const registration = await registry.register({ name: 'orders', metadata: { k: 'v' } });
      await registration.update({ metadata: { k: 'w' } });
    } finally {
      delete (Object.prototype as { polluted?: string }).polluted;
    }
    const [found] = await registry.getService('orders', { consistent: true });
    expect(found?.metadata).toEqual({ k: 'w' });
  });

  it('a signal that only looks like an AbortSignal works by its shape', async (scope) => {
    const registry = await scope.connect();
    const { signal, abort } = runInNewContext('({ signal: new AC().signal, abort: null })', {
      AC: AbortController,
    }) as { signal: AbortSignal; abort: null };
    expect(abort).toBeNull();
    expect(ids(await registry.getService('orders', { signal }))).toEqual([]);
    await refused(
      registry.getService('orders', {
        signal: { aborted: true, reason: 'x', addEventListener() {}, removeEventListener() {} } as never,
      }),
      'ERR_ABORTED',
    );
  });
});

forEveryBackend(
  'fake timers',
  (it) => {
    afterEach(() => {
      vi.useRealTimers();
    });

    it('timeouts, loss and repair go on while the timers of JavaScript stand still', async (scope) => {
      const registry = await scope.connect();
      vi.useFakeTimers();
      const registration = await registry.register({ name: 'orders', id: 'a' });
      const heard = hear(registration);
      const restored = new Promise<void>((resolve) => void registration.on('restored', resolve));
      await scope.remove('orders', 'a');
      await restored;
      expect(heard.events).toEqual(['lost', 'restored']);
      await scope.outage();
      const error = await registry
        .getService('orders', { consistent: true, timeoutMs: 300 })
        .catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ retryable: true });
      await scope.restore();
      await registration.deregister({ drainMs: 200 });
      await registry.close();
    });
  },
  { sequential: true },
);

describe('Jest', () => {
  test('a test file of Jest, with fake timers, in the realm that Jest makes, ends by itself', async () => {
    const project = fileURLToPath(new URL('../support/fixtures/jest', import.meta.url));
    const jest = join(dirname(createRequire(import.meta.url).resolve('jest/package.json')), 'bin/jest.js');
    const child = spawn(
      process.execPath,
      [jest, '--rootDir', project, '--config', join(project, 'jest.config.json'), '--ci', '--no-cache'],
      {
        cwd: project,
        env: { ...process.env, NODE_OPTIONS: '', FORCE_COLOR: '0' },
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    );
    let told = '';
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (chunk: string) => (told += chunk));
    const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
    expect(code, told).toBe(0);
    expect(told).not.toMatch(/did not exit|open handle|force exited/i);
    expect(told).toMatch(/Tests:\s+\d+ passed/);
  }, 60_000);
});
