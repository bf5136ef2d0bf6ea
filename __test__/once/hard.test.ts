// Doing things once among processes that are killed and stopped, and stores that are killed, stopped and emptied.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type Finish, FULL, failure, until } from '../coord/kit.js';
import { type Script, temporaryFolder, uniqueName, untilStopped } from '../support/process.js';
import { doer, type Line, type Order, onceOf, placed, SHARED, storeOn } from './kit.js';

const TTL_MS = 600_000;
/** The time of a lock here: so long it takes until a run that died is taken over. etcd has no less than 2 s, as a rule. */
const LOCK_MS = 2000;

/** A file that runs add a line to. */
function effectsIn({ onTestFinished }: Finish) {
  const folder = temporaryFolder('rollcall-once-');
  onTestFinished(() => folder.remove());
  const path = join(folder.path, 'effects');
  const lines = (key: string): string[] => {
    try {
      return readFileSync(path, 'utf8')
        .split('\n')
        .filter((line) => line.startsWith(`${key} `));
    } catch {
      return [];
    }
  };
  return { path, count: (key: string) => lines(key).length };
}

const all = (scripts: readonly Script<Line>[], key: string, event: Line['event']): Line[] =>
  scripts.flatMap(({ seen }) => seen.filter((line) => line.event === event && line.key === key));

const next = (script: Script<Line>, key: string, ...events: Line['event'][]): Promise<Line> =>
  script.line((line) => line.key === key && events.includes(line.event), {
    timeoutMs: 60_000,
    what: events.join(' or '),
  });

const stop = ({ pid }: Script<Line>): void => {
  process.kill(pid, 'SIGSTOP');
  untilStopped(pid);
};

describe.each(SHARED)('%s', (_, start) => {
  const place = placed(start);
  const many = (finish: Finish, count: number) =>
    Promise.all(Array.from({ length: count }, () => doer(finish, place())));
  /** Another who asks, in this process. */
  const other = async (finish: Finish, storeTimeoutMs?: number) =>
    onceOf(finish, await storeOn(finish, place(), storeTimeoutMs));

  test('a thousand callers in eight processes, one effect, and all have what came of it', async (finish) => {
    const effects = effectsIn(finish);
    const scripts = await many(finish, 8);
    for (let round = 0; round < (FULL ? 10 : 2); round++) {
      const key = uniqueName('crowd');
      const order: Order = { key, callers: 125, takesMs: 200, effects: effects.path };
      for (const script of scripts) script.send(order);
      await until('all of them', () => all(scripts, key, 'done').length === 1000);
      expect(effects.count(key)).toBe(1);
      const told = all(scripts, key, 'done');
      expect(new Set(told.map(({ value }) => JSON.stringify(value))).size).toBe(1);
      expect(told.filter(({ how }) => how === 'ran').length).toBe(1);
    }
  });

  test('runners are killed at any moment: no more effects than runs, and with "unknown" never two', async (finish) => {
    const effects = effectsIn(finish);
    const rounds = FULL ? 20 : 5;
    const once = await other(finish);
    await Promise.all(
      (['retry', 'unknown'] as const).flatMap((afterCrash) =>
        Array.from({ length: rounds }, async (_, round) => {
          const key = uniqueName(afterCrash);
          const options = { lockMs: LOCK_MS, afterCrash };
          const killed = await doer(finish, place());
          killed.send({ key, takesMs: 100, options, effects: effects.path } satisfies Order);
          await new Promise((resolve) => setTimeout(resolve, (round * 140) / rounds + Math.random() * 10));
          killed.kill('SIGKILL');
          await killed.exit;
          const [wasDone, begun] = ['done', 'runs'].map((event) => all([killed], key, event as Line['event']).length);
          const mine: bigint[] = [];
          const asked = once.execute(key, TTL_MS, (run) => void mine.push(run.token), {
            ...options,
            joinTimeoutMs: 60_000,
          });
          const error = await asked.then(
            () => undefined,
            (thrown: unknown) => thrown as { code: string },
          );
          const total = effects.count(key) + mine.length;
          if (afterCrash === 'retry') {
            expect(error).toBe(undefined);
            expect(total).toBeLessThanOrEqual(1 + mine.length); // a takeover for each run but the first
            expect(total).toBeGreaterThanOrEqual(1);
            if (wasDone) expect(mine).toEqual([]);
            for (const { token } of all([killed], key, 'runs'))
              for (const own of mine) expect(own).toBeGreaterThan(BigInt(token as string));
          } else if (error) {
            expect(error.code).toBe('ERR_OUTCOME_UNKNOWN');
            expect(mine).toEqual([]);
            expect(effects.count(key)).toBeLessThanOrEqual(1);
            expect(await failure(once.execute(key, TTL_MS, () => {}))).toMatchObject({ code: 'ERR_OUTCOME_UNKNOWN' });
            expect(await once.resolve(key, 'as the bank says')).toBe(true);
            expect(await once.execute(key, TTL_MS, () => {}, options)).toBe('as the bank says');
          } else {
            expect(total).toBe(1); // it was done, or killed before it was claimed
            expect(begun === 0 || mine.length === 0).toBe(true);
          }
        }),
      ),
    );
  });

  test('a runner that is stopped beyond its lock is taken over; when it goes on its result is dropped', async (finish) => {
    const effects = effectsIn(finish);
    const [stopped, second] = (await many(finish, 2)) as [Script<Line>, Script<Line>];
    const key = uniqueName('stopped');
    const order: Order = {
      key,
      takesMs: 1500,
      options: { lockMs: LOCK_MS, joinTimeoutMs: 60_000 },
      effects: effects.path,
    };
    stopped.send({ ...order, callers: 3, takesMs: 60_000 });
    const first = await next(stopped, key, 'runs');
    stop(stopped);
    second.send(order);
    const run = await next(second, key, 'runs');
    expect(run.attempt).toBe(2);
    expect(BigInt(run.token as string)).toBeGreaterThan(BigInt(first.token as string));
    const joined = (await other(finish)).execute(key, TTL_MS, () => 'nobody', { joinTimeoutMs: 60_000 });
    const done = await next(second, key, 'done');
    process.kill(stopped.pid, 'SIGCONT');
    expect(await joined).toEqual(done.value);
    expect(await next(stopped, key, 'lost')).toMatchObject({ code: 'ERR_TAKEN_OVER' }); // and gives a result all the same
    expect(await next(stopped, key, 'failed')).toMatchObject({ how: 'ran', code: 'ERR_TAKEN_OVER' });
    await until('those that waited with it', () => all([stopped], key, 'done').length === 2);
    for (const { value } of all([stopped], key, 'done')) expect(value).toEqual(done.value);
    expect(effects.count(key)).toBe(2);
    expect(await (await other(finish)).execute(key, TTL_MS, () => 'nobody')).toEqual(done.value);
  });

  test('the store is away between the run and its record: the caller learns, and the next takes over once', async (finish) => {
    const effects = effectsIn(finish);
    const [script, next1, next2] = (await many(finish, 3)) as [Script<Line>, Script<Line>, Script<Line>];
    const key = uniqueName('away');
    const order: Order = {
      key,
      takesMs: 500,
      options: { lockMs: LOCK_MS, joinTimeoutMs: 60_000 },
      effects: effects.path,
    };
    script.send(order);
    await next(script, key, 'runs');
    place().freeze();
    const failed = await next(script, key, 'failed');
    expect(failed).toMatchObject({ how: 'ran', code: 'ERR_UNAVAILABLE', outcomeUnknown: true });
    place().thaw();
    // It goes on to do other things meanwhile, which keeps nothing alive that it has given up.
    const busy = setInterval(() => script.send({ ...order, key: uniqueName('busy'), takesMs: 300 }), 100);
    finish.onTestFinished(() => clearInterval(busy));
    for (const one of [next1, next2]) one.send(order);
    const [a, b] = await Promise.all([next1, next2].map((one) => next(one, key, 'done')));
    expect(a?.value).toEqual(b?.value);
    // What had been sent may have been recorded when the store went on: then there is nothing to take over.
    const runs = all([next1, next2], key, 'runs');
    expect(runs.length).toBeLessThanOrEqual(1);
    expect(effects.count(key)).toBe(1 + runs.length);
  });

  test('the store is away before the run: nothing is run, in its time, unless that is asked for', async (finish) => {
    const once = await other(finish, 300);
    const key = uniqueName('down');
    await once.do(uniqueName('warm'), TTL_MS, () => {});
    place().freeze();
    try {
      const began = Date.now();
      let ran = 0;
      const error = await failure(once.do(key, TTL_MS, () => void ran++));
      expect(['ERR_TIMEOUT', 'ERR_UNAVAILABLE']).toContain(error.code);
      expect(error.retryable).toBe(true);
      expect(error.outcomeUnknown).toBe(undefined); // what is to be done once was certainly not
      expect(Date.now() - began).toBeLessThan(3000);
      expect(ran).toBe(0);
      const both = [1, 2].map(() => once.execute(key, TTL_MS, () => ++ran, { onStoreFailure: 'run' }));
      expect(await Promise.all(both)).toEqual([1, 1]);
    } finally {
      place().thaw();
    }
    // A claim that came through after all is one's own, and in nobody's way.
    const late = await other(finish);
    await until('its turn', async () => (await late.do(key, TTL_MS, () => {}, { whenRunning: 'reject' })) === 'ran');
  });

  test('the store loses everything while it runs: the run learns, and what comes after has a higher token', async (finish) => {
    const once = await other(finish);
    const second = await other(finish);
    const key = uniqueName('emptied');
    let token = 0n;
    const signals: AbortSignal[] = [];
    const run = failure(
      once.do(
        key,
        TTL_MS,
        async (run) => {
          token = run.token;
          signals.push(run.signal);
          await until('the loss', () => run.signal.aborted);
        },
        { lockMs: LOCK_MS },
      ),
    );
    await until('its run', () => token > 0n);
    await place().wipe();
    expect(await run).toMatchObject({ code: 'ERR_TAKEN_OVER', token });
    expect(signals[0]?.reason).toMatchObject({ code: 'ERR_TAKEN_OVER' });
    const tokens: bigint[] = [];
    expect(await second.do(key, TTL_MS, ({ token: own }) => void tokens.push(own))).toBe('ran');
    if (place().library !== 'coord') expect(tokens[0]).toBeGreaterThan(token); // an etcd that is new begins anew
  });

  test('clocks that are an hour apart take nobody’s run away', async (finish) => {
    const effects = effectsIn(finish);
    const [ahead, behind] = await Promise.all([3_600_000, -3_600_000].map((by) => doer(finish, place(), by)));
    for (const [runner, asker] of [
      [ahead, behind],
      [behind, ahead],
    ] as [Script<Line>, Script<Line>][]) {
      const key = uniqueName('clocks');
      // Longer than they are apart: coord has no other clock for that.
      const order: Order = { key, ttlMs: 4 * 3_600_000, effects: effects.path, options: { lockMs: LOCK_MS } };
      runner.send({ ...order, takesMs: 1.5 * LOCK_MS });
      await next(runner, key, 'runs');
      asker.send(order);
      const [done, joined] = await Promise.all([next(runner, key, 'done'), next(asker, key, 'done')]);
      expect(joined.value).toEqual(done.value);
      expect(effects.count(key)).toBe(1);
    }
  });

  test('a call that waits for a run elsewhere ends in its time', async (finish) => {
    const [script] = (await many(finish, 1)) as [Script<Line>];
    const key = uniqueName('slow');
    script.send({ key, takesMs: 3000 } satisfies Order);
    await next(script, key, 'runs');
    const once = await other(finish);
    const began = Date.now();
    const error = await failure(once.execute(key, TTL_MS, () => 'nobody', { joinTimeoutMs: 300 }));
    expect(error).toMatchObject({ code: 'ERR_IN_PROGRESS' });
    expect(Date.now() - began).toBeLessThan(2500);
    expect(await once.execute(key, TTL_MS, () => 'nobody')).toMatchObject({ pid: script.pid });
  });
});
