// What can't be right of cron jobs is refused, with the argument named, before anything is asked of the store.
import { createRequire } from 'node:module';
import { type Coord, connectCoord } from 'rollcall/coord';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { uniqueName } from '../support/process.js';
import { noting } from './cron-kit.js';
import { client, until } from './kit.js';

const any = (value: unknown): never => value as never;
let coord: Coord;
beforeAll(async () => {
  coord = await connectCoord({ url: `memory://${uniqueName('cron')}`, logger: false });
});
afterAll(() => coord.close());

function refuses(
  given: Partial<{ name: unknown; expression: unknown; run: unknown; options: unknown }>,
  begins: string,
) {
  const { name, expression, run, options } = { name: 'job', expression: '0 3 * * *', run: () => {}, ...given };
  expect(() => coord.cron(any(name), any(expression), any(run), any(options))).toThrow(
    expect.objectContaining({
      code: 'ERR_INVALID_ARGUMENT',
      operation: 'cron',
      message: expect.stringContaining(begins),
    }),
  );
}

test.each([
  ['', 'name: expected no empty part'],
  ['..', 'name: expected no part that is ".."'],
  ['a/b', 'name: expected no "/"'],
  ['a\nb', 'name: expected no control characters'],
  ['x'.repeat(1024), 'name: expected at most 1024 bytes'],
  [7, 'name: expected a string, got number'],
  [undefined, 'name: expected a string, got undefined'],
])('a name that is %j', (name, problem) => refuses({ name }, problem));

test.each([
  ['', 'expression: expected five to seven fields'],
  ['nonsense', 'expression: expected five to seven fields'],
  ['2030-01-01T00:00:00', 'expression: expected five to seven fields'],
  ['61 * * * *', 'expression: expected a cron expression'],
  ['a b c d e', 'expression: expected a cron expression'],
  ['@reboot', 'expression: expected a cron expression'],
  ['0 0 30 2 *', 'expression: expected one that is due some time'],
  ['0 0 0 1 1 * 2020', 'expression: expected one that is due some time'],
  [`${'0,'.repeat(200)}0 * * * *`, 'expression: expected at most 256 characters'],
  [7, 'expression: expected a cron expression such as "0 3 * * *", got number'],
])('an expression that is %j', (expression, problem) => refuses({ expression }, problem));

test.each([
  [{ timezone: 'Nowhere/Town' }, 'options.timezone: expected the name of a time zone'],
  [{ timezone: 7 }, 'options.timezone: expected the name of a time zone, such as "Europe/Berlin", got number'],
  [{ mode: 'twice' }, 'options.mode: expected "once" or "leader"'],
  [{ catchUp: true }, 'options.catchUp: expected "none" or "last" or "all"'],
  [{ maxCatchUpMs: 10 }, 'options.maxCatchUpMs: expected a whole number from 1000'],
  [{ timeoutMs: -1 }, 'options.timeoutMs: expected 0 (off) or a whole number'],
  [{ now: 7 }, 'options.now: expected a function, got number'],
  [{ timeZone: 'UTC' }, 'options.timeZone: unknown option; did you mean "timezone"?'],
  [7, 'options: expected an object, got number'],
])('options that are %j', (options, problem) => refuses({ options }, problem));

test('no function, two jobs of one name, an event that does not exist', () => {
  refuses({ run: undefined }, 'fn: expected a function, got undefined');
  const job = coord.cron('twice', '0 3 * * *', () => {});
  refuses({ name: 'twice' }, 'name: expected another one');
  expect(() => job.on(any('errors'), () => {})).toThrow('event: expected one of "failed"');
});

test('a backend that holds no locks tells ERR_UNSUPPORTED, and the job is over', async (finish) => {
  const other = await client(finish, 'zookeeper://127.0.0.1:1', { lazy: true });
  const { job, failed } = noting(other, 'job');
  await until('it to fail', () => failed.length > 0);
  expect(failed[0]).toMatchObject({ code: 'ERR_UNSUPPORTED' });
  expect(job.next).toBeUndefined();
});

test('a record that is none runs nothing, and is told', async (finish) => {
  const own = await client(finish, `memory://${uniqueName('cron')}`);
  for (const text of [
    '',
    '{}',
    '{"spans":[[2,1]],"running":[],"token":"1"}',
    '{"spans":[["a",1]],"running":[],"token":"1"}',
  ]) {
    await own.config.set('/cron/job', text);
    const { job, ran, failed } = noting(own, 'job');
    await until('it to fail', () => failed.length > 0);
    await job.stop();
    expect([ran, failed[0]]).toEqual([[], expect.objectContaining({ code: 'ERR_BAD_RECORD', key: '/cron/job' })]);
  }
});

const load = createRequire(import.meta.url);
const records = load('../../dist/cjs/coord/cron/record.js') as typeof import('../../lib/coord/cron/record.js');
const { expressionOf } = load(
  '../../dist/cjs/coord/cron/expression.js',
) as typeof import('../../lib/coord/cron/expression.js');

test('a record does not grow, keeps every claim for ever, and one clock that is wrong takes nobody’s ticks', () => {
  const { next, last } = expressionOf('* * * * * *', undefined, 0);
  const day = 24 * 60 * 60 * 1000;
  const begin = Date.UTC(2026, 0, 1);
  let record = records.EMPTY;
  const ticks = Array.from({ length: 2000 }, (_, i) => begin + i * 1000);
  for (const [i, at] of ticks.entries()) {
    if (i % 7 === 3) continue;
    expect(records.isClaimed(record, at)).toBe(false);
    record = records.settled(records.claimed(record, at, BigInt(i), next), at, BigInt(i));
    // A clock that is a year ahead claims beside it.
    const wrong = at + 365 * day;
    record = records.settled(records.claimed(record, wrong, BigInt(i), next), wrong, BigInt(i));
  }
  expect(ticks.filter((at, i) => i % 7 !== 3 && !records.isClaimed(record, at))).toEqual([]);
  expect(records.isClaimed(record, (ticks.at(-1) as number) + 1000)).toBe(false);
  expect(records.textOf(record).length).toBeLessThan(1500);
  expect(records.recordOf(records.textOf(record))).toEqual(record);
  for (let i = 0; i < 100; i++) record = records.claimed(record, begin + i * day, BigInt(i));
  expect(records.textOf(record).length).toBeLessThan(3000);
  expect(records.openBefore(records.begun(begin), begin + 3000, { next, last }, 0, 256, true)).toEqual([
    begin + 1000,
    begin + 2000,
  ]);
});

test.each([
  ['30 2 * * *', 'Europe/Berlin'],
  ['*/15 * * * *', 'Europe/Berlin'],
  ['0 30 1 * * *', 'America/New_York'],
  ['*/7 1-3 * * *', 'Australia/Lord_Howe'],
])('%s in %s: what comes last is what came next, also where clocks are set', (text, zone) => {
  const { next, last } = expressionOf(text, zone, 0);
  for (const day of ['2026-03-07', '2026-03-28', '2026-04-04', '2026-10-03', '2026-10-24', '2026-10-31']) {
    const [from, to] = [Date.parse(`${day}T00:00:00Z`), Date.parse(`${day}T00:00:00Z`) + 48 * 60 * 60 * 1000];
    const [forth, back]: [number[], number[]] = [[], []];
    for (let at = next(from); at !== undefined && at <= to; at = next(at)) forth.push(at);
    for (let at = last(to); at !== undefined && at > from; at = last(at - 1)) back.unshift(at);
    expect(back).toEqual(forth);
  }
});
