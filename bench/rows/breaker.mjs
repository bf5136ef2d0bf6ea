// Circuit breakers: what a call through a closed one costs over the bare call, beside cockatiel and opossum, and what one weighs.

import { createRequire } from 'node:module';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { createBreakers } from 'rollcall/breaker';
import { writeCoord } from '../support/coord-page.mjs';
import { imported } from '../support/imported.mjs';
import { sized } from '../support/small.mjs';
import { gathering, median, now } from '../support/stats.mjs';
import { repeated, steady } from '../support/steady.mjs';

const RUNS = sized(5, 1);
const SLICES = sized(40, 2);
const CALLS = 10_000;
const WEIGHED = sized(100_000, 100);

const require = createRequire(import.meta.url);
const { circuitBreaker, ConsecutiveBreaker, CountBreaker, handleAll } = require('cockatiel');
const Opossum = require('opossum');

const call = async () => 1;

function contenders() {
  const window = { type: 'count', size: 100, failureRate: 0.5 };
  const ours = createBreakers().get('plain');
  const counting = createBreakers({ default: { window } }).get('counting');
  const timed = createBreakers({ default: { timeoutMs: 10_000 } }).get('timed');
  const consecutive = circuitBreaker(handleAll, { halfOpenAfter: 1000, breaker: new ConsecutiveBreaker(5) });
  const counted = circuitBreaker(handleAll, {
    halfOpenAfter: 1000,
    breaker: new CountBreaker({ threshold: 0.5, size: 100 }),
  });
  const opossum = new Opossum(call, { timeout: false });
  const opossumTimed = new Opossum(call, { timeout: 10_000 });
  return {
    bare: () => call(),
    ours: () => ours.do(call),
    'ours, counting': () => counting.do(call),
    'ours, timed': () => timed.do(call),
    cockatiel: () => consecutive.execute(call),
    'cockatiel, counting': () => counted.execute(call),
    opossum: () => opossum.fire(),
    'opossum, timed': () => opossumTimed.fire(),
  };
}

export default {
  name: 'breaker',
  title: 'Circuit breakers: a call through a closed one, over the bare call',
  async run({ progress }) {
    const ways = contenders();
    const { values, add } = gathering();
    const warm = {};
    const slice = async (way) => {
      const start = now();
      for (let n = 0; n < CALLS; n++) await way();
      return ((now() - start) / CALLS) * 1e6;
    };
    for (const [who, way] of Object.entries(ways)) {
      warm[who] = await steady(
        `a call, ${who}`,
        repeated(async () => {
          await slice(way);
          return CALLS;
        }),
      );
    }
    for (let run = 1; run <= RUNS; run++) {
      const slices = Object.fromEntries(Object.keys(ways).map((who) => [who, []]));
      // In turns, so that what else the machine does befalls all of them.
      for (let n = 0; n < SLICES; n++) for (const who of Object.keys(ways)) slices[who].push(await slice(ways[who]));
      const bare = median(slices.bare);
      add('bare', bare);
      for (const who of Object.keys(ways)) if (who !== 'bare') add(who, median(slices[who]) - bare);
      for (const way of ['import', 'require']) {
        const [empty, whole] = [imported(way, '../programs/import-empty.cjs'), imported(way, 'rollcall/breaker')];
        add(`${way} empty`, empty);
        add(way, whole - empty);
      }
      progress(`${run}/${RUNS}`);
    }
    const line = (what, who, more = {}) => ({ what, unit: 'ns', values: values[who], steady: warm[who], ...more });
    const beside = (who) => ({ ratio: { to: who, values: values[who] } });
    return [
      line('the bare call: an async function, awaited', 'bare'),
      line('through a breaker, what it adds', 'ours', { target: 80, ...beside('cockatiel') }),
      line('  that counts a share of 100 calls', 'ours, counting', beside('cockatiel, counting')),
      line('  with timeoutMs', 'ours, timed', beside('opossum, timed')),
      line('cockatiel 3, consecutive failures', 'cockatiel'),
      line('  a share of 100 calls', 'cockatiel, counting'),
      line('opossum 9, without its timeout', 'opossum'),
      line('  with its timeout', 'opossum, timed'),
      { what: `memory of each, of ${WEIGHED}`, unit: 'kB', values: [weight()], target: 1 },
      { what: 'import "rollcall/breaker", over an empty module', unit: 'ms', values: values.import, target: 3 },
      { what: '  the empty module', unit: 'ms', values: values['import empty'] },
      { what: 'require("rollcall/breaker"), over an empty module', unit: 'ms', values: values.require, target: 3 },
      { what: '  the empty module', unit: 'ms', values: values['require empty'] },
    ];
  },

  write: (figures) => writeCoord('breaker', figures),
};

/** In kB, of heap. */
function weight() {
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc');
  const breakers = createBreakers({ maxKeys: WEIGHED });
  const names = Array.from({ length: WEIGHED }, (_, n) => `grpc:service:Method${n}`);
  gc();
  const before = process.memoryUsage().heapUsed;
  for (const name of names) breakers.get(name);
  gc();
  const after = process.memoryUsage().heapUsed;
  if (breakers.get(names[0]).state !== 'closed') throw new Error('nothing was called');
  return (after - before) / WEIGHED / 1000;
}
