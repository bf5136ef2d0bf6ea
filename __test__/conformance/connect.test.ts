// connect(): the forms of the options, first contact, defaults; and what becomes of endpoints.
import { createRequire } from 'node:module';
import { runInNewContext } from 'node:vm';
import * as esm from 'rollcall';
import { connect, MemoryServer, RollcallError } from 'rollcall';
import { describe, expect, test } from 'vitest';
import { forEveryBackend } from './backends.js';
import { ids, inProcess, inTime, refused, sees, timed, within } from './kit.js';

const cjs = createRequire(import.meta.url)('rollcall') as typeof esm;

forEveryBackend('connecting', (it, row) => {
  it('connect() makes first contact, and tells the backend and what it can do', async (scope) => {
    const registry = await scope.connect();
    expect(registry.backend).toBe(row.name.split(' ')[0]);
    expect(registry.capabilities).toEqual(row.capabilities);
    expect(registry.closed).toBe(false);
  });

  it('while the registry is away connect() rejects within connectTimeoutMs', async (scope) => {
    await scope.outage();
    const { ms, error } = await timed(scope.connect({ connectTimeoutMs: 1000 }));
    await refused(Promise.reject(error), ['ERR_TIMEOUT', 'ERR_UNAVAILABLE']);
    expect(error).toMatchObject({ retryable: true, operation: 'connect' });
    expect(ms).toBeLessThan(inTime(1800));
  });

  it('connect() tries until connectTimeoutMs: a registry that comes up meanwhile is reached', async (scope) => {
    await scope.outage();
    const connecting = scope.connect({ connectTimeoutMs: 15_000 });
    setTimeout(() => void scope.restore(), 1000);
    expect((await within(connecting, 15_000, 'connect()')).closed).toBe(false);
  });

  it('lazy: true does no I/O: it resolves at once during an outage', async (scope) => {
    await scope.outage();
    const { ms, value } = await timed(scope.connect({ lazy: true }));
    expect(ms).toBeLessThan(inTime(1000)); // a first try alone would go on until connectTimeoutMs
    await scope.restore();
    expect(await value?.services()).toEqual([]);
  });

  it('the URL form is the same options', async (scope) => {
    const registry = await connect(scope.url('ttlMs=5000'));
    await registry.register({ name: 'orders', id: 'a' });
    await sees(await scope.connect(), 'orders', ['a']);
    await registry.close();
  });

  it('a URL object is as good as its text, of any realm', async (scope) => {
    const url = scope.url();
    const foreign = runInNewContext('Object.assign(Object.create({ [Symbol.toStringTag]: "URL" }), { href })', {
      href: url,
    });
    for (const given of [new URL(url), foreign]) {
      const registry = await connect(given);
      await registry.close();
    }
  });

  it('ESM and CJS are one API and see one registry', async (scope) => {
    const [one, two] = await Promise.all([esm.connect(scope.options()), cjs.connect(scope.options())]);
    await one.register({ name: 'orders', id: 'esm' });
    await two.register({ name: 'orders', id: 'cjs' });
    expect(ids(await one.getService('orders'))).toEqual(['cjs', 'esm']);
    expect(ids(await two.getService('orders'))).toEqual(['cjs', 'esm']);
    await two.close();
    expect(ids(await one.getService('orders'))).toEqual(['esm']);
    await one.close();
    const error = await two.services().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(RollcallError);
    expect(error).toBeInstanceOf(cjs.RollcallError);
    expect(error).toBeInstanceOf(esm.ClosedError);
  });

  it('a wildcard host in an endpoint is replaced by advertiseHost, and nothing else of it', async (scope) => {
    const registry = await scope.connect({ advertiseHost: '192.0.2.7' });
    const { instance } = await registry.register({
      name: 'orders',
      id: 'a',
      endpoints: [
        'grpc://0.0.0.0:9000',
        'http://[::]:8000/path?isSecure=false',
        'tcp://10.0.0.1:1',
        'ws://localhost:80',
      ],
    });
    const expected = [
      'grpc://192.0.2.7:9000',
      'http://192.0.2.7:8000/path?isSecure=false',
      'tcp://10.0.0.1:1',
      'ws://localhost:80',
    ];
    expect(instance.endpoints).toEqual(expected);
    expect((await registry.getService('orders', { consistent: true }))[0]?.endpoints).toEqual(expected);
  });

  it('advertiseHost counts for update() too', async (scope) => {
    const registry = await scope.connect({ advertiseHost: 'orders.example' });
    const registration = await registry.register({ name: 'orders', id: 'a' });
    await registration.update({ endpoints: ['grpc://0.0.0.0:9000'] });
    expect((await registry.getService('orders', { consistent: true }))[0]?.endpoints).toEqual([
      'grpc://orders.example:9000',
    ]);
  });

  it('without advertiseHost a wildcard becomes an address of this machine', async (scope) => {
    const registry = await scope.connect();
    const { instance } = await registry.register({ name: 'orders', endpoints: ['grpc://0.0.0.0:9000'] });
    expect(instance.endpoints[0]).toMatch(/^grpc:\/\/.+:9000$/);
    expect(instance.endpoints[0]).not.toMatch(/0\.0\.0\.0|\[::\]/);
  });

  it('port 0 is refused, and nothing is registered', async (scope) => {
    const registry = await scope.connect();
    await refused(
      registry.register({ name: 'orders', endpoints: ['grpc://10.0.0.1:0'] }),
      'ERR_INVALID_ARGUMENT',
      /endpoints\[0\].*port 0/s,
    );
    await sees(registry, 'orders', []);
  });
});

describe.concurrent('the environment', () => {
  test('without an argument connect() takes ROLLCALL_REGISTRY', async () => {
    const child = inProcess(
      undefined,
      [['register', { name: 'orders', id: 'a' }], ['getService', 'orders'], ['close']],
      {
        ROLLCALL_REGISTRY: 'memory://from-the-environment?ttlMs=2000',
      },
    );
    expect((await child.until('connected')).backend).toBe('memory');
    expect((await child.until('getService:done')).ids).toEqual(['a']);
    expect((await child.exited).code).toBe(0);
  });

  test('a bad ROLLCALL_REGISTRY is an error that names it', async () => {
    const child = inProcess(undefined, [], { ROLLCALL_REGISTRY: 'ectd://10.0.0.1' });
    const failed = await child.until('failed');
    expect(failed.code).toBe('ERR_INVALID_ARGUMENT');
    expect(failed.message).toMatch(/did you mean "etcd"\?.*ROLLCALL_REGISTRY/s);
  });

  test('without both it is memory', async () => {
    const child = inProcess(undefined, [['close']], { ROLLCALL_REGISTRY: '' });
    expect((await child.until('connected')).backend).toBe('memory');
    expect((await child.exited).stderr).toBe('');
  });

  test('ROLLCALL_ADVERTISE_HOST is the default of advertiseHost', async () => {
    const child = inProcess(
      'memory://x',
      [['register', { name: 'orders', id: 'a', endpoints: ['grpc://0.0.0.0:1'] }], ['endpoints', 'a'], ['close']],
      {
        ROLLCALL_ADVERTISE_HOST: '192.0.2.9',
      },
    );
    expect((await child.until('endpoints:done')).endpoints).toEqual(['grpc://192.0.2.9:1']);
  });
});

describe('logging', () => {
  const collect = (): { lines: string[]; logger: Record<string, (...words: unknown[]) => void> } => {
    const lines: string[] = [];
    const at =
      (level: string) =>
      (...words: unknown[]) =>
        void lines.push(`${level}: ${words.join(' ')}`);
    return { lines, logger: { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') } };
  };

  test('a listener that throws is logged, and stops neither the repair nor the other listeners', async () => {
    const { lines, logger } = collect();
    const registry = await connect({ backend: 'memory', namespace: 'throwing', ttlMs: 1000, logger } as never);
    const registration = await registry.register({ name: 'orders', id: 'a' });
    let second = 0;
    registration.on('lost', () => {
      throw new Error('from the listener');
    });
    registration.on('lost', () => void second++);
    MemoryServer.of('throwing').remove('orders', 'a');
    await within(new Promise<void>((resolve) => void registration.on('restored', resolve)), 5000, '"restored"');
    expect(second).toBe(1);
    expect(lines.join('\n')).toMatch(/error: .*from the listener|warn: .*from the listener/);
    await registry.close();
  });

  test('a logger that throws harms nothing, and false is silence', async () => {
    const broken = {
      warn: () => {
        throw new Error('broken logger');
      },
      error: () => {
        throw new Error('broken logger');
      },
    };
    for (const logger of [broken, false]) {
      const registry = await connect({ backend: 'memory', namespace: 'silent', ttlMs: 1000, logger } as never);
      const registration = await registry.register({ name: 'orders', id: 'a' });
      MemoryServer.of('silent').remove('orders', 'a');
      await within(new Promise<void>((resolve) => void registration.on('restored', resolve)), 5000, '"restored"');
      await registry.close();
    }
  });
});

describe('errors', () => {
  test('code, class, name, retryable, operation, and a stack that shows the caller', async () => {
    const registry = await connect({ backend: 'memory', namespace: 'errors' });
    MemoryServer.of('errors').setAway(true);
    async function theCaller(): Promise<unknown> {
      return await registry.getService('orders', { timeoutMs: 200 });
    }
    const error = await refused(theCaller(), ['ERR_TIMEOUT', 'ERR_UNAVAILABLE']);
    expect(error.retryable).toBe(true);
    expect(error.operation).toBe('getService');
    expect(error).toBeInstanceOf(Error);
    expect(error.stack).toMatch(/theCaller/);
    MemoryServer.of('errors').setAway(false);
    const wrong = await refused(registry.getService(''), 'ERR_INVALID_ARGUMENT');
    expect(wrong.retryable).toBe(false);
    expect(wrong).toBeInstanceOf(esm.InvalidArgumentError);
    const stopped = await refused(registry.getService('orders', { signal: AbortSignal.abort('why') }), 'ERR_ABORTED');
    expect([stopped.name, stopped.cause]).toEqual(['AbortError', 'why']);
    await registry.close();
    expect(await refused(registry.services(), 'ERR_CLOSED')).toBeInstanceOf(esm.ClosedError);
  });

  test('what is no error of rollcall is none of its classes', () => {
    for (const other of [new Error('x'), null, undefined, 'ERR_CLOSED', { code: 'ERR_CLOSED' }])
      expect(other instanceof RollcallError).toBe(false);
  });
});
