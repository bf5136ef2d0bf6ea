// A server that tests start, kill, freeze and start again.

import type { ChildProcess, SpawnOptions } from 'node:child_process';
import { spawnGuarded, untilStopped, waitFor, within } from './process.js';

const logLimit = 64 * 1024;

/** Its port is taken by someone else. */
export class PortTaken extends Error {}

export abstract class ServerProgram {
  /** What it said last. */
  log = '';
  frozen = false;
  protected child: ChildProcess | undefined;
  /** Until the program that was started last has ended. */
  protected gone: Promise<void> = Promise.resolve();
  /** Why it is not running. */
  private ended = '';

  constructor(
    /** What it is a server of, for errors. */
    private readonly of: string,
    readonly name: string,
  ) {}

  get running(): boolean {
    return this.child !== undefined;
  }

  get pid(): number | undefined {
    return this.child?.pid;
  }

  /** In the folder `cwd`, or in that of the tests. */
  protected run(command: string, args: readonly string[], env: NodeJS.ProcessEnv = process.env, cwd?: string): void {
    if (this.child) throw new Error(`${this.name} runs already`);
    const options: SpawnOptions = { env, stdio: ['ignore', 'pipe', 'pipe'], ...(cwd !== undefined && { cwd }) };
    const child = spawnGuarded(command, args, options);
    this.child = child;
    this.frozen = false;
    this.ended = '';
    this.log = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (chunk: string) => {
        this.log = (this.log + chunk).slice(-logLimit);
      });
    }
    this.gone = new Promise((resolve) => {
      const over = (why: string): void => {
        if (this.child === child) {
          this.child = undefined;
          this.frozen = false;
        }
        this.ended = why;
        resolve();
      };
      child.once('error', (error) => {
        if (child.pid === undefined) over(error.message);
      });
      child.once('close', (code, signal) => over(`it ended with ${signal ?? `code ${code}`}`));
    });
  }

  /** Waits until it does; throws with its log when it ends before, or not in time. */
  protected async until(
    serves: () => Promise<boolean>,
    what: string,
    { timeoutMs = 30_000, intervalMs = 25 } = {},
  ): Promise<void> {
    const look = async () => {
      if (!this.child) return { ended: this.ended };
      return (await serves()) && { ended: undefined };
    };
    const waited = waitFor(look, { timeoutMs, intervalMs, what: `${this.of} ${this.name} ${what}` });
    const { ended } = await waited.catch((error: Error) => {
      error.message += `\n${this.log}`;
      throw error;
    });
    if (ended === undefined) return;
    const Kind = /address already in use/i.test(this.log) ? PortTaken : Error;
    throw new Kind(`${this.of} ${this.name} did not start: ${ended}\n${this.log}`);
  }

  private async end(signal: NodeJS.Signals): Promise<void> {
    this.child?.kill(signal);
    if (this.frozen) this.child?.kill('SIGCONT');
    await within(this.gone, 20_000, `the end of ${this.of} ${this.name} by ${signal}`);
  }

  kill(): Promise<void> {
    return this.end('SIGKILL');
  }

  stop(): Promise<void> {
    return this.end('SIGTERM');
  }

  freeze(): void {
    if (!this.child?.kill('SIGSTOP')) throw new Error(`${this.name} does not run`);
    this.frozen = true;
    untilStopped(this.child.pid as number);
  }

  thaw(): void {
    if (!this.child?.kill('SIGCONT')) throw new Error(`${this.name} does not run`);
    this.frozen = false;
  }
}
