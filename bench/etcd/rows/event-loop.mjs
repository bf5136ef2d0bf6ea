// What a client leaves of the event loop of a program that has work of its own.

import { pathToFileURL } from 'node:url';
import { start } from '../../support/child.mjs';
import { steady } from '../../support/steady.mjs';
import { startLoop } from '../contenders.mjs';

const KEYS = { prefix: 'bench/busy/', keys: 1000 };
const EVENTS = 60_000;
const MS = 4000;
const CONNECTIONS = 16;
const WRITTEN_AT_ONCE = 64;
const LOOPS = [
  ['300 loops of a get, 100 µs of work each', { loops: 300, workUs: 100 }],
  ['1,000 loops of a get, 30 µs of work each', { loops: 1000, workUs: 30 }],
  ['128 loops of a get, no work', { loops: 128, workUs: 0 }],
];

export default {
  name: 'event-loop',
  async run({ etcd, beside, runs, progress, add }) {
    const modules = {
      etcd3: 'etcd3',
      rollcall: 'rollcall/etcd',
      ...(beside && { beside: pathToFileURL(beside).href }),
    };
    const programs = Object.entries(modules).map(([who, module]) => [
      who,
      start('../etcd/programs/event-loop.mjs', { args: [who, etcd.host, module], nodeArgs: ['--no-warnings'] }),
    ]);
    const browser = start('../etcd/programs/http-load.mjs');
    const browsing = { connections: CONNECTIONS, most: 1e9 };
    const writer = startLoop(etcd.host);
    const write = (count) => writer.ask('write', { ...KEYS, count, atOnce: WRITTEN_AT_ONCE, valueBytes: 100 });

    progress('writes the past');
    const { first: from } = await write(EVENTS);
    const live = async (program, count, workUs) => {
      await program.ask('open', { prefix: KEYS.prefix, workUs });
      const [figures] = await Promise.all([program.ask('take', { count }), write(count)]);
      await program.ask('close');
      return figures;
    };
    const warm = {};
    const ports = {};
    for (const [who, program] of programs) {
      progress(`${who} warms up`);
      const rate = async (ms) => (await program.ask('calls', { ...KEYS, loops: 128, workUs: 0, ms })).perSecond;
      const calls = await steady(`gets in loops, ${who}`, rate);
      const past = { prefix: KEYS.prefix, from, count: EVENTS / 10, workUs: 0 };
      const events = await steady(`past events, ${who}`, async () => 1 / (await program.ask('events', past)).thread);
      const { port } = await program.ask('listen', { workUs: 100 });
      ports[who] = port;
      const served = async (ms) => (await browser.ask('load', { ...browsing, port, ms })).perSecond;
      const http = await steady(`HTTP requests, ${who}`, served);
      warm[who] = { calls, events, http };
    }
    for (let run = 1; run <= runs; run++) {
      for (const [who, program] of run % 2 === 0 ? programs : programs.toReversed()) {
        progress(`${who}, ${run}/${runs}`);
        const { calls, events, http } = warm[who];
        const tell = (what, steady, figures) => add({ what: `event loop: ${what}`, who, steady }, figures);
        for (const [what, loops] of LOOPS) tell(what, calls, await program.ask('calls', { ...KEYS, ...loops, ms: MS }));
        const past = { prefix: KEYS.prefix, from, count: EVENTS, workUs: 100 };
        tell('60,000 past events, 100 µs of work each', events, await program.ask('events', past));
        tell('20,000 live events, 100 µs of work each', events, await live(program, EVENTS / 3, 100));

        const [{ thread, ...loop }, requests] = await Promise.all([
          program.ask('calls', { ...KEYS, loops: 300, workUs: 100, ms: MS }),
          browser.ask('load', { ...browsing, port: ports[who], ms: MS }),
        ]);
        tell('HTTP requests, 100 µs of work each, beside 300 such loops', http, { ...loop, ...requests });
      }
    }
    await Promise.all([...programs.map(([, program]) => program.end()), browser.end(), writer.end()]);
  },
};
