// Ticks at which another scheduler calls, as `@OncePerTick()` has them: which tick a call is of, and who runs it.
import { createRequire } from 'node:module';
import type { Coord, CronTick } from 'rollcall/coord';
import { describe, expect, test } from 'vitest';
import { uniqueName, within } from '../support/process.js';
import { noting } from './cron-kit.js';
import { client, type Finish, failure, HOLDING, placed, until } from './kit.js';

const require = createRequire(import.meta.url);
const { MethodTicks } = require('../../dist/cjs/frameworks/once-per-tick.js');
const { planOf } = require('../../dist/cjs/coord/cron/options.js');

const THREE = Date.UTC(2026, 10, 29, 3);
const DAY_MS = 24 * 60 * 60 * 1000;

/** What an application does with the ticks of one method, by a clock of its own. */
function scheduled(coord: Coord, name: string, clock: { now: number } | undefined, expression = '0 3 * * *') {
  const logged: string[] = [];
  const ticks = new MethodTicks(coord, { log: () => {}, error: () => {}, warn: (text: string) => logged.push(text) });
  const plan = planOf(name, expression, () => {}, clock && { now: () => clock.now });
  const nothing = async (tick: CronTick): Promise<unknown> => Number(tick.at);
  return {
    logged,
    call: (work = nothing): Promise<unknown> => ticks.run({ plan, path: 'a test' }, work),
    leave: (): Promise<void> => ticks.leave(),
  };
}

const recordOf = async (coord: Coord, name: string) => {
  const record = JSON.parse((await coord.config.raw(`/cron/${name}`))?.value ?? '{"running":[]}');
  return record as { spans: number[][]; running: unknown[] };
};

/** Resolves when its signal fires. */
const untilTold = ({ signal }: CronTick) => new Promise((resolve) => signal.addEventListener('abort', resolve));

describe.each(HOLDING)('%s', (_, start) => {
  const place = placed(start);
  const clients = (finish: Finish, count: number) =>
    Promise.all(Array.from({ length: count }, () => client(finish, place.url)));

  test('all whose schedulers call for a tick mean the same one, and one of them runs it', async (finish) => {
    const name = uniqueName();
    // On time, woken a little early, held up, and behind a blocked event loop.
    const clocks = [0, -60, 3000, 50_000].map((late) => ({ now: THREE + late }));
    const coords = await clients(finish, clocks.length);
    const all = coords.map((coord, turn) => scheduled(coord, name, clocks[turn]));
    const call = async () => (await Promise.all(all.map((one) => one.call()))).filter((at) => at !== undefined);
    expect(await call()).toEqual([THREE]);
    expect(await call(), 'once more').toEqual([]);
    for (const clock of clocks) clock.now += DAY_MS;
    expect(await call(), 'the next day').toEqual([THREE + DAY_MS]);
    const [clock] = clocks as [{ now: number }];
    clock.now -= DAY_MS;
    expect(await all[0]?.call(), 'a clock that was set back').toBeUndefined();
  });

  test('a call is of the latest tick that is not more than 100 ms ahead, however long ago it was', async (finish) => {
    const [coord] = (await clients(finish, 1)) as [Coord];
    const clock = { now: THREE - 101 };
    const { call } = scheduled(coord, uniqueName(), clock);
    expect(await call()).toBe(THREE - DAY_MS);
    clock.now = THREE - 100;
    expect(await call()).toBe(THREE);
    clock.now = THREE + DAY_MS + DAY_MS / 2;
    expect(await call()).toBe(THREE + DAY_MS);
    const before = scheduled(coord, uniqueName(), { now: THREE }, '0 0 3 1 1 * 2030');
    expect(await before.call(), 'before the first of all').toBeUndefined();
  });

  test('the record is that of a job and of a run of node-cron, of the same name', async (finish) => {
    const [coord, other] = (await clients(finish, 2)) as [Coord, Coord];
    const name = uniqueName();
    const { call } = scheduled(coord, name, { now: THREE });
    const nodeCron = other.runCoordinator();
    expect(await call()).toBe(THREE);
    expect(await nodeCron.shouldRun(`${name}:${new Date(THREE).toISOString()}`, 30_000)).toBe(false);
    expect(await nodeCron.shouldRun(`${name}:${new Date(THREE + DAY_MS).toISOString()}`, 30_000)).toBe(true);
    const next = scheduled(coord, name, { now: THREE + DAY_MS });
    expect(await within(next.call(), 5000, 'the answer'), 'while the other runs it').toBeUndefined();

    const jobs = uniqueName();
    const at = (now: number) => scheduled(coord, jobs, { now }, '* * * * * *');
    const first = noting(other, jobs);
    await until('a tick of the job', () => first.ran.length > 0);
    await first.job.stop();
    const last = first.ran.at(-1)?.at as number;
    expect(await at(last).call(), 'what the job has run').toBeUndefined();
    const ours = Math.ceil(Date.now() / 1000) * 1000 + 2000;
    expect(await at(ours).call()).toBe(ours);
    const second = noting(other, jobs);
    await until('a later tick of the job', () => second.ran.some((tick) => tick.at > ours));
    await second.job.stop();
    expect(second.ran.flatMap((tick) => [...tick.missed, tick.at])).not.toContain(ours);
  });

  test('the method gets the tick: its time, a token that grows, and what was missed', async (finish) => {
    const [coord] = (await clients(finish, 1)) as [Coord];
    const clock = { now: THREE };
    const name = uniqueName();
    const { call } = scheduled(coord, name, clock);
    const told: CronTick[] = [];
    const note = async (tick: CronTick) => told.push(tick);
    await call(note);
    clock.now = THREE + 3 * DAY_MS;
    await call(note);
    expect(told.map(({ at }) => Number(at))).toEqual([THREE, THREE + 3 * DAY_MS]);
    // Those of the last 24 hours.
    expect(told.map(({ missed }) => missed.map(Number))).toEqual([[], [THREE + 2 * DAY_MS]]);
    expect((told[1] as CronTick).token > (told[0] as CronTick).token).toBe(true);
    expect(await recordOf(coord, name)).toMatchObject({ running: [] });
  });

  test('a method that throws has run, and so has one whose application ends or dies in the middle', async (finish) => {
    const [coord, other, dying] = (await clients(finish, 3)) as [Coord, Coord, Coord];
    const name = uniqueName();
    const clock = { now: THREE };
    const here = scheduled(coord, name, clock);
    const there = scheduled(other, name, clock);
    const broken = new Error('broken');
    expect(await failure(here.call(() => Promise.reject(broken)))).toBe(broken);
    expect([await here.call(), await there.call()]).toEqual([undefined, undefined]);
    expect(await recordOf(coord, name)).toMatchObject({ running: [] });

    clock.now += DAY_MS;
    const dies = scheduled(dying, name, clock);
    const call = failure(dies.call(untilTold));
    await until('it to run', async () => (await recordOf(coord, name)).running.length > 0);
    await dying.close(); // without a wait for its methods, as an application has it
    expect(await call).toMatchObject({ code: 'ERR_LOCK_LOST' });
    expect([await here.call(), await there.call()]).toEqual([undefined, undefined]);
  });

  test('at the end of the application what runs is told and waited for, and nothing is begun or claimed', async (finish) => {
    const [coord, other] = (await clients(finish, 2)) as [Coord, Coord];
    const name = uniqueName();
    const clock = { now: THREE };
    const here = scheduled(coord, name, clock);
    const order: unknown[] = [];
    const call = here.call(async (tick) => {
      await untilTold(tick);
      order.push(tick.signal.reason.code);
      await coord.config.raw('/a'); // which is still there
    });
    await until('it to run', async () => (await recordOf(coord, name)).running.length > 0);
    await here.leave().then(() => order.push('left'));
    await call;
    expect(order).toEqual(['ERR_ABORTED', 'left']);
    expect(await recordOf(coord, name)).toMatchObject({ running: [] });
    clock.now += DAY_MS;
    expect(await here.call()).toBeUndefined();
    expect(await scheduled(other, name, clock).call(), 'by another instance').toBe(THREE + DAY_MS);
    expect(here.logged).toEqual([]);
  });

  test('who waits for a store when the application ends does not run', async (finish) => {
    const coord = await client(finish, place.url, { timeoutMs: 500 });
    const { call, leave } = scheduled(coord, uniqueName(), { now: THREE });
    await place.away();
    try {
      const waits = call();
      await within(leave(), 5000, 'the end');
      expect(await waits).toBeUndefined();
    } finally {
      await place.back();
    }
  });

  test('a store that is away is asked again until the next tick is due', async (finish) => {
    const coord = await client(finish, place.url, { timeoutMs: 500 });
    const name = uniqueName();
    const rare = scheduled(coord, name, { now: THREE });
    const often = scheduled(coord, `${name}-often`, undefined, '* * * * * *');
    await place.away();
    try {
      const waits = rare.call();
      const error = await within(failure(often.call()), 5000, 'the end of a second');
      expect(error.retryable).toBe(true);
      await place.back();
      expect(await waits).toBe(THREE);
    } finally {
      await place.back();
    }
    expect(await rare.call()).toBeUndefined();
  });
});

test('two methods of one name are refused, but not a method of which there are many', () => {
  const ticks = new MethodTicks({}, {});
  const [one, two] = ['nightly', 'hourly'].map((name) => planOf(name, '0 3 * * *', () => {}, undefined));
  const at = (path: string, plan: unknown) => ({ path, plan });
  ticks.start([at('@OncePerTick on A.run', one), at('@OncePerTick on A.run', one), at('@OncePerTick on B.run', two)]);
  expect(() => ticks.start([at('@OncePerTick on A.run', one), at('@OncePerTick on B.run', one)])).toThrow(
    expect.objectContaining({
      code: 'ERR_INVALID_ARGUMENT',
      message:
        '@OncePerTick on B.run: name: expected another one than that of @OncePerTick on A.run, for a tick of nightly is run once',
    }),
  );
});
