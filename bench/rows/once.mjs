// What doing a thing once costs beside the thing itself: a run, and a replay of what came of it. Beside them the least that a program could
// do on the same client: SET NX before the work, and SET of the result after it; and GET of that.

import { Redis } from 'ioredis';
import { connectCoord } from 'rollcall/coord';
import { coordOnce, createOnce, memoryOnce, redisOnce } from 'rollcall/once';
import { writeCoord } from '../support/coord-page.mjs';
import { importedOverEmpty } from '../support/imported.mjs';
import { redisVersion, startRedis } from '../support/redis.mjs';
import { sized } from '../support/small.mjs';
import { gathering, median, now } from '../support/stats.mjs';
import { repeated, steady } from '../support/steady.mjs';

const RUNS = sized(5, 1);
const TIMES = { memory: sized(20_000, 10), redis: sized(2000, 10), plain: sized(2000, 10), coord: sized(300, 5) };
const TTL_MS = 60_000;
const RESULT = { id: 123, title: 'order-123', lines: [1, 2, 3] };
const IMPORTS = sized(15, 1);

export default {
  name: 'once',
  title: 'Done once: a run and a replay, one after the other',
  needsEtcd: true,
  async run({ etcd, progress }) {
    if (redisVersion() === undefined) throw new Error('redis-server is not installed');
    const redis = await startRedis();
    const client = new Redis(redis.url);
    const coord = await connectCoord({ url: `etcd://${etcd.host}` });
    const stores = {
      memory: memoryOnce({ maxKeys: 10_000_000 }),
      redis: redisOnce(client),
      coord: coordOnce(coord),
    };
    const onces = Object.entries(stores).map(([name, store]) => [name, createOnce({ store, logger: false })]);
    const ways = {
      ...Object.fromEntries(onces.map(([name, once]) => [name, (key) => once.execute(key, TTL_MS, () => RESULT)])),
      plain: (key) => plain(client, key),
    };
    let keys = 0;
    const [warm, { values, add }] = [{}, gathering()];
    for (const [name, run] of Object.entries(ways)) {
      const both = async () => {
        const key = `warm:${keys++}`;
        await run(key);
        await run(key);
        return 1;
      };
      warm[name] = await steady(`once on ${name}`, repeated(both));
    }
    for (let round = 1; round <= RUNS; round++) {
      for (const [name, run] of Object.entries(ways)) {
        const times = { run: [], replay: [] };
        for (let n = 0; n < TIMES[name]; n++) {
          const key = `key:${keys++}`;
          for (const kind of ['run', 'replay']) {
            const start = now();
            await run(key);
            times[kind].push(1000 * (now() - start));
          }
        }
        for (const [kind, all] of Object.entries(times)) add(`${name} ${kind}`, median(all));
      }
      progress(`${round}/${RUNS}`);
    }
    for (let round = 0; round <= IMPORTS; round++) {
      for (const way of ['import', 'require']) {
        const over = importedOverEmpty(way, 'rollcall/once');
        if (round > 0) add(way, over); // the files come from the disk first
      }
    }
    for (const [, once] of onces) await once.close();
    await coord.close();
    client.disconnect();
    redis.end();
    const line = (what, key, more = {}) => ({ what, unit: 'µs', values: values[key], ...more });
    const besides = (kind) => ({ ratio: { to: 'plain', values: values[`plain ${kind}`] } });
    return [
      { what: 'import "rollcall/once", over an empty module', unit: 'ms', values: values.import, target: 3 },
      { what: 'require("rollcall/once"), over an empty module', unit: 'ms', values: values.require, target: 3 },
      line('in memory: a run', 'memory run', { steady: warm.memory }),
      line('  a replay', 'memory replay'),
      line('on Redis, by ioredis: a run', 'redis run', { steady: warm.redis, ...besides('run') }),
      line('  a replay', 'redis replay', besides('replay')),
      line('  plain: SET NX, the work, SET', 'plain run', { steady: warm.plain }),
      line('    SET NX that fails, and GET', 'plain replay'),
      line('on etcd, by coord: a run', 'coord run', { steady: warm.coord }),
      line('  a replay', 'coord replay'),
    ];
  },

  write: (figures) => writeCoord('once', figures),
};

/** Not safe: a crash between the two leaves the key for ever, and whoever comes meanwhile reads a mark. */
async function plain(client, key) {
  const isFirst = await client.set(key, '', 'PX', TTL_MS, 'NX');
  if (isFirst === null) return JSON.parse((await client.get(key)) || 'null');
  await client.set(key, JSON.stringify(RESULT), 'PX', TTL_MS);
  return RESULT;
}
