// Events: as they happen, out of the past, and for many watchers at once.

import { steady } from '../../support/steady.mjs';
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
    const liveOf = async (child, events) => {
      await child.ask('watch', { prefix });
      const [figures, { first }] = await Promise.all([child.ask('events', events), write(prefix, 1000, events)]);
      await child.ask('unwatch');
      return { figures, first };
    };
    // From the revision before the first one: etcd keeps it, for nothing compacts here.
    const pastOf = (child, from, events) => child.ask('replay', { prefix, from, events });
    const manyOf = async (child, events) => {
      const many = 'bench/many/';
      const created = await child.ask('watch', { prefix: many, each: WATCHERS });
      const [told] = await Promise.all([child.ask('events', events), write(many, WATCHERS, events)]);
      await child.ask('unwatch');
      return { created, told };
    };

    const warm = {};
    for (const who of WHO) {
      const child = contenders[who];
      progress(`${who} warms up`);
      let from;
      // The writer sets the rate of what is live: what is looked at is the work of the JavaScript thread.
      const live = await steady(`live events, ${who}`, async () => {
        const { figures, first } = await liveOf(child, EVENTS / 10);
        from ??= first;
        return 1 / figures.thread;
      });
      const past = await steady(`past events, ${who}`, async () => 1 / (await pastOf(child, from, EVENTS / 10)).thread);
      const many = await steady(
        `1,000 watchers, ${who}`,
        async () => 1 / (await manyOf(child, 2 * WATCHERS)).told.thread,
      );
      warm[who] = { live, past, many };
    }
    for (let run = 1; run <= runs; run++) {
      for (const who of run % 2 === 0 ? WHO : WHO.toReversed()) {
        const child = contenders[who];
        const { live, past, many } = warm[who];
        const tell = (what, steady, figures) => add({ what, who, steady }, figures);
        progress(`${who}, ${run}/${runs}`);
        const { figures, first } = await liveOf(child, EVENTS);
        tell('watch: live events', live, figures);
        tell('watch: past events', past, await pastOf(child, first, EVENTS));
        const { created, told } = await manyOf(child, 10 * WATCHERS);
        tell('watch: 1,000 watchers created', many, created);
        tell('watch: events for 1,000 watchers', many, told);
      }
    }
    writer.end();
  },
};
