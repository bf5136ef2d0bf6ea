// Which instance has applied what.
import { MemoryServer } from 'rollcall';
import { defineConfig } from 'rollcall/coord';
import { expect, test } from 'vitest';
import { inTime, uniqueName } from '../support/process.js';
import { client, failure, inMemory, limits, until } from './kit.js';

const key = '/config/dev/orders/limits';
const definition = defineConfig({ key: '/config/{env}/{service}/limits', schema: limits, default: { max: 1 } });

test('each instance reports what it has applied and what it has refused, and takes that back at its end', async (finish) => {
  const url = `memory://${uniqueName('coord')}`;
  const reporting = (instance: string) => client(finish, url, { instance, reportApplied: true, settleMs: 0 });
  const [a, b] = await Promise.all(['a', 'b'].map(reporting));
  if (!a || !b) throw new Error('two were asked for');
  const watching = await client(finish, url);
  const first = await watching.config.set(key, { max: 2 });
  await a.config.open(definition);
  const ref = await b.config.open(definition);
  ref.beforeChange(({ max }) => {
    if (max === 3) throw new Error('not here');
  });
  const shown = async () =>
    (await watching.config.applied(definition)).map(({ instance, revision, rejected }) => [
      instance,
      revision,
      rejected,
    ]);
  await until('both', async () => (await shown()).length === 2);
  expect(await shown()).toEqual([
    ['a', first, undefined],
    ['b', first, undefined],
  ]);
  const second = await watching.config.set(key, { max: 3 });
  await until('the second', async () => (await shown())[1]?.[2]);
  expect(await shown()).toEqual([
    ['a', second, undefined],
    ['b', first, expect.stringContaining('not here')],
  ]);
  const other = defineConfig({ key: '/config/{env}/{service}/other', schema: limits, default: { max: 1 } });
  expect(await watching.config.applied(other)).toEqual([]);
  await b.close();
  expect(await shown()).toEqual([['a', second, undefined]]);
  ref.close();
});

test('what nobody writes anew is removed, and what is no report is left out', async (finish) => {
  const url = `memory://${uniqueName('coord')}`;
  const watching = await client(finish, url, { history: 0 });
  const folder = '/config-applied/dev/orders/';
  const keys = { [definition.key]: { revision: '7' } };
  const report = (ago: number, content: object = keys) => ({ at: new Date(Date.now() - ago), keys: content });
  await watching.config.setAll({
    [`${folder}fresh`]: report(3_000_000),
    [`${folder}killed`]: report(4_000_000),
    [`${folder}odd`]: report(0, { [definition.key]: { revision: -1 } }),
    [`${folder}text`]: 'no JSON',
  });
  expect((await watching.config.applied(definition)).map(({ instance }) => instance)).toEqual(['fresh', 'killed']);
  const a = await client(finish, url, { instance: 'a', reportApplied: true });
  await a.config.open(definition);
  await until('the report', async () => (await watching.config.raw(`${folder}a`)) !== null);
  expect((await watching.config.list(folder)).map((entry) => entry.key.slice(folder.length))).toEqual([
    'a',
    'fresh',
    'odd',
  ]);
});

test('a store that is away is logged, and the end of the client does not wait for it', async (finish) => {
  const namespace = uniqueName('coord');
  const server = MemoryServer.of(namespace);
  const logs: string[] = [];
  const logger = { warn: (text: string) => logs.push(text) };
  const a = await client(finish, `memory://${namespace}`, {
    instance: 'a',
    reportApplied: true,
    timeoutMs: 300,
    logger,
  });
  await a.config.open(definition);
  server.setAway(true);
  await until('a failure', () => logs.some((text) => text.includes('could not be reported')));
  const start = performance.now();
  await a.close();
  expect(performance.now() - start).toBeLessThan(inTime(1500));
});

test('who reports says who it is', async (finish) => {
  const none = { instance: undefined, reportApplied: true };
  expect((await failure(inMemory(finish, none))).message).toMatch(
    /^options.instance: expected the name of this instance/,
  );
  const nameless = { instance: 'a', service: undefined, reportApplied: true };
  expect((await failure(inMemory(finish, nameless))).message).toMatch(
    /^options.service: expected the name of the service/,
  );
});
