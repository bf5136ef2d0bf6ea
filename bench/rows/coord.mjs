// Configuration: what reading a value costs, how soon a change is heard, and how long the first load takes.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Etcd3 } from 'etcd3';
import { connectCoord, defineConfig } from 'rollcall/coord';
import { writeCoord } from '../support/coord-page.mjs';
import { jsThread } from '../support/cpu.mjs';
import { imported } from '../support/imported.mjs';
import { sized } from '../support/small.mjs';
import { gathering, median, now, quantile } from '../support/stats.mjs';
import { repeated, steady } from '../support/steady.mjs';

const RUNS = sized(5, 1);
const KEYS = sized(10_000, 300);
const CHANGES = sized(300, 5);
/** Each takes `settleMs` at least. */
const SETTLED = sized(40, 2);
const READS = sized(10_000_000, 1000);
/** What a transaction takes. */
const AT_ONCE = 100;

const schema = { '~standard': { version: 1, vendor: 'bench', validate: (value) => ({ value }) } };
const definitionOf = (folder) => defineConfig({ key: `${folder}/limits`, schema, default: { max: 0 } });

export default {
  name: 'coord',
  title: `Configuration on etcd; ${KEYS} other keys in its folder where that is said`,
  needsEtcd: true,
  async run({ etcd, progress }) {
    const url = `etcd://${etcd.host}`;
    const { values, add } = gathering();
    // As a change is made: nothing is gathered, and nothing read before.
    const writer = await connectCoord({ url, history: 0 });
    await fill(writer, '/bench/many');
    const etcd3 = new Etcd3({ hosts: etcd.host });
    const warm = {};
    for (let run = 1; run <= RUNS; run++) {
      add('imports', imported('import', 'rollcall/coord'));
      for (const folder of ['few', 'many']) {
        const coord = await connectCoord({ url, settleMs: 0 });
        const start = now();
        const ref = await coord.config.open(definitionOf(`/bench/${folder}`));
        if (folder === 'many') add('load', now() - start);
        const heard = (hear) => ref.subscribe(() => hear());
        const made = ours(writer, `/bench/${folder}/limits`);
        // It has to be warm in the first run alone, which is the same program.
        warm[folder] ??= await steady(
          `a change, ${folder} keys`,
          repeated(() => changes(10, heard, made).then(({ length }) => length)),
        );
        const before = jsThread();
        const times = await changes(CHANGES, heard, made);
        add(`${folder} thread`, ((jsThread() - before) * 1000) / CHANGES);
        add(folder, median(times));
        add(`${folder} late`, quantile(times, 0.99));
        if (folder === 'few') add('read', reads(ref));
        await coord.close();
      }
      const asItIs = await connectCoord({ url });
      const ref = await asItIs.config.open(definitionOf('/bench/few'));
      const settled = await changes(SETTLED, (hear) => ref.subscribe(() => hear()), ours(writer, '/bench/few/limits'));
      add('settled', median(settled));
      add('settled late', quantile(settled, 0.99));
      await asItIs.close();
      await followed(etcd3, warm, add);
      add('file', await fromFile());
      progress(`${run}/${RUNS}`);
    }
    await writer.close();
    etcd3.close();
    const of = (what, key, unit, more) => ({ what, unit, values: values[key], ...more });
    const toEtcd3 = (key) => ({ ratio: { to: 'etcd3', values: values[key] } });
    return [
      of('import "rollcall/coord"', 'imports', 'ms', { target: 10 }),
      of('ref.value.max', 'read', 'ns', { target: 5 }),
      of('set() to subscriber, settleMs 0: p50', 'few', 'ms', { target: 2, steady: warm.few, ...toEtcd3('etcd3') }),
      of('  p99', 'few late', 'ms', { target: 10, ...toEtcd3('etcd3 late') }),
      of('  JS thread, of writer and reader', 'few thread', 'µs'),
      of('the same with the default of settleMs, 50: p50', 'settled', 'ms'),
      of('  p99', 'settled late', 'ms'),
      of('put() to a watch, and JSON.parse(), by etcd3: p50', 'etcd3', 'ms', { steady: warm.etcd3 }),
      of('  p99', 'etcd3 late', 'ms'),
      of(`set() to subscriber among ${KEYS} keys: p50`, 'many', 'ms', { target: 5, steady: warm.many }),
      of('  p99', 'many late', 'ms'),
      of('  JS thread, of writer and reader', 'many thread', 'µs'),
      of('  of it what the many keys add', 'added', 'µs', {
        values: values['many thread'].map((took, run) => Math.max(0, took - values['few thread'][run])),
        target: 150,
      }),
      of(`first load of ${KEYS} keys`, 'load', 'ms', { target: 300 }),
      of('start from the file, after connectTimeoutMs', 'file', 'ms', { target: 50 }),
    ];
  },

  write: (figures) => writeCoord('config', figures),
};

const ours =
  ({ config }, key) =>
  () =>
    config.set(key, { max: Math.random() });

/** What a program does without configuration: a watch of the key, and `JSON.parse()`. */
async function followed(etcd3, warm, add) {
  const key = '/bench/etcd3/limits';
  const watcher = await etcd3.watch().key(key).create();
  let value;
  const heard = (hear) => {
    const listener = ({ value: text }) => {
      value = JSON.parse(text);
      hear();
    };
    watcher.on('put', listener);
    return () => watcher.off('put', listener);
  };
  const write = async () => await etcd3.put(key).value(JSON.stringify({ max: Math.random() }));
  warm.etcd3 ??= await steady(
    'a watch of etcd3',
    repeated(() => changes(10, heard, write).then(({ length }) => length)),
  );
  const times = await changes(CHANGES, heard, write);
  if (typeof value.max !== 'number') throw new Error('it did not hear the value');
  add('etcd3', median(times));
  add('etcd3 late', quantile(times, 0.99));
  await watcher.cancel();
}

async function fill({ config }, folder) {
  for (let from = 0; from < KEYS; from += AT_ONCE) {
    const some = Array.from({ length: Math.min(AT_ONCE, KEYS - from) }, (_, n) => [`${folder}/key-${from + n}`, { n }]);
    await config.setAll(Object.fromEntries(some));
  }
}

/** From before each write until it is heard of. */
async function changes(count, listen, write) {
  const times = [];
  let hear;
  const end = listen(() => hear());
  for (let n = 1; n <= count; n++) {
    const heard = new Promise((resolve) => {
      hear = resolve;
    });
    const start = now();
    const written = write();
    await heard;
    times.push(now() - start);
    await written;
  }
  end();
  return times;
}

/** Nanoseconds of one read of a field. */
function reads(ref) {
  let sum = 0;
  const start = now();
  for (let n = 0; n < READS; n++) sum += ref.value.max;
  const took = now() - start;
  if (Number.isNaN(sum)) throw new Error('what was read is no number');
  return (took / READS) * 1e6;
}

/** What `open()` takes beyond `connectTimeoutMs`, where nothing answers. */
async function fromFile() {
  const cacheDir = mkdtempSync(join(tmpdir(), 'rollcall-bench-'));
  const definition = definitionOf('/bench/file');
  const wait = 200;
  try {
    const before = await connectCoord({ url: 'memory://bench-coord', cacheDir });
    await before.config.get(definition);
    await before.close();
    const coord = await connectCoord({ url: 'etcd://127.0.0.1:1', cacheDir, connectTimeoutMs: wait, logger: false });
    const start = now();
    const ref = await coord.config.open(definition);
    const took = now() - start - wait;
    if (ref.source !== 'file') throw new Error(`it is from the ${ref.source}`);
    await coord.close();
    return Math.max(took, 0);
  } finally {
    rmSync(cacheDir, { recursive: true, force: true });
  }
}
