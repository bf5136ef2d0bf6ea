// Child processes of the tests, and how a test waits for something to become true.

import type { ChildProcess, SpawnOptions } from 'node:child_process';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { inspect } from 'node:util';

/** A name that no other test, file or run has. */
export const uniqueName = (prefix = 'test'): string => `${prefix}-${randomBytes(6).toString('hex')}`;

export interface WaitOptions {
  /** 10000 by default. */
  timeoutMs?: number;
  /** Pause between two looks, 25 by default. */
  intervalMs?: number;
  /** Completes the sentence "waited in vain for …". */
  what?: string;
}

/** Thrown by the function that `waitFor` polls when waiting longer is pointless. */
export class GiveUp extends Error {
  override name = 'GiveUp';
}

const shown = (value: unknown): string => {
  const text = typeof value === 'string' ? value : inspect(value, { depth: 5, breakLength: Number.POSITIVE_INFINITY });
  return text.length > 2000 ? `${text.slice(0, 2000)}…` : text;
};

/**
 * Polls until the function gives something truthy, and gives that. A function that throws has not succeeded yet, unless
 * it throws a `GiveUp`. When the time is over, the error tells the last value or has the last error as its cause.
 */
export async function waitFor<T>(
  look: () => T | Promise<T>,
  { timeoutMs = 30_000, intervalMs = 25, what = 'a condition' }: WaitOptions = {},
): Promise<NonNullable<Exclude<T, false | 0 | ''>>> {
  const start = Date.now();
  const caller = new Error('waited in vain'); // its stack is the one of the test
  let last: string;
  let cause: unknown;
  for (;;) {
    try {
      const value = await look();
      if (value) return value as NonNullable<Exclude<T, false | 0 | ''>>;
      last = `last value: ${shown(value)}`;
      cause = undefined;
    } catch (error) {
      if (error instanceof GiveUp) throw error;
      last = `last error: ${error instanceof Error ? error.message : shown(error)}`;
      cause = error;
    }
    if (Date.now() - start >= inTime(timeoutMs)) break;
    await delay(intervalMs);
  }
  caller.message = `waited in vain for ${what} (${Date.now() - start} ms); ${last}`;
  if (cause !== undefined) caller.cause = cause;
  throw caller;
}

/**
 * What a bound on the clock comes to on this machine: as it is where everybody has a core, up to five times as long where
 * several wait for each. A bound tells "at once" from a time limit; how long the machine lets us wait is not ours.
 */
export function inTime(ms: number): number {
  const wanted = (loadavg()[0] ?? 0) / availableParallelism();
  return ms * Math.min(5, Math.max(1, wanted));
}

/** A promise that must not take longer; see `inTime`. */
export async function within<T>(promise: Promise<T>, timeoutMs: number, what: string): Promise<T> {
  const caller = new Error(`${what}: not within ${timeoutMs} ms`);
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(caller), inTime(timeoutMs));
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

// What must not outlive the tests: programs and temporary folders. A shell of its own process group watches the end of
// a pipe and tidies up when this process is gone, however it went, a SIGKILL by the test runner included.
const guardScript = `
trap '' INT TERM HUP
pids= dirs= files=
while read -r verb what; do
  case $verb in
    pid) pids="$pids $what" ;;
    gone) kept=; for pid in $pids; do [ "$pid" = "$what" ] || kept="$kept $pid"; done; pids=$kept ;;
    file) files="$files
$what" ;;
    dir) dirs="$dirs
$what" ;;
  esac
done
for pid in $pids; do kill -KILL "$pid" 2>/dev/null; done
echo "$files" | while read -r file; do [ -z "$file" ] || rm -f "$file"; done
[ -z "$pids" ] || sleep 1
echo "$dirs" | while read -r dir; do [ -z "$dir" ] || rm -rf "$dir"; done
`;

let guardian: ChildProcess | undefined;
const living = new Set<ChildProcess>();
const folders = new Set<string>();

function guard(line: string): void {
  if (!guardian) {
    guardian = spawn('/bin/sh', ['-c', guardScript], { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
    guardian.unref();
    (guardian.stdin as unknown as { unref(): void }).unref();
    guardian.stdin?.on('error', () => {});
    process.on('exit', () => {
      for (const child of living) child.kill('SIGKILL');
      for (const folder of folders) rmSync(folder, { recursive: true, force: true });
    });
  }
  guardian.stdin?.write(`${line}\n`);
}

/** `child_process.spawn`, for a program that is killed at the latest when this process ends. */
export function spawnGuarded(command: string, args: readonly string[], options: SpawnOptions = {}): ChildProcess {
  const child = spawn(command, args, options);
  const { pid } = child;
  if (pid !== undefined) {
    living.add(child);
    guard(`pid ${pid}`);
    child.once('exit', () => {
      living.delete(child);
      guard(`gone ${pid}`);
    });
  }
  return child;
}

/** Removes a file when this process ends. */
export const removeAtEnd = (file: string): void => guard(`file ${file}`);

/** A temporary folder that is removed at the latest when this process ends. */
export function temporaryFolder(prefix = 'rollcall-'): { path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), prefix));
  folders.add(path);
  guard(`dir ${path}`);
  return {
    path,
    remove() {
      rmSync(path, { recursive: true, force: true, maxRetries: 5 });
      folders.delete(path);
    },
  };
}

export interface ScriptEnd {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A program that writes one JSON value per line on standard output. Other lines are left out (and are in `stdout`). */
export interface Script<Line = Record<string, unknown>> {
  readonly child: ChildProcess;
  readonly pid: number;
  /** All lines so far. */
  readonly seen: readonly Line[];
  /** The lines from the first one on; ends when the program has ended. Every loop over it starts at the beginning. */
  readonly lines: AsyncIterable<Line>;
  readonly exit: Promise<ScriptEnd>;
  readonly stderr: string;
  /** The first line that fits, past or future; throws when the program ends first, with what it wrote. */
  line(fits: (line: Line) => boolean, options?: { timeoutMs?: number; what?: string }): Promise<Line>;
  /** Writes a line of JSON to its standard input. */
  send(value: unknown): void;
  kill(signal?: NodeJS.Signals): void;
}

/** Runs a program whose standard output is lines of JSON. */
export function runProgram<Line = Record<string, unknown>>(
  command: string,
  args: readonly string[] = [],
  env: NodeJS.ProcessEnv = {},
): Script<Line> {
  const child = spawnGuarded(command, args, { env: { ...process.env, ...env }, stdio: ['pipe', 'pipe', 'pipe'] });
  const seen: Line[] = [];
  const waiting = new Set<() => void>();
  let stdout = '';
  let rest = '';
  let stderr = '';
  let end: ScriptEnd | undefined;
  const wake = (): void => {
    for (const go of [...waiting]) go();
    waiting.clear();
  };
  const change = (): Promise<void> =>
    new Promise((resolve) => {
      waiting.add(resolve);
    });

  child.stdin?.on('error', () => {}); // the program went; `exit` tells
  child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
    stdout += chunk;
    const whole = (rest + chunk).split('\n');
    rest = whole.pop() ?? '';
    for (const text of whole) {
      try {
        seen.push(JSON.parse(text) as Line);
      } catch {}
    }
    wake();
  });
  child.stderr?.setEncoding('utf8').on('data', (chunk: string) => {
    stderr += chunk;
  });
  const exit = new Promise<ScriptEnd>((resolve) => {
    const over = (code: number | null, signal: NodeJS.Signals | null): void => {
      end = { code, signal, stdout, stderr };
      resolve(end);
      wake();
    };
    child.once('close', over);
    child.once('error', (error) => {
      stderr += `${error.message}\n`;
      if (child.pid === undefined) over(null, null);
    });
  });

  const name = [command, ...args].join(' ');
  return {
    child,
    pid: child.pid ?? -1,
    seen,
    lines: {
      async *[Symbol.asyncIterator]() {
        for (let at = 0; ; ) {
          while (at < seen.length) yield seen[at++] as Line;
          if (end) return;
          await change();
        }
      },
    },
    exit,
    get stderr() {
      return stderr;
    },
    line(fits, { timeoutMs = 20_000, what = 'a line' } = {}) {
      const told = (): string => `${name}\nstdout:\n${stdout.slice(-4000)}\nstderr:\n${stderr.slice(-4000)}`;
      return waitFor(
        () => {
          const found = seen.find(fits);
          if (found === undefined && end) {
            throw new GiveUp(`the program ended (${end.signal ?? end.code}) before ${what}: ${told()}`);
          }
          return found && { found };
        },
        { timeoutMs, intervalMs: 10, what },
      ).then(
        ({ found }) => found,
        (error: Error) => {
          if (!(error instanceof GiveUp)) error.message += ` of ${told()}`;
          throw error;
        },
      );
    },
    send(value) {
      child.stdin?.write(`${JSON.stringify(value)}\n`);
    },
    kill(signal = 'SIGTERM') {
      child.kill(signal);
    },
  };
}

/** Runs a JavaScript file in a Node process of its own. */
export const runScript = <Line = Record<string, unknown>>(
  file: string,
  args: readonly string[] = [],
  env: NodeJS.ProcessEnv = {},
): Script<Line> => runProgram<Line>(process.execPath, [file, ...args], { NODE_OPTIONS: '', ...env });

/** A process of its own that does what an order says, and tells in lines what becomes of it. It is killed when the test is over. */
export function ordered<Line>(
  { onTestFinished }: { onTestFinished(finish: () => unknown): void },
  program: string,
  order: object,
): Script<Line> {
  const script = runScript<Line>(program, [JSON.stringify(order)]);
  onTestFinished(() => script.kill('SIGKILL'));
  return script;
}

/** The first line of an event, at or after a moment by the clock of the machine. */
export const said = <Line extends { readonly event: string; readonly at: number }>(
  script: Script<Line>,
  event: Line['event'],
  after = 0,
): Promise<Line> => script.line((line) => line.event === event && line.at >= after, { what: `"${event}"` });

/** Runs a program to its end and gives its standard output; throws with its standard error when it fails. */
export async function output(command: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<string> {
  const program = runProgram(command, args, env);
  program.child.stdin?.end();
  const { code, signal, stdout, stderr } = await program.exit;
  if (code !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${signal ?? code}:\n${stderr}${stdout}`);
  return stdout;
}

/** Whether every thread of a process is stopped. Where there is no /proc, the signal has to do. */
function allStopped(pid: number): boolean {
  try {
    return readdirSync(`/proc/${pid}/task`).every((task) =>
      / [Tt] /.test(readFileSync(`/proc/${pid}/task/${task}/stat`, 'utf8').replace(/^.*\)/s, '').slice(0, 3)),
    );
  } catch {
    return true;
  }
}

/** After a SIGSTOP: the last of the threads stops a moment later, and would still answer, or write, until then. */
export function untilStopped(pid: number): void {
  for (const deadline = Date.now() + 1000; !allStopped(pid) && Date.now() < deadline; );
}
