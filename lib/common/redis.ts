/**
 * A program's own Redis client, told apart by its shape: ioredis (and iovalkey) or node-redis. Nothing of either is imported.
 *
 * @internal
 */

import { RollcallError, TimeoutError, UnavailableError } from '../errors.js';
import { now, turn } from './clock.js';
import { invalid, isRecord, kindOf } from './shape.js';
import { outcomeOf } from './waiting.js';

/** A client of ioredis or iovalkey, alone or of a cluster. */
export interface IoRedisLike {
  evalsha(sha: string, keys: number, ...rest: string[]): Promise<unknown>;
  eval(script: string, keys: number, ...rest: string[]): Promise<unknown>;
}

/** A client of node-redis (`redis`, `@redis/client`) 4 or later, alone, of a pool or of a cluster. */
export interface NodeRedisLike {
  evalSha(sha: string, options: { keys: string[]; arguments: string[] }): Promise<unknown>;
  eval(script: string, options: { keys: string[]; arguments: string[] }): Promise<unknown>;
}

/** A connected Redis client of the program. It stays the program's: nothing here opens, configures or closes it. */
export type RedisLike = IoRedisLike | NodeRedisLike;

/** What a script answers: what Lua gave. */
export type Answer = string | number | null | readonly Answer[];

type Run = (script: Script, keys: string[], args: string[]) => Promise<unknown>;

/** A script, by its text and the name that Redis knows it by. */
export class Script {
  readonly text: string;
  #sha: string | undefined;

  constructor(text: string) {
    this.text = text;
  }

  get sha(): string {
    if (this.#sha !== undefined) return this.#sha;
    const { createHash } = require('node:crypto') as typeof import('node:crypto'); // takes as long to load as all the rest
    this.#sha = createHash('sha1').update(this.text).digest('hex');
    return this.#sha;
  }
}

/** Runs scripts by a program's client, each for so long and no longer. */
export class Scripts {
  readonly #run: Run;

  /** @throws `ERR_INVALID_ARGUMENT` that names `path`. */
  constructor(path: string, client: unknown) {
    this.#run = runOf(path, client);
  }

  /**
   * Runs a script, loading it where Redis does not have it. A client that waits for its connection goes on waiting, and so may run it
   * later: whoever may not have that says in the script until when it holds.
   *
   * @throws `ERR_TIMEOUT` after `timeoutMs`, or up to twice of it where this thread was busy, with `outcomeUnknown`; `ERR_UNAVAILABLE`, with `outcomeUnknown` as well, for whatever
   * the client rejects with.
   */
  async run(operation: string, script: Script, keys: string[], args: string[], timeoutMs: number): Promise<Answer> {
    const asked = this.attempt(operation, script, keys, args);
    const until = now() + timeoutMs;
    let outcome = await outcomeOf(asked, undefined, timeoutMs);
    if (outcome === 'expired') {
      // A thread that was busy has not looked at what Redis has said, or not even asked it: it is given as long as it was.
      const late = now() - until;
      await turn();
      outcome = await outcomeOf(asked, undefined, Math.min(Math.max(late, 0), timeoutMs));
    }
    if (typeof outcome === 'object') return outcome.value;
    const message = `${operation}: no answer of Redis within ${timeoutMs} ms`;
    throw new TimeoutError(message, { operation, outcomeUnknown: true });
  }

  /** The same for as long as the client takes: for who sets an end to many at once. @throws `ERR_UNAVAILABLE`. */
  async attempt(operation: string, script: Script, keys: string[], args: string[]): Promise<Answer> {
    try {
      return (await this.#run(script, keys, args)) as Answer;
    } catch (cause) {
      if (cause instanceof RollcallError) throw cause;
      const said = cause instanceof Error ? cause.message : String(cause);
      throw new UnavailableError(`${operation}: Redis: ${said}`, { operation, cause, outcomeUnknown: true });
    }
  }
}

function runOf(path: string, client: unknown): Run {
  const given = client as Partial<IoRedisLike & NodeRedisLike> | null | undefined;
  if (typeof given?.eval === 'function') {
    if (typeof given.evalsha === 'function') {
      const io = given as IoRedisLike;
      return loading(
        ({ sha }, keys, args) => io.evalsha(sha, keys.length, ...keys, ...args),
        ({ text }, keys, args) => io.eval(text, keys.length, ...keys, ...args),
      );
    }
    if (typeof given.evalSha === 'function') {
      const node = given as NodeRedisLike;
      return loading(
        ({ sha }, keys, args) => node.evalSha(sha, { keys, arguments: args }),
        ({ text }, keys, args) => node.eval(text, { keys, arguments: args }),
      );
    }
  }
  const got = isRecord(client) ? 'an object without eval() and evalsha() or evalSha()' : kindOf(client);
  throw invalid(path, `expected a client of ioredis or node-redis, got ${got}`);
}

/** Tries by the name, and by the text where Redis does not know the name: it forgets them when it starts, and a replica has its own. */
function loading(byName: Run, byText: Run): Run {
  return async (script, keys, args) => {
    try {
      return await byName(script, keys, args);
    } catch (error) {
      // By what it says alone: test runners bring errors of other realms.
      if (`${(error as Partial<Error> | undefined)?.message}`.startsWith('NOSCRIPT')) return byText(script, keys, args);
      throw error;
    }
  };
}
