import { startEtcd, under } from '../../__test__/support/etcd.js';
import type { Listed } from '../history.js';
import type { Servers } from './servers.js';

const PREFIX = '/microservices/';

interface Answer {
  readonly kvs?: readonly {
    readonly key: string;
    readonly value: string;
    readonly lease?: string;
    readonly create_revision: string;
  }[];
}

const keyOf = (name: string, id: string): string => `${PREFIX}${name}/${id}`;
const base64 = (text: string): string => Buffer.from(text).toString('base64');
const text = (encoded: string): string => Buffer.from(encoded, 'base64').toString();

export async function etcdServers(): Promise<Servers> {
  const etcd = await startEtcd({ members: 3 });
  const range = (what: object): Promise<Answer> => etcd.call<Answer>('/v3/kv/range', what);
  return {
    bounds: {
      ttlMs: 5000,
      // A pause of 10 s at most between two tries, and one try of 5 s.
      repairMs: 17_000,
      // etcd looks for expired leases twice a second, and a proposal may wait.
      removalMs: 3000,
      deliveryMs: 2500,
      // A silent peer is found within 15 s by pings, within 20 s by a question on the stream.
      staleMs: 22_000,
    },
    interchangeable: true,
    // etcd asks who leads before it revokes what it takes for expired, but not when its own clock has just ticked
    // (`ensureLeadership` of 3.7.3; https://github.com/etcd-io/etcd/issues/15247).
    stoppedLeaderRevokes: true,
    members: etcd.members,
    leader: () => etcd.leader(),
    options: (hosts) => ({ backend: 'etcd', hosts: [...hosts] }),
    async truth(names) {
      const { kvs = [] } = await range(under(PREFIX));
      const found: Record<string, Record<string, number>> = Object.fromEntries(names.map((name) => [name, {}]));
      for (const { value } of kvs) {
        const record = JSON.parse(text(value)) as { id: string; name: string; metadata: { n: string } };
        const list = found[record.name];
        if (list) list[record.id] = Number(record.metadata.n);
      }
      return found as Record<string, Listed>;
    },
    async remove(name, id) {
      await etcd.del(keyOf(name, id));
    },
    keyOf,
    etcd: {
      async moveLeader() {
        const leader = await etcd.leader();
        const follower = etcd.members.find((member) => member !== leader && member.running && !member.frozen);
        if (!follower) return;
        const { members } = JSON.parse(await etcd.ctl('member', 'list', '-w', 'json', '--hex')) as {
          members: { name: string; ID: string | number }[];
        };
        const id = members.find(({ name }) => name === follower.name)?.ID;
        await etcd.ctl('move-leader', String(id));
      },
      compact: () => etcd.compact(),
      async revoke(what) {
        const { kvs = [] } = await range('prefix' in what ? under(what.prefix) : { key: base64(what.key) });
        const [oldest] = [...kvs].sort((a, b) => Number(a.create_revision) - Number(b.create_revision));
        if (!oldest?.lease) return undefined;
        // When the answer is lost, it may have been revoked all the same.
        await etcd.call('/v3/lease/revoke', { ID: oldest.lease }).catch(() => {});
        return Number(oldest.create_revision);
      },
    },
    close: () => etcd.close(),
  };
}
