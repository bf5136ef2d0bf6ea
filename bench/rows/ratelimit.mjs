// What a decision costs, beside rate-limiter-flexible: in this process, admitted and refused; and on Redis, 64 at once, on the same client
// with the same settings. What a million subjects take.

import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { Redis } from 'ioredis';
import { RateLimiterMemory, RateLimiterRedis } from 'rate-limiter-flexible';
import { createRateLimiter } from 'rollcall/ratelimit';
import { writeCoord } from '../support/coord-page.mjs';
import { importedOverEmpty } from '../support/imported.mjs';
import { redisVersion, startRedis } from '../support/redis.mjs';
import { sized } from '../support/small.mjs';
import { gathering, now } from '../support/stats.mjs';
import { repeated, steady } from '../support/steady.mjs';

const RUNS = sized(5, 1);
const TIMES = sized(1_000_000, 100);
const ON_REDIS = sized(60_000, 128);
const AT_ONCE = 64;
const IMPORTS = sized(15, 1);
const SUBJECTS = Array.from({ length: 1000 }, (_, n) => `user:${n}`);
const subject = (n) => SUBJECTS[n % SUBJECTS.length];
/** More than anybody takes here, and less than the second request of anybody. */
const [MUCH, LITTLE] = [1e9, 1];
const LONG_S = 1_000_000;
/** Those that decide without a promise. */
const SYNCHRONOUS = ['admitted', 'refused'];

export default {
  name: 'ratelimit',
  title: 'Rate limits: a decision, in this process and on Redis',
  async run({ progress }) {
    if (redisVersion() === undefined) throw new Error('redis-server is not installed');
    const redis = await startRedis();
    const client = new Redis(redis.url);
    const rule = (mode, capacity) => ({ mode, rate: capacity / LONG_S, capacity });
    const limits = createRateLimiter({
      rules: { much: rule('local', MUCH), little: rule('local', LITTLE), redis: rule('distributed', MUCH) },
      redis: client,
      storeTimeoutMs: 10_000,
      logger: false,
    });
    const flexible = (points) => new RateLimiterMemory({ points, duration: LONG_S });
    const [peerMuch, peerLittle] = [flexible(MUCH), flexible(LITTLE)];
    const peerRedis = new RateLimiterRedis({ storeClient: client, points: MUCH, duration: LONG_S });
    const ways = {
      admitted: (n) => limits.allowNow(subject(n), 'much'),
      refused: (n) => limits.allowNow(subject(n), 'little'),
      promised: (n) => limits.allow(subject(n), 'much'),
      'peer admitted': (n) => peerMuch.consume(subject(n)),
      'peer refused': (n) => peerLittle.consume(subject(n)).catch(() => {}),
    };
    const onRedis = {
      redis: (n) => limits.allow(subject(n), 'redis'),
      'peer redis': (n) => peerRedis.consume(subject(n)),
    };
    const [warm, { values, add }] = [{}, gathering()];
    const loops = Object.entries(ways).map(([name, ask]) => [name, loopOf(ask, SYNCHRONOUS.includes(name))]);
    for (const [name, loop] of loops) {
      warm[name] = await steady(
        `a decision, ${name}`,
        repeated(() => loop(TIMES / 10)),
      );
    }
    for (const [name, ask] of Object.entries(onRedis)) {
      warm[name] = await steady(
        `a decision, ${name}`,
        repeated(() => crowd(ask, ON_REDIS / 10)),
      );
    }
    for (let run = 1; run <= RUNS; run++) {
      for (const [name, loop] of loops) {
        const start = now();
        await loop(TIMES);
        add(name, ((now() - start) / TIMES) * 1e6);
      }
      for (const [name, ask] of Object.entries(onRedis)) {
        const start = now();
        await crowd(ask, ON_REDIS);
        add(name, ((now() - start) / ON_REDIS) * 1000);
      }
      progress(`${run}/${RUNS}`);
    }
    for (let round = 0; round <= IMPORTS; round++) {
      for (const way of ['import', 'require']) {
        const over = importedOverEmpty(way, 'rollcall/ratelimit');
        if (round > 0) add(way, over); // the files come from the disk first
      }
    }
    for (let run = 1; run <= RUNS; run++) add('memory', megabytes());
    limits.close();
    client.disconnect();
    redis.end();
    const line = (what, key, unit, more = {}) => ({ what, unit, values: values[key], steady: warm[key], ...more });
    const beside = (key) => ({ ratio: { to: 'rate-limiter-flexible', values: values[key] } });
    const share = values.redis.map((ours, run) => ours / values['peer redis'][run]);
    return [
      { what: 'import "rollcall/ratelimit", over an empty module', unit: 'ms', values: values.import, target: 3 },
      { what: 'require("rollcall/ratelimit"), over an empty module', unit: 'ms', values: values.require, target: 3 },
      line('in this process: admitted', 'admitted', 'ns', { target: 150, ...beside('peer admitted') }),
      line('  refused', 'refused', 'ns', { target: 100, ...beside('peer refused') }),
      line('  admitted, by a promise', 'promised', 'ns', beside('peer admitted')),
      line('  rate-limiter-flexible: admitted', 'peer admitted', 'ns'),
      line('    refused', 'peer refused', 'ns'),
      line(`on Redis, ${AT_ONCE} at once, by ioredis: a decision`, 'redis', 'µs'),
      line('  rate-limiter-flexible', 'peer redis', 'µs'),
      { what: '  ours, as a share of that', unit: '', values: share, target: 0.77 },
      { what: 'memory of a million subjects', unit: 'MB', values: values.memory, target: 150 },
    ];
  },

  write: (figures) => writeCoord('ratelimit', figures),
};

/** One after the other. Each contender has a loop of its own, so that none is compiled for another. */
const LOOP = `
  let sum = 0;
  for (let n = 0; n < count; n++) if (WAIT ask(n)) sum++;
  return sum;`;
const AsyncFunction = (async () => {}).constructor;
const loopOf = (ask, isNow) => {
  const Kind = isNow ? Function : AsyncFunction;
  const loop = new Kind('ask', 'count', LOOP.replace('WAIT', isNow ? '' : 'await'));
  return async (count) => {
    await loop(ask, count);
    return count;
  };
};

/** So many, some of which are always under way. */
async function crowd(ask, count) {
  let next = 0;
  const one = async () => {
    while (next < count) await ask(next++);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, one));
  return count;
}

function megabytes() {
  const script = fileURLToPath(new URL('../programs/ratelimit-million.mjs', import.meta.url));
  const env = { ...process.env, NODE_OPTIONS: '' };
  return JSON.parse(execFileSync(process.execPath, ['--expose-gc', script], { encoding: 'utf8', env })).megabytes;
}
