// Small helpers of the suite: hear events, expect typed errors, run a scenario in a process or a worker thread.
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import type { ErrorCode, Registration, Registry, RegistryOptions, ServiceInstance, Watcher } from 'rollcall';
import { RollcallError } from 'rollcall';
import { expect } from 'vitest';
import { GiveUp, inTime, runScript, waitFor, within } from '../support/process.js';

export { inTime, waitFor, within };

export const ids = (list: readonly ServiceInstance[]): string[] => list.map((instance) => instance.id);

/** A list without what the registry alone knows, for comparing it with what was registered. */
export const unstamped = (list: readonly ServiceInstance[]): ServiceInstance[] =>
  list.map(({ since: _, ...rest }) => rest);

/** Waits for the clock. Only where absence over time is what a test shows; each use says why it is that long. */
export const quiet = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export interface Heard {
  /** The events in order. */
  readonly events: string[];
  /** What came with each `lost`. */
  readonly reasons: string[];
  count(event: string): number;
}

/** Writes down every event of a registration; `out` with its reason. */
export function hear(registration: Registration): Heard {
  const events: string[] = [];
  const reasons: string[] = [];
  registration.on('lost', (reason: string) => {
    events.push('lost');
    reasons.push(reason);
  });
  registration.on('restored', () => events.push('restored'));
  registration.on('replaced', () => events.push('replaced'));
  registration.on('stalled', () => events.push('stalled'));
  registration.on('out', (reason) => events.push(`out ${reason}`));
  registration.on('in', () => events.push('in'));
  return { events, reasons, count: (event) => events.filter((heard) => heard === event).length };
}

/** The promise rejects with a RollcallError of this code; its message matches. Gives the error for more questions. */
export async function refused(
  promise: Promise<unknown>,
  code: ErrorCode | ErrorCode[],
  message?: RegExp,
): Promise<RollcallError> {
  const error = await promise.then(
    (value) => expect.fail(`expected a rejection with ${String(code)}, got ${JSON.stringify(value)}`),
    (reason: unknown) => reason as RollcallError,
  );
  if (error === undefined) expect.fail(`expected ${String(code)}, but the call succeeded`);
  expect(error, `${error.stack ?? String(error)}`).toBeInstanceOf(RollcallError);
  expect([code].flat(), `${error.code}: ${error.message}`).toContain(error.code);
  if (message) expect(error.message).toMatch(message);
  return error;
}

/** Like `refused`, for what throws at once. */
export function throws(call: () => unknown, code: ErrorCode, message?: RegExp): RollcallError {
  let error: RollcallError | undefined;
  try {
    call();
  } catch (thrown) {
    error = thrown as RollcallError;
  }
  expect(error, 'expected an exception').toBeInstanceOf(RollcallError);
  expect(error?.code).toBe(code);
  if (message) expect(error?.message).toMatch(message);
  return error as RollcallError;
}

/** The promise does not settle for so many milliseconds. */
export async function staysPending(ms: number, promise: Promise<unknown>, what = 'the promise'): Promise<void> {
  const settled = promise.then(
    (value) => `resolved with ${JSON.stringify(value)}`,
    (reason: unknown) => `rejected with ${String(reason)}`,
  );
  const outcome = await Promise.race([settled, quiet(ms).then(() => 'pending')]);
  expect(outcome, what).toBe('pending');
}

export async function timed<T>(promise: Promise<T>): Promise<{ ms: number; value?: T; error?: unknown }> {
  const start = performance.now();
  return promise.then(
    (value) => ({ ms: performance.now() - start, value }),
    (error: unknown) => ({ ms: performance.now() - start, error }),
  );
}

/** Waits until one read of the server shows exactly these ids. */
export async function sees(
  registry: Registry,
  name: string,
  expected: string[],
  timeoutMs = 30_000,
): Promise<readonly ServiceInstance[]> {
  let last: readonly ServiceInstance[] = [];
  const wanted = [...expected].sort();
  await waitFor(
    async () => {
      last = await registry.getService(name, { consistent: true });
      return JSON.stringify(ids(last)) === JSON.stringify(wanted);
    },
    { timeoutMs, what: `${name} to be [${expected.join(', ')}]` },
  ).catch((error: unknown) => {
    throw new Error(`${String(error)}; last seen: [${ids(last).join(', ')}]`);
  });
  return last;
}

/** The next list of a watcher, within a time. */
export async function nextList(watcher: Watcher, timeoutMs = 30_000): Promise<readonly ServiceInstance[]> {
  const { value, done } = await within(watcher.next(), timeoutMs, `next() of the watcher of ${watcher.name}`);
  expect(done ?? false, 'the watcher has ended').toBe(false);
  return value as readonly ServiceInstance[];
}

/** Takes lists until one has exactly these ids; gives all lists taken, the wanted one last. */
export async function listsUntil(
  watcher: Watcher,
  expected: string[],
  timeoutMs = 30_000,
): Promise<(readonly ServiceInstance[])[]> {
  const taken: (readonly ServiceInstance[])[] = [];
  const end = performance.now() + timeoutMs;
  for (;;) {
    const left = end - performance.now();
    if (left <= 0)
      expect.fail(`no list [${expected.join(', ')}] within ${timeoutMs} ms; lists: ${JSON.stringify(taken.map(ids))}`);
    const list = await nextList(watcher, left);
    taken.push(list);
    if (JSON.stringify(ids(list)) === JSON.stringify(expected)) return taken;
  }
}

export interface Line {
  event: string;
  at: number;
  [more: string]: unknown;
}

export interface Scenario {
  readonly lines: readonly Line[];
  /** Waits for the n-th line with this event. */
  until(event: string, options?: { timeoutMs?: number; nth?: number }): Promise<Line>;
  count(event: string): number;
  stop(): Promise<void>;
}

export interface Process extends Scenario {
  readonly pid: number;
  kill(signal: NodeJS.Signals): void;
  /** How it ended, and when. */
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null; at: number; stderr: string }>;
}

export interface Thread extends Scenario {
  readonly worker: Worker;
  readonly exited: Promise<number>;
}

export type Step = [verb: string, ...given: unknown[]];

const script = fileURLToPath(new URL('../support/fixtures/scenario.mjs', import.meta.url));

function scenario(lines: readonly Line[], over: () => string | undefined, stop: () => Promise<void>): Scenario {
  return {
    lines,
    count: (event) => lines.filter((line) => line.event === event).length,
    stop,
    until: (event, { timeoutMs = 20_000, nth = 1 } = {}) =>
      waitFor(
        () => {
          const found = lines.filter((line) => line.event === event)[nth - 1];
          if (found) return found;
          const end = over();
          if (end !== undefined)
            throw new GiveUp(`the scenario ended (${end}) before "${event}": ${JSON.stringify(lines)}`);
          return undefined;
        },
        { timeoutMs, intervalMs: 10, what: `"${event}" of the scenario` },
      ).catch((error: Error) => {
        if (!(error instanceof GiveUp)) error.message += `; its last lines: ${JSON.stringify(lines.slice(-5))}`;
        throw error;
      }),
  };
}

/** Runs the steps of fixtures/scenario.mjs in a process of its own. */
export function inProcess(
  options: RegistryOptions | string | undefined,
  steps: Step[],
  env: NodeJS.ProcessEnv = {},
): Process {
  const program = runScript<Line>(script, [JSON.stringify({ options, steps })], env);
  let ended: string | undefined;
  let at = 0;
  program.child.once('exit', () => {
    at = Date.now();
  });
  const exited = program.exit.then(({ code, signal, stderr }) => {
    ended = `code ${String(code)}, signal ${String(signal)}, stderr: ${stderr}`;
    return { code, signal, at, stderr };
  });
  const stop = async (): Promise<void> => {
    if (ended !== undefined) return;
    program.kill('SIGKILL');
    await exited;
  };
  return Object.assign(
    scenario(program.seen, () => ended, stop),
    { pid: program.pid, kill: (signal: NodeJS.Signals) => program.kill(signal), exited },
  );
}

/** Runs the steps of fixtures/scenario.mjs in a worker thread of this process. */
export function inThread(options: RegistryOptions, steps: Step[]): Thread {
  const worker = new Worker(script, {
    workerData: { options, steps },
    env: { ...process.env, NODE_OPTIONS: '' },
    execArgv: [],
  });
  const lines: Line[] = [];
  let ended: string | undefined;
  worker.on('message', (line: Line) => lines.push(line));
  worker.on('error', (error) => lines.push({ event: 'error', at: Date.now(), message: error.message }));
  const exited = new Promise<number>((resolve) => {
    worker.once('exit', (code) => {
      ended = `code ${code}`;
      resolve(code);
    });
  });
  const stop = async (): Promise<void> => void (await worker.terminate());
  return Object.assign(
    scenario(lines, () => ended, stop),
    { worker, exited },
  );
}
