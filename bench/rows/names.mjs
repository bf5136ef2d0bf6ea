// watchServices() of many names on etcd: the first list, and what one change of it costs.

import { setTimeout as delay } from 'node:timers/promises';
import { Etcd3 } from 'etcd3';
import { start } from '../support/child.mjs';
import { fill } from '../support/fill.mjs';
import { instanceOf, keyOf, recordOf } from '../support/instances.mjs';
import { sized } from '../support/small.mjs';
import { median, now } from '../support/stats.mjs';
import { steady } from '../support/steady.mjs';

const RUNS = sized(5, 1);
const NAMES = sized(10_000, 100);
const CHANGES = sized(300, 10);
const PACE_MS = 20;
const READS = sized(100, 5);
const PREFIX = '/bench-names';

export default {
  name: 'names',
  title: `watchServices(), ${NAMES} names`,
  needsEtcd: true,
  async run({ etcd, progress }) {
    const names = Array.from({ length: NAMES }, (_, index) => `service-${String(index).padStart(5, '0')}`);
    const writer = new Etcd3({ hosts: etcd.host });
    await fill(writer, PREFIX, names, 1, progress);
    const measured = {
      first: [],
      firstThread: [],
      firstSent: [],
      resident: [],
      read: [],
      lag: [],
      thread: [],
      process: [],
      sent: [],
    };
    let warm = true;
    for (let run = 1; run <= RUNS; run++) {
      progress(`run ${run}/${RUNS}`);
      const client = start('names-client.mjs', { nodeArgs: ['--expose-gc'] });
      try {
        const before = await client.ask('open', { host: etcd.host, prefix: PREFIX });
        let sent = await sentBy(etcd);
        const first = await client.ask('follow');
        if (first.names !== NAMES) throw new Error(`${first.names} names instead of ${NAMES}`);
        measured.first.push(first.ms);
        measured.firstThread.push(first.thread);
        measured.firstSent.push(((await sentBy(etcd)) - sent) / 1024);
        measured.resident.push((first.resident - before.resident) / NAMES);
        measured.read.push((await client.ask('read', READS)) * 1000);

        // An instance more of a name, then one less of it: the count of one name is another each time.
        let at = 0;
        const change = async () => {
          const instance = instanceOf(names[((at >> 1) * 37) % NAMES], 1);
          const key = keyOf(PREFIX, instance);
          await (at++ % 2 === 0 ? writer.put(key).value(recordOf(instance)) : writer.delete().key(key));
          return now();
        };
        const slice = async (ms) => {
          const begun = now();
          let count = 0;
          for (; now() - begun < ms; count++) await change();
          return (count / (now() - begun)) * 1000;
        };
        if (!(await steady(`names changed, ${run}/${RUNS}`, slice))) warm = false;
        await delay(500); // what was changed has arrived
        sent = await sentBy(etcd);
        await client.ask('begin');
        const written = [];
        for (let count = 0; count < CHANGES; count++) {
          written.push(await change());
          await delay(PACE_MS);
        }
        await delay(200);
        const { arrived, thread, process } = await client.ask('end');
        measured.sent.push(((await sentBy(etcd)) - sent) / CHANGES);
        // The latest wins: where a list takes longer than the pace, some are skipped.
        if (arrived.length < CHANGES / 2) throw new Error(`${arrived.length} lists of ${CHANGES} changes`);
        measured.thread.push((thread / arrived.length) * 1000);
        measured.process.push((process / arrived.length) * 1000);
        // A list may come before the answer of the write.
        const lags = written.map((when) => arrived.find((list) => list >= when - PACE_MS / 2) - when);
        measured.lag.push(median(lags.filter((lag) => !Number.isNaN(lag))));
      } finally {
        await client.end();
      }
    }
    await writer.delete().prefix(PREFIX);
    writer.close();
    const of = (what, unit, key) => ({ what, unit, values: measured[key], steady: warm });
    return [
      { what: 'until the first list', unit: 'ms', values: measured.first },
      { what: '  JavaScript thread', unit: 'ms', values: measured.firstThread },
      { what: '  sent by etcd', unit: 'KiB', values: measured.firstSent },
      { what: '  memory per name', unit: 'bytes', values: measured.resident },
      { what: 'services() from it', unit: 'µs', values: measured.read },
      of('from the answer of a write to the list', 'ms', 'lag'),
      of('one list with one change: JavaScript thread', 'µs', 'thread'),
      of('  all threads', 'µs', 'process'),
      of('  sent by etcd, the answer of the write too', 'bytes', 'sent'),
    ];
  },
};

/** The bytes that etcd has sent to all clients. */
async function sentBy(etcd) {
  const page = await (await fetch(`${etcd.httpUrl}/metrics`)).text();
  return Number(/^etcd_network_client_grpc_sent_bytes_total (\S+)$/m.exec(page)?.[1]);
}
