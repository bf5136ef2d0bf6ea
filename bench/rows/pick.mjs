// pick() of a service, and the picker's part of a change: no registry, no network.

import { createRequire } from 'node:module';
import { sized } from '../support/small.mjs';
import { median, now } from '../support/stats.mjs';
import { repeated, steady } from '../support/steady.mjs';

const RUNS = sized(5, 1);
const SIZES = [10, 100, 10_000];
const SLICES = sized(400, 2);
const CHANGES = sized(40, 4);
/**
 * What is timed at once. Of the picks without `done()` so many are under way in the end. The median of the slices of a run
 * counts: the machine takes the processor away during a few of them.
 */
const FLYING = 256;

/** What TypeScript made of lib/service: a bench needs more of it than the package shows. */
const require = createRequire(import.meta.url);
const { Balancer } = require('../../dist/cjs/service/balance.js');
const { now: clock } = require('../../dist/cjs/common/clock.js');
const { OUTLIER_DEFAULTS } = require('../../dist/cjs/service/ejector.js');
const { lag } = require('../../dist/cjs/service/lag.js');
const strategies = require('../../dist/cjs/service/pick/index.js');
const { Tickets } = require('../../dist/cjs/service/ticket.js');
const { View } = require('../../dist/cjs/service/view.js');

/** By name: the strategy, and the targets in ns of a pick and of a pick with done(), in µs of a change among 10,000. */
const TARGETS = {
  random: [200, 400, 1000],
  roundRobin: [200, 400, 1000],
  weighted: [200, 400, 1000],
  weightedRandom: [undefined, undefined, 1000],
  leastLoaded: [200, 400, 1000],
  consistentHash: [1000, undefined, 1000],
};

const instanceOf = (n, seq = 0) =>
  Object.freeze({
    id: `orders-${String(n).padStart(5, '0')}`,
    name: 'orders',
    version: `1.4.${seq}`,
    metadata: Object.freeze({ weight: `${50 + (n % 100)}` }),
    endpoints: Object.freeze([`grpc://10.1.${n >> 8}.${n & 255}:9000`]),
  });

function service(size, name) {
  const settings = { outlier: OUTLIER_DEFAULTS, warmUpMs: 0, allowLocal: false };
  const log = { level: 'off', write() {} };
  const events = { ejected() {}, restored() {}, panic() {} };
  const balancer = new Balancer('orders', settings, { now: clock, random: Math.random, lag, log }, events);
  const list = Array.from({ length: size }, (_, n) => instanceOf(n));
  balancer.setList(Object.freeze(list));
  const view = new View(balancer, new Tickets(balancer), { filters: [], strategy: strategies[name]() });
  return { balancer, view, list };
}

const KEYS = Array.from({ length: 1024 }, (_, n) => `user-${String(n).padStart(11, '0')}`);
const OPTIONS = KEYS.map((key) => ({ key }));

export default {
  name: 'pick',
  title: 'pick() of a service, and the part of the picker in a change',
  async run({ progress }) {
    const figures = [];
    for (const [name, [pickTarget, doneTarget, changeTarget]] of Object.entries(TARGETS)) {
      for (const size of SIZES) {
        const { balancer, view } = service(size, name);
        const keyed = name === 'consistentHash';
        const flying = [];
        let place = 0;
        const one = keyed ? () => view.pick(OPTIONS[place++ & 1023]) : () => view.pick(undefined);
        const picks = () => {
          const start = now();
          for (let call = 0; call < FLYING; call++) flying.push(one());
          const took = now() - start;
          for (const { done } of flying.splice(0)) done();
          return took;
        };
        const calls = () => {
          const start = now();
          for (let call = 0; call < FLYING; call++) one().done();
          return now() - start;
        };
        const warm = async (what, slice) =>
          await steady(
            what,
            repeated(async () => ({ pieces: FLYING, took: slice() })),
          );
        const run = (slice) => (median(Array.from({ length: SLICES }, slice)) / FLYING) * 1e6;
        const isSteady = {
          pick: await warm(`${name} of ${size}`, picks),
          both: await warm(`${name} of ${size}, with done()`, calls),
        };
        const values = { pick: [], both: [] };
        for (let count = 0; count < RUNS; count++) {
          values.pick.push(run(picks));
          values.both.push(run(calls));
        }
        if (balancer.inFlight !== 0) throw new Error(`${balancer.inFlight} picks are not done`);
        figures.push({
          what: `${name} of ${size}`,
          unit: 'ns',
          values: values.pick,
          target: pickTarget,
          steady: isSteady.pick,
        });
        figures.push({
          what: '  with done()',
          unit: 'ns',
          values: values.both,
          target: doneTarget,
          steady: isSteady.both,
        });
        progress(`${name} of ${size}`);
      }
      figures.push({
        what: `${name}: one of 10,000 comes or goes`,
        unit: 'µs',
        ...changes(name),
        target: changeTarget,
      });
    }
    return figures;
  },
};

/** The picker's part of a change: from the new list of candidates, in the next pick. Medians of each run. */
function changes(name) {
  const values = [];
  for (let run = 0; run <= RUNS; run++) {
    const { balancer, view, list } = service(10_000, name);
    const options = name === 'consistentHash' ? OPTIONS[0] : undefined;
    view.pick(options).done();
    const times = [];
    const without = list.filter((_, n) => n !== 5000 + run);
    for (let change = 0; change < CHANGES; change++) {
      balancer.setList(Object.freeze(change % 2 === 0 ? without : [...list]));
      const start = now();
      const { done } = view.pick(options);
      times.push((now() - start) * 1000);
      done();
    }
    if (run > 0) values.push(median(times)); // the first one compiles
  }
  return { values };
}
