// The run finds what it is there to find: processes that hold locks and read configuration as nobody should, on a real etcd. The
// same is done to those that do it as they should, and nothing is found.

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { startEtcd } from '../__test__/support/etcd.js';
import { runScript, temporaryFolder, untilStopped, waitFor } from '../__test__/support/process.js';
import { check, type RuleName } from './check.js';
import { HELD, IDS, JOBS, read, SHARED } from './conduct.js';
import type { Entry } from './history.js';

const TTL_MS = 2000;
const BOUNDS = { ttlMs: TTL_MS, repairMs: 10_000, removalMs: 3000, deliveryMs: 2500, staleMs: 22_000 };
const now = () => Number(process.hrtime.bigint() / 1000n) / 1000;

type Finish = { onTestFinished(fn: () => unknown): void };

/** Processes of a part on one etcd, and what the checker says of their history so far, by these rules. */
async function stage(
  { onTestFinished }: Finish,
  part: 'holder' | 'sharer' | 'maker' | 'doer',
  naive: boolean,
  rules: readonly RuleName[],
  stayMs = 100_000,
) {
  const folder = temporaryFolder('rollcall-faults-').path;
  const etcd = await startEtcd();
  onTestFinished(() => etcd.close());
  const options = { backend: 'etcd', hosts: etcd.hosts, ttlMs: TTL_MS };
  const begun: Entry[] = [{ kind: 'begin', at: now(), seed: 0, backend: 'etcd', minutes: 1, ...BOUNDS }];
  const program = fileURLToPath(new URL(`./actors/${part}.mjs`, import.meta.url));
  return {
    start(i: number) {
      const who = `${part} ${i}`;
      const shared = { ...SHARED, changeMs: 20 };
      const own = { who, id: `${part}-${i}`, history: join(folder, `${part}-${i}.jsonl`) };
      begun.push({ kind: 'started', at: now(), who });
      // Who holds something keeps it for as long as the test goes on.
      const script = runScript(program, [
        JSON.stringify({
          ...own,
          options,
          naive,
          held: HELD,
          shared,
          ids: IDS,
          jobs: { ...JOBS, everyMs: 1e15 },
          stays: [stayMs],
        }),
      ]);
      onTestFinished(() => script.kill('SIGKILL'));
      return script;
    },
    told: () => (readdirSync(folder).length === 0 ? [] : read(folder)),
    /** Which rule was broken, and of what. */
    found() {
      const history = [...begun, ...read(folder)];
      const broken = check(history).filter(({ rule }) => rules.includes(rule));
      return new Set(broken.map(({ rule, of }) => `${rule} ${of}`));
    },
  };
}

test.for([
  [
    true,
    [`fenced ${HELD.register}`, `one-holder ${HELD.election}`, `one-holder ${HELD.mutex}`, `permits ${HELD.pool}`],
  ],
  [false, []],
] as const)(
  'a holder is stopped past its time, and goes on (as if nothing were: %j)',
  async ([naive, expected], finish) => {
    const rules: RuleName[] = ['one-holder', 'permits', 'fenced'];
    const { start, told, found } = await stage(finish, 'holder', naive, rules);
    const all = [HELD.mutex, HELD.pool, HELD.election];
    const looks = (who: string, after = 0) =>
      new Set(
        told().flatMap((entry) => {
          const tells = entry.kind === 'held' || entry.kind === 'holding' || entry.kind === 'over';
          return tells && entry.who === who && entry.at > after ? [entry.of] : [];
        }),
      );
    const until = (what: string, look: () => boolean) => waitFor(look, { what });
    const first = start(1);
    await until('the first to hold everything', () => looks('holder 1').size === 3);
    await until('a write of it', () => told().some(({ kind }) => kind === 'wrote'));
    start(2);
    await until('the second to have a permit', () => looks('holder 2').has(HELD.pool));
    start(3);
    await until('the third to wait', () => told().some((entry) => entry.kind === 'call' && entry.who === 'holder 3'));
    first.kill('SIGSTOP');
    untilStopped(first.pid);
    const others = () => new Set([...looks('holder 2'), ...looks('holder 3')]);
    await until('another one to hold each', () => others().size === 3 && looks('holder 3').has(HELD.pool));
    await until('a write of that', () => told().some((entry) => entry.kind === 'wrote' && entry.who !== 'holder 1'));
    const goesOn = now();
    first.kill('SIGCONT');
    await until('the first to look at each', () => all.every((of) => looks('holder 1', goesOn).has(of)));
    await until('all to be found', () => expected.every((one) => found().has(one)));
    expect([...found()].sort()).toEqual(expected);
  },
);

test.for([
  [true, [`config ${SHARED.of}`]],
  [false, []],
] as const)('three share a configuration (reading one key after the other: %j)', async ([naive, expected], finish) => {
  const { start, told, found } = await stage(finish, 'sharer', naive, ['config']);
  for (const i of [1, 2, 3]) start(i);
  const snapshots = () => told().filter(({ kind }) => kind === 'config').length;
  await waitFor(() => (naive ? found().size > 0 : snapshots() >= 60), { what: 'snapshots' });
  expect([...found()]).toEqual(expected);
});

test.for([
  [true, [`ids ${IDS.service}`]],
  [false, []],
] as const)(
  'who makes ids is stopped past its time, and goes on (by its lease alone: %j)',
  async ([naive, expected], finish) => {
    const { start, told, found } = await stage(finish, 'maker', naive, ['ids']);
    const bursts = (who: string, after = 0) =>
      told().filter((entry) => entry.kind === 'ids' && entry.who === who && entry.at > after).length;
    const until = (what: string, look: () => boolean) => waitFor(look, { what });
    const first = start(1);
    await until('ids of the first', () => bursts('maker 1') > 3);
    first.kill('SIGSTOP');
    untilStopped(first.pid);
    // All four worker ids are others' then.
    for (const i of [2, 3, 4, 5]) start(i);
    await until('ids of all others', () => [2, 3, 4, 5].every((i) => bursts(`maker ${i}`) > 0));
    const goesOn = now();
    first.kill('SIGCONT');
    // The toy collides with its successor by and by; the others must not, however long one looks.
    await until('ids of the rest', () =>
      naive ? found().size > 0 : [2, 3, 4, 5].every((i) => bursts(`maker ${i}`, goesOn) > 30),
    );
    expect([...found()]).toEqual(expected);
  },
);

test.for([
  [true, ['once jobs/0']],
  [false, []],
] as const)(
  'a runner is stopped past its time, and goes on (as if nothing were: %j)',
  async ([naive, expected], finish) => {
    const { start, told, found } = await stage(finish, 'doer', naive, ['once'], 4000);
    const of = (who: string, kind: Entry['kind']) =>
      told().filter((entry) => entry.kind === kind && 'who' in entry && entry.who === who);
    const until = (what: string, look: () => boolean) => waitFor(look, { what });
    const first = start(1);
    await until('the first to run it', () => of('doer 1', 'ran').length === 1);
    start(2);
    await until('the second to wait', () => of('doer 2', 'call').length > 1);
    first.kill('SIGSTOP');
    untilStopped(first.pid);
    await until('the second to have done it', () => of('doer 2', 'did').length > 0);
    expect(of('doer 2', 'ran')).toMatchObject([{ attempt: 2 }]);
    first.kill('SIGCONT');
    await until('both to ask again', () => ['doer 1', 'doer 2'].every((who) => of(who, 'did').length > 3));
    expect([...found()]).toEqual(expected);
  },
);
