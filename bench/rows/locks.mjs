// Locks on etcd: what one costs that nobody holds, what goes over the network for it, and how soon the next of a thousand has it.
// Beside them concurrency.Mutex of etcd's Go client, and the lock of npm etcd3.

import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Etcd3 } from 'etcd3';
import { connectCoord } from 'rollcall/coord';
import { writeCoord } from '../support/coord-page.mjs';
import { sized } from '../support/small.mjs';
import { gathering, median, now, quantile } from '../support/stats.mjs';
import { repeated, steady } from '../support/steady.mjs';

const RUNS = sized(5, 1);
const TIMES = sized(300, 5);
const WAITERS = sized(1000, 10);
const TTL_S = 60;

const PEER = fileURLToPath(new URL('../../servers/bin/peer', import.meta.url));

export default {
  name: 'locks',
  title: `Locks on etcd; a handover with ${WAITERS} waiting`,
  needsEtcd: true,
  async run({ etcd, progress }) {
    const coord = await connectCoord({ url: `etcd://${etcd.host}` });
    const etcd3 = new Etcd3({ hosts: etcd.host });
    // With a lease of its own for each: of rollcall there is no other, etcd3 has no other either.
    const ways = {
      ours: (path) => coord.lock.mutex(path, { ttlMs: TTL_S * 1000 }).acquire(),
      etcd3: (path) => etcd3.lock(path).ttl(TTL_S).acquire(),
    };
    const { values, add } = gathering();
    const trip = () => etcd3.get('/bench/nothing');
    const warm = {
      trip: await steady(
        'a read of a key',
        repeated(() => trip().then(() => 1)),
      ),
    };
    for (const [who, acquire] of Object.entries(ways)) {
      warm[who] = await steady(
        `a lock of ${who}`,
        repeated(async () => {
          await (await acquire('/bench/warm')).release();
          return 1;
        }),
      );
    }
    const requests = await counted(etcd, async () => {
      for (let n = 0; n < TIMES; n++) await (await ways.ours('/bench/counted')).release();
    });
    for (let run = 1; run <= RUNS; run++) {
      add('trip', median(await each(TIMES, trip)));
      for (const [who, acquire] of Object.entries(ways)) {
        const [acquired, released] = [[], []];
        for (let n = 0; n < TIMES; n++) {
          const start = now();
          const held = await acquire('/bench/free');
          const middle = now();
          await held.release();
          acquired.push(middle - start);
          released.push(now() - middle);
        }
        add(`${who} acquire`, median(acquired));
        add(`${who} p99`, quantile(acquired, 0.99));
        add(`${who} release`, median(released));
      }
      for (const kind of ['free', 'kept']) {
        const go = await inGo(etcd, kind, TIMES);
        add(`go ${kind} acquire`, go && median(go.acquire));
        add(`go ${kind} p99`, go && quantile(go.acquire, 0.99));
        add(`go ${kind} release`, go && median(go.release));
      }
      const handed = await handover(coord);
      add('handover', median(handed));
      add('handover p99', quantile(handed, 0.99));
      const go = await inGo(etcd, 'handover', WAITERS);
      add('go handover', go && median(go.handover));
      add('go handover p99', go && quantile(go.handover, 0.99));
      progress(`${run}/${RUNS}`);
    }
    const woken = await counted(etcd, () => handover(coord));
    await coord.close();
    etcd3.close();
    const of = (what) => (values[what]?.[0] === undefined ? undefined : values[what]);
    const to = (who, what) => (of(what) ? { ratio: { to: who, values: of(what) } } : {});
    const line = (what, key, more = {}) => (of(key) ? [{ what, unit: 'ms', values: of(key), ...more }] : []);
    const per = (what, calls, count) => ({ what, unit: '', values: [calls / count] });
    return [
      ...line('one round trip: a read of a key by etcd3', 'trip', { steady: warm.trip }),
      ...line('a free lock: acquire(), p50', 'ours acquire', {
        steady: warm.ours,
        ...to("Go's, with a session of its own", 'go free acquire'),
      }),
      ...line('  p99', 'ours p99'),
      ...line('  release(), p50', 'ours release', to("Go's", 'go free release')),
      ...line("  Go's, with a session of its own: Lock()", 'go free acquire'),
      ...line('    Unlock() and Close()', 'go free release'),
      ...line("  Go's, in a session that is kept: Lock()", 'go kept acquire'),
      ...line('    Unlock()', 'go kept release'),
      ...line('  etcd3: acquire()', 'etcd3 acquire', { steady: warm.etcd3 }),
      ...line('    release()', 'etcd3 release'),
      {
        ...per(
          'requests to etcd for acquire(), one after the other',
          requests.all - (requests.by.LeaseRevoke ?? 0),
          TIMES,
        ),
        target: 2,
      },
      ...Object.entries(requests.by).map(([method, calls]) =>
        per(`  ${method}${method === 'LeaseRevoke' ? ', for release()' : ''}`, calls, TIMES),
      ),
      ...line(`handover with ${WAITERS} waiting: p50`, 'handover', { target: 5, ...to("Go's", 'go handover') }),
      ...line('  p99', 'handover p99'),
      ...line("  Go's: p50", 'go handover'),
      ...line('    p99', 'go handover p99'),
      per(
        '  transactions and reads for each handover, those to stand in the queue among them',
        woken.by.Txn + (woken.by.Range ?? 0),
        WAITERS + 1,
      ),
    ];
  },

  write: (figures) => writeCoord('locks', figures),
};

async function each(count, action) {
  const times = [];
  for (let n = 0; n < count; n++) {
    const start = now();
    await action();
    times.push(now() - start);
  }
  return times;
}

/** From before each release until the next one has it, in milliseconds. */
async function handover(coord) {
  const mutex = coord.lock.mutex('/bench/queue', { ttlMs: TTL_S * 1000 });
  const first = await mutex.acquire();
  const times = [];
  let released;
  const next = async () => {
    const held = await mutex.acquire({ timeoutMs: 0 });
    times.push(now() - released);
    released = now();
    await held.release();
  };
  const all = Promise.all(Array.from({ length: WAITERS }, next));
  const queued = async () => (await coord.config.list('/bench/queue/')).length;
  while ((await queued()) <= WAITERS) await delay(10);
  await delay(1000); // and have a watch
  released = now();
  await first.release();
  await all;
  return times;
}

/** What was asked of etcd meanwhile, but for what is asked on its streams. */
async function counted(etcd, action) {
  const before = await handled(etcd);
  await action();
  const by = {};
  for (const [method, count] of Object.entries(await handled(etcd))) {
    const calls = count - (before[method] ?? 0);
    if (calls > 0) by[method] = calls;
  }
  return { by, all: Object.values(by).reduce((sum, calls) => sum + calls, 0) };
}

async function handled({ httpUrl }) {
  const page = await (await fetch(`${httpUrl}/metrics`)).text();
  const calls = {};
  for (const [, method, type, count] of page.matchAll(
    /^grpc_server_handled_total{grpc_code="OK",grpc_method="(\w+)",.*grpc_type="(\w+)"} (\d+)/gm,
  )) {
    if (type === 'unary') calls[method] = Number(count);
  }
  return calls;
}

/** `undefined` where the peer is not built. */
async function inGo(etcd, what, count) {
  if (!existsSync(PEER)) return undefined;
  const path = `/bench/go-${what}`;
  const args = ['--endpoints', etcd.host, '--namespace', path, '--locks', what, '--count', String(count)];
  return JSON.parse(execFileSync(PEER, args, { encoding: 'utf8', maxBuffer: 1 << 26 }));
}
