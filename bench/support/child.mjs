// Programs of the benchmarks, in processes of their own.

import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const programs = new URL('../programs/', import.meta.url);
const living = new Set();
process.on('exit', () => {
  for (const child of living) child.kill('SIGKILL');
});

/**
 * Starts a program that answers calls over IPC.
 *
 * @returns `pid`, `ask(action, argument)`, `on(listener)` for what it tells by itself, `end()`.
 */
export function start(program, { args = [], nodeArgs = [] } = {}) {
  const child = fork(fileURLToPath(new URL(program, programs)), args, {
    execArgv: nodeArgs,
    env: { ...process.env, NODE_OPTIONS: '' },
  });
  living.add(child);
  const pending = new Map();
  const listeners = new Set();
  let calls = 0;
  const ended = new Promise((resolve) => {
    child.once('exit', (code, signal) => {
      living.delete(child);
      for (const { reject } of pending.values()) reject(new Error(`${program} ended with ${signal ?? `code ${code}`}`));
      resolve();
    });
  });
  child.on('message', (message) => {
    if (message.id === undefined) {
      for (const listener of listeners) listener(message);
      return;
    }
    const { resolve, reject } = pending.get(message.id);
    pending.delete(message.id);
    if (message.error === undefined) resolve(message.result);
    else reject(new Error(`${program}: ${message.error}`));
  });
  return {
    pid: child.pid,
    ask: (action, argument) =>
      new Promise((resolve, reject) => {
        const id = ++calls;
        pending.set(id, { resolve, reject });
        child.send({ id, action, argument }, (error) => error && reject(error));
      }),
    on: (listener) => listeners.add(listener),
    async end() {
      child.kill('SIGKILL');
      await ended;
    },
  };
}

/** The other side of `start()`: answers with what the actions give. */
export function serve(actions) {
  process.once('disconnect', () => process.exit()); // nobody asks any more
  process.on('message', async ({ id, action, argument }) => {
    try {
      process.send({ id, result: await actions[action](argument) });
    } catch (error) {
      process.send({ id, error: error?.stack ?? String(error) });
    }
  });
}
