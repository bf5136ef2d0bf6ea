/** Campaigns and observers, when everything is well. What breaks them is in election-faults.test.ts. */

import { once } from 'node:events';
import { Etcd3 as Theirs } from 'etcd3';
import { InvalidArgumentError } from 'rollcall';
import {
  Campaign,
  ElectionObserver,
  EtcdLeaseInvalidError,
  GRPCUnavailableError,
  NotCampaigningError,
} from 'rollcall/etcd';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ETCD_VERSIONS, type EtcdCluster, startEtcd } from '../support/etcd.js';
import { freePorts } from '../support/ports.js';
import { uniqueName, waitFor, within } from '../support/process.js';
import { candidates, connect, etcdctl, gone } from './recipes.js';

describe.each(ETCD_VERSIONS)('etcd %s', (version) => {
  let etcd: EtcdCluster;
  beforeAll(async () => {
    etcd = await startEtcd({ version });
  });
  afterAll(() => etcd.close());

  it('lets 50 candidates lead in turn, one at a time, with growing tokens', async (test) => {
    const client = connect(test, etcd.hosts);
    const election = client.election(uniqueName(), 10);
    const waiting = new Set<Campaign>();
    const order: Campaign[] = [];
    for (let i = 0; i < 50; i++) {
      const campaign = election.campaign(`${i}`);
      waiting.add(campaign);
      campaign.on('elected', () => order.push(campaign));
    }
    let last = 0n;
    for (let turn = 0; turn < 50; turn++) {
      const leader = await waitFor(() => order[turn], { what: `leader ${turn}` });
      expect([...waiting].filter((one) => one.isLeader)).toEqual([leader]);
      expect(leader.revision).toBeGreaterThan(last);
      last = leader.revision as bigint;
      waiting.delete(leader);
      await leader.resign();
    }
    expect(order).toHaveLength(50);
    expect(await candidates(etcd, election.name)).toEqual([]);
  });

  it('shares an election with etcd3, both ways', async (test) => {
    const ours = connect(test, etcd.hosts);
    const theirs = new Theirs({ hosts: etcd.hosts as string[] });
    test.onTestFinished(() => theirs.close());
    const name = uniqueName();
    const first = await ours.election(name, 10).campaign('ours').wait();
    const second = theirs.election(name, 10).campaign('theirs');
    second.on('error', () => {});
    await waitFor(async () => (await candidates(etcd, name)).length === 2);
    expect(await theirs.election(name).leader()).toBe('ours');
    const third = ours.election(name, 10).campaign('ours again');
    await waitFor(async () => (await candidates(etcd, name)).length === 3);
    const wait = second.wait();
    await first.resign();
    await within(wait, 5000, 'etcd3 leads');
    expect(third.isLeader).toBe(false);
    expect(await ours.election(name).leader()).toBe('theirs');
    await second.resign();
    await within(third.wait(), 5000, 'we lead');
    expect(await third.getCampaignKey()).toMatch(new RegExp(`^election/${name}/\\d+$`));
    await third.resign();
  });

  it.for(['etcd3', 'go'] as const)('takes nobody but candidates for the leader: %s', async (layout, test) => {
    const client = connect(test, etcd.hosts);
    const name = uniqueName();
    const election = client.election(name, 10, { layout });
    const prefix = layout === 'go' ? `${name}/` : `election/${name}/`;
    for (let page = 0; page < 20; page++) {
      const others = client.batch();
      for (let i = 0; i < 100; i++) others.put(`${prefix}document-${page * 100 + i}`, 'no');
      await others.commit();
    }
    await client.put(`${prefix}1f`).value('no');
    await client.election(`${name}/eu`, 10, { layout }).campaign('eu').wait();
    expect(await election.leader()).toBeUndefined();
    const observer = await election.observe();
    expect(observer.leader()).toBeUndefined();
    const first = await within(election.campaign('first').wait(), 5000, 'the leader');
    election.campaign('second');
    await waitFor(() => observer.leader() === 'first');
    expect(await election.leader()).toBe('first');
    await first.resign();
    await waitFor(() => observer.leader() === 'second');
    expect(await election.leader()).toBe('second');
  });

  it('shares an election with etcdctl in the layout of Go, both ways', async (test) => {
    const client = connect(test, etcd.hosts);
    const name = uniqueName();
    const election = client.election(name, 10, { layout: 'go' });
    const first = await election.campaign('ours').wait();
    expect(await first.getCampaignKey()).toMatch(new RegExp(`^${name}/[0-9a-f]+$`));
    const ctl = etcdctl(test, etcd, 'elect', name, 'theirs');
    const elected = once(ctl.child.stdout as NodeJS.ReadableStream, 'data');
    await waitFor(async () => (await etcd.keys(`${name}/`)).length === 2);
    const third = election.campaign('ours again');
    await waitFor(async () => (await etcd.keys(`${name}/`)).length === 3);
    expect(await election.leader()).toBe('ours');
    await first.resign();
    await waitFor(async () => (await election.leader()) === 'theirs');
    expect(third.isLeader).toBe(false);
    await elected; // interrupted before it says so, it would leave its key to expire
    ctl.kill('SIGINT');
    await within(third.wait(), 5000, 'we lead');
    await third.resign();
  });

  it('resolves and rejects every wait()', async (test) => {
    const election = connect(test, etcd.hosts).election(uniqueName(), 10);
    const leader = election.campaign('a');
    expect(await leader.wait()).toBe(leader);
    expect(await leader.wait(), 'elected already').toBe(leader);
    const told: string[] = [];
    const waiting = election.campaign('b');
    for (const event of ['elected', 'error']) waiting.on(event as 'elected', () => told.push(event));
    const refused = expect(waiting.wait()).rejects.toThrow(NotCampaigningError);
    await waiting.getCampaignKey();
    await waiting.resign();
    await refused;
    await expect(waiting.wait()).rejects.toThrow(NotCampaigningError);
    const [early] = [election.campaign('c')];
    await Promise.all([early.resign(), early.resign()]);
    await leader.resign();
    await gone(etcd, `election/${election.name}/`);
    expect(told).toEqual([]);
    expect([leader.isLeader, waiting.isLeader, early.isLeader]).toEqual([false, false, false]);
  });

  it('proclaims under guard, and not what is known already', async (test) => {
    const client = connect(test, etcd.hosts);
    const election = client.election(uniqueName(), 10);
    const leader = election.campaign('a');
    await leader.proclaim('b'); // before it is elected
    await leader.wait();
    const key = await leader.getCampaignKey();
    const kv = async () => (await client.get(key).exec()).kvs[0];
    expect(await election.leader()).toBe('b');
    const before = await kv();
    expect(BigInt(before?.create_revision as string)).toBe(leader.revision);
    await leader.proclaim('b');
    expect((await kv())?.version).toBe(before?.version);
    await leader.proclaim(Buffer.from([0xff, 0]));
    expect(await election.leader('buffer')).toEqual(Buffer.from([0xff, 0]));
    expect(await election.leader('hex')).toBe('ff00');
    const guarded = () =>
      client
        .if(leader.guard())
        .then(client.put(`${key}-work`).value(1))
        .commit();
    expect((await guarded()).succeeded).toBe(true);
    await leader.resign();
    expect((await guarded()).succeeded).toBe(false);
    await expect(leader.proclaim('c')).rejects.toThrow(NotCampaigningError);
    await client.delete().key(`${key}-work`);
  });

  it('lives in its namespace', async (test) => {
    const client = connect(test, etcd.hosts);
    const name = uniqueName();
    const space = client.namespace(`${name}/`);
    const leader = await space.election('job', 10).campaign('a').wait();
    expect(await leader.getCampaignKey()).toMatch(new RegExp(`^${name}/election/job/`));
    expect(await client.election('job').leader()).toBeUndefined();
    expect(await space.election('job').leader()).toBe('a');
    const root = client.if(leader.guard()).then(client.put(`${name}/x`).value(1));
    expect((await root.commit()).succeeded).toBe(true);
    await leader.resign();
  });

  it('tells an observer the first leader, the next, its words, and nobody', async (test) => {
    const client = connect(test, etcd.hosts);
    const election = client.election(uniqueName(), 10);
    const early = await election.observe();
    expect([early.hasLeader, early.leader()]).toEqual([false, undefined]);
    const one = await election.campaign('1').wait();
    await waitFor(() => early.leader() === '1');
    const observer = await election.observe();
    expect([observer.hasLeader, observer.leader(), observer.revision]).toEqual([true, '1', one.revision]);
    const changes: unknown[] = [];
    observer.on('change', (value) => changes.push(value));
    const two = election.campaign('2');
    await two.getCampaignKey();
    await one.proclaim('1b');
    await waitFor(() => changes.includes('1b'));
    await one.resign();
    await two.wait();
    await waitFor(() => observer.leader('buffer')?.equals(Buffer.from('2')));
    await two.resign();
    await waitFor(() => !observer.hasLeader);
    expect(changes).toEqual(['1b', '2', undefined]);
    await Promise.all([observer.cancel(), observer.cancel(), early.cancel()]);
    await (await election.campaign('3').wait()).resign();
    expect(changes).toHaveLength(3);
  });

  it('says that it has no leader before it knows', async (test) => {
    const client = connect(test, etcd.hosts);
    const name = uniqueName();
    const leader = await client.election(name, 10).campaign('a').wait();
    const observer = new ElectionObserver(client.namespace(`election/${name}/`));
    expect(observer.hasLeader).toBe(false);
    const first = await new Promise((resolve) => observer.once('change', resolve));
    expect(first).toBe('a');
    await observer.cancel();
    await leader.resign();
  });

  it('emits one error for a lease revoked by hand, and one for a key deleted by hand', async (test) => {
    const client = connect(test, etcd.hosts);
    const election = client.election(uniqueName(), 60);
    for (const harm of ['revoke', 'delete'] as const) {
      const campaign = await election.campaign('a').wait();
      const told: Error[] = [];
      campaign.on('error', (error) => told.push(error));
      const key = await campaign.getCampaignKey();
      const since = Date.now();
      if (harm === 'revoke') await etcd.revoke((await etcd.leaseOf(key)) as string);
      else await etcd.del(key);
      await waitFor(() => told.length > 0);
      expect(Date.now() - since, 'not a time to live later').toBeLessThan(5000);
      expect(campaign.isLeader).toBe(false);
      expect(told[0]).toBeInstanceOf(harm === 'revoke' ? EtcdLeaseInvalidError : NotCampaigningError);
      if (harm === 'revoke') expect(told[0]?.message).toMatch(/^Lease \d+ is expired or revoked$/);
      await expect(campaign.wait()).rejects.toBe(told[0]);
      await expect(campaign.proclaim('b')).rejects.toThrow(NotCampaigningError);
      await campaign.resign();
      expect(told).toHaveLength(1);
    }
    await gone(etcd, `election/${election.name}/`);
  });

  it('goes on by itself when it is told to', async (test) => {
    const client = connect(test, etcd.hosts);
    const election = client.election(uniqueName(), 10);
    const campaign = election.campaign('a', { keepCampaigning: true });
    const told: string[] = [];
    for (const event of ['elected', 'lost', 'error'] as const) campaign.on(event as 'elected', () => told.push(event));
    await campaign.wait();
    const first = campaign.revision as bigint;
    await campaign.proclaim('b');
    await etcd.revoke((await etcd.leaseOf(await campaign.getCampaignKey())) as string);
    await waitFor(() => told.length === 3);
    expect(told).toEqual(['elected', 'lost', 'elected']);
    expect(campaign.revision).toBeGreaterThan(first);
    expect(await election.leader(), 'what was proclaimed last').toBe('b');
    await campaign.resign();
    expect(told).toHaveLength(3);
  });

  it('ends with its client, without a word, and its key is gone', async () => {
    const { Etcd3 } = await import('rollcall/etcd');
    const client = new Etcd3({ hosts: [...etcd.hosts] });
    const election = client.election(uniqueName(), 60);
    const told: unknown[] = [];
    const campaign = election.campaign('a');
    campaign.on('error', (error) => told.push(error));
    await campaign.wait();
    const observer = await election.observe();
    observer.on('error', (error) => told.push(error));
    await within(client.close(), 2000, 'close');
    expect(campaign.isLeader).toBe(false);
    await gone(etcd, `election/${election.name}/`);
    expect(told).toEqual([]);
    const late = election.campaign('b');
    await expect(late.wait()).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  });
});

it('refuses what cannot be, at once', async (test) => {
  const client = connect(test, ['127.0.0.1:1']);
  expect(() => client.election('a', 0).campaign('b')).toThrow(InvalidArgumentError);
  expect(() => client.election('a').campaign(undefined as never)).toThrow(/campaign\(\)/);
  expect(() => client.election('a').campaign('b', { stallTimeoutMs: -1 })).toThrow(/stallTimeoutMs/);
  expect(() => client.election('a', 5, { layout: 'java' as never })).toThrow(/"java"/);
  expect(Campaign).toBeTypeOf('function');
});

it('fails once where there is no etcd', async (test) => {
  const [port] = await freePorts(1);
  const client = connect(test, [`127.0.0.1:${port}`]);
  const campaign = client.election('a', 5).campaign('b');
  const told: Error[] = [];
  campaign.on('error', (error) => told.push(error));
  await expect(campaign.wait()).rejects.toThrow(GRPCUnavailableError);
  await expect(campaign.getCampaignKey()).rejects.toThrow(GRPCUnavailableError);
  await expect(client.election('a').observe()).rejects.toThrow(GRPCUnavailableError);
  await campaign.resign();
  expect(told).toHaveLength(1);
});

it('says that elections do not go through a mock', async (test) => {
  const client = connect(test, ['127.0.0.1:1']);
  client.mock({
    exec: async () => ({ kvs: [{ value: Buffer.from('mocked'), key: Buffer.from('election/a/1') }] }) as never,
  });
  expect(await client.election('a').leader()).toBe('mocked');
  await expect(client.election('a').campaign('b').wait()).rejects.toMatchObject({ code: 'ERR_UNSUPPORTED' });
  await expect(client.election('a').observe()).rejects.toMatchObject({ code: 'ERR_UNSUPPORTED' });
});
