// Elections: who leads, who is told, and who leads next.
import { once } from 'node:events';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Campaign, Held, Leader } from 'rollcall/coord';
import { describe, expect, test } from 'vitest';
import { etcdctl } from '../etcd/recipes.js';
import { startEtcd } from '../support/etcd.js';
import { inTime, said, uniqueName, within } from '../support/process.js';
import { client, FULL, failure, HOLDING, inMemory, placed, until } from './kit.js';
import { expectAtMost, holder, intervals } from './locks-kit.js';

const elected = (campaign: Campaign): Promise<Held> =>
  new Promise((resolve, reject) => campaign.once('elected', resolve).once('failed', reject));

describe.each(HOLDING)('%s', (_, start) => {
  const place = placed(start);

  test('one leads, the next after it has resigned, and an observer hears of each', async (finish) => {
    const [coord, other] = [await client(finish, place.url), await client(finish, place.url)] as const;
    const name = uniqueName();
    const observer = other.elections.observe(name);
    const next = async () => (await within(observer.next(), 10_000, 'the observer')).value as Leader | null;
    expect(await next()).toBeNull();
    const one = coord.elections.campaign(name, { value: 'one' });
    const first = await within(elected(one), 5000, 'the first');
    expect(await next()).toEqual({ key: first.key, value: 'one', token: first.token });
    const two = other.elections.campaign(name, { value: 'two' });
    const second = elected(two);
    expect([one.isLeader, one.token, two.isLeader, two.token]).toEqual([true, first.token, false, undefined]);
    await until('the second to stand', async () => (await coord.lock.tryAcquire(`/elections/${name}`)) === null);
    await one.resign();
    expect(one.isLeader).toBe(false);
    expect((await within(second, 5000, 'the second')).token).toBeGreaterThan(first.token);
    await until('the observer to hear', async () => (await next())?.value === 'two');
    await two.resign();
    await two.resign();
    await until('the observer to hear', async () => (await next()) === null);
    const abort = new AbortController();
    const ending = coord.elections.observe(name, { signal: abort.signal });
    await ending.next();
    const pending = ending.next();
    abort.abort();
    expect((await within(pending, 5000, 'the end')).done).toBe(true);
    const term = await within(elected(other.elections.campaign(`${name}-more`)), 5000, 'the third');
    expect([first.signal.aborted, term.signal.aborted], 'who resigns loses nothing').toEqual([false, false]);
    const closing = failure(observer.next());
    await other.close();
    expect(term.signal.reason).toMatchObject({
      code: 'ERR_LOCK_LOST',
      message: expect.stringMatching(/coord was closed$/),
    });
    expect(await closing).toMatchObject({ code: 'ERR_CLOSED', operation: 'observe' });
    expect(() => other.elections.campaign(name)).toThrow('campaign: coord is closed');
  });

  test('who loses its term stands again, unless it was told not to', async (finish) => {
    const coord = await client(finish, place.url);
    const name = uniqueName();
    const [keeps, stops] = [
      coord.elections.campaign(name, { ttlMs: 2000 }),
      coord.elections.campaign(`${name}-once`, { ttlMs: 2000, keepCampaigning: false }),
    ] as const;
    const terms: bigint[] = [];
    const told = (async () => {
      for await (const held of keeps.leaders()) terms.push(held.token);
    })();
    await until('both to lead', () => keeps.isLeader && stops.isLeader);
    const [lost, failed] = [
      new Promise((resolve) => keeps.once('lost', resolve)),
      new Promise((resolve) => stops.once('failed', resolve)),
    ];
    await place.away();
    try {
      expect(await lost).toMatchObject({ code: 'ERR_LOCK_LOST' });
      expect(await failed).toMatchObject({ code: 'ERR_LOCK_LOST' });
      expect([keeps.isLeader, stops.isLeader]).toEqual([false, false]);
    } finally {
      await place.back();
    }
    await until('it to lead again', () => terms.length === 2);
    expect(terms[1]).toBeGreaterThan(terms[0] as bigint);
    expect(stops.isLeader).toBe(false);
    expect(
      await failure(
        (async () => {
          for await (const _ of stops.leaders());
        })(),
      ),
    ).toMatchObject({ code: 'ERR_LOCK_LOST' });
    await keeps.resign();
    await told;
  });
});

test('a candidate of etcdctl elect, which is concurrency.Election of Go, stands in the same queue', async (finish) => {
  const server = await startEtcd({});
  finish.onTestFinished(() => server.close());
  const coord = await client(finish, server.url);
  const ours = coord.elections.campaign('job', { value: 'ours' });
  const first = await elected(ours);
  const ctl = etcdctl(finish, server, 'elect', '/elections/job', 'theirs');
  const told = once(ctl.child.stdout as NodeJS.ReadableStream, 'data');
  await until('etcdctl to stand', async () => (await server.keys('/elections/job/')).length === 2);
  await ours.resign();
  const observer = coord.elections.observe('job');
  let seen: Leader | null = null;
  await until('etcdctl to lead', async () => {
    seen = (await observer.next()).value;
    return seen?.value === 'theirs';
  });
  expect((seen as unknown as Leader).token).toBeGreaterThan(first.token);
  const again = coord.elections.campaign('job', { value: 'ours' });
  await until('ours to stand', async () => (await server.keys('/elections/job/')).length === 2);
  expect(again.isLeader).toBe(false);
  await told; // interrupted before it says that it leads, it would leave its key to expire
  ctl.kill('SIGINT');
  await elected(again);
  await again.resign();
});

test('the leader is killed again and again: never two at a time, and a new one within its time to live', async (finish) => {
  const server = await startEtcd({});
  finish.onTestFinished(() => server.close());
  const order = { url: server.url, key: '/elections/job', ttlMs: 2000 };
  const begin = () => ({ script: holder(finish, order), end: Number.POSITIVE_INFINITY });
  const all = [begin(), begin(), begin()];
  const leads = () =>
    all.find(({ script, end }) => end > Date.now() && script.seen.some(({ event }) => event === 'held'));
  for (let round = 0; round < (FULL ? 100 : 2); round++) {
    await until('a leader', leads);
    const leader = leads() as (typeof all)[number];
    await said(leader.script, 'acts');
    leader.end = Date.now();
    leader.script.kill('SIGKILL');
    all.push(begin());
    await until('the next', leads);
    expect(Date.now() - leader.end).toBeLessThan(inTime(2000 + 1000));
  }
  const now = Date.now();
  const held = all.flatMap(({ script, end }, i) => intervals(`${i}`, script.seen, Math.min(end, now)));
  expectAtMost(1, held);
  const tokens = held.sort((a, b) => a.from - b.from).map(({ token }) => token);
  expect(tokens).toEqual([...tokens].sort((a, b) => Number(a - b)));
}, 900_000);

test('a campaign that has resigned is kept by nobody', async (finish) => {
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc') as () => void;
  const coord = await inMemory(finish);
  const made: WeakRef<Campaign>[] = [];
  const use = async () => {
    const resigned = coord.elections.campaign('job');
    await elected(resigned);
    await resigned.resign();
    made.push(new WeakRef(resigned));
  };
  for (let i = 0; i < 3; i++) await use();
  await until('all to be collected', () => {
    gc();
    return made.every((one) => one.deref() === undefined);
  });
});
