// Outages that are shorter than the timeout of the session, by seeded schedules: none costs the session.
//
// OUTAGES=100 makes as many of each kind, and NAMES=20000 watches so many names, in place of the few of every day.
import { connect, type Registry } from 'rollcall';
import { describe, expect, test } from 'vitest';
import { record } from '../conformance/backends.js';
import { hear, inTime, quiet, sees, timed, waitFor } from '../conformance/kit.js';
import { seeded } from '../support/random.js';
import { startBlackHole, type TcpProxy } from '../support/tcp.js';
import { startZookeeper, type ZookeeperEnsemble } from '../support/zookeeper.js';
import { connected, type Finish, wayTo } from './kit.js';

const OUTAGES = Number(process.env.OUTAGES ?? 4);
const NAMES = Number(process.env.NAMES ?? 1000);
const TTL_MS = 4000;
/** Between two outages: until the pause before the first is back to what it is on any day. */
const REST_MS = 700;

async function client(context: Finish, hosts: string[]): Promise<Registry> {
  return connected(context, { backend: 'zookeeper', hosts, ttlMs: TTL_MS, logger: false });
}

const fault = {
  cut: {
    begin: (_: ZookeeperEnsemble, links: TcpProxy[]) => links.forEach((link) => void link.setEnabled(false)),
    end: (_: ZookeeperEnsemble, links: TcpProxy[]) => links.forEach((link) => void link.setEnabled(true)),
  },
  hold: {
    begin: (_: ZookeeperEnsemble, links: TcpProxy[]) => links.forEach((link) => void link.hold()),
    end: (_: ZookeeperEnsemble, links: TcpProxy[]) => links.forEach((link) => void link.release()),
  },
  freeze: {
    begin: (zookeeper: ZookeeperEnsemble) => zookeeper.freeze(),
    end: (zookeeper: ZookeeperEnsemble) => zookeeper.thaw(),
  },
};

const owner = async (zookeeper: ZookeeperEnsemble): Promise<bigint | undefined> =>
  (await (await zookeeper.client()).get('/microservices/orders/a'))?.stat.ephemeralOwner;

describe.concurrent('outages of 0.3 to 0.95 of the session timeout cost no session', () => {
  test.for([
    ['cut off from the one member', 1, 'cut'],
    ['cut off from all three members', 3, 'cut'],
    ['the one member is frozen', 1, 'freeze'],
    ['nothing passes, and nothing is closed', 3, 'hold'],
  ] as const)('%s', { timeout: 60_000 + OUTAGES * 12_000 }, async ([, members, kind], context) => {
    const zookeeper = await startZookeeper({ members });
    context.onTestFinished(() => zookeeper.close());
    const links = await Promise.all(zookeeper.hosts.map((host) => wayTo(context, host)));
    const registry = await client(
      context,
      links.map(({ host }) => host),
    );
    const registration = await registry.register({ name: 'orders', id: 'a' });
    const heard = hear(registration);
    const session = await owner(zookeeper);
    const random = seeded(members * 1000 + kind.length);
    for (let outage = 1; outage <= OUTAGES; outage++) {
      const ms = Math.round(TTL_MS * (0.3 + random() * 0.65));
      fault[kind].begin(zookeeper, links);
      await quiet(ms); // this is what an outage is
      fault[kind].end(zookeeper, links);
      await waitFor(
        () =>
          registry.getService('orders', { consistent: true }).then(
            () => true,
            () => false,
          ),
        {
          what: `a connection after outage ${outage} of ${ms} ms`,
        },
      );
      await quiet(REST_MS);
      expect(heard.events, `outage ${outage} of ${ms} ms`).toEqual([]);
    }
    await sees(registry, 'orders', ['a']);
    expect(await owner(zookeeper)).toBe(session);
  });
});

describe('size costs no session', { timeout: 120_000 }, () => {
  test(`a cut with ${NAMES} watched names: all are whole again, and nobody is told of what did not change`, async (context) => {
    const zookeeper = await startZookeeper();
    context.onTestFinished(() => zookeeper.close());
    const names = Array.from({ length: NAMES }, (_, at) => `name-${at}`);
    const writer = await zookeeper.client();
    await writer.createAll('/microservices');
    for (let at = 0; at < NAMES; at += 250) {
      const writes = names.slice(at, at + 250).flatMap((name) => [
        { create: `/microservices/${name}`, value: '' },
        { create: `/microservices/${name}/a`, value: record(name, 'a') },
      ]);
      await writer.multi(writes);
    }
    const link = await wayTo(context, zookeeper.hosts[0] as string);
    const registry = await client(context, [link.host]);
    const heard = hear(await registry.register({ name: 'orders', id: 'a' }));
    const session = await owner(zookeeper);
    let [lists, fresh] = [0, 0];
    const watchers = names.map((name) => registry.watch(name));
    for (const watcher of watchers) {
      watcher.on('fresh', () => fresh++);
      void (async () => {
        for await (const list of watcher) lists += list.length;
      })();
    }
    await waitFor(() => lists === NAMES, { timeoutMs: 60_000, what: 'all lists' });
    const cuts = NAMES < 20_000 ? 1 : 3;
    for (let cut = 1; cut <= cuts; cut++) {
      if (cut > 1) await quiet(11_000); // after so long a break is a first one again
      const start = performance.now();
      link.sever();
      await waitFor(() => fresh >= cut * NAMES, { timeoutMs: 30_000, intervalMs: 5, what: 'all to be whole again' });
      const ms = performance.now() - start;
      console.log(`${NAMES} names were whole ${ms.toFixed(0)} ms after cut ${cut}`);
      expect(watchers.filter((watcher) => watcher.stale).length).toBe(0);
      expect(ms).toBeLessThan(inTime(2000));
    }
    expect([lists, fresh, heard.events]).toEqual([NAMES, cuts * NAMES, []]);
    expect(await owner(zookeeper)).toBe(session);
    await writer.put(`/microservices/name-7/b`, record('name-7', 'b'));
    await waitFor(() => lists === NAMES + 2, { what: 'the change of one name' });
  });
});

describe.concurrent('members that do not answer', { timeout: 120_000 }, () => {
  test('a frozen one is left within a third of the timeout', async (context) => {
    const zookeeper = await startZookeeper({ members: 3 });
    context.onTestFinished(() => zookeeper.close());
    const registry = await client(context, [...zookeeper.hosts]);
    const heard = hear(await registry.register({ name: 'orders', id: 'a' }));
    for (const member of zookeeper.members) {
      const leader = await zookeeper.leader();
      member.freeze();
      const { ms } = await timed(
        waitFor(() => registry.getService('orders', { consistent: true, timeoutMs: 10_000 }), { timeoutMs: 20_000 }),
      );
      // The two others find a new leader first, if it was this one: that is not the client's time.
      if (member !== leader) expect(ms).toBeLessThan(inTime(TTL_MS / 3 + 500));
      member.thaw();
    }
    expect(heard.events).toEqual([]);
  });

  test('connectTimeoutMs holds with a black-holed host among three, and alone', async (context) => {
    const zookeeper = await startZookeeper();
    const hole = await startBlackHole();
    context.onTestFinished(() => hole.close());
    context.onTestFinished(() => zookeeper.close());
    for (let round = 0; round < 5; round++) {
      const open = connect({
        backend: 'zookeeper',
        hosts: [hole.host, '127.0.0.1:1', zookeeper.hosts[0] as string],
        ttlMs: 30_000,
        connectTimeoutMs: 1000,
      });
      const { ms, value } = await timed(open);
      expect(ms).toBeLessThan(inTime(1000));
      await value?.close();
    }
    const { ms, error } = await timed(
      connect({ backend: 'zookeeper', hosts: [hole.host], ttlMs: 30_000, connectTimeoutMs: 500, logger: false }),
    );
    expect(error).toMatchObject({ code: expect.stringMatching(/^ERR_(TIMEOUT|UNAVAILABLE)$/) });
    expect(ms).toBeLessThan(inTime(1500));
  });
});
