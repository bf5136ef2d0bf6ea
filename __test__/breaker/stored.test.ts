// Policies that lie in a store: what is told of those that are wrong, who may name one path, and a store that was away at the start.

import { type Breakers, createBreakers, type StoredPolicies } from 'rollcall/breaker';
import { connectCoord, defineConfig } from 'rollcall/coord';
import { expect, test } from 'vitest';
import { client, type Finish, failure, inMemory, until } from '../coord/kit.js';
import { startEtcd } from '../support/etcd.js';

const PATH = '/config/dev/orders/breakers/';
const AJAR = { force: 'ajar' };

function stored({ onTestFinished }: Finish, policies: unknown): Breakers {
  const breakers = createBreakers({ policies: policies as StoredPolicies, logger: false });
  onTestFinished(() => breakers.close());
  return breakers;
}

/** The names of policies that were refused. */
function refusedOf(breakers: Breakers): string[] {
  const names: string[] = [];
  breakers.on('refused', (name) => names.push(name));
  return names;
}

test('each policy that is wrong is told by the name of its breaker, also what was wrong at the start', async (finish) => {
  const coord = await inMemory(finish);
  await coord.config.set(`${PATH}first.json`, AJAR);
  const breakers = stored(finish, { coord, path: PATH });
  const refused = refusedOf(breakers);
  await breakers.ready();
  expect(refused).toEqual(['first']);
  // Those that were wrong before it stand beside it in the error, in the order of their names.
  for (const name of ['zebra', 'ant', 'mule']) {
    const told = refused.length;
    await coord.config.set(`${PATH}${name}.json`, AJAR);
    await until('it to be told', () => refused.length > told);
    expect(refused.slice(told)).toEqual([name]);
  }
});

test('two that name one path have the same policies, and one that is closed takes nothing from the other', async (finish) => {
  const coord = await inMemory(finish);
  const path = PATH.slice(0, -1);
  const [one, other] = [stored(finish, { coord, path }), stored(finish, { coord, path: PATH })];
  await Promise.all([one.ready(), other.ready()]);
  const closed = stored(finish, { coord, path });
  closed.close(); // while it is opened
  const next = stored(finish, { coord, path });
  await next.ready();
  one.close();
  await coord.config.set(`${PATH}users.json`, { force: 'open' });
  await until('both to have it', () => [other, next].every((breakers) => breakers.get('users').state === 'open'));
  expect(one.get('users').state).toBe('closed');
});

test('who is told of policies may close them: nothing stays open', async (finish) => {
  const coord = await inMemory(finish);
  const breakers = stored(finish, { coord, path: PATH });
  breakers.on('policies', () => breakers.close());
  await breakers.ready();
  const schema = { '~standard': { version: 1, vendor: 'test', validate: (value: unknown) => ({ value }) } } as const;
  const ref = await coord.config.open(defineConfig({ key: PATH, schema })); // another definition of that key
  ref.close();
});

test('a store that is away at the start: ready() rejects, and the policies are taken when it is there', async (finish) => {
  const etcd = await startEtcd();
  finish.onTestFinished(() => etcd.close());
  await etcd.put(`${PATH}users.json`, '{"force":"open"}');
  const coord = await client(finish, etcd.url, { connectTimeoutMs: 500 });
  await etcd.kill();
  const breakers = stored(finish, { coord, path: PATH });
  expect(await failure(breakers.ready())).toMatchObject({ code: 'ERR_UNAVAILABLE' });
  expect(breakers.get('users').state).toBe('closed');
  await etcd.start();
  await until('the policies', () => breakers.get('users').state === 'open');
  await breakers.ready();
});

test('nobody asks for what was closed, or is refused', async (finish) => {
  const opens: unknown[] = [];
  const error = Object.assign(new Error('away'), { code: 'ERR_UNAVAILABLE', retryable: true });
  const config = {
    open: (definition: unknown) => {
      opens.push(definition);
      return Promise.reject(error);
    },
  };
  const breakers = stored(finish, { coord: { config }, path: PATH });
  expect(await failure(breakers.ready())).toBe(error);
  await until('it to be asked again', () => opens.length >= 2);
  breakers.close();
  const asked = opens.length;
  error.retryable = false;
  const refused = stored(finish, { coord: { config }, path: PATH });
  await failure(refused.ready());
  await new Promise((resolve) => setTimeout(resolve, 2500)); // more than two pauses
  expect(opens.length).toBe(asked + 1);
});

test('what is no place of policies is refused at once, by what is wrong with it', async (finish) => {
  const coord = await inMemory(finish);
  const path = 'options.policies.path: expected';
  for (const [policies, message] of [
    [{ coord }, `${path} a string, got undefined`],
    [{ coord, path: 5 }, `${path} a string, got number`],
    [{ coord, path: '' }, `${path} a string that is not empty`],
    [{ coord, path: 'breakers' }, `${path} a key of at least two parts`],
    [{ coord, path: '/' }, `${path} a key of at least two parts`],
    [{ coord, path: '/config/{evn}/breakers/' }, `${path} nothing else in braces`],
    [{ path: PATH }, 'options.policies.coord: expected a client of rollcall/coord, got undefined'],
    [{ coord: connectCoord, path: PATH }, 'options.policies.coord: expected a client of rollcall/coord, got function'],
    [
      { value: {}, subscribe: () => ({ unsubscribe() {} }) },
      'options.policies: expected subscribe() to give a function',
    ],
  ] as const) {
    expect(() => createBreakers({ policies: policies as never, logger: false })).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT', message: expect.stringContaining(message) }),
    );
  }
});
