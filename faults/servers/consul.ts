import { type ConsulAgent, startConsul } from '../../__test__/support/consul.js';
import type { Servers } from './servers.js';

interface Entry {
  readonly Service: { readonly ID: string; readonly Meta: { readonly n?: string } };
}

export async function consulServers(): Promise<Servers> {
  // The agents here are the servers. Autopilot would take one that is stopped out of the catalog with all it has; going on, it tells
  // of its services before their TTL checks, and dead ones show. README, "where the agent is a server".
  const config = { autopilot: { cleanup_dead_servers: false } };
  const consul = await startConsul({ servers: 3, config });
  const alive = (): ConsulAgent[] => consul.agents.filter((agent) => agent.running && !agent.frozen);
  const first = async <T>(ask: (agent: ConsulAgent) => Promise<T>): Promise<T> => {
    let last: unknown = new Error('no agent runs');
    for (const agent of alive()) {
      try {
        return await ask(agent);
      } catch (error) {
        last = error;
      }
    }
    throw last;
  };
  return {
    bounds: {
      ttlMs: 5000,
      // A pause of 10 s at most, a try of 5 s, and what an agent takes by itself: after a failed synchronization with the
      // servers it takes no change to them for 15 to 30 s (`retryFailIntv` of agent/ae/ae.go in Consul 1.22).
      repairMs: 45_000,
      removalMs: 5000,
      deliveryMs: 3000,
      staleMs: 25_000,
    },
    // A registration is one of its agent, and lost with it.
    interchangeable: false,
    // Where its full synchronization fell due meanwhile, it tells of what it has before it looks at the clock of its TTL check:
    // for one write of the servers. README, "An agent that was stopped".
    stoppedShowsMs: 3000,
    members: consul.agents,
    leader: () => consul.leader(),
    options: (hosts) => ({ backend: 'consul', hosts: [...hosts] }),
    async truth(names) {
      const lists = await Promise.all(
        names.map(async (name) => {
          const entries = await first((agent) =>
            agent.get<Entry[]>(`/v1/health/service/${name}?passing=true&consistent`),
          );
          const list: Record<string, number> = {};
          for (const { Service } of entries) list[Service.ID] = Math.max(list[Service.ID] ?? 0, Number(Service.Meta.n));
          return [name, list] as const;
        }),
      );
      return Object.fromEntries(lists);
    },
    async remove(_name, id) {
      for (const agent of alive()) if ((await agent.services()).includes(id)) await agent.deregister(id);
    },
    close: () => consul.close(),
  };
}
