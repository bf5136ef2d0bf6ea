// What a program may give wrongly, and what a server may refuse: a typed error that names it, never a crash or a hang.

import { Etcd3, type IOptions, Range } from 'rollcall/etcd';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ETCD_VERSIONS, type EtcdCluster, startEtcd } from '../support/etcd.js';
import { uniqueName, within } from '../support/process.js';
import { connectBoth, outcome } from './both.js';

const caught = (work: () => unknown): Error & { code?: string } => {
  try {
    work();
  } catch (error) {
    return error as Error;
  }
  return expect.unreachable('nothing was thrown');
};
const failed = async (work: () => unknown): Promise<Error & { code?: string }> => {
  try {
    await within(Promise.resolve(work()), 10_000, 'a failure');
  } catch (error) {
    return error as Error;
  }
  return expect.unreachable('nothing was thrown');
};

/** Values of every wrong kind. */
const throwing = () =>
  Object.defineProperty({}, 'anything', {
    enumerable: true,
    get() {
      throw new RangeError('mine');
    },
  });
const WRONG_NUMBERS: unknown[] = [
  Number.NaN,
  -1,
  1.5,
  2 ** 53,
  Number.POSITIVE_INFINITY,
  '5',
  null,
  {},
  [],
  true,
  5n,
  Symbol('s'),
  () => 5,
];

describe('options', () => {
  it.each(['dialTimeout', 'timeoutMs', 'keepAliveMs', 'keepAliveTimeoutMs', 'maxMessageBytes', 'maxInFlight'])(
    '%s that is no sensible number is refused by name',
    (name) => {
      for (const wrong of WRONG_NUMBERS) {
        const error = caught(() => new Etcd3({ hosts: 'a:1', [name]: wrong } as unknown as IOptions));
        expect(error.code, String(wrong)).toBe('ERR_INVALID_ARGUMENT');
        expect(error.message, String(wrong)).toContain(`options.${name}`);
      }
      expect(caught(() => new Etcd3({ hosts: 'a:1', [name]: name === 'timeoutMs' ? 0.5 : 0 } as never)).code).toBe(
        'ERR_INVALID_ARGUMENT',
      );
    },
  );

  it.each([
    ['options', 5],
    ['options', null],
    ['options', 'a:1'],
    ['options', []],
    ['options', new Map()],
    ['options.hosts', { hosts: 5 }],
    ['options.hosts', { hosts: null }],
    ['options.hosts[1]', { hosts: ['a:1', 5] }],
    ['options.hosts[0]', { hosts: 'user:opensesame@a:1' }],
    ['options.hosts[0]', { hosts: 'a:99999' }],
    ['options.hosts[0]', { hosts: 'a\0b:1' }],
    ['options.hosts[0]', { hosts: 'a:1/path' }],
    ['options.hosts[0]', { hosts: '\ud800:1' }],
    ['options.auth', { auth: 'opensesame' }],
    ['options.auth.password', { auth: { username: 'u' } }],
    ['options.auth.password', { auth: { username: 'u', password: 5 } }],
    ['options.auth.username', { auth: { username: '', password: 'opensesame' } }],
    ['options.auth.password', { auth: { username: 'u', password: 'opensesame\ud800' } }],
    ['options.auth.callOptions', { auth: { username: 'u', password: 'opensesame', callOptions: 5 } }],
    ['options.credentials', { credentials: 5 }],
    ['options.credentials.rootCertificate', { credentials: { rootCertificate: 'opensesame' } }],
    ['options.credentials.certChain', { credentials: { certChain: Buffer.from('-----BEGIN CERTIFICATE-----\nx\n') } }],
    ['options.tls', { tls: 5 }],
    ['options.defaultCallOptions', { defaultCallOptions: 5 }],
    ['options.defaultCallOptions.timeoutMs', { defaultCallOptions: { timeoutMs: -1 } }],
    ['options.defaultCallOptions.deadline', { defaultCallOptions: { deadline: 'soon' } }],
    ['options.faultHandling', { faultHandling: 5 }],
    ['options.faultHandling.global', { faultHandling: { global: {} } }],
    ['options.faultHandling.host', { faultHandling: { host: {} } }],
    ['options.faultHandling.watchBackoff', { faultHandling: { watchBackoff: 5 } }],
    ['options.grpcOptions', { grpcOptions: 5 }],
    ['grpc.no_such_option', { grpcOptions: { 'grpc.no_such_option': 1 } }],
    ['options.groupGets', { groupGets: 'yes' }],
    ['options.logger', { logger: 5 }],
  ])('%s: %o is refused by that name, and no secret is shown', (path, options) => {
    const whole =
      typeof options === 'object' && options?.constructor === Object ? { hosts: 'a:1', ...options } : options;
    const error = caught(() => new Etcd3(whole as never));
    expect(error.code).toBe('ERR_INVALID_ARGUMENT');
    expect(error.message).toContain(path);
    expect(`${error.message} ${error.stack}`).not.toContain('opensesame');
  });

  it('what a getter or a proxy of the program throws comes out as it is', () => {
    for (const name of [
      'hosts',
      'auth',
      'credentials',
      'timeoutMs',
      'faultHandling',
      'grpcOptions',
      'defaultCallOptions',
    ]) {
      const mine = new RangeError('mine');
      const options = Object.defineProperty({ hosts: 'a:1' }, name, {
        enumerable: true,
        get() {
          throw mine;
        },
      });
      expect(caught(() => new Etcd3(options as never))).toBe(mine);
    }
    const mine = new TypeError('mine');
    const proxy = new Proxy(
      {},
      {
        get() {
          throw mine;
        },
      },
    );
    expect(caught(() => new Etcd3(proxy as never))).toBe(mine);
    expect(caught(() => new Etcd3({ hosts: 'a:1', auth: proxy as never }))).toBe(mine);
  });

  it('that are an endless or a deep object do not hang', () => {
    const ring: Record<string, unknown> = { hosts: 'a:1' };
    ring.grpcOptions = ring;
    expect(caught(() => new Etcd3(ring as never)).message).toContain('grpcOptions["hosts"]');
  });
});

describe('arguments', () => {
  const client = new Etcd3({ hosts: '127.0.0.1:1', timeoutMs: 500, logger: false });
  afterAll(() => client.close());

  const keys: unknown[] = [undefined, null, 5, 5n, true, {}, [], Symbol('k'), () => 'k', new Date(), throwing()];

  it.each([
    ['get', (key: never) => client.get(key).string()],
    ['get', (key: never) => client.get(key).exec()],
    ['put', (key: never) => client.put(key).value('v').exec()],
    ['put', (key: never) => client.put(key).value('v').op()],
    ['delete', (key: never) => client.delete().key(key).exec()],
    ['delete prefix', (key: never) => client.delete().prefix(key).exec()],
    ['prefix', (key: never) => client.getAll().prefix(key).keys()],
    ['namespace', (key: never) => client.namespace(key).get('k').string()],
    ['if', (key: never) => client.if(key, 'Version', '==', 0).then(client.get('k')).commit()],
    ['range', (key: never) => new Range(key, 'z')],
    ['Range.prefix', (key: never) => Range.prefix(key)],
    ['inRange', (key: never) => client.getAll().inRange(key).keys()],
    ['start', (key: never) => client.getAll().inRange({ start: key, end: 'z' }).keys()],
    ['raw range', (key: never) => (key === undefined || key === null ? Range.from(key) : client.kv.range({ key }))],
  ] as [string, (key: never) => unknown][])(
    '%s: a key that is no string and no Buffer is refused',
    async (_name, call) => {
      for (const key of keys) {
        const error = await failed(() => call(key as never));
        expect(error.code, String(key)).toBe('ERR_INVALID_ARGUMENT');
        expect(error.message).not.toMatch(/undefined is not|cannot read|is not a function/i);
      }
    },
  );

  it('a value that is no string, Buffer or number is refused', async () => {
    for (const value of [undefined, null, {}, [], true, Symbol('v'), () => 1, new Date(), 5n, new Map()]) {
      const error = await failed(() =>
        client
          .put('k')
          .value(value as never)
          .exec(),
      );
      expect(error.code, String(value)).toBe('ERR_INVALID_ARGUMENT');
      expect(error.message).toContain('put().value()');
    }
  });

  it('a key that is empty is refused with etcd’s text, and nothing is sent', async () => {
    const before = client.metrics().attempts;
    for (const call of [
      () => client.get('').string(),
      () => client.get(Buffer.alloc(0)).exec(),
      () => client.put('').value('v').exec(),
      () => client.delete().exec(),
      () => client.delete().key('').exec(),
      () => client.if('', 'Version', '==', 0).then(client.get('k')).commit(),
      () => client.if('k', 'Version', '==', 0).then(client.put('').value('v')).commit(),
    ]) {
      const error = await failed(call);
      expect(error).toMatchObject({ name: 'GRPCInvalidArgumentError', code: 'ERR_INVALID_ARGUMENT' });
      expect(error.message).toContain('etcdserver: key is not provided');
    }
    expect(client.metrics().attempts).toBe(before);
  });

  it('numbers of 64 bits: what is unsafe or no number is refused by name', async () => {
    for (const wrong of [
      Number.NaN,
      1.5,
      2 ** 53,
      -(2 ** 53),
      Number.POSITIVE_INFINITY,
      '1.5',
      'x',
      '',
      ' 1',
      '1e3',
      2n ** 63n,
      '9'.repeat(30),
      {},
      [],
      null,
      true,
      undefined,
    ]) {
      for (const [name, call] of [
        [
          'revision()',
          () =>
            client
              .get('k')
              .revision(wrong as never)
              .string(),
        ],
        [
          'minModRevision()',
          () =>
            client
              .getAll()
              .minModRevision(wrong as never)
              .keys(),
        ],
        [
          'Version',
          () =>
            client
              .if('k', 'Version', '==', wrong as never)
              .then(client.get('k'))
              .commit(),
        ],
        ['timeToLive()', () => client.timeToLive(wrong as never)],
      ] as const) {
        const error = await failed(call);
        expect(error.code, `${name} ${String(wrong)}`).toBe('ERR_INVALID_ARGUMENT');
        expect(error.message).toContain(name);
      }
    }
  });

  it('names that are not known fail with the text of etcd3, at once', () => {
    const both = connectBoth(['127.0.0.1:1']);
    for (const call of [
      (one: Etcd3) => one.if('k', 'Nothing' as never, '==', 0),
      (one: Etcd3) => one.if('k', 'toString' as never, '==', 0),
      (one: Etcd3) => one.if('k', 'Version', '~' as never, 0),
      (one: Etcd3) => one.getAll().sort('Nothing' as never, 'Ascend'),
      (one: Etcd3) => one.getAll().sort('Key', 'Sideways' as never),
    ]) {
      const error = caught(() => call(both.ours));
      expect(error.message).toMatch(/^Unexpected /);
      expect(error.code).toBe('ERR_INVALID_ARGUMENT');
    }
    return both.close();
  });

  it('a time to live under both of its names is refused', () => {
    const error = caught(() => client.mutex('job', { ttl: 10, ttlSeconds: 20 }));
    expect(error).toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
      message: 'mutex({ ttl }): given together with ttlSeconds, which it is another name of',
    });
  });

  it('what is no operation is refused', async () => {
    for (const wrong of [undefined, null, 5, 'put', {}, [], Promise.resolve(), { op: 5 }, { request_put: 5 }]) {
      const error = await failed(() =>
        client
          .if('k', 'Version', '==', 0)
          .then(wrong as never)
          .commit(),
      );
      expect(error.code, String(wrong)).toBe('ERR_INVALID_ARGUMENT');
    }
  });

  it('requests of the raw clients: each field is judged, getters and proxies are survived', async () => {
    const mine = new RangeError('mine');
    const hostile = new Proxy(
      {},
      {
        get() {
          throw mine;
        },
        ownKeys() {
          throw mine;
        },
      },
    );
    expect(await failed(() => client.kv.range(hostile as never))).toBe(mine);
    for (const [path, call] of [
      ['key', () => client.kv.put({ key: 5 as never })],
      ['value', () => client.kv.put({ key: Buffer.from('k'), value: {} as never })],
      ['lease', () => client.kv.put({ key: Buffer.from('k'), lease: 2 ** 60 })],
      ['limit', () => client.kv.range({ key: Buffer.from('k'), limit: Number.NaN })],
      ['sort_order', () => client.kv.range({ key: Buffer.from('k'), sort_order: 'Up' as never })],
      ['compare', () => client.kv.txn({ compare: 5 as never })],
      ['success', () => client.kv.txn({ success: [5] as never })],
      ['TTL', () => client.leaseClient.leaseGrant({ TTL: {} as never })],
      ['peerURLs', () => client.cluster.memberAdd({ peerURLs: [5] as never })],
      ['name', () => client.auth.userAdd({ name: 5 as never })],
    ] as [string, () => unknown][]) {
      const error = await failed(call);
      expect(error.code, path).toBe('ERR_INVALID_ARGUMENT');
      expect(error.message).toContain(path);
    }
  });

  it('a request that contains itself is refused, not followed for ever', async () => {
    const ring: { success: unknown[] } = { success: [] };
    ring.success.push({ request_txn: ring });
    const error = await failed(() => client.kv.txn(ring as never));
    expect(error).toBeInstanceOf(Error);
    expect(error.message).not.toBe('');
  });

  it('options of calls that throw, or whose factory does, fail the call with what was thrown', async () => {
    const mine = new RangeError('mine');
    const options = {
      get timeoutMs(): number {
        throw mine;
      },
    };
    expect(await failed(() => client.get('k').options(options).string())).toBe(mine);
    expect(await failed(() => client.put('k').value('v').options(options).exec())).toBe(mine);
    const made = new Etcd3({
      hosts: '127.0.0.1:1',
      defaultCallOptions: () => {
        throw mine;
      },
    });
    expect(await failed(() => made.get('k').string())).toBe(mine);
    await made.close();
    const wrong = new Etcd3({ hosts: '127.0.0.1:1', defaultCallOptions: () => ({ timeoutMs: 'x' }) as never });
    expect((await failed(() => wrong.get('k').string())).message).toContain('timeoutMs');
    await wrong.close();
  });
});

describe.each(ETCD_VERSIONS)('what a server refuses, etcd %s', (version) => {
  let etcd: EtcdCluster;
  beforeAll(async () => {
    etcd = await startEtcd({ version });
  });
  afterAll(() => etcd?.close());

  it('each refusal is the class of etcd3, with etcd’s text kept', async () => {
    const both = connectBoth(etcd.hosts);
    const key = uniqueName();
    await both.ours.put(key).value('1');
    await both.ours.put(key).value('2');
    const revision = await etcd.revision();
    await both.ours.put(key).value('3');
    await etcd.compact();
    await both.ours.role('there').create();
    await both.ours.user('there').create('opensesame');
    for (const [details, call] of [
      [
        'etcdserver: mvcc: required revision has been compacted',
        (one) =>
          one
            .get(key)
            .revision(revision - 1)
            .string(),
      ],
      [
        'etcdserver: mvcc: required revision has been compacted',
        (one) =>
          one
            .getAll()
            .revision(revision - 1)
            .keys(),
      ],
      ['etcdserver: mvcc: required revision is a future revision', (one) => one.get(key).revision('9999999').string()],
      ['etcdserver: requested lease not found', (one) => one.put(key).lease('4711').value('v').exec()],
      ['etcdserver: requested lease not found', (one) => one.leaseClient.leaseRevoke({ ID: '4711' })],
      ['etcdserver: key not found', (one) => one.put('none at all').ignoreLease().value('v').exec()],
      ['etcdserver: key not found', (one) => one.put('none at all').touch()],
      ['etcdserver: request is too large', (one) => one.put(key).value('x'.repeat(1_700_000)).exec()],
      [
        'etcdserver: too many operations in txn request',
        (one) =>
          one
            .if(key, 'Version', '>', 0)
            .then(...Array.from({ length: 129 }, () => one.get(key)))
            .commit(),
      ],
      [
        'etcdserver: duplicate key given in txn request',
        (one) => one.if(key, 'Version', '>', 0).then(one.put(key).value('a'), one.put(key).value('b')).commit(),
      ],
      ['etcdserver: too large lease TTL', (one) => one.leaseClient.leaseGrant({ TTL: '9999999999999' })],
      ['etcdserver: role name not found', (one) => one.role('none').delete()],
      ['etcdserver: role name already exists', (one) => one.role('there').create()],
      ['etcdserver: user name not found', (one) => one.user('none').roles()],
      ['etcdserver: user name already exists', (one) => one.user('there').create('opensesame')],
      ['etcdserver: role is not granted to the user', (one) => one.user('there').removeRole('there')],
      [
        'etcdserver: authentication is not enabled',
        (one) => one.auth.authenticate({ name: 'there', password: 'opensesame' }),
      ],
      ['etcdserver: member not found', (one) => one.cluster.memberRemove({ ID: '4711' })],
      ['etcdserver: bad leader transferee', (one) => one.maintenance.moveLeader({ targetID: '4711' })],
    ] as [string, (one: Etcd3) => PromiseLike<unknown>][]) {
      const error = (await failed(() => call(both.ours))) as Error & Record<string, unknown>;
      const known = { details: error.details, code: error.code, outcomeUnknown: error.outcomeUnknown };
      expect(known, details).toEqual({ details, code: expect.stringMatching(/^ERR_/), outcomeUnknown: false });
      expect(error.cause === undefined || error.cause instanceof Error || typeof error.cause === 'object').toBe(true);
      // The lease has its own, better text.
      if (!details.includes('lease not found')) {
        expect(error.message).toContain(details);
        expect(await outcome(() => call(both.ours)), details).toEqual(await outcome(() => call(both.theirs)));
      } else {
        expect(error.name).toBe('EtcdLeaseInvalidError');
        expect(((await outcome(() => call(both.theirs))) as { threw: string }).threw).toContain(
          'EtcdLeaseInvalidError',
        );
      }
      expect(`${error.message}${error.stack}`).not.toContain('opensesame');
    }
    await both.close();
  });

  it('a request that gRPC refuses for its length was not applied, and is not sent again', async () => {
    const client = new Etcd3({ hosts: [...etcd.hosts], logger: false });
    const key = uniqueName();
    await client.put(key).value('v');
    const { attempts } = client.metrics();
    const error = await failed(() => client.put(key).value('x'.repeat(3_000_000)).exec());
    expect(error).toMatchObject({ name: 'GRPCResourceExhastedError', outcomeUnknown: false, retryable: false });
    expect((error as Error & { details: string }).details).toMatch(/received message larger than max/);
    expect(client.metrics().attempts).toBe(attempts + 1);
    expect(await client.get(key).string()).toBe('v');
    await client.close();
  });

  it('a full store takes no writes, and says so; reads and deletes go on', async () => {
    const small = await startEtcd({ version, args: ['--quota-backend-bytes', String(2 * 1024 * 1024)] });
    const both = connectBoth(small.hosts);
    let error: (Error & Record<string, unknown>) | undefined;
    // The server measures its store when it commits, every 100 ms, and a quick disk takes all forty in one.
    const until = performance.now() + 20_000;
    for (let i = 0; !error && performance.now() < until; i++) {
      error = await both.ours
        .put(`k${i % 40}`)
        .value('x'.repeat(200_000))
        .exec()
        .then(
          () => undefined,
          (e) => e,
        );
    }
    expect(error).toMatchObject({
      name: 'GRPCResourceExhastedError',
      code: 'ERR_RESOURCE_EXHAUSTED',
      details: 'etcdserver: mvcc: database space exceeded',
      outcomeUnknown: false,
    });
    expect(error?.message).toContain('etcdserver: mvcc: database space exceeded');
    const full = (one: Etcd3) => outcome(() => one.put('more').value('v').exec());
    expect(await full(both.ours)).toMatchObject({ threw: expect.stringContaining('GRPCResourceExhastedError') });
    expect(await both.ours.get('k0').exists()).toBe(true);
    await both.ours.delete().key('k0');
    await both.close();
    await small.close();
  });
});

it('without a leader calls end in time with etcd’s text, and go on once there is one', async () => {
  const etcd = await startEtcd({ members: 3 });
  const client = new Etcd3({ hosts: [...etcd.hosts], logger: false });
  await client.put('k').value('v');
  const [left, ...others] = etcd.members;
  await Promise.all(others.map((member) => member.kill()));
  const alone = new Etcd3({ hosts: [left?.host as string], logger: false });
  // What it told before it saw that its leader is gone does not count.
  await expect
    .poll(async () => ((await failed(() => alone.get('k').string())) as unknown as { details: string }).details, {
      timeout: 20_000,
    })
    .toBe('etcdserver: no leader');
  for (const call of [
    () => client.put('k').value('w').exec(),
    () => client.get('k').string(),
    () => alone.put('k').value('w').exec(),
  ]) {
    const error = await failed(call);
    expect(error).toMatchObject({
      name: 'GRPCUnavailableError',
      code: 'ERR_UNAVAILABLE',
      outcomeUnknown: false,
      retryable: true,
    });
    expect(error.message).toContain('etcdserver: no leader');
  }
  // A member answers by itself what it may.
  expect(await alone.get('k').serializable(true).string()).toBe('v');
  await Promise.all(others.map((member) => member.start()));
  await expect
    .poll(
      () =>
        client
          .put('k')
          .value('w')
          .exec()
          .then(
            () => true,
            () => false,
          ),
      { timeout: 20_000 },
    )
    .toBe(true);
  await client.close();
  await alone.close();
  await etcd.close();
});
