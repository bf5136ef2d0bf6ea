// The native call itself, at the generated binding: below what TypeScript adds.

import { jsThread } from '../support/cpu.mjs';
import { ClientHandle, nativeOptions } from '../support/native.mjs';
import { now } from '../support/stats.mjs';

const RUNS = 5;
const SYNC = 200_000;
const ASYNC = 5000;

/** What TypeScript would hand over for `memory://bench-call`. */
const OPTIONS = nativeOptions('memory', { namespace: 'bench-call' });

export default {
  name: 'call',
  title: 'The native call itself (memory, an empty service)',
  async run({ progress }) {
    const client = ClientHandle.open(OPTIONS, () => client.drain());
    const watcher = client.watch('nobody');
    const values = { sync: [], wall: [], thread: [], launch: [] };
    for (let run = 0; run <= RUNS; run++) {
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

      if (run > 0) {
        values.sync.push(sync);
        values.wall.push(wall);
        values.thread.push(thread);
        values.launch.push(launch);
      }
      progress(`${run}/${RUNS}`);
    }
    watcher.stop();
    await client.close(0, 1000);
    return [
      { what: 'sync call (version of a watch)', unit: 'ns', values: values.sync },
      { what: 'async call, from call to answer', unit: 'µs', values: values.wall },
      { what: 'async call, work of the JavaScript thread', unit: 'µs', values: values.thread },
      { what: 'async call, start alone (many at once)', unit: 'µs', values: values.launch },
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
