// Single calls: get, put, a transaction, and lists of some lengths.

import { steady } from '../../support/steady.mjs';
import { CONTENDERS } from '../contenders.mjs';

const KEYS = 1000;
const VALUE_BYTES = 100;
const WRITTEN_AT_ONCE = 64;

/** What is asked, and by how many callers at once. */
const LOADS = [
  { name: 'get', do: 'get', atOnce: [1, 16, 128, 1024] },
  { name: 'put', do: 'put', atOnce: [1, 16, 128, 1024] },
  { name: 'txn', do: 'txn', atOnce: [1, 16, 128, 1024] },
  { name: 'getAll of 10', do: 'list', keys: 10, atOnce: [1, 16, 128, 1024] },
  { name: 'getAll of 1,000', do: 'list', keys: 1000, atOnce: [1, 16] },
  { name: 'getAll of 50,000', do: 'list', keys: 50_000, atOnce: [1], ms: 1500 },
];

export default {
  name: 'calls',
  /** Calls `add(cell, figures)` for each thing measured. */
  async run({ contenders, runs, ms, progress, add }) {
    const written = new Set();
    for (const { name, do: what, keys = KEYS, atOnce: callers, ms: own = ms } of LOADS) {
      const about = { prefix: `bench/${what === 'list' ? keys : 'single'}/`, keys, valueBytes: VALUE_BYTES };
      if (!written.has(about.prefix)) {
        await contenders.rust.ask('write', { ...about, count: keys, atOnce: WRITTEN_AT_ONCE });
        written.add(about.prefix);
      }
      for (const atOnce of callers) {
        progress(`${name}, ${atOnce} at once`);
        const load = (who, time) => contenders[who].ask('load', { ...about, do: what, atOnce, ms: time });
        const warm = {};
        for (const who of turns(0)) {
          warm[who] = await steady(
            `${name}, ${atOnce} at once, ${who}`,
            async (slice) => (await load(who, slice)).perSecond,
          );
        }
        for (let run = 1; run <= runs; run++) {
          for (const who of turns(run)) {
            add({ what: name, atOnce, who, steady: warm[who] }, await load(who, own));
          }
        }
      }
    }
  },
};

/** Each begins in turn, so that none always has the same neighbour. */
function turns(run) {
  const all = Object.keys(CONTENDERS);
  return all.map((_, place) => all[(place + run) % all.length]);
}
