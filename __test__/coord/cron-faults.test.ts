// What befalls cron jobs on real servers and in real processes. SIZE=full is the size of `make hard`.
import { createRequire } from 'node:module';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { ETCD_VERSIONS, type EtcdCluster, startEtcd } from '../support/etcd.js';
import { said, within } from '../support/process.js';
import { startTcpProxy } from '../support/tcp.js';
import { type Line, noting, worker } from './cron-kit.js';
import { client, type Finish, FULL, until } from './kit.js';

const load = createRequire(import.meta.url);
const { Store } = load('../../dist/cjs/coord/store.js') as typeof import('../../lib/coord/store.js');

async function begin(finish: Finish, options: Parameters<typeof startEtcd>[0] = {}): Promise<EtcdCluster> {
  const server = await startEtcd(options);
  finish.onTestFinished(() => server.close());
  return server;
}

/** The lease of whoever runs a tick. */
async function leaseOf(server: EtcdCluster, name: string, tick: number): Promise<string> {
  const [key = ''] = await server.keys(`/cron/${name}/${new Date(tick).toISOString()}/`);
  return key.slice(key.lastIndexOf('/') + 1);
}

const ticksOf = (lines: readonly Line[]): number[] =>
  lines.filter(({ event }) => event === 'runs').map(({ tick }) => tick as number);

describe.each(ETCD_VERSIONS)('etcd %s', (version) => {
  test('the runner of a tick is killed: nobody runs it again, unless that is to be caught up', async (finish) => {
    const server = await begin(finish, { version });
    const coord = await client(finish, server.url);
    const record = async (name: string) => JSON.parse((await server.get(`/cron/${name}`)) as string);
    for (const catchUp of ['none', 'last', 'all'] as const) {
      const expression = '* * * * *';
      const order = { url: server.url, name: catchUp, expression, tickMs: 60_000 };
      const runner = worker(finish, { ...order, aheadMs: 'justBeforeAMinute' });
      const { aheadMs = 0 } = await said(runner, 'ready');
      const { tick = 0, token = '' } = await said(runner, 'runs');
      const lease = await leaseOf(server, catchUp, tick);
      const other = noting(coord, catchUp, { expression, catchUp, now: () => Math.max(tick, Date.now() + aheadMs) });
      runner.kill('SIGKILL');
      await sleep(300); // it looks, and the lock of who was killed stands
      expect(other.ran).toEqual([]);
      await server.revoke(lease);
      if (catchUp === 'none') {
        await sleep(1500); // longer than it would take to look
        expect([other.ran, (await record(catchUp)).running]).toEqual([[], [[tick, token]]]);
      } else {
        await until('it to be run again', () => other.ran.length > 0);
        expect(other.ran).toEqual([{ at: tick, token: expect.any(BigInt), missed: [] }]);
        expect(other.ran[0]?.token).toBeGreaterThan(BigInt(token));
        await until('it to be over', async () => (await record(catchUp)).running.length === 0);
      }
      await other.job.stop();
      expect(other.failed).toEqual([]);
    }
  }, 120_000);

  test('the lease of a tick is revoked while it runs: its signal fires, and that is told', async (finish) => {
    const server = await begin(finish, { version });
    const coord = await client(finish, server.url);
    const { job, ran, failed } = noting(coord, 'job', {
      run: ({ signal }) => new Promise((resolve) => signal.addEventListener('abort', resolve)),
    });
    await until('it to run', () => job.running);
    await server.revoke(await leaseOf(server, 'job', ran[0]?.at as number));
    await until('it to fail', () => failed.length > 0);
    expect(failed[0]).toMatchObject({ code: 'ERR_LOCK_LOST', token: ran[0]?.token });
  });

  test('the answer of a claim is lost: it is found again, its tick is run, and by nobody else', async (finish) => {
    const server = await begin(finish, { version });
    const link = await startTcpProxy(server.hosts[0] as string);
    finish.onTestFinished(() => link.close());
    const timeoutMs = 2000; // no other client here has it
    const coord = await client(finish, `etcd://${link.host}`, { timeoutMs });
    // When a claim is written nothing outside shows.
    const { commit } = Store.prototype;
    let [unknown, isLosing] = [0, false];
    finish.onTestFinished(() => {
      Store.prototype.commit = commit;
    });
    Store.prototype.commit = async function (...given) {
      const isClaim = isLosing && this.timeoutMs === timeoutMs && given[2][0]?.value?.includes('"running":[[');
      if (isClaim) {
        isLosing = false;
        void link.loseNextAnswer();
      }
      try {
        const done = await commit.apply(this, given);
        if (isClaim) isLosing = true; // another answer was lost, which came first
        return done;
      } catch (error) {
        if (isClaim && (error as { outcomeUnknown?: boolean }).outcomeUnknown) unknown++;
        throw error;
      }
    };
    const one = noting(coord, 'job');
    // It comes a little later to each tick, and would take it, were it free.
    const two = noting(await client(finish, server.url), 'job', { now: () => Date.now() - 200 });
    await until('a tick', () => one.ran.length > 0);
    const rounds = FULL ? 20 : 3;
    for (let round = 1; round <= rounds; round++) {
      isLosing = true;
      await until('a claim whose outcome is not known', () => unknown === round);
      const count = one.ran.length;
      await until('its tick', () => one.ran.length > count);
    }
    await Promise.all([one.job.stop(), two.job.stop()]);
    expect([unknown, one.failed, two.failed]).toEqual([rounds, [], []]);
    const all = [...one.ran, ...two.ran].sort((a, b) => a.at - b.at);
    const ticks = all.map(({ at }) => at);
    expect(new Set(ticks).size).toBe(ticks.length);
    // None was claimed and not run.
    const told = new Set([...ticks, ...all.flatMap(({ missed }) => missed)]);
    const [first = 0, last = 0] = [ticks[0], ticks.at(-1)];
    const left = Array.from({ length: (last - first) / 1000 }, (_, i) => first + i * 1000);
    expect(left.filter((at) => !told.has(at))).toEqual([]);
  }, 120_000);
});

test('five processes, one of them three seconds ahead, killed and started: no tick runs twice, and hardly one is left', async (finish) => {
  const server = await begin(finish);
  const start = (i: number) => ({
    i,
    script: worker(finish, { url: server.url, name: 'job', aheadMs: i === 0 ? 3000 : 0, tickMs: 200 }),
  });
  const all = [0, 1, 2, 3, 4].map(start);
  await Promise.all(all.map(({ script }) => said(script, 'ready')));
  const began = Date.now();
  const span = FULL ? 120_000 : 6000;
  while (Date.now() < began + span) {
    await sleep(700 + Math.random() * 300);
    const i = Math.floor(Math.random() * 5);
    all.findLast((one) => one.i === i)?.script.kill('SIGKILL');
    all.push(start(i));
  }
  for (const { script } of all) script.kill('SIGKILL');
  const runs = all.flatMap(({ script }) => script.seen.filter(({ event }) => event === 'runs'));
  const ticks = runs.map(({ tick }) => tick as number).sort((a, b) => a - b);
  expect(ticks.filter((tick, i) => tick === ticks[i - 1])).toEqual([]);
  expect(ticks.length).toBeGreaterThan(span / 1000 / 2);
  // In the order of their claims their tokens grow: those of one process, as it tells them.
  for (const { script } of all) {
    const tokens = script.seen.filter(({ event }) => event === 'runs').map(({ token }) => BigInt(token as string));
    expect(tokens).toEqual([...tokens].sort((a, b) => (a < b ? -1 : 1)));
  }
  expect(new Set(runs.map(({ token }) => token)).size).toBe(runs.length);
  expect((await server.get('/cron/job'))?.length).toBeLessThan(4000);
}, 180_000);

test('a process was stopped for a while: with catchUp "last" one run, with what was missed', async (finish) => {
  const server = await begin(finish);
  const script = worker(finish, { url: server.url, name: 'job', options: { catchUp: 'last' } });
  await said(script, 'runs');
  process.kill(script.pid, 'SIGSTOP');
  const seen = script.seen.length;
  await sleep(FULL ? 30_000 : 4000);
  process.kill(script.pid, 'SIGCONT');
  const isNew = () => ticksOf(script.seen.slice(seen)).length >= 3;
  await until('three runs', isNew);
  const all = script.seen.filter(({ event }) => event === 'runs');
  const late = all.filter(({ missed }) => (missed?.length ?? 0) > 0);
  expect(late).toHaveLength(1);
  const [{ missed = [] } = {}] = late;
  expect(missed.length).toBeGreaterThanOrEqual(FULL ? 27 : 2);
  // Each second was run, or is told as missed, and none is both.
  const told = [...ticksOf(script.seen), ...missed].sort((a, b) => a - b);
  const first = told[0] as number;
  expect(told).toEqual(Array.from({ length: told.length }, (_, i) => first + i * 1000));
}, 120_000);

test('a job keeps its process alive until it is stopped, and no longer', async (finish) => {
  const server = await begin(finish);
  const script = worker(finish, { url: server.url, name: 'job', tickMs: 300 });
  await said(script, 'runs');
  await sleep(1200);
  expect(script.child.exitCode).toBeNull();
  script.send('stop');
  expect(await within(script.exit, 10_000, 'the end')).toMatchObject({ code: 0 });
  expect(ticksOf(script.seen).length).toBe(script.seen.filter(({ event }) => event === 'done').length);
  expect(JSON.parse((await server.get('/cron/job')) as string).running).toEqual([]);
  expect(await server.leases()).toEqual([]);
});
