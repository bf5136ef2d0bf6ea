/** What happens between the making of something and its first listener is told to that listener; nobody has to listen. */

import { once } from 'node:events';
import { CompactedError, Etcd3, type IWatchResponse, LastingLease, NotCampaigningError } from 'rollcall/etcd';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type EtcdCluster, startEtcd } from '../support/etcd.js';
import { spawnGuarded, uniqueName, waitFor, within } from '../support/process.js';
import { startTcpProxy } from '../support/tcp.js';
import { connectBoth } from './both.js';

const TIMES = Array.from({ length: 200 }, (_, i) => i);
const pause = (ms: number) =>
  new Promise<void>((resolve) => (ms === 0 ? setImmediate(resolve) : setTimeout(resolve, ms)));
const next = (emitter: unknown, event: string) =>
  within(once(emitter as NodeJS.EventEmitter, event), 20_000, `"${event}"`);

let etcd: EtcdCluster;
let client: Etcd3;
const logged: string[] = [];
const load = ['', ''].map(() =>
  spawnGuarded(process.execPath, ['-e', 'for (const end = Date.now() + 60000; Date.now() < end; );']),
);
beforeAll(async () => {
  etcd = await startEtcd();
  client = new Etcd3({ hosts: [...etcd.hosts], logger: { error: (line) => logged.push(line) } });
});
afterAll(async () => {
  for (const busy of load) busy.kill('SIGKILL');
  await client?.close();
  await etcd?.close();
});

describe.each([0, 1, 100])('who begins %i ms later', (ms) => {
  it('gets every change of a watch: by an iterator, by listeners of two events, by "data"', async () => {
    const ns = client.namespace(`${uniqueName()}/`);
    const ways = [
      async (key: string) => {
        const watcher = await ns.watch().key(key).create();
        await ns.put(key).value('here');
        await pause(ms);
        for await (const change of watcher) return [`${change.type} ${change.value}`];
        return [];
      },
      async (key: string) => {
        const watcher = await ns.watch().key(key).create();
        await ns.put(key).value('here');
        await ns.delete().key(key);
        await ns.put(key).value('again');
        await pause(ms);
        const told: string[] = [];
        watcher.on('put', (kv) => told.push(`put ${kv.value}`)).on('delete', () => told.push('delete'));
        await waitFor(() => told.length > 2, { what: `three changes; there were ${told}` });
        await watcher.cancel();
        return [told[0], told[1] === 'delete' && told[2] === 'put again'];
      },
      async (key: string) => {
        const watcher = ns.watch().key(key).withProgressNotify(false).watcher();
        await next(watcher, 'connected');
        await ns.lease(60).put(key).value('here');
        await pause(ms);
        const [{ events }] = (await next(watcher, 'data')) as [IWatchResponse];
        await watcher.cancel();
        return events.map(({ type, kv }) => `${type.toLowerCase()} ${kv.value}`);
      },
    ];
    const got = await Promise.all(TIMES.map((i) => (ways[i % 3] as (typeof ways)[0])(`k${i}`)));
    expect(got).toEqual(TIMES.map((i) => (i % 3 === 1 ? ['put here', true] : ['put here'])));
  });

  it('hears that a watch is connected, or refused', async () => {
    const ns = client.namespace(`${uniqueName()}/`);
    const { header: first } = await ns.put('k').value('1');
    const { header } = await ns.put('k').value('2');
    await client.kv.compact({ revision: header.revision });
    await Promise.all(
      TIMES.map(async (i) => {
        const watcher =
          i % 2 ? ns.watch().key('k').watcher() : ns.watch().key('k').startRevision(first.revision).watcher();
        await pause(ms);
        const [told] = await next(watcher, i % 2 ? 'connected' : 'error');
        if (i % 2) expect(told).toMatchObject({ created: true });
        else expect(told).toBeInstanceOf(CompactedError);
        await watcher.cancel();
      }),
    );
  });

  it('hears that a campaign leads, and that it has failed', async () => {
    const campaigns = TIMES.map(() => client.election(uniqueName(), 60).campaign('a'));
    await pause(ms);
    await Promise.all(campaigns.map((campaign) => next(campaign, 'elected')));
    await Promise.all(campaigns.map(async (campaign) => etcdDelete(await campaign.getCampaignKey())));
    await pause(ms);
    const errors = await Promise.all(campaigns.map((campaign) => next(campaign, 'error')));
    for (const [error] of errors) expect(error).toBeInstanceOf(NotCampaigningError);
  });

  it('hears of the next leader from an observer', async () => {
    await Promise.all(
      TIMES.map(async () => {
        const election = client.election(uniqueName(), 60);
        const first = await election.campaign('first').wait();
        const observer = await election.observe();
        expect(observer.leader()).toBe('first');
        const second = election.campaign('second');
        await second.getCampaignKey();
        await first.proclaim('told');
        await pause(ms);
        expect(await next(observer, 'change')).toEqual(['told']);
        await observer.cancel();
        await Promise.all([second.resign(), first.resign()]);
      }),
    );
  });

  it('hears of the stream for the renewals of a lease, and of its loss', async () => {
    const leases = TIMES.map(() => client.lease(3));
    const ids = await Promise.all(leases.map((lease) => lease.grant()));
    await pause(ms);
    await Promise.all(leases.map((lease) => next(lease, 'keepaliveEstablished')));
    await Promise.all(ids.map((ID) => client.leaseClient.leaseRevoke({ ID })));
    await waitFor(() => leases.every((lease) => lease.revoked()), { what: 'all are lost' });
    await pause(ms);
    await Promise.all(leases.map((lease) => next(lease, 'lost')));
  });

  it('hears that the keys of a lasting lease stand again', async () => {
    const all = await Promise.all(
      TIMES.map(async () => {
        const key = uniqueName();
        const lasting = new LastingLease(client, 3);
        await lasting.put(key, 'up');
        const before = lasting.lease;
        await client.leaseClient.leaseRevoke({ ID: await before.grant() });
        return { lasting, key, before };
      }),
    );
    await waitFor(() => all.every(({ lasting, before }) => lasting.lease !== before), { what: 'all were lost' });
    await pause(ms);
    for (const { lasting, key } of all) {
      expect(await next(lasting, 'restored')).toMatchObject([{ restored: [key], taken: [], refused: [] }]);
      await lasting.revoke();
    }
  });

  it('gets every answer of a raw stream, and its end', async () => {
    const prefix = uniqueName();
    await Promise.all(
      TIMES.map(async (i) => {
        const stream = await client.watchClient.watch();
        stream.write({ create_request: { key: Buffer.from(`${prefix}${i}`) } });
        await client.put(`${prefix}${i}`).value(1);
        await pause(ms);
        expect(await next(stream, 'data')).toMatchObject([{ created: true }]);
        stream.cancel();
        await pause(ms);
        await expect(once(stream as never, 'end')).rejects.toMatchObject({ grpcCode: 1 });
      }),
    );
    const snapshot = await client.maintenance.snapshot();
    await pause(ms);
    const order: string[] = [];
    snapshot.on('data', () => order.push('data'));
    snapshot.on('end', () => order.push('end'));
    await waitFor(() => order.at(-1) === 'end', { what: 'the end of the snapshot' });
    expect(order[0]).toBe('data');
  });
});

const etcdDelete = (key: string) => client.delete().key(key).exec();

it('keeps more than its queue for who begins, on the server', async () => {
  const ns = client.namespace(`${uniqueName()}/`);
  const watcher = await ns.watch().prefix('').create();
  for (let round = 0; round < 200; round++) {
    await ns
      .if('none', 'Create', '==', 0)
      .then(...TIMES.slice(0, 100).map((i) => ns.put(`k${i}`).value(round)))
      .commit();
  }
  let seen = 0;
  for await (const change of watcher) {
    expect(String(change.value)).toBe(String(Math.floor(seen / 100)));
    seen += 1;
    if (seen === 20_000) break;
  }
});

it('every consumer gets all from when it joined; with nobody left, changes are lost to the program', async () => {
  const ns = client.namespace(`${uniqueName()}/`);
  const watcher = await ns.watch().prefix('').create();
  await ns.put('k').value('1');
  const [first, second] = [watcher[Symbol.asyncIterator](), watcher[Symbol.asyncIterator]()];
  const early: string[] = [];
  const one = first.next();
  const listener = (kv: { value: Buffer }) => early.push(String(kv.value));
  watcher.on('put', listener);
  expect(String((await one).value.value)).toBe('1');
  expect(String((await second.next()).value.value)).toBe('1');
  const late = watcher[Symbol.asyncIterator]();
  await ns.put('k').value('2');
  for (const each of [first, second, late]) expect(String((await each.next()).value.value)).toBe('2');
  expect(early).toEqual(['1', '2']);
  await watcher.cancel();

  const other = await ns.watch().prefix('').create();
  await ns.put('k').value('3');
  expect(String((await next(other, 'put'))[0].value)).toBe('3');
  const { header } = await ns.put('k').value('4');
  await waitFor(() => other.lastRevision() === Number(header.revision), { what: 'it is read' });
  const fifth = next(other, 'put');
  await ns.put('k').value('5');
  expect(String((await fifth)[0].value)).toBe('5');
  await other.cancel();
});

it('a watch that nobody listens to ends with cancel() and with its client, and does not move on', async () => {
  const mine = new Etcd3({ hosts: [...etcd.hosts] });
  const key = uniqueName();
  const [watcher, other] = await Promise.all([mine.watch().key(key).create(), mine.watch().key(key).create()]);
  const before = watcher.lastRevision();
  await mine.put(key).value('1');
  await pause(50);
  expect(watcher.lastRevision()).toBe(before);
  expect(watcher.id).not.toBeNull();
  await watcher.cancel();
  expect(watcher.id).toBeNull();
  await mine.close();
  await next(other, 'end');
});

it('a listener that comes while the connection is lost hears that it is', async () => {
  const proxy = await startTcpProxy(etcd.hosts[0] as string);
  const mine = new Etcd3({ hosts: proxy.host, logger: false });
  const watcher = await mine.watch().key(uniqueName()).create();
  await proxy.close();
  await waitFor(() => watcher.id === null, { what: 'the connection is lost' });
  const connected: unknown[] = [];
  watcher.on('connected', () => connected.push(1));
  await next(watcher, 'disconnected');
  expect(connected).toEqual([]);
  await mine.close();
});

it('a failure that nobody listens to is logged, and ends no process', async () => {
  const { header: first } = await client.put('k').value('1');
  const { header } = await client.put('k').value('2');
  await client.kv.compact({ revision: header.revision });
  logged.length = 0;
  const watcher = client.watch().key('k').startRevision(first.revision).watcher();
  const campaign = await client.election(uniqueName(), 60).campaign('a').wait();
  await etcdDelete(await campaign.getCampaignKey());
  await waitFor(() => logged.length === 2, { what: 'both are logged' });
  expect(logged.sort()).toEqual([
    expect.stringMatching(/^rollcall: a campaign has failed, and nobody listens to its "error": /),
    expect.stringMatching(/^rollcall: a watch is over, and nobody listens to its "error": .*compacted/),
  ]);
  await expect(campaign.proclaim('b')).rejects.toThrow(NotCampaigningError);
  await watcher.cancel();
});

it('like etcd3: a campaign whose key was deleted says nothing until proclaim(), which rejects', async () => {
  const uncaught: unknown[] = [];
  const hear = (error: unknown) => uncaught.push(error);
  process.on('uncaughtException', hear);
  const both = connectBoth(etcd.hosts, { logger: false });
  for (const each of [both.ours, both.theirs]) {
    const election = each.election(uniqueName(), 60);
    const campaign = election.campaign('a');
    await next(campaign, 'elected');
    await etcdDelete(await campaign.getCampaignKey());
    await pause(200);
    const error = await campaign.proclaim('b').catch((e: unknown) => e);
    expect((error as Error).constructor.name).toBe('NotCampaigningError');
    await campaign.resign().catch(() => {});
  }
  await both.close();
  process.off('uncaughtException', hear);
  expect(uncaught).toEqual([]);
});
