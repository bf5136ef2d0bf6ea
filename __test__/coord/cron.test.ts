// Cron jobs: each tick once, whoever has the job; what is missed, and who is told of it.
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { CronJob, RunCoordinator } from 'rollcall/coord';
import { describe, expect, test } from 'vitest';
import { installed } from '../packaging/tools.js';
import { uniqueName, within } from '../support/process.js';
import { noting } from './cron-kit.js';
import { client, failure, HOLDING, placed, until } from './kit.js';

const seconds = (from: number, to: number) =>
  Array.from({ length: Math.max(0, (to - from) / 1000 + 1) }, (_, i) => from + i * 1000);

describe.each(HOLDING)('%s', (_, start) => {
  const place = placed(start);

  test('each tick runs once among three, whose clocks differ, with a token that grows', async (finish) => {
    const name = uniqueName();
    const jobs = await Promise.all(
      [0, 700, -800].map(async (ahead) =>
        noting(await client(finish, place.url), name, { now: () => Date.now() + ahead }),
      ),
    );
    const all = () => jobs.flatMap(({ ran }) => ran).sort((a, b) => Number(a.token - b.token));
    await until('four ticks', () => all().length >= 4);
    await Promise.all(jobs.map(({ job }) => job.stop()));
    const ticks = all().map(({ at }) => at);
    expect(new Set(ticks).size).toBe(ticks.length);
    expect(ticks.every((at) => at % 1000 === 0)).toBe(true);
    expect(new Set(all().map(({ token }) => token)).size).toBe(ticks.length);
    expect(jobs.flatMap(({ failed }) => failed)).toEqual([]);
  });

  test('a program that was away is told what was missed; what becomes of it, catchUp says', async (finish) => {
    const coord = await client(finish, place.url);
    const name = uniqueName();
    let ahead = 0;
    const now = () => Date.now() + ahead;
    const first = noting(coord, name, { now });
    await until('a tick', () => first.ran.length > 0);
    await first.job.stop();
    let last = first.ran.at(-1)?.at as number;
    expect(first.ran[0]?.missed).toEqual([]);

    for (const catchUp of ['none', 'last'] as const) {
      ahead += 30_000;
      const { job, ran, failed } = noting(coord, name, { now, catchUp });
      await until('two ticks', () => ran.length > 1);
      await job.stop();
      const [one, two] = ran as [(typeof ran)[number], (typeof ran)[number]];
      expect([catchUp, one.missed]).toEqual([catchUp, seconds(last + 1000, one.at - 1000)]);
      expect(one.missed.length).toBeGreaterThanOrEqual(29);
      expect([two.at, two.missed, failed]).toEqual([one.at + 1000, [], []]);
      last = ran.at(-1)?.at as number;
    }

    const before = noting(coord, `${name}-all`, { now });
    await until('a tick', () => before.ran.length > 0);
    await before.job.stop();
    last = before.ran.at(-1)?.at as number;
    ahead += 10_000;
    const all = noting(coord, `${name}-all`, { now, catchUp: 'all' });
    await until('all ticks', () => all.ran.length > 11);
    await all.job.stop();
    const ticks = all.ran.map(({ at }) => at);
    expect(ticks).toEqual(seconds(last + 1000, ticks.at(-1) as number));
    expect(all.ran.flatMap(({ missed }) => missed)).toEqual([]);
  });

  test('who begins is not told of ticks before anybody had the job, and older ones than maxCatchUpMs are left', async (finish) => {
    const coord = await client(finish, place.url);
    const name = uniqueName();
    let ahead = 0;
    const now = () => Date.now() + ahead;
    const first = noting(coord, name, { now, catchUp: 'all' });
    await until('a tick', () => first.ran.length > 0);
    await first.job.stop();
    expect(first.ran[0]?.missed).toEqual([]);
    expect(first.ran.length).toBe(1);
    ahead = 60_000;
    const { job, ran } = noting(coord, name, { now, catchUp: 'last', maxCatchUpMs: 10_000 });
    await until('a tick', () => ran.length > 0);
    await job.stop();
    expect(ran[0]?.missed.length).toBeGreaterThanOrEqual(8);
    expect(ran[0]?.missed.length).toBeLessThanOrEqual(10);
  });

  test('a job that throws fails with it and goes on; one that is too slow is told so', async (finish) => {
    const coord = await client(finish, place.url);
    const broken = noting(coord, uniqueName(), {
      run: () => {
        throw new Error('broken');
      },
    });
    let reason: unknown;
    const slow = noting(coord, uniqueName(), {
      timeoutMs: 50,
      run: async ({ signal }) => {
        await new Promise((resolve) => signal.addEventListener('abort', resolve));
        reason = signal.reason;
      },
    });
    await until('both to fail twice', () => broken.failed.length > 1 && slow.failed.length > 1);
    expect(broken.failed[0]?.message).toBe('broken');
    expect(slow.failed[0]).toMatchObject({ code: 'ERR_TIMEOUT', operation: 'cron' });
    expect(reason).toMatchObject({ code: 'ERR_TIMEOUT' });
    expect(broken.ran.length).toBeGreaterThan(1);
  });

  test('stop and close fire the signal, wait for what runs, and free the name', async (finish) => {
    const coord = await client(finish, place.url);
    const name = uniqueName();
    let [isOver, isAborted] = [false, false];
    const { job, ran, failed } = noting(coord, name, {
      run: async ({ signal }) => {
        await new Promise((resolve) => signal.addEventListener('abort', resolve));
        isAborted = true;
        await sleep(50);
        isOver = true;
      },
    });
    await until('it to run', () => job.running);
    expect(() => coord.cron(name, '* * * * *', () => {})).toThrow('name: expected another one');
    await job.stop();
    expect([isAborted, isOver, job.running, job.next, failed]).toEqual([true, true, false, undefined, []]);
    isOver = false;
    noting(coord, name, {
      run: async ({ signal }) => {
        await new Promise((resolve) => signal.addEventListener('abort', resolve));
        await coord.config.raw('/a'); // what closes last is still there
        isOver = true;
      },
    });
    await until('the next', async () => {
      const record = JSON.parse((await coord.config.raw(`/cron/${name}`))?.value as string);
      return record.running.length > 0;
    });
    await coord.close();
    expect(isOver).toBe(true);
    expect(ran.length).toBe(1);
    expect(() => coord.cron(name, '* * * * *', () => {})).toThrow(
      expect.objectContaining({ code: 'ERR_CLOSED', operation: 'cron' }),
    );
  });

  test('the store is away at a tick: it is missed, or run when the store is back, once', async (finish) => {
    const coord = await client(finish, place.url, { timeoutMs: 1000 });
    const { job, ran } = noting(coord, uniqueName(), {});
    await until('a tick', () => ran.length > 0);
    await place.away();
    await sleep(2100);
    await place.back();
    const before = ran.length;
    await until('two more', () => ran.length > before + 1);
    await job.stop();
    const told = ran.flatMap(({ at, missed }) => [...missed, at]);
    expect(told).toEqual(seconds(ran[0]?.at as number, ran.at(-1)?.at as number));
  });

  test('with a leader it alone runs, and the next one goes on', async (finish) => {
    const name = uniqueName();
    const [one, two] = [
      noting(await client(finish, place.url), name, { mode: 'leader' }),
      noting(await client(finish, place.url), name, { mode: 'leader' }),
    ];
    await until('two ticks', () => one.ran.length + two.ran.length >= 2);
    const [leads, waits] = one.ran.length > 0 ? [one, two] : [two, one];
    expect(waits.ran).toEqual([]);
    await leads.job.stop();
    const count = leads.ran.length;
    await until('the other to go on', () => waits.ran.length > 1);
    expect(leads.ran.length).toBe(count);
    const ticks = [...leads.ran, ...waits.ran].map(({ at }) => at);
    expect(new Set(ticks).size).toBe(ticks.length);
    expect((waits.ran[0]?.token as bigint) > (leads.ran.at(-1)?.token as bigint)).toBe(true);
  });

  test('a run of node-cron is one coordinator’s, and stays its own', async (finish) => {
    const coordinators = [
      (await client(finish, place.url)).runCoordinator(),
      (await client(finish, place.url)).runCoordinator(),
    ];
    const key = `${uniqueName()}:a/b:2026-11-29T03:00:00.000Z`;
    const ask = () => Promise.all(coordinators.map((one) => one.shouldRun(key, 30_000)));
    expect((await ask()).sort()).toEqual([false, true]);
    expect(await ask()).toEqual([false, false]);
    for (const one of coordinators) await one.onComplete(key);
    expect(await ask()).toEqual([false, false]);
    const [one] = coordinators as [RunCoordinator, RunCoordinator];
    expect(await failure(one.shouldRun('backup', 30_000))).toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
      operation: 'shouldRun',
    });
  });
});

interface NodeCronTask {
  on(event: string, listener: () => void): void;
  destroy(): unknown;
}

test('node-cron itself, of three instances: one runs, the others skip', async (finish) => {
  const [, start] = HOLDING[1] as (typeof HOLDING)[number];
  const place = await start();
  finish.onTestFinished(() => place.close());
  const folder = await installed('node-cron', ['node-cron@4.6.0']);
  const { schedule } = createRequire(join(folder, 'package.json'))('node-cron') as {
    schedule(expression: string, run: (context: { date: Date }) => unknown, options: object): NodeCronTask;
  };
  const ran: number[] = [];
  const skipped: string[] = [];
  for (let i = 0; i < 3; i++) {
    const coord = await client(finish, place.url);
    const task = schedule('* * * * * *', ({ date }) => ran.push(Math.floor(Number(date) / 1000)), {
      name: 'backup',
      distributed: true,
      runCoordinator: coord.runCoordinator(),
    });
    task.on('execution:skipped', () => skipped.push(`${i}`));
    finish.onTestFinished(async () => void (await task.destroy()));
  }
  await until('three runs, and those who skip them', () => ran.length >= 3 && skipped.length >= 6);
  expect(new Set(ran).size).toBe(ran.length);
});

test('a job says when it is due next, and needs no timer of more than 24.8 days', async (finish) => {
  const [, start] = HOLDING[0] as (typeof HOLDING)[number];
  const coord = await client(finish, (await start()).url);
  const clock = { now: Date.UTC(2026, 0, 1) };
  const run = (name: string, expression: string, timezone?: string): CronJob =>
    coord.cron(name, expression, () => {}, { now: () => clock.now, timezone });
  expect(run('a', '0 0 1 12 *').next).toEqual(new Date(Date.UTC(2026, 11, 1)));
  expect(run('b', '30 2 * * *', 'Europe/Berlin').next).toEqual(new Date(Date.UTC(2026, 0, 1, 1, 30)));
  const far = noting(coord, 'c', { expression: '0 0 1 12 *', now: () => clock.now });
  await sleep(50); // beyond 24.8 days a timer of Node.js fires at once
  expect(far.ran).toEqual([]);
  await within(far.job.stop(), 1000, 'the end');
});
