// rollcall/etcd beside etcd3 and beside a loop in Rust, over the same etcd, in turns.
//
//   node bench/etcd/run.mjs [--only ROW[,ROW]] [--runs N] [--ms N] [--beside FILE] [--docs] [--json FILE]
//
// It starts an etcd of its own. `--docs` writes the tables into docs/bench-etcd.md. Progress goes to standard error.
// `--beside` names the entry of another build of rollcall/etcd, such as one from before a change.
// Rows: calls, watch, lease, event-loop. Each thing is measured `--runs` times (5) for `--ms` (400), when its
// rate has become steady (support/steady.mjs).

import { writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { startEtcd } from '../support/etcd.mjs';
import { circumstances, describe, isDebugBuild, listed } from '../support/machine.mjs';
import { notSteady } from '../support/steady.mjs';
import { buildLoop, startContenders } from './contenders.mjs';
import { markdown, plain, Samples, table, targetTable, writeBetween } from './report.mjs';
import calls from './rows/calls.mjs';
import eventLoop from './rows/event-loop.mjs';
import lease from './rows/lease.mjs';
import watch from './rows/watch.mjs';

const ROWS = [calls, watch, lease, eventLoop];
const PAGE = fileURLToPath(new URL('../../docs/bench-etcd.md', import.meta.url));

const { only, runs, ms, beside, docs, json } = arguments_();
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(130)); // which ends the children

if (isDebugBuild()) {
  console.error('This is a DEBUG build of the addon: figures would say nothing. Build it with `npm run build`.');
  process.exit(1);
}
const started = performance.now();
buildLoop();
const etcd = await startEtcd({ fsync: true });
const contenders = startContenders(etcd.host, beside);
const samples = new Samples();
const before = loadavg()[0];
for (const row of ROWS.filter(({ name }) => !only || only.includes(name))) {
  const progress = (text) => {
    const seconds = Math.round((performance.now() - started) / 1000);
    console.error(`${String(seconds).padStart(4)} s  ${row.name}: ${text}`);
  };
  await row.run({ contenders, etcd, beside, runs, ms, progress, add: (cell, figures) => samples.add(cell, figures) });
}

const how = {
  runs: `${runs} of ${ms} ms each, in turns; medians`,
  'not steady': notSteady().join('; ') || 'nothing',
};
const about = circumstances({ ...describe(), ...how }, before);
for (const [what, text] of Object.entries(about)) console.log(`${what.padEnd(10)} ${text}`);
const tables = [...samples.sections()].map(([what, cells]) => [what, table(cells)]);
const targets = samples.targets();
for (const [what, lines] of tables) console.log(`\n${what}\n  ${plain(lines).join('\n  ')}`);
console.log(`\nTargets\n  ${plain(targetTable(targets)).join('\n  ')}`);
const missed = targets.filter(({ met }) => met === false);
console.log(
  `\n${missed.length === 0 ? 'Every target is met.' : `Missed: ${missed.map(({ what }) => what).join('; ')}.`}`,
);

if (docs) {
  writeBetween(PAGE, 'circumstances', listed(about));
  writeBetween(PAGE, 'targets', markdown(targetTable(targets)));
  writeBetween(PAGE, 'figures', tables.map(([what, lines]) => `### ${what}\n\n${markdown(lines)}`).join('\n\n'));
}
if (json)
  writeFileSync(json, `${JSON.stringify({ ...about, targets, cells: [...samples.cells.values()] }, null, 2)}\n`);
process.exit(); // etcd and the children end with it

function arguments_() {
  try {
    const options = {
      only: { type: 'string' },
      runs: { type: 'string', default: '5' },
      ms: { type: 'string', default: '400' },
      beside: { type: 'string' },
      docs: { type: 'boolean', default: false },
      json: { type: 'string' },
    };
    const { values } = parseArgs({ options });
    const only = values.only?.split(',');
    const unknown = only?.find((name) => !ROWS.some((row) => row.name === name));
    if (unknown !== undefined) throw new Error(`there is no row "${unknown}", only ${ROWS.map((row) => row.name)}`);
    const [runs, ms] = [Number(values.runs), Number(values.ms)];
    if (!(runs >= 1) || !(ms >= 10)) throw new Error('--runs from 1 on, --ms from 10 on');
    return { ...values, only, runs, ms };
  } catch (error) {
    console.error(error.message);
    process.exit(2);
  }
}
