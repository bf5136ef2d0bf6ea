// Ids: what one costs, how many a second there are, how many of them are alike, and what an extension costs in etcd. Beside them
// @sapphire/snowflake, flake-idgen, nodejs-snowflake and uuid.

import { setTimeout as delay } from 'node:timers/promises';
import { Snowflake as Sapphire } from '@sapphire/snowflake';
import FlakeId from 'flake-idgen';
import { Snowflake as Addon } from 'nodejs-snowflake';
import { connectCoord } from 'rollcall/coord';
import { createUid, uuidv7 } from 'rollcall/uid';
import { v7 } from 'uuid';
import { writeCoord } from '../support/coord-page.mjs';
import { importedOverEmpty } from '../support/imported.mjs';
import { sized } from '../support/small.mjs';
import { gathering, now } from '../support/stats.mjs';
import { repeated, steady } from '../support/steady.mjs';

const RUNS = sized(5, 1);
/** So many of each in a run; ours are then 1.2 s ahead at the most. */
const IDS = sized(1_000_000, 1000);
/** How long ids are made as fast as they come. */
const SATURATED_MS = sized(3000, 20);
const EPOCH = 1_288_834_974_657;

/** Keeps what is made from being optimized away. */
let kept;

export default {
  name: 'uid',
  title: `Ids, ${IDS} of each kind in a run`,
  needsEtcd: true,
  async run({ etcd, progress }) {
    const coord = await connectCoord({ url: `etcd://${etcd.host}` });
    const uid = await createUid({ coord, service: 'bench' });
    const sapphire = new Sapphire(EPOCH);
    const addon = new Addon({ customEpoch: EPOCH });
    const flake = new FlakeId({ epoch: EPOCH });
    const ways = {
      'next()': () => uid.next(),
      'nextString()': () => uid.nextString(),
      '@sapphire/snowflake generate()': () => sapphire.generate(),
      'nodejs-snowflake getUniqueID()': () => addon.getUniqueID(),
      'flake-idgen next()': () => flaked(flake),
      'uuidv7()': uuidv7,
      'uuid v7()': () => v7(),
    };
    const { values, add } = gathering();
    const warm = {};
    for (const [what, make] of Object.entries(ways)) {
      warm[what] = await steady(
        what,
        repeated(async () => {
          for (let n = 0; n < 10_000; n++) kept = make();
          return 10_000;
        }),
      );
    }
    for (let run = 1; run <= RUNS; run++) {
      for (const [what, make] of Object.entries(ways)) {
        await delay(sized(1500, 0)); // what it is ahead by has passed
        add(what, took(make));
      }
      await delay(sized(1500, 0));
      add('nextMany()', (timed(() => uid.nextMany(IDS)) * 1e6) / IDS);
      for (const way of ['import', 'require']) {
        add(way, importedOverEmpty(way, 'rollcall/uid'));
      }
      progress(`${run}/${RUNS}`);
    }
    const alike = (make) => {
      const seen = new Set();
      for (let n = 0; n < IDS; n++) seen.add(make());
      return ((IDS - seen.size) / IDS) * 100;
    };
    const twice = ['next()', '@sapphire/snowflake generate()', 'nodejs-snowflake getUniqueID()'];
    const shares = twice.map((what) => [what, alike(ways[what])]);
    const full = saturated(await createUid({ workerId: 1, maxAheadMs: 1 }));
    const extensions = await extended(etcd, coord);
    await coord.close();
    const line = (what, target, to) => ({
      what,
      unit: 'ns',
      values: values[what],
      ...(warm[what] !== undefined && { steady: warm[what] }),
      ...(target && { target }),
      ...(to && { ratio: { to, values: values[to] } }),
    });
    return [
      line('next()', 100, '@sapphire/snowflake generate()'),
      line('nextString()', 150),
      line('nextMany()'),
      line('@sapphire/snowflake generate()'),
      line('nodejs-snowflake getUniqueID()'),
      line('flake-idgen next()'),
      line('uuidv7()', 200, 'uuid v7()'),
      line('uuid v7()'),
      ...shares.map(([what, share]) => ({ what: `made twice, of ${IDS}: ${what}`, unit: '%', values: [share] })),
      { what: 'one worker id, as fast as they come', unit: 'M/s', values: [full] },
      { what: 'import "rollcall/uid", over an empty module', unit: 'ms', values: values.import, target: 3 },
      { what: '  require(), over an empty module', unit: 'ms', values: values.require, target: 3 },
      { what: 'transactions of etcd for each extension of a window', unit: '', values: [extensions], target: 1 },
    ];
  },

  write: (figures) => writeCoord('uid', figures),
};

/** What one takes, in nanoseconds. */
function took(make) {
  return (
    (timed(() => {
      for (let n = 0; n < IDS; n++) kept = make();
    }) *
      1e6) /
    IDS
  );
}

function timed(work) {
  const start = now();
  work();
  return now() - start;
}

/** It throws where a millisecond is full, and is asked again. */
function flaked(flake) {
  for (;;) {
    try {
      return flake.next();
    } catch {}
  }
}

function saturated(uid) {
  const start = now();
  let made = 0;
  while (now() - start < SATURATED_MS) made += uid.nextMany(4096).length;
  return made / (now() - start) / 1000;
}

/** Requests for each extension of a window, that of a second. */
async function extended(etcd, coord) {
  const uid = await createUid({ coord, service: 'bench-extended', windowMs: sized(3000, 1000) });
  let extensions = 0;
  uid.on('renewed', () => extensions++);
  const txns = async () => {
    const page = await (await fetch(`${etcd.httpUrl}/metrics`)).text();
    const found = [...page.matchAll(/^grpc_server_handled_total{grpc_code="OK",grpc_method="Txn",.*} (\d+)/gm)];
    return found.reduce((sum, [, count]) => sum + Number(count), 0);
  };
  while (extensions === 0) await delay(5);
  const [before, first] = [await txns(), extensions];
  while (extensions < first + sized(5, 1)) await delay(5);
  // The other ids of the row are extended too, seldom: every twenty seconds.
  return ((await txns()) - before) / (extensions - first);
}

export const last = () => kept;
