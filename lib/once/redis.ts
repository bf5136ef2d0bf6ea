/** Records in Redis, by the program's own client. Each step is one script; all times are those of Redis' own clock. */

import { after, now } from '../common/clock.js';
import type { Log } from '../common/logger.js';
import { type Answer, type RedisLike, Script, Scripts } from '../common/redis.js';
import { integer, onlyKnown, optional } from '../common/shape.js';
import { BadRecordError } from '../errors.js';
import { isAway, withNothingDone } from './errors.js';
import { NOTHING, type OnceRecord, type Running, recordOf, type Seen, textOf } from './record.js';
import type { Swapped } from './store.js';

/** Options of `redisOnce()`. */
export interface RedisOnceOptions {
  /** How long an answer of Redis is waited for, in milliseconds, at least 1. Default 1000. */
  storeTimeoutMs?: number | undefined;
}

/**
 * What stands there: [version, for how many ms its runner has it still, for how many ms it stands still, text]. A hash of `v` (the version),
 * `u` (until when its runner has it, in ms) and `d` (the text).
 */
const STANDS = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local kept = redis.pcall('HMGET', KEYS[1], 'v', 'u', 'd')
if kept.err then return kept.err end
if kept[1] and not (tonumber(kept[1]) and tonumber(kept[2]) and kept[3]) then return 'WRONGTYPE' end
local function stands()
  if not kept[1] then return {} end
  return { kept[1], math.max(0, kept[2] - now), redis.call('PTTL', KEYS[1]), kept[3] }
end`;

const READ = new Script(`${STANDS}
return stands()`);

/**
 * ARGV: the version that is expected ('0': none), '1' where its runner must be dead, the text ('': none), for how many ms its runner
 * has it, for how many ms it stands. Gives the new version, or what stands there. A version is Redis' time in microseconds, or one more than
 * the one before: so it grows through deletions, and whatever Redis forgets.
 */
const SWAP = new Script(`${STANDS}
if (kept[1] or '0') ~= ARGV[1] or (ARGV[2] == '1' and tonumber(kept[2]) > now) then return stands() end
if ARGV[3] == '' then
  redis.call('DEL', KEYS[1])
  return '0'
end
local version = time[1] * 1000000 + time[2]
if kept[1] then version = math.max(version, kept[1] + 1) end
version = string.format('%.0f', version)
redis.call('HSET', KEYS[1], 'v', version, 'u', string.format('%.0f', now + ARGV[4]), 'd', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return version`);

/** ARGV: the version that is expected, for how many ms its runner has it from now on, for how many ms it stands. Gives whether it stands. */
const RENEW = new Script(`${STANDS}
if kept[1] ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'u', string.format('%.0f', now + ARGV[2]))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1`);

/** What Redis does when its memory is full. */
const POLICY = new Script(`
local found = redis.pcall('INFO', 'memory')
if found.err then return '' end
return string.match(found, 'maxmemory_policy:(%S+)') or ''`);

/** What Redis says of a key of another type. */
const OTHER_TYPE = 'WRONGTYPE';

/** Records in Redis, for `createOnce()`. Made by `redisOnce()`. */
export class RedisOnce {
  /** @internal */
  readonly maxResultBytes = 256 * 1024;
  readonly #scripts: Scripts;
  readonly #timeoutMs: number;
  /** When a claim was sent: from some time after that on its runner has it. */
  readonly #sentAt = new WeakMap<Running, number>();
  #log: Log | undefined;

  /** @internal */
  constructor(client: RedisLike, options: RedisOnceOptions | undefined) {
    this.#scripts = new Scripts('client', client);
    const given = optional('options', options);
    onlyKnown('options', given, ['storeTimeoutMs']);
    this.#timeoutMs = integer('options.storeTimeoutMs', given.storeTimeoutMs, 1000, { min: 1 });
  }

  /** @internal */
  open(log: Log): void {
    this.#log = log;
    void this.#checkPolicy();
  }

  /** @internal */
  async read(operation: string, key: string): Promise<Seen> {
    try {
      return seenOf(operation, key, await this.#run(operation, READ, key, []));
    } catch (error) {
      throw isAway(error) ? withNothingDone(error) : error;
    }
  }

  /** @internal */
  async swap(operation: string, key: string, seen: Seen, next: OnceRecord | null): Promise<Swapped> {
    if (next?.state === 'running') this.#sentAt.set(next, now());
    const mustBeDead = seen.record?.state === 'running' && !seen.isAlive;
    const answer = await this.#run(operation, SWAP, key, [
      String(seen.version),
      mustBeDead ? '1' : '0',
      next ? textOf(next) : '',
      String(next?.state === 'running' ? next.lockMs : 0),
      String(next ? standsFor(next) : 0),
    ]);
    return isVersion(answer) ? { version: BigInt(answer) } : { seen: seenOf(operation, key, answer) };
  }

  /** @internal */
  keep(key: string, version: bigint, record: Running, lost: (why: string) => void): (isSettled: boolean) => void {
    const { lockMs } = record;
    const claimedAt = this.#sentAt.get(record) ?? now();
    let vouchedUntil = claimedAt + lockMs;
    let isOver = false;
    let isLost = false;
    let stop = () => {};
    const lose = (why: string) => {
      if (isOver || isLost) return;
      isLost = true;
      lost(why);
    };
    const renew = async () => {
      const sent = now();
      // However long an answer takes, what can't be vouched for any more is told in time.
      const unwatch = after(vouchedUntil - sent, () => lose('it was not renewed in time'));
      try {
        const isKept = await this.#run('once', RENEW, key, [
          String(version),
          String(lockMs),
          String(standsFor(record)),
        ]);
        if (isOver) return;
        if (Number(isKept) !== 1) return lose('it was taken over, cleared or forgotten');
        vouchedUntil = sent + lockMs;
      } catch {
        // Asked again: Redis may be back in time.
      } finally {
        unwatch();
      }
      if (isOver) return;
      if (now() >= vouchedUntil) lose('it was not renewed in time');
      stop = after(Math.max(1, lockMs / 3 - (now() - sent)), renew);
    };
    stop = after(Math.max(1, lockMs / 3 - (now() - claimedAt)), renew);
    return () => {
      isOver = true;
      stop();
    };
  }

  /** @internal */
  async close(): Promise<void> {}

  #run(operation: string, script: Script, key: string, args: string[]): Promise<Answer> {
    return this.#scripts.run(operation, script, [key], args, this.#timeoutMs);
  }

  async #checkPolicy(): Promise<void> {
    const log = this.#log as Log;
    try {
      const policy = await this.#scripts.run('once', POLICY, ['once'], [], this.#timeoutMs);
      if (policy === '') log.write('info', 'once: Redis does not say its maxmemory-policy, which should be noeviction');
      else if (policy !== 'noeviction') {
        log.write(
          'warn',
          `once: maxmemory-policy of Redis is ${policy}: when its memory is full it forgets what was done; set noeviction`,
        );
      }
    } catch (error) {
      log.write('info', `once: the maxmemory-policy of Redis is not known: ${(error as Error).message}`);
    }
  }
}

/** A claim stands longer than its runner has it, so that whoever comes after it finds that there was one. */
const standsFor = (record: OnceRecord): number =>
  record.state === 'running' ? Math.max(record.ttlMs, 2 * record.lockMs) : record.ttlMs;

const isVersion = (answer: Answer): answer is string => typeof answer === 'string' && /^\d+$/.test(answer);

function seenOf(operation: string, key: string, answer: Answer): Seen {
  if (Array.isArray(answer)) {
    if (answer.length === 0) return NOTHING;
    // Numbers may be texts: clients can be told so.
    const [version, aliveMs, expiresInMs, text] = answer as [string, number | string, number | string, string];
    const record = recordOf(text);
    if (record) {
      return { version: BigInt(version), record, isAlive: Number(aliveMs) > 0, expiresInMs: Number(expiresInMs) };
    }
  } else if (!String(answer).includes(OTHER_TYPE)) {
    throw new BadRecordError(`${operation}: Redis: ${answer}`, { operation, key });
  }
  throw new BadRecordError(`${operation}: what stands at the key is no record of rollcall/once`, { operation, key });
}
