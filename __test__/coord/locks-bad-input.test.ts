// What can't be right of locks and elections is refused, with the argument named, before anything is asked of the store.
import { type Coord, connectCoord } from 'rollcall/coord';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { uniqueName } from '../support/process.js';
import { failure } from './kit.js';

const any = (value: unknown): never => value as never;
let coord: Coord;
beforeAll(async () => {
  coord = await connectCoord({ url: `memory://${uniqueName('locks')}` });
});
afterAll(() => coord.close());

function refuses(make: () => unknown, begins: string): void {
  expect(make).toThrow(
    expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT', message: expect.stringContaining(begins) }),
  );
}

test.each([
  ['', 'expected a string that is not empty'],
  ['..', 'expected no part that is ".."'],
  ['a/../b', 'expected no part that is ".."'],
  ['a//b', 'expected no empty part'],
  ['a/', 'expected no empty part'],
  ['/', 'expected no empty part'],
  ['a\nb', 'expected no control characters'],
  ['\ud800', 'expected a string of well-formed Unicode'],
  ['x'.repeat(1024), 'expected at most 1024 bytes'],
  [7, 'expected a string, got number'],
  [undefined, 'expected a string, got undefined'],
])('a key that is %j', async (key, problem) => {
  const { lock, elections } = coord;
  refuses(() => lock.mutex(any(key)), `key: ${problem}`);
  refuses(() => lock.readWrite(any(key)), `key: ${problem}`);
  refuses(() => lock.semaphore(any(key), 1), `key: ${problem}`);
  refuses(() => elections.campaign(any(key)), `name: ${problem}`);
  refuses(() => elections.observe(any(key)), `name: ${problem}`);
  for (const [operation, refused] of [
    ['acquire', lock.acquire(any(key))],
    ['tryAcquire', lock.tryAcquire(any(key))],
    ['withLock', lock.withLock(any(key), () => {})],
  ] as const) {
    const error = await failure(refused);
    expect([error.code, error.operation]).toEqual(['ERR_INVALID_ARGUMENT', operation]);
    expect(error.message).toContain(`key: ${problem}`);
  }
});

test.each([0, -1, 1.5, 1001, Number.NaN, '3', null, undefined, { value: 0 }, { value: '1' }])(
  'permits that are %j',
  (permits) => {
    refuses(() => coord.lock.semaphore('a', any(permits)), 'permits: expected a whole number from 1 to 1000');
  },
);

test('permits that become wrong refuse who acquires', async () => {
  const permits = { value: 1 };
  const semaphore = coord.lock.semaphore('pool', permits);
  permits.value = 0.5;
  expect(await failure(semaphore.acquire())).toMatchObject({
    code: 'ERR_INVALID_ARGUMENT',
    message: expect.stringContaining('permits: expected a whole number from 1 to 1000, got 0.5'),
  });
});

test('options', async () => {
  const { lock, elections } = coord;
  for (const ttlMs of [0, 999, 1000.5, '2000', -1, Number.POSITIVE_INFINITY]) {
    refuses(() => lock.mutex('a', { ttlMs: any(ttlMs) }), 'options.ttlMs: expected a whole number from 1000 to');
    refuses(
      () => elections.campaign('a', { ttlMs: any(ttlMs) }),
      'options.ttlMs: expected a whole number from 1000 to',
    );
  }
  refuses(() => lock.mutex('a', { stallTimeoutMs: 50 }), 'options.stallTimeoutMs: ');
  refuses(() => lock.mutex('a', { name: any(7) }), 'options.name: expected a string, got number');
  refuses(() => lock.mutex('a', any({ ttl: 1 })), 'options.ttl: unknown option');
  refuses(() => elections.campaign('a', { value: any(7) }), 'options.value: expected a string, got number');
  refuses(
    () => elections.campaign('a', any({ keepCampaigning: 1 })),
    'options.keepCampaigning: expected true or false',
  );
  refuses(() => elections.observe('a', any({ signal: 1 })), 'options.signal: expected an AbortSignal');
  const refused = async (promise: Promise<unknown>, text: string) => {
    const error = await failure(promise);
    expect(error.code).toBe('ERR_INVALID_ARGUMENT');
    expect(error.message).toContain(text);
  };
  await refused(lock.acquire('a', { timeoutMs: any(-1) }), 'options.timeoutMs: ');
  await refused(lock.mutex('a').acquire({ signal: any(1) }), 'options.signal: expected an AbortSignal');
  await refused(lock.withLock('a', any(1)), 'fn: expected a function, got number');
  await refused(lock.mutex('a').withLock(any(undefined)), 'fn: expected a function, got undefined');
  expect(await failure(lock.acquire('a', { signal: AbortSignal.abort() }))).toMatchObject({ code: 'ERR_ABORTED' });
});

test('a registry that holds no locks says so', async () => {
  const other = await connectCoord({ url: 'nacos://127.0.0.1:1', lazy: true, logger: false });
  for (const promise of [other.lock.acquire('a'), other.lock.tryAcquire('a'), other.lock.semaphore('a', 2).acquire()]) {
    expect(await failure(promise)).toMatchObject({
      code: 'ERR_UNSUPPORTED',
      message: expect.stringContaining('holds no locks'),
    });
  }
  const campaign = other.elections.campaign('a');
  const error = await new Promise((resolve) => campaign.once('failed', resolve));
  expect(error).toMatchObject({ code: 'ERR_UNSUPPORTED' });
  expect(await failure(other.elections.observe('a').next())).toMatchObject({ code: 'ERR_UNSUPPORTED' });
  await other.close();
});
