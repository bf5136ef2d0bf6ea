// One client of etcd in a process of its own, so that what is measured is its alone:
//
//   client.mjs etcd3|rollcall|grouped|beside HOST MODULE
//
// The same code for all: `rollcall/etcd` has the interface of etcd3.

import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import { serve } from '../../support/child.mjs';
import { jsThread, wholeProcess } from '../../support/cpu.mjs';
import { now, quantile } from '../../support/stats.mjs';
import { connect } from '../connect.mjs';
import { keysOf, textOf } from '../keys.mjs';

const client = await connect(process.argv.slice(2));

/** How many callers have each of their calls timed: more than that would be a part of what is measured. */
const TIMED = 16;
/** Milliseconds between two looks at the event loop. */
const LOOK = 10;

const CALLS = {
  get: (key) => client.get(key).string(),
  put: (key, value) => client.put(key).value(value),
  txn: (key, value) =>
    client.if(key, 'Version', '>', 0).then(client.put(key).value(value)).else(client.get(key)).commit(),
  list: (_key, _value, prefix) => client.getAll().prefix(prefix).strings(),
};

/** What an action takes of this process, and of its JavaScript thread, per piece of what it does. */
async function measured(action) {
  const loop = monitorEventLoopDelay({ resolution: LOOK });
  loop.enable();
  const [process_, thread, start] = [wholeProcess(), jsThread(), now()];
  const { pieces, ...more } = await action();
  const [wall, threadEnd, processEnd] = [now() - start, jsThread(), wholeProcess()];
  loop.disable();
  return {
    calls: pieces,
    perSecond: (pieces / wall) * 1000,
    wall,
    process: ((processEnd - process_) / pieces) * 1000,
    thread: ((threadEnd - thread) / pieces) * 1000,
    loop: Math.max(0, loop.max / 1e6 - LOOK),
    ...more,
  };
}

/** So many callers for so long, each with one call at a time. */
function load({ do: what, prefix, keys, valueBytes, atOnce, ms }) {
  const call = CALLS[what];
  const names = keysOf(prefix, keys);
  const value = textOf(valueBytes);
  const times = [];
  let going = true;
  let pieces = 0;
  const caller = async (first) => {
    for (let place = first; going; place += atOnce) {
      await call(names[place % keys], value, prefix);
      pieces++;
    }
  };
  const timedCaller = async (first) => {
    for (let place = first, begun = performance.now(); going; place += atOnce) {
      await call(names[place % keys], value, prefix);
      pieces++;
      const done = performance.now();
      times.push((done - begun) * 1000);
      begun = done;
    }
  };
  return measured(async () => {
    const callers = Array.from({ length: atOnce }, (_, first) => (first < TIMED ? timedCaller(first) : caller(first)));
    await delay(ms);
    going = false;
    await Promise.all(callers);
    return { pieces, p50: quantile(times, 0.5), p99: quantile(times, 0.99) };
  });
}

let watchers = [];

/** Watchers of all keys under a prefix, or of a key each; resolves when they are at work. */
async function watch({ prefix, each, from }) {
  const paths = each ? keysOf(prefix, each) : [prefix];
  let seen = 0;
  let wanted = Number.POSITIVE_INFINITY;
  let reached;
  const count = () => {
    if (++seen === wanted) reached();
  };
  const state = {
    seen: () => seen,
    until: (events) =>
      new Promise((resolve) => {
        wanted = events;
        reached = resolve;
        if (seen >= events) resolve();
      }),
  };
  watchers = await Promise.all(
    paths.map(async (path) => {
      const builder = each ? client.watch().key(path) : client.watch().prefix(path);
      if (from !== undefined) builder.startRevision(from);
      const watcher = await builder.create();
      watcher.on('put', count);
      return watcher;
    }),
  );
  return state;
}

async function unwatch() {
  await Promise.all(watchers.map((watcher) => watcher.cancel()));
  watchers = [];
}

let live;
let leases = [];

serve({
  load,
  /** Begins to watch. The figures are of creating the watchers. */
  watch: (what) =>
    measured(async () => {
      live = await watch(what);
      return { pieces: what.each ?? 1 };
    }),
  /** The figures of so many events, from now on. */
  events: (events) =>
    measured(async () => {
      await live.until(events);
      return { pieces: events };
    }),
  unwatch,
  /** Watches from an old revision on. */
  async replay({ prefix, from, events }) {
    const figures = await measured(async () => {
      await (await watch({ prefix, from })).until(events);
      return { pieces: events };
    });
    await unwatch();
    return figures;
  },
  /** Leases, each kept alive by the client. */
  async grant({ count, ttl }) {
    const left = Array.from({ length: count }, () => client.lease(ttl));
    const granted = [...left];
    leases.push(...left);
    const figures = await measured(async () => {
      const worker = async () => {
        for (let lease = left.pop(); lease !== undefined; lease = left.pop()) await lease.grant();
      };
      await Promise.all(Array.from({ length: 64 }, worker));
      return { pieces: granted.length };
    });
    return figures;
  },
  /** What keeping them costs, in milliseconds of processor time a second. */
  async keep({ ms }) {
    const lost = { count: 0 };
    for (const lease of leases) lease.on('lost', () => lost.count++);
    const figures = await measured(async () => {
      await delay(ms);
      return { pieces: ms };
    });
    return { ...figures, lost: lost.count };
  },
  async release() {
    await Promise.all(leases.map((lease) => lease.revoke().catch(() => {})));
    leases = [];
  },
});
