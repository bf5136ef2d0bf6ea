// What loading the package costs a process that starts: each time a fresh one.

import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { sized } from '../support/small.mjs';
import { now } from '../support/stats.mjs';

const ROUNDS = sized(15, 1);
const PROGRAMS = {
  nothing: 'import-nothing.mjs',
  esm: 'import-esm.mjs',
  cjs: 'import-cjs.cjs',
  addon: 'import-addon.cjs',
};

function run(program) {
  const file = fileURLToPath(new URL(`../programs/${program}`, import.meta.url));
  const start = now();
  const told = execFileSync(process.execPath, [file], { encoding: 'utf8', env: { ...process.env, NODE_OPTIONS: '' } });
  return { inside: Number(told), whole: now() - start };
}

export default {
  name: 'import',
  title: 'Loading the package, in a fresh process each time',
  async run({ progress }) {
    const inside = { nothing: [], esm: [], cjs: [], addon: [] };
    const whole = { nothing: [], esm: [], cjs: [], addon: [] };
    for (let round = 0; round <= ROUNDS; round++) {
      for (const [name, program] of Object.entries(PROGRAMS)) {
        const times = run(program);
        if (round === 0) continue; // the files come from the disk
        inside[name].push(times.inside);
        whole[name].push(times.whole);
      }
      progress(`${round}/${ROUNDS}`);
    }
    return [
      { what: 'import "rollcall"', unit: 'ms', values: inside.esm, target: 10 },
      { what: 'require("rollcall")', unit: 'ms', values: inside.cjs, target: 10 },
      { what: 'the addon, loaded with the first client', unit: 'ms', values: inside.addon },
      { what: 'whole process: nothing', unit: 'ms', values: whole.nothing },
      {
        what: 'whole process: import "rollcall"',
        unit: 'ms',
        values: whole.esm,
        ratio: { to: 'nothing', values: whole.nothing },
      },
    ];
  },
};
