// Calls on three members of which one is killed or frozen: what is told, what is applied, and how long it takes.

import { Etcd3, type IOptions } from 'rollcall/etcd';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { ETCD_VERSIONS, type EtcdCluster, type EtcdMember, startEtcd } from '../support/etcd.js';
import { uniqueName, waitFor, within } from '../support/process.js';

interface Failed extends Error {
  outcomeUnknown: boolean;
}

const clients: Etcd3[] = [];
function connect(hosts: readonly string[], options: Partial<IOptions> = {}): Etcd3 {
  const client = new Etcd3({ hosts: [...hosts], logger: false, ...options });
  clients.push(client);
  return client;
}
const closeAll = () => Promise.all(clients.splice(0).map((client) => client.close()));

describe.each(ETCD_VERSIONS)('three members, etcd %s', (version) => {
  let etcd: EtcdCluster;

  beforeAll(async () => {
    etcd = await startEtcd({ version, members: 3 });
  });
  beforeEach(closeAll);
  afterAll(async () => {
    await closeAll();
    await etcd?.close();
  });

  const follower = async (): Promise<EtcdMember> => {
    const leader = await etcd.leader();
    return etcd.members.find((member) => member !== leader) as EtcdMember;
  };

  /** Reads and writes all the time, until told to stop; then what became of them. */
  function load(client: Etcd3, prefix: string, width = 12) {
    const ns = client.namespace(prefix);
    const seen = { writes: new Map<string, Failed | undefined>(), reads: 0, readErrors: [] as Failed[], slowest: 0 };
    let on = true;
    const timed = async <T>(call: PromiseLike<T>): Promise<T> => {
      const start = performance.now();
      try {
        return await call;
      } finally {
        seen.slowest = Math.max(seen.slowest, performance.now() - start);
      }
    };
    const workers = Array.from({ length: width }, async (_, worker) => {
      for (let i = 0; on; i++) {
        const key = `${worker}.${i}`;
        try {
          await timed(ns.put(key).value('v').exec());
          seen.writes.set(key, undefined);
        } catch (error) {
          seen.writes.set(key, error as Failed);
        }
        try {
          await timed(ns.get(key).string());
          seen.reads++;
        } catch (error) {
          seen.readErrors.push(error as Failed);
        }
      }
    });
    return {
      seen,
      async more(count: number, timeoutMs = 30_000) {
        const goal = seen.reads + count;
        await waitFor(() => seen.reads >= goal, { what: `${count} more reads`, timeoutMs });
      },
      async stop() {
        on = false;
        await within(Promise.all(workers), 40_000, 'the end of all calls');
        const stored = new Map((await ns.getAll().exec()).kvs.map((kv) => [kv.key.toString(), kv.version]));
        for (const [key, error] of seen.writes) {
          if (!error) expect(stored.get(key), key).toBe('1');
          else if (error.outcomeUnknown) expect(stored.get(key) ?? '1', key).toBe('1');
          else expect(stored.get(key), `${key}: ${error.message}`).toBeUndefined();
        }
        return seen;
      },
    };
  }

  it('a follower is killed under load: no call is told a falsehood, reads never fail', async () => {
    const member = await follower();
    const run = load(connect([member.host, ...etcd.hosts.filter((host) => host !== member.host)]), `${uniqueName()}/`);
    await run.more(200);
    await member.kill();
    await run.more(400);
    const { readErrors, writes } = await run.stop();
    await member.start();
    expect(readErrors).toEqual([]);
    // Only those under way at that moment can be in doubt.
    const failed = [...writes.values()].filter((error) => error !== undefined);
    expect(failed.filter((error) => !error.outcomeUnknown)).toEqual([]);
    expect(failed.length).toBeLessThanOrEqual(12);
  });

  it('the leader is killed under load: reads never fail, and writes only with an unknown outcome', async () => {
    const member = await etcd.leader();
    const run = load(connect(etcd.hosts), `${uniqueName()}/`);
    await run.more(200);
    await member.kill();
    await run.more(400);
    const { readErrors, writes } = await run.stop();
    await member.start();
    expect(readErrors).toEqual([]);
    const failed = [...writes.values()].filter((error) => error !== undefined);
    expect(failed.filter((error) => !error.outcomeUnknown).map((error) => error.message)).toEqual([]);
  });

  it('a follower is frozen: with default options calls are bounded, and later ones are not affected', async () => {
    const member = await follower();
    const others = etcd.hosts.filter((host) => host !== member.host);
    const client = connect([member.host, ...others]);
    const run = load(client, `${uniqueName()}/`);
    await run.more(200);
    member.freeze();
    try {
      await run.more(400);
      const start = performance.now();
      for (let i = 0; i < 50; i++) {
        await within(client.put(`later${i}`).value('v').exec(), 3000, 'a later write');
        await within(client.get(`later${i}`).exec(), 3000, 'a later read');
      }
      expect(performance.now() - start).toBeLessThan(10_000);
      const { readErrors, writes, slowest } = await run.stop();
      expect(readErrors).toEqual([]);
      expect(slowest).toBeLessThan(18_000);
      const failed = [...writes.values()].filter((error) => error !== undefined);
      expect(failed.filter((error) => !error.outcomeUnknown)).toEqual([]);
      expect(failed.length).toBeLessThanOrEqual(12);
    } finally {
      member.thaw();
    }
  });

  it('a new client begins with a frozen member: its first calls go elsewhere after a moment', async () => {
    const member = await follower();
    const others = etcd.hosts.filter((host) => host !== member.host);
    member.freeze();
    try {
      await Promise.all(
        Array.from({ length: 6 }, async (_, i) => {
          const client = connect([member.host, ...others]);
          const key = uniqueName();
          await within(
            (i % 2 ? client.put(key).value('v') : client.get(key)).exec() as Promise<unknown>,
            8000,
            'a call',
          );
        }),
      );
    } finally {
      member.thaw();
    }
  });
});
