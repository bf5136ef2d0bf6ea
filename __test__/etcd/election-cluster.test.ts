/** Elections when members of the cluster die or stop. */

import { describe, expect, it } from 'vitest';
import { ETCD_VERSIONS } from '../support/etcd.js';
import { uniqueName, waitFor, within } from '../support/process.js';
import { connect, expectOneAtATime, sampled, server } from './recipes.js';

describe.each(ETCD_VERSIONS)('three members of etcd %s', (version) => {
  it('lose their leader, and nobody loses the election', async (test) => {
    const etcd = await server(test, { version, members: 3 });
    const client = connect(test, etcd.hosts);
    const election = client.election(uniqueName(), 8);
    const told: Error[] = [];
    const leader = await election.campaign('a').wait();
    const next = election.campaign('b');
    for (const campaign of [leader, next]) campaign.on('error', (error) => told.push(error));
    const [leads, nextLeads] = [sampled(test, 'a', leader), sampled(test, 'b', next)];
    const observer = await election.observe();
    observer.on('error', (error) => told.push(error));
    await next.getCampaignKey();
    const killed = await etcd.leader();
    await killed.kill();
    await waitFor(() => leader.proclaim('a2').then(() => true), { timeoutMs: 20_000, what: 'a proclamation' });
    await waitFor(() => observer.leader() === 'a2');
    expect(leader.isLeader).toBe(true);
    await killed.start();
    const frozen = await etcd.leader();
    frozen.freeze();
    try {
      await waitFor(() => leader.proclaim('a3').then(() => true), { timeoutMs: 20_000, what: 'a proclamation' });
      expect(leader.isLeader).toBe(true);
      await leader.resign();
      // Its watch may be on the stopped member: it does not wait for that alone.
      await within(next.wait(), 14_000, 'the next leads');
      await waitFor(() => nextLeads.length === 1);
    } finally {
      frozen.thaw();
    }
    await waitFor(() => observer.leader() === 'b', { timeoutMs: 20_000 });
    expectOneAtATime([...leads, ...nextLeads], 0);
    expect(told).toEqual([]);
    await next.resign();
  });
});
