// One client that registers 1,000 instances at once, each with its own lease.

import { connect } from 'rollcall';
import { start } from '../support/child.mjs';
import { sized } from '../support/small.mjs';
import { now } from '../support/stats.mjs';
import { repeated, steady } from '../support/steady.mjs';

const RUNS = sized(3, 1);
const SERVICES = sized(10, 2);
const INSTANCES = sized(100, 5);
const TOTAL = SERVICES * INSTANCES;

export default {
  name: 'many',
  title: `Registering ${TOTAL} instances in one client`,
  needsEtcd: true,
  async run({ etcd, progress }) {
    const measured = { rollcall: [], etcd3: [] };
    const warm = { rollcall: true, etcd3: true };
    for (let run = 1; run <= RUNS; run++) {
      for (const way of Object.keys(measured)) {
        progress(`run ${run}/${RUNS}: ${way}`);
        const prefix = `/bench-many-${way}-${run}`;
        const names = Array.from({ length: SERVICES }, (_, index) => `service-${index}`);
        const watching = await connect({ backend: 'etcd', hosts: etcd.host, prefix });
        const visible = Promise.all(names.map((name) => untilWhole(watching.watch(name))));
        const client = start('many-client.mjs', { nodeArgs: ['--expose-gc'] });
        try {
          // A tenth of them at a time, which takes some milliseconds: many of those times make a slice.
          const some = async () => {
            await client.ask('open', { way, host: etcd.host, prefix: `${prefix}-warming-up` });
            const { start, resolved } = await client.ask('register', { names, perName: INSTANCES / 10 });
            await client.ask('close');
            return { pieces: TOTAL / 10, took: resolved - start };
          };
          // Each run is a process of its own: one that was not steady is enough to say so.
          if (!(await steady(`many registered, ${way}, ${run}/${RUNS}`, repeated(some)))) warm[way] = false;
          const before = await client.ask('open', { way, host: etcd.host, prefix });
          const told = await client.ask('register', { names, perName: INSTANCES });
          const seen = Math.max(...(await visible));
          measured[way].push({
            visible: seen - told.start,
            resolved: told.resolved - told.start,
            thread: told.thread,
            bytes: (told.resident - before.resident) / TOTAL,
            close: await client.ask('close'),
          });
        } finally {
          await client.end();
          await watching.close();
        }
      }
    }

    return [
      ['visible', 'until a watcher sees all of them', 'ms'],
      ['resolved', 'until all calls have resolved', 'ms'],
      ['thread', 'JavaScript thread in that time', 'ms'],
      ['close', 'until close() has removed them', 'ms'],
      ['bytes', 'memory per registered instance', 'bytes'],
    ].flatMap(([key, what, unit]) => {
      const of = (way) => measured[way].map((times) => times[key]);
      return [
        { what, unit, values: of('rollcall'), steady: warm.rollcall },
        {
          what: '  etcd3',
          unit,
          values: of('etcd3'),
          ratio: { to: 'rollcall', values: of('rollcall') },
          steady: warm.etcd3,
        },
      ];
    });
  },
};

async function untilWhole(watcher) {
  for await (const list of watcher) if (list.length === INSTANCES) return now();
}
