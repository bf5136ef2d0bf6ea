import { within } from '../../__test__/support/process.js';
import { startZookeeper, type ZookeeperMember } from '../../__test__/support/zookeeper.js';
import { ZkClient } from '../../__test__/support/zookeeper-client.js';
import type { Servers } from './servers.js';

const PREFIX = '/microservices';

export async function zookeeperServers(): Promise<Servers> {
  const zookeeper = await startZookeeper({ members: 3, java: ['-Xmx96m'] });
  let open: { client: ZkClient; member: ZookeeperMember } | undefined;

  /** By way of one connection, which a failure ends. */
  async function ask<T>(question: (client: ZkClient) => Promise<T>): Promise<T> {
    if (open && (!open.member.running || open.member.frozen)) leave();
    if (!open) {
      const member = zookeeper.members.find(({ running, frozen }) => running && !frozen);
      if (!member) throw new Error('no member runs');
      open = { client: await ZkClient.connect(member.host, { timeoutMs: 60_000 }), member };
    }
    try {
      return await within(question(open.client), 3000, 'an answer of ZooKeeper');
    } catch (error) {
      leave();
      throw error;
    }
  }
  function leave(): void {
    open?.client.abandon();
    open = undefined;
  }

  return {
    bounds: {
      ttlMs: 5000,
      repairMs: 17_000,
      // The leader looks once a tick.
      removalMs: 3000,
      deliveryMs: 2500,
      staleMs: 10_000,
    },
    interchangeable: true,
    members: zookeeper.members,
    leader: () => zookeeper.leader(),
    options: (hosts) => ({ backend: 'zookeeper', hosts: [...hosts] }),
    truth: (names) =>
      ask(async (client) => {
        await client.sync(PREFIX);
        const lists = await Promise.all(
          names.map(async (name) => {
            const list: Record<string, number> = {};
            const ids = await client.children(`${PREFIX}/${name}`);
            const nodes = await Promise.all(ids.map((id) => client.get(`${PREFIX}/${name}/${id}`)));
            for (const node of nodes) {
              if (!node) continue; // went meanwhile
              const record = JSON.parse(node.value) as { id: string; metadata: { n: string } };
              list[record.id] = Number(record.metadata.n);
            }
            return [name, list] as const;
          }),
        );
        return Object.fromEntries(lists);
      }),
    async remove(name, id) {
      await ask((client) => client.delete(`${PREFIX}/${name}/${id}`));
    },
    async close() {
      leave();
      await zookeeper.close();
    },
  };
}
