// Wrong arguments: each gives at once a typed error that names the path, says what was wrong and what to do; then
// nothing has happened: no panic, nothing that hangs, nothing half-registered.
import type { Registry } from 'rollcall';
import { connect, MemoryServer } from 'rollcall';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { inTime, nextList, refused, throws, timed } from '../conformance/kit.js';
import type { EtcdCluster } from '../support/etcd.js';
import { ETCD_VERSIONS, startEtcd } from '../support/etcd.js';

const circular: Record<string, unknown> = {};
circular.self = circular;
const trap = new Proxy(
  {},
  {
    get: () => {
      throw new Error('a getter that throws');
    },
    ownKeys: () => {
      throw new Error('a trap that throws');
    },
  },
);

/** What register() is given, and what the message must say. */
const instances: [title: string, instance: unknown, message: RegExp][] = [
  ['nothing', undefined, /instance: expected/],
  ['null', null, /instance: expected/],
  ['a text', 'orders', /instance: expected/],
  ['an array', [], /instance/],
  ['a function', () => undefined, /instance/],
  ['an empty name', { name: '' }, /instance\.name: expected a service name, got an empty string/],
  ['no name', { id: 'a' }, /instance\.name: expected/],
  ['a number as name', { name: 7 }, /instance\.name: expected .*string/],
  ["a name with '/'", { name: 'a/b' }, /instance\.name: must not contain '\/'/],
  ['a name with a control character', { name: 'a\u0007b' }, /instance\.name: .*control characters.*U\+0007/],
  ['a name with a NUL', { name: 'a\u0000b' }, /instance\.name: .*control/],
  ['a name of 10 KB', { name: 'n'.repeat(10_240) }, /instance\.name: .*at most/],
  ["an id with '/'", { name: 'orders', id: 'a/b' }, /instance\.id: must not contain '\/'/],
  ['an id with a line feed', { name: 'orders', id: 'a\nb' }, /instance\.id: .*control/],
  ['a number as id', { name: 'orders', id: 1 }, /instance\.id: expected .*string/],
  ['an object as version', { name: 'orders', version: {} }, /instance\.version: expected .*string/],
  ['null as version', { name: 'orders', version: null }, /instance\.version/],
  [
    'a metadata value of 2 MB',
    { name: 'orders', metadata: { big: 'x'.repeat(2 * 1024 * 1024) } },
    /instance.*(bytes|large|at most)/,
  ],
  [
    '10,000 metadata keys',
    { name: 'orders', metadata: Object.fromEntries(Array.from({ length: 10_000 }, (_, i) => [`k${i}`, 'v'])) },
    /instance\.metadata: .*at most 1024 keys, got 10000/,
  ],
  [
    'a number as metadata value',
    { name: 'orders', metadata: { weight: 10 } },
    /instance\.metadata\.?\[?"?'?weight.*expected a string, got (a )?number/,
  ],
  ['null as metadata value', { name: 'orders', metadata: { a: null } }, /instance\.metadata.*a.*string/],
  ['undefined as metadata value', { name: 'orders', metadata: { a: undefined } }, /instance\.metadata.*a.*string/],
  ['an object as metadata value', { name: 'orders', metadata: { a: {} } }, /instance\.metadata.*a.*string/],
  ['metadata that contains itself', { name: 'orders', metadata: circular }, /instance\.metadata.*self.*string/],
  ['an array as metadata', { name: 'orders', metadata: ['a'] }, /instance\.metadata/],
  ['a Map as metadata', { name: 'orders', metadata: new Map([['a', 'b']]) }, /instance\.metadata/],
  ['a text as endpoints', { name: 'orders', endpoints: 'grpc://10.0.0.1:1' }, /instance\.endpoints: expected an array/],
  [
    'a number among the endpoints',
    { name: 'orders', endpoints: ['grpc://10.0.0.1:1', 5] },
    /instance\.endpoints\[1\]: expected a (string|URL)/,
  ],
  ['a hole among the endpoints', { name: 'orders', endpoints: Array(2) }, /instance\.endpoints\[0\]/],
  [
    'an endpoint that is not a URL',
    { name: 'orders', endpoints: ['10.0.0.1:9000'] },
    /instance\.endpoints\[0\]: expected a URL such as "grpc:\/\//,
  ],
  [
    'an endpoint without a host',
    { name: 'orders', endpoints: ['grpc://'] },
    /instance\.endpoints\[0\]: expected a URL/,
  ],
  ['an empty endpoint', { name: 'orders', endpoints: [''] }, /instance\.endpoints\[0\]: expected a URL/],
  ['a port of 70000', { name: 'orders', endpoints: ['grpc://10.0.0.1:70000'] }, /instance\.endpoints\[0\].*port/],
  ['port 0', { name: 'orders', endpoints: ['grpc://10.0.0.1:0'] }, /instance\.endpoints\[0\]: port 0/],
  ['port 0 of a wildcard', { name: 'orders', endpoints: ['grpc://0.0.0.0:0'] }, /instance\.endpoints\[0\]: port 0/],
  [
    '1,000 endpoints',
    { name: 'orders', endpoints: Array.from({ length: 1000 }, (_, i) => `grpc://10.0.0.1:${i + 1}`) },
    /instance\.endpoints: .*at most/,
  ],
  ['a field that does not exist', { name: 'orders', metdata: {} }, /instance\.metdata.*did you mean "metadata"/s],
];

const calls: [title: string, call: (registry: Registry) => unknown, message: RegExp][] = [
  [
    'register(): an unknown option',
    (r) => r.register({ name: 'orders' }, { backgroud: true } as never),
    /options\.backgroud.*did you mean "background"/s,
  ],
  [
    'register(): background that is no boolean',
    (r) => r.register({ name: 'orders' }, { background: 'yes' } as never),
    /options\.background: expected/,
  ],
  [
    'register(): a negative timeout',
    (r) => r.register({ name: 'orders' }, { timeoutMs: -1 }),
    /options\.timeoutMs: expected/,
  ],
  [
    'register(): a timeout that is NaN',
    (r) => r.register({ name: 'orders' }, { timeoutMs: Number.NaN }),
    /options\.timeoutMs: expected/,
  ],
  [
    'register(): a timeout that is a text',
    (r) => r.register({ name: 'orders' }, { timeoutMs: '5000' } as never),
    /options\.timeoutMs: expected/,
  ],
  [
    'register(): a timeout beyond reason',
    (r) => r.register({ name: 'orders' }, { timeoutMs: Number.POSITIVE_INFINITY }),
    /options\.timeoutMs: expected/,
  ],
  [
    'register(): a signal that is none',
    (r) => r.register({ name: 'orders' }, { signal: {} as never }),
    /options\.signal: expected/,
  ],
  ['register(): options that are a number', (r) => r.register({ name: 'orders' }, 5 as never), /options: expected/],
  ['getService(): an empty name', (r) => r.getService(''), /name: expected a service name/],
  ["getService(): a name with '/'", (r) => r.getService('a/b'), /name: must not contain '\/'/],
  ['getService(): no name', (r) => r.getService(undefined as never), /name: expected/],
  [
    'getService(): an unknown option',
    (r) => r.getService('orders', { consistant: true } as never),
    /options\.consistant.*did you mean "consistent"/s,
  ],
  ['getService(): a timeout of 0', (r) => r.getService('orders', { timeoutMs: 0 }), /options\.timeoutMs/],
  [
    'services(): an unknown option',
    (r) => r.services({ timeout: 5 } as never),
    /options\.timeout.*did you mean "timeoutMs"/s,
  ],
  ['close(): a negative drain', async (r) => r.close({ drainMs: -1 }), /options\.drainMs: expected/],
];

describe.each(['memory', ...ETCD_VERSIONS] as const)('wrong arguments on %s', (where) => {
  let etcd: EtcdCluster | undefined;
  let registry: Registry;

  beforeAll(async () => {
    etcd = where === 'memory' ? undefined : await startEtcd({ version: where });
    registry = await connect(
      etcd
        ? { backend: 'etcd', hosts: [...etcd.hosts], ttlMs: 3000 }
        : { backend: 'memory', namespace: 'bad-input', ttlMs: 1000 },
    );
  });
  afterAll(async () => {
    await registry?.close();
    await etcd?.close();
  });
  afterEach(async () => {
    expect(await registry.services(), 'nothing half-registered').toEqual([]);
    if (etcd) expect([await etcd.keys('/'), await etcd.leases()], 'no key, no lease').toEqual([[], []]);
  });

  test.each(instances)('register(): %s', async (_, instance, message) => {
    const { ms, error } = await timed(registry.register(instance as never));
    await refused(Promise.reject(error), 'ERR_INVALID_ARGUMENT', message);
    expect(error).toMatchObject({ retryable: false });
    expect(ms, 'at once').toBeLessThan(inTime(1000));
  });

  test.each(instances)('register() in the background: %s', async (_, instance) => {
    await refused(registry.register(instance as never, { background: true }), 'ERR_INVALID_ARGUMENT');
  });

  test.each(calls)('%s', async (_, call, message) => {
    await refused(
      Promise.resolve().then(() => call(registry)),
      'ERR_INVALID_ARGUMENT',
      message,
    );
  });

  test('update(): wrong patches are refused, and the record stays as it was', async () => {
    const registration = await registry.register({ name: 'orders', id: 'a', version: '1' });
    try {
      for (const [, patch, message] of [
        ['nothing', undefined, /patch|instance|update/],
        ['a text', 'x', /expected/],
        ['a number as version', { version: 1 }, /version: expected/],
        ['a metadata value that is a number', { metadata: { n: 1 } }, /metadata.*n.*string/],
        ['an endpoint that is no URL', { endpoints: ['x'] }, /endpoints\[0\]: expected a URL/],
        ['port 0', { endpoints: ['grpc://10.0.0.1:0'] }, /endpoints\[0\]: port 0/],
        ['a port of 70000', { endpoints: ['grpc://10.0.0.1:70000'] }, /endpoints\[0\]/],
        ['2 MB', { metadata: { big: 'x'.repeat(2 * 1024 * 1024) } }, /bytes|large|at most/],
        ['an unknown field', { metdata: {} }, /metdata/],
      ] as const) {
        await refused(registration.update(patch as never), 'ERR_INVALID_ARGUMENT', message);
      }
      expect(registration.instance.version).toBe('1');
      expect(await registry.getService('orders', { consistent: true })).toMatchObject([
        { version: '1', metadata: {}, endpoints: [] },
      ]);
      await refused(registration.deregister({ drainMs: 'long' } as never), 'ERR_INVALID_ARGUMENT', /options\.drainMs/);
      expect(registration.state).toBe('registered');
    } finally {
      await registration.deregister();
    }
  });

  test('a refusal names the operation that was called', async () => {
    const registration = await registry.register({ name: 'orders', id: 'a' });
    const operations: string[] = [];
    for (const call of [
      () => registry.register({ name: 7 } as never),
      () => registry.register({ name: '' }),
      () => registry.getService(''),
      () => registry.getService('orders', { timeoutMs: -1 }),
      () => registry.services({ timeoutMs: -1 }),
      () => registration.update({ version: 1 } as never),
      () => registration.update({ endpoints: ['x'] }),
      () => registration.deregister({ drainMs: -1 }),
      () => registry.close({ drainMs: -1 }),
    ]) {
      operations.push((await refused(call(), 'ERR_INVALID_ARGUMENT')).operation);
    }
    operations.push(throws(() => registry.watch(''), 'ERR_INVALID_ARGUMENT').operation);
    await registration.deregister();
    expect(operations.join(' ')).toBe(
      'register register getService getService services update update deregister close watch',
    );
  });

  test('a getter of the caller that throws: the call rejects with what it threw, and is no fault of ours', async () => {
    for (const call of [
      () => registry.register(trap as never),
      () => registry.getService('orders', trap as never),
      () => connect(trap as never),
    ]) {
      const error = (await (call() as Promise<unknown>).then(
        () => undefined,
        (reason: unknown) => reason,
      )) as { code?: string } | undefined;
      expect(error).toBeInstanceOf(Error);
      expect(error?.code).not.toBe('ERR_INTERNAL');
    }
  });

  test('watch(): throws at once, and nothing is watched', () => {
    throws(() => registry.watch(''), 'ERR_INVALID_ARGUMENT', /name: expected a service name/);
    throws(() => registry.watch('a/b'), 'ERR_INVALID_ARGUMENT', /must not contain '\/'/);
    throws(() => registry.watch('a\u0001'), 'ERR_INVALID_ARGUMENT', /control/);
    throws(() => registry.watch(undefined as never), 'ERR_INVALID_ARGUMENT', /name/);
    throws(() => registry.watch('orders', { signal: 5 } as never), 'ERR_INVALID_ARGUMENT', /options\.signal/);
    throws(
      () => registry.watch('orders', { singal: new AbortController().signal } as never),
      'ERR_INVALID_ARGUMENT',
      /did you mean "signal"/,
    );
  });

  test('on(): an unknown event and a listener that is no function are refused', async () => {
    throws(
      () => registry.on('badRecrod' as never, () => undefined),
      'ERR_INVALID_ARGUMENT',
      /did you mean "badRecord"/,
    );
    throws(() => registry.on('badRecord', 5 as never), 'ERR_INVALID_ARGUMENT', /listener/);
    const watcher = registry.watch('orders');
    throws(() => watcher.on('stail' as never, () => undefined), 'ERR_INVALID_ARGUMENT', /stale/);
    await nextList(watcher);
    watcher.stop();
  });
});

describe('wrong options of connect()', () => {
  const wrong: [title: string, options: unknown, message: RegExp][] = [
    ['an unknown backend', { backend: 'ectd' }, /options\.backend.*did you mean "etcd"\?/s],
    ['a backend far from any', { backend: 'postgres' }, /options\.backend.*(memory|etcd)/s],
    ['no backend', { hosts: '10.0.0.1' }, /options\.backend/],
    ['an unknown option', { backend: 'etcd', host: '10.0.0.1' }, /options\.host.*did you mean "hosts"\?/s],
    ['an option of another backend', { backend: 'memory', hosts: '10.0.0.1' }, /options\.hosts/],
    [
      'an unknown option in TLS',
      { backend: 'etcd', tls: { cafile: 'x' } },
      /options\.tls\.cafile.*did you mean "caFile"\?/s,
    ],
    ['a TTL that is a text', { backend: 'memory', ttlMs: '15000' }, /options\.ttlMs: expected .*got/],
    ['a TTL too small', { backend: 'memory', ttlMs: 10 }, /options\.ttlMs: expected .*1000/],
    ['a TTL that is no number', { backend: 'memory', ttlMs: Number.NaN }, /options\.ttlMs: expected/],
    ['half a millisecond', { backend: 'memory', ttlMs: 1000.5 }, /options\.ttlMs: expected/],
    ['an infinite TTL', { backend: 'memory', ttlMs: Number.POSITIVE_INFINITY }, /options\.ttlMs: expected/],
    ['a TTL of a hundred years', { backend: 'memory', ttlMs: 1e300 }, /options\.ttlMs: expected/],
    ['a negative grace', { backend: 'memory', emptyGraceMs: -1 }, /options\.emptyGraceMs: expected/],
    ['hosts that are numbers', { backend: 'etcd', hosts: [2379] }, /options\.hosts\[0\]: expected/],
    ['no host', { backend: 'etcd', hosts: [] }, /options\.hosts: expected at least one/],
    ['an empty host', { backend: 'etcd', hosts: '' }, /options\.hosts/],
    ['a host with port 70000', { backend: 'etcd', hosts: '10.0.0.1:70000' }, /options\.hosts: expected a port/],
    ['a host with a path', { backend: 'etcd', hosts: '10.0.0.1:2379/x' }, /options\.hosts: expected/],
    ['a host of another scheme', { backend: 'etcd', hosts: 'ftp://10.0.0.1' }, /options\.hosts: expected/],
    ['a CA that is a number', { backend: 'etcd', tls: { ca: 5 } }, /options\.tls\.ca: expected a PEM string or Buffer/],
    ['a CA that is no PEM', { backend: 'etcd', tls: { ca: 'hello' } }, /options\.tls\.ca: expected PEM/],
    [
      'a CA file that is missing',
      { backend: 'etcd', tls: { caFile: '/does/not/exist.pem' } },
      /options\.tls\.caFile: can't read/,
    ],
    [
      'a PEM of rubbish',
      { backend: 'etcd', tls: { ca: '-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----' } },
      /options\.tls\.ca/,
    ],
    [
      'a client certificate without its key',
      { backend: 'etcd', tls: { cert: '-----BEGIN CERTIFICATE-----\n' } },
      /options\.tls\.key/,
    ],
    ['a user without a password', { backend: 'etcd', username: 'root' }, /options\.password/],
    ['a codec nobody knows', { backend: 'etcd', codec: 'yaml' }, /options\.codec/],
    [
      'a signal nobody knows',
      { backend: 'memory', signals: ['SIGTER'] },
      /options\.signals\[0\].*did you mean "SIGTERM"/s,
    ],
    ['a signal that cannot be caught', { backend: 'memory', signals: ['SIGKILL'] }, /options\.signals\[0\]/],
    ['a logger that is a text', { backend: 'memory', logger: 'debug' }, /options\.logger/],
    ['an advertised host that is none', { backend: 'memory', advertiseHost: 'a b/c' }, /options\.advertiseHost/],
    ['a number', 5, /expected/],
    ['null', null, /expected/],
    ['an empty URL', '', /./],
    ['a URL that is none', 'not a url', /./],
    ['a URL of an unknown backend', 'ectd://10.0.0.1', /did you mean "etcd"\?/],
    ['a URL with an unknown option', 'etcd://10.0.0.1?ttl=5', /options\.ttl.*did you mean "ttlMs"\?/s],
    ['a URL with a wrong number', 'memory://x?ttlMs=soon', /options\.ttlMs: expected/],
    ['a URL with a wrong boolean', 'memory://x?lazy=perhaps', /options\.lazy: expected/],
    ['a URL with a port of 70000', 'etcd://10.0.0.1:70000', /port/],
    ['a URL with an option twice', 'memory://x?ttlMs=1000&ttlMs=2000', /options\.ttlMs/],
  ];

  test.each(wrong)('%s', async (_, options, message) => {
    const { ms, error } = await timed(connect(options as never));
    await refused(Promise.reject(error), 'ERR_INVALID_ARGUMENT', message);
    expect(error).toMatchObject({ operation: 'connect', retryable: false });
    expect(ms, 'at once').toBeLessThan(inTime(1000));
  });

  test('no message shows a password', async () => {
    for (const url of [
      'etcd://root:hunter2@10.0.0.1:70000',
      'ectd://root:hunter2@10.0.0.1',
      'etcd://root:hunter2@10.0.0.1?x=1',
      'etcd://root:hunter2@a b',
    ]) {
      const error = await refused(connect(url), 'ERR_INVALID_ARGUMENT');
      expect(`${error.message} ${error.stack} ${String(error.cause)}`).not.toContain('hunter2');
    }
  });

  test('MemoryServer refuses what it cannot take', () => {
    throws(() => MemoryServer.of(5 as never), 'ERR_INVALID_ARGUMENT', /namespace/);
    const server = MemoryServer.of('bad-input-server');
    throws(() => server.put(5 as never, 'a', 'x'), 'ERR_INVALID_ARGUMENT', /name/);
    throws(() => server.put('orders', 'a', 5 as never), 'ERR_INVALID_ARGUMENT', /value/);
    throws(() => server.setAway('yes' as never), 'ERR_INVALID_ARGUMENT', /away/);
  });
});
