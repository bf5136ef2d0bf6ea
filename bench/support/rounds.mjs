// Ways to make the same calls, in alternating rounds: what each costs in processor time, of the client and of its servers.
import { ofProcess, wholeProcess } from './cpu.mjs';
import { repeated, steady } from './steady.mjs';

const CALLERS = 16;

/**
 * Each way: `{ what, call, than, target }`, where `than` is the place of the way that it may cost `target` percent more than.
 *
 * @returns figures: of each way in µs, then in percent what it costs more.
 */
export async function inRounds(ways, { rounds, calls, pid, progress }) {
  const steadies = [];
  for (const { what, call } of ways) {
    steadies.push(
      await steady(
        what,
        repeated(() => many(call, 500)),
      ),
    );
  }
  const values = ways.map(() => []);
  for (let round = 0; round < rounds; round++) {
    // The order turns: who comes first has the heap that the last one left.
    for (let turn = 0; turn < ways.length; turn++) {
      const n = (round + turn) % ways.length;
      const before = wholeProcess() + ofProcess(pid);
      await many(ways[n].call, calls);
      values[n].push(((wholeProcess() + ofProcess(pid) - before) / calls) * 1000);
    }
    progress(`${round + 1}/${rounds}`);
  }
  return [
    ...ways.map(({ what }, n) => ({ what, unit: 'µs', values: values[n], steady: steadies[n] })),
    ...ways.flatMap(({ what, than, target }, n) => {
      if (than === undefined) return [];
      const more = values[n].map((value, round) => (value / values[than][round] - 1) * 100);
      return [{ what: `${what}: more than fixed`, unit: '%', values: more, target }];
    }),
  ];
}

/** Makes so many calls, some at once; gives how many. */
async function many(call, count) {
  let left = count;
  const caller = async () => {
    while (left-- > 0) await call();
  };
  await Promise.all(Array.from({ length: CALLERS }, caller));
  return count;
}
