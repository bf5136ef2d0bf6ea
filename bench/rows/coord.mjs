// Configuration: what reading a value costs, how soon a change is heard, and how long the first load takes.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { connectCoord, defineConfig } from 'rollcall/coord';
import { sized } from '../support/small.mjs';
import { median, now, quantile } from '../support/stats.mjs';

const RUNS = sized(5, 1);
const KEYS = sized(10_000, 300);
const CHANGES = sized(300, 5);
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
    const values = { read: [], few: [], fewLate: [], many: [], manyLate: [], load: [], file: [], imports: [] };
    // As a change is made: nothing is gathered, and nothing read before.
    const writer = await connectCoord({ url, history: 0 });
    await fill(writer, '/bench/many');
    for (let run = 1; run <= RUNS; run++) {
      values.imports.push(imported());
      for (const [folder, all, late] of [
        ['/bench/few', values.few, values.fewLate],
        ['/bench/many', values.many, values.manyLate],
      ]) {
        const coord = await connectCoord({ url, settleMs: 0 });
        const start = now();
        const ref = await coord.config.open(definitionOf(folder));
        if (folder === '/bench/many') values.load.push(now() - start);
        const times = await changes(writer, ref, `${folder}/limits`);
        all.push(median(times));
        late.push(quantile(times, 0.99));
        if (folder === '/bench/few') values.read.push(reads(ref));
        await coord.close();
      }
      values.file.push(await fromFile());
      progress(`${run}/${RUNS}`);
    }
    await writer.close();
    return [
      { what: 'import "rollcall/coord"', unit: 'ms', values: values.imports, target: 10 },
      { what: 'ref.value.max', unit: 'ns', values: values.read, target: 5 },
      { what: 'set() to subscriber, settleMs 0: p50', unit: 'ms', values: values.few, target: 2 },
      { what: '  p99', unit: 'ms', values: values.fewLate, target: 10 },
      { what: `among ${KEYS} keys: p50`, unit: 'ms', values: values.many, target: 5 },
      { what: '  p99', unit: 'ms', values: values.manyLate },
      { what: `first load of ${KEYS} keys`, unit: 'ms', values: values.load, target: 300 },
      { what: 'start from the file, after connectTimeoutMs', unit: 'ms', values: values.file, target: 50 },
    ];
  },
};

/** What `import` takes in a fresh process. */
function imported() {
  const program = fileURLToPath(new URL('../programs/import-coord.mjs', import.meta.url));
  return Number(
    execFileSync(process.execPath, [program], { encoding: 'utf8', env: { ...process.env, NODE_OPTIONS: '' } }),
  );
}

async function fill({ config }, folder) {
  for (let from = 0; from < KEYS; from += AT_ONCE) {
    const some = Array.from({ length: Math.min(AT_ONCE, KEYS - from) }, (_, n) => [`${folder}/key-${from + n}`, { n }]);
    await config.setAll(Object.fromEntries(some));
  }
}

/** From before each `set()` until the subscriber hears of it. */
async function changes({ config }, ref, key) {
  const times = [];
  let hear;
  const end = ref.subscribe(() => hear());
  for (let n = 1; n <= CHANGES; n++) {
    const heard = new Promise((resolve) => {
      hear = resolve;
    });
    const start = now();
    const written = config.set(key, { max: Math.random() });
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
