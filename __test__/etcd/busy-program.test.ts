// What a program that does much with each answer may expect, besides the turns of `event-loop.test.ts`.

import { Etcd3 } from 'rollcall/etcd';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { jsThread } from '../../bench/support/cpu.mjs';
import { type EtcdCluster, startEtcd } from '../support/etcd.js';
import { clientProgram } from './child.js';

const TICK_MS = 10;
/** How long calls are made for. */
const TIME_MS = 4_000;

let etcd: EtcdCluster;
let client: Etcd3;
beforeAll(async () => {
  etcd = await startEtcd();
  client = new Etcd3({ hosts: [...etcd.hosts] });
  await client.put('key').value('x'.repeat(100));
});
afterAll(async () => {
  await client?.close();
  await etcd?.stop();
});

/** What a program does with an answer. */
function work(us: number): void {
  for (const end = performance.now() + us / 1000; performance.now() < end; );
}

/** What share of the ticks fired while `action` ran, and the most that the thread worked between two. */
async function watched(action: () => Promise<void>): Promise<{ ticks: number; gapMs: number }> {
  const begun = performance.now();
  let [ticks, gapMs, last, before] = [0, 0, begun, jsThread()];
  const look = () => {
    const now = jsThread(); // what the machine takes for others is no doing of ours
    gapMs = Math.max(gapMs, now - before);
    before = now;
    last = performance.now();
  };
  const timer = setInterval(() => {
    ticks += 1;
    look();
  }, TICK_MS);
  await action();
  look();
  clearInterval(timer);
  return { ticks: ticks / ((last - begun) / TICK_MS), gapMs };
}

/** Writes `count` keys below `prefix`, and gives what they are watched from. */
async function history(prefix: string, count: number): Promise<string> {
  const first = await client.put(`${prefix}first`).value('');
  for (let i = 0; i < count; i += 100) {
    const txn = client.if('no such key', 'Version', '==', 0);
    await txn.then(...Array.from({ length: 100 }, (_, n) => client.put(`${prefix}${i + n}`).value('v'))).commit();
  }
  return first.header.revision;
}

test('a watch of many events, whose program iterates, leaves the event loop its turn', async () => {
  const prefix = 'iterated/';
  const total = 15_000;
  const from = await history(prefix, total);
  const seen = await watched(async () => {
    const watcher = await client.watch().prefix(prefix).startRevision(from).create();
    let count = 0;
    for await (const _ of watcher) {
      work(100);
      if (++count > total) break;
    }
    await watcher.cancel();
  });
  expect(seen.ticks).toBeGreaterThan(0.4);
  expect(seen.gapMs).toBeLessThan(150);
});

test('what was handed over is freed while others wait', async () => {
  await client.put('large').value('x'.repeat(6 * 1024));
  const end = performance.now() + TIME_MS;
  const before = process.memoryUsage().rss;
  let most = 0;
  const loop = async () => {
    while (performance.now() < end) {
      await client.get('large').string();
      work(100);
      most = Math.max(most, process.memoryUsage.rss());
    }
  };
  await Promise.all(Array.from({ length: 300 }, loop));
  expect((most - before) / 2 ** 20).toBeLessThan(200);
});

test('a client closed with thousands of calls under way, by a busy program, lets its process end', async () => {
  const frozen = await startEtcd();
  try {
    const [member] = frozen.members;
    member?.freeze();
    const program = clientProgram(
      frozen.hosts,
      `
      let refused = 0;
      const calls = Array.from({ length: 3000 }, () => client.get('k').exec().catch(() => { refused++; }));
      await delay(100); // they are under way
      const closing = client.close();
      setImmediate(() => block(2000));
      await closing;
      await Promise.all(calls);
      say({ refused });
      `,
    );
    expect(await program.exit).toMatchObject({ code: 0, signal: null });
    expect(program.seen.at(-1)).toMatchObject({ refused: 3000 });
  } finally {
    await frozen.stop();
  }
});

test('observe() of a server that says nothing is rejected when the client is closed', async () => {
  const frozen = await startEtcd();
  try {
    frozen.members[0]?.freeze();
    const other = new Etcd3({ hosts: [...frozen.hosts] });
    const observing = other
      .election('silent')
      .observe()
      .catch((error: unknown) => error);
    await new Promise((resolve) => setImmediate(resolve));
    await other.close();
    expect(await observing).toMatchObject({ code: 'ERR_CLOSED' });
  } finally {
    await frozen.stop();
  }
});
