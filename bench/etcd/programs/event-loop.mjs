// One client of etcd in a process of its own that has other things to do: what the client leaves of the event loop.
//
//   event-loop.mjs etcd3|rollcall|grouped|beside HOST MODULE
//
// Nothing here waits for a timer to end by: a client that keeps the event loop to itself would never let it fire.

import { createServer } from 'node:http';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { serve } from '../../support/child.mjs';
import { jsThread } from '../../support/cpu.mjs';
import { now } from '../../support/stats.mjs';
import { connect } from '../connect.mjs';
import { keysOf } from '../keys.mjs';

const client = await connect(process.argv.slice(2));

/** Milliseconds between two ticks, as the program asks for them. */
const TICK = 10;

/** What a program does with an answer: so many microseconds of work. */
function work(us) {
  for (const end = performance.now() + us / 1000; performance.now() < end; );
}

/**
 * Looks at the event loop while `action` runs, which gives how many pieces it did.
 *
 * - `ticks`: the share of the ticks of an interval that fired; `gap`: the longest time between two, in milliseconds
 * - `busyGap`: the most that this thread worked between two, in milliseconds: what a busy machine takes is not in it
 * - `loopP99`: how late the event loop was, in milliseconds
 */
async function watched(action) {
  const delays = monitorEventLoopDelay({ resolution: TICK });
  const begun = now();
  const workedBefore = jsThread();
  let [ticks, gap, busyGap, last, lastWorked] = [0, 0, 0, begun, workedBefore];
  const look = () => {
    const [at, worked] = [now(), jsThread()];
    gap = Math.max(gap, at - last);
    busyGap = Math.max(busyGap, worked - lastWorked);
    [last, lastWorked] = [at, worked];
  };
  const timer = setInterval(() => {
    ticks++;
    look();
  }, TICK);
  delays.enable();
  const pieces = await action();
  look(); // the time since the last tick counts as well
  clearInterval(timer);
  delays.disable();
  const wall = last - begun;
  return {
    perSecond: (pieces / wall) * 1000,
    thread: ((lastWorked - workedBefore) / pieces) * 1000,
    ticks: ticks / Math.floor(wall / TICK),
    gap,
    busyGap,
    // A loop that never came round told of no delay at all.
    loopP99: delays.count === 0 ? wall : Math.max(0, delays.percentile(99) / 1e6 - TICK),
    resident: process.memoryUsage.rss(),
  };
}

/** So many loops of a get with some work after each. */
function calls({ prefix, keys, loops, workUs, ms }) {
  const names = keysOf(prefix, keys);
  return watched(async () => {
    const end = now() + ms;
    let pieces = 0;
    const loop = async (first) => {
      for (let place = first; now() < end; place += loops) {
        await client.get(names[place % keys]).string();
        work(workUs);
        pieces++;
      }
    };
    await Promise.all(Array.from({ length: loops }, (_, first) => loop(first)));
    return pieces;
  });
}

/** So many events of a prefix, from a revision on, with some work after each. */
async function events({ prefix, from, count, workUs }) {
  const watcher = await client.watch().prefix(prefix).startRevision(from).create();
  const figures = await watched(
    () =>
      new Promise((resolve) => {
        let pieces = 0;
        watcher.on('put', () => {
          work(workUs);
          if (++pieces === count) resolve(pieces);
        });
      }),
  );
  await watcher.cancel();
  return figures;
}

let opened;

/** Watches a prefix from now on, with some work for each event. */
async function open({ prefix, workUs }) {
  const watcher = await client.watch().prefix(prefix).create();
  let pieces = 0;
  let enough = () => false;
  watcher.on('put', () => {
    work(workUs);
    pieces++;
    enough();
  });
  const until = (count) =>
    new Promise((resolve) => {
      enough = () => pieces >= count && resolve(count);
      enough();
    });
  opened = { watcher, until };
}

/** So many of its events. */
const take = ({ count }) => watched(() => opened.until(count));

const close = () => opened.watcher.cancel();

/** Serves HTTP; each request takes some work, and with `get` a call of the client before it. */
function listen({ workUs, get }) {
  const server = createServer(async (_, response) => {
    if (get !== undefined) await client.get(get).string();
    work(workUs);
    response.end('served');
  });
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve({ port: server.address().port }));
  });
}

serve({ calls, events, open, take, close, listen });
