// getService(): from a warm watch, and from the server.

import { Etcd3 } from 'etcd3';
import { connect } from 'rollcall';
import { jsThread } from '../support/cpu.mjs';
import { instanceOf, keyOf, recordOf } from '../support/instances.mjs';
import { sized } from '../support/small.mjs';
import { now } from '../support/stats.mjs';
import { repeated, steady } from '../support/steady.mjs';

const RUNS = sized(5, 1);
const WARM = sized(100_000, 100);
const PREFIX = '/bench-get';
const SERVICES = 64; // so that calls made at once ask for different things
const INSTANCES = 10;
const CALLS = sized({ 1: 500, 64: 3000 }, { 1: 20, 64: 128 });

const nameOf = (index) => `service-${index % SERVICES}`;

export default {
  name: 'get',
  title: `getService(), ${INSTANCES} instances`,
  needsEtcd: true,
  async run({ etcd, progress }) {
    const client = new Etcd3({ hosts: etcd.host });
    for (let service = 0; service < SERVICES; service++) {
      for (let n = 0; n < INSTANCES; n++) {
        const instance = instanceOf(nameOf(service), n);
        await client.put(keyOf(PREFIX, instance)).value(recordOf(instance));
      }
    }
    const registry = await connect(`etcd://${etcd.host}?prefix=${PREFIX}`);
    const watching = await connect(`etcd://${etcd.host}?prefix=${PREFIX}`);
    const watcher = watching.watch(nameOf(0));
    await watcher.next();

    const reads = {
      rollcall: (name) => registry.getService(name),
      etcd3: async (name) => Object.values(await client.getAll().prefix(`${PREFIX}/${name}/`).json()),
    };
    for (const read of Object.values(reads)) {
      const found = (await read(nameOf(1))).length;
      if (found !== INSTANCES) throw new Error(`${found} instances instead of ${INSTANCES}`);
    }

    const warm = [];
    const loads = { rollcall: { 1: [], 64: [] }, etcd3: { 1: [], 64: [] } };
    const fromWatch = async () => {
      for (let call = 0; call < WARM; call++) await watching.getService('service-0');
      return WARM;
    };
    const steadily = { rollcall: {}, etcd3: {} };
    steadily.watch = await steady('from a warm watch', repeated(fromWatch));
    for (const [who, read] of Object.entries(reads)) {
      for (const atOnce of Object.keys(CALLS)) {
        const some = async () => {
          await load(read, Number(atOnce), SERVICES);
          return SERVICES;
        };
        steadily[who][atOnce] = await steady(`getService(), ${atOnce} at once, ${who}`, repeated(some));
      }
    }
    for (let run = 1; run <= RUNS; run++) {
      const start = now();
      await fromWatch();
      warm.push(((now() - start) / WARM) * 1000);

      for (const [who, read] of Object.entries(reads)) {
        for (const [atOnce, calls] of Object.entries(CALLS)) {
          loads[who][atOnce].push(await load(read, Number(atOnce), calls));
        }
      }
      progress(`${run}/${RUNS}`);
    }
    watcher.stop();
    await watching.close();
    await registry.close();
    client.close();

    const figures = [{ what: 'from a warm watch', unit: 'µs', values: warm, target: 2, steady: steadily.watch }];
    for (const atOnce of Object.keys(CALLS)) {
      for (const [kind, title] of [
        ['wall', 'time per call'],
        ['thread', 'JavaScript thread per call'],
      ]) {
        const of = (who) => loads[who][atOnce].map((times) => times[kind]);
        const where = `from the server, ${atOnce} at once: ${title}`;
        figures.push({ what: where, unit: 'µs', values: of('rollcall'), steady: steadily.rollcall[atOnce] });
        figures.push({
          what: '  etcd3: getAll().prefix().json()',
          unit: 'µs',
          values: of('etcd3'),
          ratio: { to: 'rollcall', values: of('rollcall') },
          steady: steadily.etcd3[atOnce],
        });
      }
    }
    return figures;
  },
};

/** Microseconds of one call, when so many are under way all the time: by the clock, and of the JavaScript thread. */
async function load(read, atOnce, calls) {
  let begun = 0;
  const worker = async () => {
    while (begun < calls) await read(nameOf(begun++));
  };
  const cpu = jsThread();
  const start = now();
  await Promise.all(Array.from({ length: atOnce }, worker));
  return { wall: ((now() - start) / calls) * 1000, thread: ((jsThread() - cpu) / calls) * 1000 };
}
