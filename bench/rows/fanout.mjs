// One client that watches 1,000 services of 100 instances each: its memory, and what one change costs.

import { setTimeout as delay } from 'node:timers/promises';
import { Etcd3 } from 'etcd3';
import { start } from '../support/child.mjs';
import { fill } from '../support/fill.mjs';
import { instanceOf, keyOf, recordOf } from '../support/instances.mjs';
import { sized } from '../support/small.mjs';
import { now, quantile } from '../support/stats.mjs';
import { steady } from '../support/steady.mjs';

const RUNS = sized(3, 1);
const SERVICES = sized(1000, 20);
const INSTANCES = sized(100, 5);
const CHANGES = sized(400, 10);
const WARM_UP = sized(50, 2);
const PACE_MS = 5;
const PREFIX = '/bench-fanout';

export default {
  name: 'fanout',
  title: `Watching ${SERVICES} services × ${INSTANCES} instances`,
  needsEtcd: true,
  async run({ etcd, progress }) {
    const names = Array.from({ length: SERVICES }, (_, index) => `service-${String(index).padStart(4, '0')}`);
    const writer = new Etcd3({ hosts: etcd.host });
    await fill(writer, PREFIX, names, INSTANCES, progress);

    let seq = 0;
    const measured = { native: [], rollcall: [], one: [], etcd3: [] };
    const warm = { rollcall: true, one: true, etcd3: true };
    for (let run = 1; run <= RUNS; run++) {
      for (const who of Object.keys(measured)) {
        progress(`run ${run}/${RUNS}: ${who}`);
        const watched = who === 'one' ? names.slice(0, 1) : names;
        const client = start('fanout-client.mjs', { nodeArgs: ['--expose-gc'] });
        try {
          const way = who === 'one' ? 'rollcall' : who;
          const before = await client.ask('open', { way, host: etcd.host, prefix: PREFIX });
          const after = await client.ask('follow', { names: watched, perName: INSTANCES });
          const memory = { resident: after.resident - before.resident, heap: after.heap - before.heap };
          const changes = who === 'native' ? {} : await change(client, watched, who);
          measured[who].push({ tookMs: after.tookMs, ...memory, ...changes });
        } finally {
          await client.end();
        }
      }
    }
    writer.close();

    const of = (who, pick) => measured[who].map(pick);
    const memory = ({ resident }) => resident / 1e6;
    const heap = (times) => times.heap / 1e6;
    const perInstance = ({ resident }) => resident / (SERVICES * INSTANCES);
    const ratio = (pick) => ({ to: 'rollcall', values: of('rollcall', pick) });
    const figures = [
      { what: 'memory above the baseline, lists known', unit: 'MB', values: of('native', memory), target: 150 },
      { what: 'memory above the baseline, lists delivered', unit: 'MB', values: of('rollcall', memory), target: 150 },
      { what: '  etcd3', unit: 'MB', values: of('etcd3', memory), ratio: ratio(memory) },
      { what: 'JavaScript heap in it, lists delivered', unit: 'MB', values: of('rollcall', heap) },
      { what: '  etcd3', unit: 'MB', values: of('etcd3', heap), ratio: ratio(heap) },
      { what: 'memory per instance, lists known', unit: 'bytes', values: of('native', perInstance) },
      { what: 'memory per instance, lists delivered', unit: 'bytes', values: of('rollcall', perInstance) },
      { what: 'from watch() to all lists', unit: 'ms', values: of('rollcall', ({ tookMs }) => tookMs) },
      {
        what: '  etcd3',
        unit: 'ms',
        values: of('etcd3', ({ tookMs }) => tookMs),
        ratio: ratio(({ tookMs }) => tookMs),
      },
    ];
    for (const [key, title, target] of [
      ['p50', 'from a change to its delivery, p50', 5],
      ['p99', 'from a change to its delivery, p99', 5],
      ['cpu', 'processor time of the client per change'],
      ['thread', 'JavaScript thread of the client per change'],
    ]) {
      const pick = (times) => times[key];
      const unit = key.startsWith('p') ? 'ms' : 'µs';
      figures.push(
        {
          what: title,
          unit,
          values: of('rollcall', pick),
          target,
          ratio: { to: '1 service', values: of('one', pick) },
          steady: warm.rollcall,
        },
        { what: '  1 service watched', unit, values: of('one', pick), steady: warm.one },
        { what: '  etcd3', unit, values: of('etcd3', pick), ratio: ratio(pick), steady: warm.etcd3 },
      );
    }
    return figures;

    /** Changes one instance after the other, each somewhere else. Nothing but the deliveries keeps the client busy. */
    async function change(client, watched, who) {
      const begun = new Map();
      const rounds = async (count) => {
        for (let round = 0; round < count; round++) {
          const changed = instanceOf(watched[(round * 37) % watched.length], 0, ++seq);
          begun.set(seq, now());
          await writer.put(keyOf(PREFIX, changed)).value(recordOf(changed));
          await delay(PACE_MS);
        }
        await delay(100);
      };
      // The writer sets the rate: what is looked at is the work of the JavaScript thread.
      const ready = await steady(`a change delivered, ${watched.length} watched, ${who}`, async () => {
        const { thread } = await client.ask('cpu');
        await rounds(WARM_UP);
        return WARM_UP / ((await client.ask('cpu')).thread - thread);
      });
      if (!ready) warm[who] = false; // of one run: each is a process of its own
      await client.ask('deliveries');
      begun.clear();

      const before = await client.ask('cpu');
      await rounds(CHANGES);
      const after = await client.ask('cpu');
      const deliveries = await client.ask('deliveries');
      // A list may be of two changes that came at once.
      const times = [...begun].map(([change, at]) => deliveries.find((delivery) => delivery.seq >= change)?.at - at);
      if (times.some(Number.isNaN)) throw new Error('a change was not delivered within 100 ms');
      return {
        p50: quantile(times, 0.5),
        p99: quantile(times, 0.99),
        cpu: ((after.process - before.process) / CHANGES) * 1000,
        thread: ((after.thread - before.thread) / CHANGES) * 1000,
      };
    }
  },
};
