// Benchmarks: speed and memory, each figure beside its target.
//
//   node bench/run.mjs [--only ROW[,ROW]] [--docs] [--json FILE] [--small]
//
// Some rows run only where they are named (backends). `--docs` writes the page of those that have one.
// It starts an etcd of its own. Progress goes to standard error. A target that is missed is printed as missed.
// `--small` runs each row in its smallest size: to see that it runs.

import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import backends from './rows/backends.mjs';
import breaker from './rows/breaker.mjs';
import call from './rows/call.mjs';
import coord from './rows/coord.mjs';
import fanout from './rows/fanout.mjs';
import get from './rows/get.mjs';
import grpc from './rows/grpc.mjs';
import http from './rows/http.mjs';
import imports from './rows/import.mjs';
import locks from './rows/locks.mjs';
import many from './rows/many.mjs';
import names from './rows/names.mjs';
import once from './rows/once.mjs';
import pick from './rows/pick.mjs';
import ratelimit from './rows/ratelimit.mjs';
import register from './rows/register.mjs';
import traffic from './rows/traffic.mjs';
import uid from './rows/uid.mjs';
import { etcdVersion, startEtcd } from './support/etcd.mjs';
import { describe, isDebugBuild } from './support/machine.mjs';
import { summed, tableOf } from './support/report.mjs';
import { isSmall } from './support/small.mjs';
import { HOW, notSteady } from './support/steady.mjs';

const ROWS = [
  imports,
  call,
  pick,
  grpc,
  http,
  register,
  traffic,
  get,
  fanout,
  names,
  many,
  coord,
  locks,
  breaker,
  uid,
  once,
  ratelimit,
  backends,
];

const { only, docs, json } = arguments_();
process.setMaxListeners(50); // each server, and each program that is measured, ends with this one
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(130)); // which ends the children

const about = describe();
for (const [what, text] of Object.entries(about)) console.log(`${what.padEnd(9)} ${text}`);
if (isDebugBuild() && !isSmall)
  console.log('\nA DEBUG build of the addon: these figures say nothing. Build it with `npm run build`.');

const started = performance.now();
const rows = [];
let etcd;
for (const row of ROWS.filter(({ name, onRequest }) => (only ? only.includes(name) : !onRequest))) {
  if (row.needsEtcd && !etcdVersion()) {
    console.log(`\n${row.title}\n  left out: servers/bin/etcd is not built`);
    continue;
  }
  if (row.needsEtcd) etcd ??= await startEtcd();
  const progress = (text) => {
    const seconds = Math.round((performance.now() - started) / 1000);
    console.error(`${String(seconds).padStart(4)} s  ${row.name}: ${text}`);
  };
  progress(row.title);
  const figures = (await row.run({ etcd, progress })).map(summed);
  rows.push({ row: row.name, title: row.title, figures });
  console.log(`\n${row.title}`);
  for (const line of row.show?.(figures) ?? tableOf(figures)) console.log(`  ${line}`);
  if (docs) row.write?.(figures);
}

if (isSmall) console.log('\nEvery row runs. In this size the figures say nothing.');
else judge();
if (json) writeFileSync(json, `${JSON.stringify({ ...about, date: new Date().toISOString(), rows }, null, 2)}\n`);
process.exit(); // etcd and the children end with it

function judge() {
  const missed = rows.flatMap(({ figures }) => figures.filter(({ met }) => met === false));
  console.log(
    `\n${missed.length === 0 ? 'Every target is met.' : `Missed: ${missed.map(({ what }) => what).join('; ')}.`}`,
  );
  console.log(`Before it is counted, ${HOW}. Not steady: ${notSteady().join('; ') || 'nothing'}.`);
}

function arguments_() {
  const names = ROWS.map(({ name }) => name);
  try {
    const { values } = parseArgs({
      options: {
        only: { type: 'string' },
        docs: { type: 'boolean', default: false },
        json: { type: 'string' },
        small: { type: 'boolean' },
      },
    });
    const only = values.only?.split(',');
    const unknown = only?.find((name) => !names.includes(name));
    if (unknown !== undefined) throw new Error(`there is no row "${unknown}", only ${names.join(', ')}`);
    return { only, docs: values.docs, json: values.json };
  } catch (error) {
    console.error(error.message);
    process.exit(2);
  }
}
