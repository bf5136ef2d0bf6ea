// Events: as they happen, out of the past, and for many watchers at once.

import { startLoop } from '../contenders.mjs';

const EVENTS = 50_000;
const WATCHERS = 1000;
const WRITTEN_AT_ONCE = 128;
const WHO = ['etcd3', 'rollcall'];

export default {
  name: 'watch',
  async run({ contenders, etcd, runs, progress, add }) {
    const writer = startLoop(etcd.host);
    const write = (prefix, keys, count) =>
      writer.ask('write', { prefix, keys, count, atOnce: WRITTEN_AT_ONCE, valueBytes: 100 });

    const prefix = 'bench/watched/';
    for (let run = 0; run <= runs; run++) {
      for (const who of run % 2 === 0 ? WHO : WHO.toReversed()) {
        const child = contenders[who];
        const tell = (what, figures) => run > 0 && add({ what, who }, figures);
        const events = run === 0 ? EVENTS / 10 : EVENTS;
        progress(`${who}, ${run}/${runs}`);

        await child.ask('watch', { prefix });
        const [live, { first }] = await Promise.all([child.ask('events', events), write(prefix, 1000, events)]);
        tell('watch: live events', live);
        await child.ask('unwatch');

        // From the revision before the first one: etcd keeps it, for nothing compacts here.
        tell('watch: past events', await child.ask('replay', { prefix, from: first, events }));

        const many = 'bench/many/';
        const created = await child.ask('watch', { prefix: many, each: WATCHERS });
        tell('watch: 1,000 watchers created', created);
        const [told] = await Promise.all([child.ask('events', 10 * WATCHERS), write(many, WATCHERS, 10 * WATCHERS)]);
        tell('watch: events for 1,000 watchers', told);
        await child.ask('unwatch');
        await child.ask('rest');
      }
    }
    writer.end();
  },
};
