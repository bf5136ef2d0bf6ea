// What every process under test has: a history, calls with a time limit written into it, and orders from the conductor.
import { appendFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

/** What the conductor says this process is. */
export const role = JSON.parse(process.argv[2]);

/** Milliseconds of the machine's monotonic clock, the same in every process. */
export const now = () => Number(process.hrtime.bigint() / 1000n) / 1000;

// Written at once: what a process knew is known also when it is killed.
export const tell = (kind, more = {}) => {
  appendFileSync(role.history, `${JSON.stringify({ kind, at: now(), who: role.who, ...more })}\n`);
};

let calls = 0;

/** Makes a call that must settle in time, whatever its outcome; gives the error of one that was refused. */
export async function call(what, of, withinMs, make, more = {}) {
  const id = ++calls;
  tell('call', { id, what, of, withinMs, ...more });
  try {
    const value = await make();
    tell('settled', { id });
    return { value };
  } catch (error) {
    tell('settled', { id, error: `${error?.code ?? error?.name}: ${error?.message}` });
    return { error };
  }
}

/** Until it succeeds, as a program does whose service must come up. */
export async function untilDone(what, of, withinMs, make, more = () => ({})) {
  for (;;) {
    const { value, error } = await call(what, of, withinMs, make, more());
    if (!error) return value;
    await pause(200);
  }
}

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** The event loop stands still, as in a long computation or a synchronous read; it takes no processor. */
const block = (ms) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);

/** Tells the conductor that it is at work, and does what it orders, one thing after the other, when `begun` is done. */
export function obey(orders, begun = Promise.resolve()) {
  let last = begun;
  createInterface({ input: process.stdin }).on('line', (line) => {
    const { order, ...given } = JSON.parse(line);
    if (order === 'block') block(given.ms);
    else last = last.then(() => orders[order](given));
  });
  process.stdout.write('{"ready":true}\n');
}
