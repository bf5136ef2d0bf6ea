// The native call itself, at the generated binding: below what TypeScript adds.

import { jsThread } from '../support/cpu.mjs';
import { open } from '../support/native.mjs';
import { sized } from '../support/small.mjs';
import { now } from '../support/stats.mjs';
import { repeated, steady } from '../support/steady.mjs';

const RUNS = sized(5, 1);
const SYNC = sized(200_000, 100);
const ASYNC = sized(5000, 20);

export default {
  name: 'call',
  title: 'The native call itself (memory, an empty service)',
  async run({ progress }) {
    const client = await open({ backend: 'memory', namespace: 'bench-call' });
    const watcher = client.watch('nobody');
    const values = { sync: [], wall: [], thread: [], launch: [] };
    const called = await steady(
      'a sync call',
      repeated(async () => {
        perCall(watcher);
        return SYNC;
      }),
    );
    const answered = await steady(
      'an async call',
      repeated(async () => {
        for (let call = 0; call < ASYNC / 10; call++) await client.getService('nobody', true, 10_000, null);
        return ASYNC / 10;
      }),
    );
    for (let run = 1; run <= RUNS; run++) {
      const sync = perCall(watcher);

      const wallStart = now();
      const cpuStart = jsThread();
      for (let call = 0; call < ASYNC; call++) await client.getService('nobody', true, 10_000, null);
      const wall = ((now() - wallStart) / ASYNC) * 1000;
      const thread = ((jsThread() - cpuStart) / ASYNC) * 1000;

      const calls = [];
      const launchStart = now();
      for (let call = 0; call < ASYNC; call++) calls.push(client.getService('nobody', true, 10_000, null));
      const launch = ((now() - launchStart) / ASYNC) * 1000;
      await Promise.all(calls);

      values.sync.push(sync);
      values.wall.push(wall);
      values.thread.push(thread);
      values.launch.push(launch);
      progress(`${run}/${RUNS}`);
    }
    watcher.stop();
    await client.close(0, 1000);
    return [
      { what: 'sync call (version of a watch)', unit: 'ns', values: values.sync, steady: called },
      { what: 'async call, from call to answer', unit: 'µs', values: values.wall, steady: answered },
      { what: 'async call, work of the JavaScript thread', unit: 'µs', values: values.thread, steady: answered },
      { what: 'async call, start alone (many at once)', unit: 'µs', values: values.launch, steady: answered },
    ];
  },
};

/** Nanoseconds. */
function perCall(handle) {
  let sum = 0;
  const start = now();
  for (let call = 0; call < SYNC; call++) sum += handle.version();
  return sum < 0 ? 0 : ((now() - start) / SYNC) * 1e6;
}
