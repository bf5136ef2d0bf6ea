/** What must never make two leaders: outages, partitions, stopped processes, blocked threads. */

import { EtcdLeaseInvalidError } from 'rollcall/etcd';
import { describe, expect, it } from 'vitest';
import { ETCD_VERSIONS } from '../support/etcd.js';
import { inTime, said, uniqueName, waitFor, within } from '../support/process.js';
import { startToxiproxy } from '../support/toxiproxy.js';
import { candidate, candidates, connect, expectOneAtATime, gone, intervals, sampled, server } from './recipes.js';

describe.concurrent.each(ETCD_VERSIONS)('etcd %s', (version) => {
  it('an outage longer than the lease ends both candidates once and elects neither', async (test) => {
    const etcd = await server(test, { version });
    const client = connect(test, etcd.hosts);
    const election = client.election(uniqueName(), 2);
    const told: Record<string, string[]> = { a: [], b: [] };
    const campaigns = ['a', 'b'].map((who) => {
      const campaign = election.campaign(who);
      campaign.on('elected', () => told[who]?.push('elected'));
      campaign.on('error', (error) => told[who]?.push(error.name));
      return campaign;
    });
    await waitFor(async () => (await candidates(etcd, election.name)).length === 2);
    await waitFor(() => campaigns.some((campaign) => campaign.isLeader));
    const [leader, other] = campaigns[0]?.isLeader ? ['a', 'b'] : ['b', 'a'];
    await etcd.kill();
    await waitFor(() => told[leader as string]?.length === 2 && told[other as string]?.length === 1);
    await etcd.start();
    await gone(etcd, `election/${election.name}/`);
    // The next one leads after all that has been said that could be.
    const next = await within(election.campaign('c').wait(), 10_000, 'the next leader');
    expect(told[leader as string]).toEqual(['elected', 'EtcdLeaseInvalidError']);
    expect(told[other as string]).toEqual(['EtcdLeaseInvalidError']);
    await next.resign();
  });

  it('the retry example of etcd3, in two processes through an outage, comes to one leader and one key each', async (test) => {
    const etcd = await server(test, { version });
    const name = uniqueName();
    const order = { hosts: etcd.hosts, name, ttl: 5, mode: 'retry', retryMs: 1000 } as const;
    const processes = [candidate(test, order), candidate(test, order)];
    await waitFor(async () => (await candidates(etcd, name)).length === 2);
    await Promise.race(processes.map((process) => said(process, 'acts')));
    await etcd.kill();
    // Several rounds of trying again in each.
    await waitFor(() => processes.every(({ seen }) => seen.filter(({ event }) => event === 'error').length >= 4), {
      timeoutMs: 20_000,
      what: 'four failures in each process',
    });
    const since = Date.now();
    await etcd.start();
    const leads = await Promise.race(processes.map((process) => said(process, 'elected', since)));
    await waitFor(async () => (await candidates(etcd, name)).length === 2);
    const others = processes.filter(({ seen }) => !seen.includes(leads));
    expect(others).toHaveLength(1);
    // For as long as a lease of before could live, and the tries of before could come through.
    await waitFor(async () => {
      expect((await candidates(etcd, name)).length).toBeLessThanOrEqual(2);
      expect(others[0]?.seen.filter(({ event, at }) => event === 'elected' && at >= since)).toEqual([]);
      return Date.now() - leads.at > 6000;
    });
    expectOneAtATime(processes.flatMap(({ seen }, i) => intervals(`process ${i}`, seen)));
    for (const { seen } of processes) {
      // Each try fails once: a second later the next one, and never two at once.
      const errors = seen.filter(({ event }) => event === 'error').map(({ at }) => at);
      for (const [i, at] of errors.entries()) if (i > 0) expect(at - (errors[i - 1] as number)).toBeGreaterThan(900);
    }
  });

  it('a leader behind a black hole stops before another one begins', async (test) => {
    const etcd = await server(test, { version });
    const toxiproxy = await startToxiproxy();
    test.onTestFinished(() => toxiproxy.close());
    const link = await toxiproxy.proxy(etcd.hosts[0] as string);
    const [cut, free] = [connect(test, [link.host]), connect(test, etcd.hosts)];
    const name = uniqueName();
    const old = cut.election(name, 2).campaign('old');
    const told: Error[] = [];
    old.on('error', (error) => told.push(error));
    const oldLeads = sampled(test, 'old', old);
    await old.wait();
    const next = free.election(name, 2).campaign('new');
    const newLeads = sampled(test, 'new', next);
    await next.getCampaignKey();
    await link.timeout();
    await within(next.wait(), 10_000, 'the other leads');
    expect(old.isLeader).toBe(false);
    await waitFor(() => told.length === 1);
    expect(told[0]).toBeInstanceOf(EtcdLeaseInvalidError);
    expect(told[0]?.message).toContain('our lease has expired');
    await link.clear();
    await waitFor(() => newLeads.length === 1 && newLeads[0]?.from !== newLeads[0]?.to);
    expectOneAtATime([...oldLeads, ...newLeads], 0);
    await next.resign();
    expect(told).toHaveLength(1);
  });

  it('a leader that was stopped says that it has lost before it acts, and its guarded write fails', async (test) => {
    const etcd = await server(test, { version });
    const order = { hosts: etcd.hosts, name: uniqueName(), ttl: 2, mode: 'campaign' } as const;
    const old = candidate(test, order);
    await said(old, 'acts');
    const next = candidate(test, order);
    await waitFor(async () => (await candidates(etcd, order.name)).length === 2);
    old.kill('SIGSTOP');
    await said(next, 'elected');
    const woken = Date.now();
    old.kill('SIGCONT');
    expect((await said(old, 'woke', woken)).acts).toBe(false);
    const stops = await said(old, 'stops', woken);
    const error = await said(old, 'error', woken);
    expect(error.name).toBe('EtcdLeaseInvalidError');
    expect(old.seen.filter(({ event, at }) => at >= woken && (event === 'acts' || event === 'elected'))).toEqual([]);
    expect(stops.at - woken, 'at once').toBeLessThan(inTime(1000));
    old.send({ write: `${order.name}/w` });
    next.send({ write: `${order.name}/w` });
    expect((await said(old, 'wrote')).succeeded).toBe(false);
    expect((await said(next, 'wrote')).succeeded).toBe(true);
    expect(old.seen.filter(({ event }) => event === 'error')).toHaveLength(1);
  });

  it('a candidate that was stopped when its turn came does not lead when it wakes', async (test) => {
    const etcd = await server(test, { version });
    const order = { hosts: etcd.hosts, name: uniqueName(), ttl: 2, mode: 'campaign' } as const;
    const first = candidate(test, order);
    await said(first, 'acts');
    const waiting = candidate(test, order);
    await waitFor(async () => (await candidates(etcd, order.name)).length === 2);
    const third = candidate(test, order);
    await waitFor(async () => (await candidates(etcd, order.name)).length === 3);
    waiting.kill('SIGSTOP');
    first.send({ resign: true });
    await said(third, 'elected');
    waiting.kill('SIGCONT');
    await said(waiting, 'error');
    expect(waiting.seen.filter(({ event }) => event !== 'woke').map(({ event }) => event)).toEqual(['error']);
  });

  it('a blocked thread of 5 s keeps the leadership of 2 s, unless it is told to give it up', async (test) => {
    const etcd = await server(test, { version });
    const name = uniqueName();
    const kept = candidate(test, { hosts: etcd.hosts, name, ttl: 2, mode: 'campaign' });
    const options = { stallTimeoutMs: 1000 };
    const givenUp = candidate(test, { hosts: etcd.hosts, name: `${name}-stall`, ttl: 60, mode: 'campaign', options });
    await Promise.all([said(kept, 'acts'), said(givenUp, 'acts')]);
    const other = connect(test, etcd.hosts);
    const rival = other.election(name, 5).campaign('rival');
    const heir = other.election(`${name}-stall`, 5).campaign('heir');
    await Promise.all([rival.getCampaignKey(), heir.getCampaignKey()]);
    kept.send({ block: 5000 });
    givenUp.send({ block: 5000 });
    await within(heir.wait(), 4500, 'another leads while the thread is still blocked');
    const [after, lost] = await Promise.all([said(kept, 'blocked'), said(givenUp, 'blocked')]);
    expect([after.acts, lost.acts]).toEqual([true, false]);
    expect(rival.isLeader).toBe(false);
    const error = await said(givenUp, 'error');
    expect(error.message).toContain('silent');
    await said(kept, 'woke');
    expect(kept.seen.map(({ event }) => event).sort()).toEqual(['acts', 'blocked', 'elected', 'woke']);
    await Promise.all([rival.resign(), heir.resign()]);
  });
});
