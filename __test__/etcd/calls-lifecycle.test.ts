// The life of a client: close(), the end of the process, worker threads, garbage, memory.
import { Worker } from 'node:worker_threads';
import { ClientClosedError, Etcd3 } from 'rollcall/etcd';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type EtcdCluster, startEtcd } from '../support/etcd.js';
import { runProgram, uniqueName, within } from '../support/process.js';
import { startSilentServer, startTcpProxy } from '../support/tcp.js';

let etcd: EtcdCluster;
beforeAll(async () => {
  etcd = await startEtcd();
});
afterAll(() => etcd?.close());

const connect = (options: object = {}) => new Etcd3({ hosts: [...etcd.hosts], logger: false, ...options });
const ended = (call: PromiseLike<unknown>) =>
  Promise.resolve(call).then(
    () => 'done',
    (error: { code?: string }) => error.code ?? String(error),
  );

describe('close()', () => {
  it('of a client that was never used, once and again', async () => {
    const client = connect();
    await within(client.close(), 2000, 'close()');
    await within(client.close(), 2000, 'close()');
    await expect(client.get('k').string()).rejects.toBeInstanceOf(ClientClosedError);
  });

  it('rejects calls under way and later ones, of every kind, with ClientClosedError', async () => {
    const proxy = await startTcpProxy(etcd.hosts[0] as string);
    const client = connect({ hosts: [proxy.host] });
    await client.put('k').value('v');
    proxy.hold();
    const kinds = [
      () => client.get('k').string(),
      () => client.get('k').exec(),
      () => client.put('k').value('w').exec(),
      () => client.getAll().keys(),
      () => client.delete().key('k').exec(),
      () => client.if('k', 'Mod', '>', 0).then(client.get('k')).commit(),
      () => client.maintenance.status(),
      () => client.namespace('n').get('k').string(),
      () => client.getRoles(),
    ];
    const under = kinds.map((call) => call());
    const closing = client.close();
    for (const call of under) {
      await expect(within(Promise.resolve(call as Promise<unknown>), 2000, 'a call')).rejects.toBeInstanceOf(
        ClientClosedError,
      );
    }
    await within(closing, 2000, 'close()');
    for (const call of kinds) {
      await expect(call()).rejects.toBeInstanceOf(ClientClosedError);
      await expect(call()).rejects.toMatchObject({ code: 'ERR_CLOSED', retryable: false });
    }
    await expect(client.watchClient.watch()).rejects.toBeInstanceOf(ClientClosedError);
    await expect(client.ready()).rejects.toBeInstanceOf(ClientClosedError);
    proxy.release();
    await proxy.close();
  });

  it('with thousands of calls in flight, and without await: every call settles', async () => {
    for (let round = 0; round < 5; round++) {
      const client = connect();
      const ns = client.namespace(`${uniqueName()}/`);
      const controller = new AbortController();
      const calls = Array.from({ length: 6000 }, (_, i) =>
        i % 3 === 0
          ? ended(ns.put(`k${i}`).value('v').exec())
          : ended(
              ns
                .get(`k${i}`)
                .options(i % 3 === 1 ? controller : undefined)
                .string(),
            ),
      );
      if (round % 2) await calls[round * 100];
      if (round === 3) controller.abort();
      void client.close();
      void client.close();
      const ends = new Set(await within(Promise.all(calls), 10_000, 'the end of all calls'));
      ends.delete('done');
      ends.delete('ERR_ABORTED');
      expect([...ends]).toEqual(['ERR_CLOSED']);
      await client.close();
    }
  });

  it('while it is still connecting to what never answers', async () => {
    const silent = await startSilentServer();
    const client = connect({ hosts: [silent.host] });
    const calls = Array.from({ length: 100 }, (_, i) =>
      ended(i % 2 ? client.get('k').string() : client.put('k').value('v').exec()),
    );
    await new Promise((resolve) => setImmediate(resolve));
    await within(client.close(), 2000, 'close()');
    expect(new Set(await Promise.all(calls))).toEqual(new Set(['ERR_CLOSED']));
    await silent.close();
  });

  it('ends the connections', async () => {
    const proxy = await startTcpProxy(etcd.hosts[0] as string);
    const client = connect({ hosts: [proxy.host] });
    await Promise.all(Array.from({ length: 100 }, () => client.get('k').string()));
    expect([proxy.accepted, proxy.open]).toEqual([1, 1]);
    await client.close();
    await expect.poll(() => proxy.open, { timeout: 5000 }).toBe(0);
    await proxy.close();
  });

  it('can be left to `await using`', async () => {
    const client = connect();
    await client[Symbol.asyncDispose]();
    await expect(client.get('k').string()).rejects.toBeInstanceOf(ClientClosedError);
  });
});

/** Runs a program in a process of its own, and says how it ended and after how long. */
async function run(code: string, args: readonly string[] = []) {
  const start = performance.now();
  const script = runProgram<Record<string, unknown>>(process.execPath, [...args, '-e', code], {
    NODE_OPTIONS: '',
    HOSTS: etcd.hosts.join(','),
  });
  const end = await within(script.exit, 50_000, 'the end of the program').finally(() => script.kill('SIGKILL'));
  return { ...end, ms: performance.now() - start };
}
const head = `const { Etcd3 } = require('rollcall/etcd'); const client = new Etcd3({ hosts: process.env.HOSTS.split(',') });`;

describe('the process', () => {
  it('ends within a second after close(), also without await and with calls in flight', async () => {
    for (const rest of [
      `client.put('k').value('v').then(() => { globalThis.at = Date.now(); return client.close(); });`,
      `client.put('k').value('v').then(() => { globalThis.at = Date.now(); client.close(); });`,
      `client.get('k').then(() => { for (let i = 0; i < 10000; i++) client.get('k').string().catch(() => {}); globalThis.at = Date.now(); client.close(); });`,
      `client.watchClient.watch().then((watch) => { watch.on('error', () => {}); watch.write({ create_request: { key: Buffer.from('k') } }); watch.on('data', () => { globalThis.at ??= Date.now(); client.close(); }); });`,
    ]) {
      const { code, stderr, stdout } = await run(
        `${head} process.on('exit', () => console.log(Date.now() - globalThis.at)); ${rest}`,
      );
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      expect(Number(stdout)).toBeLessThan(1000);
    }
  });

  it('ends without close() when no call is under way, and not before', async () => {
    const { code, stdout, stderr } = await run(
      `${head} client.put('k').value('v').then(() => client.get('k')).then(console.log);`,
    );
    expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: 'v\n', stderr: '' });
  });

  it('that only makes clients ends at once; so does one that exits in mid-flight', async () => {
    const made = await run(`${head} for (let i = 0; i < 100; i++) new Etcd3({ hosts: 'a:1' });`);
    expect({ code: made.code, stderr: made.stderr }).toEqual({ code: 0, stderr: '' });
    const exits = await run(
      `${head} for (let i = 0; i < 5000; i++) client.put('k' + i).value('v').catch(() => {}); setImmediate(() => process.exit(7));`,
    );
    expect({ code: exits.code, signal: exits.signal, stderr: exits.stderr }).toEqual({
      code: 7,
      signal: null,
      stderr: '',
    });
  });

  it('keeps no client that is dropped, but settles its calls', async () => {
    const { code, stdout, stderr } = await run(
      `const { Etcd3 } = require('rollcall/etcd');
       const hosts = process.env.HOSTS.split(',');
       const gone = []; let done = 0;
       const use = async (i) => { const client = new Etcd3({ hosts }); gone.push(new WeakRef(client)); const call = client.put('g' + i).value('v').exec(); return call; };
       (async () => {
         for (let i = 0; i < 60; i++) {
           const calls = [use(i), use(i), use(i)];
           gc();
           for (const call of calls) { await call; done++; }
         }
         for (let i = 0; i < 20; i++) { await new Promise((r) => setTimeout(r, 20)); gc(); }
         console.log(JSON.stringify({ done, alive: gone.filter((ref) => ref.deref()).length }));
         process.exit(0);
       })();`,
      ['--expose-gc'],
    );
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const { done, alive } = JSON.parse(stdout) as { done: number; alive: number };
    expect(done).toBe(180);
    expect(alive).toBeLessThan(20);
  });

  it('stays as small after 300,000 calls as after the first 50,000', async () => {
    const { code, stdout, stderr } = await run(
      `${head}
       // Grouped gets, most of them: 300,000 plain calls are a matter of etcd's time.
       const grouped = new Etcd3({ hosts: process.env.HOSTS.split(','), groupGets: true });
       (async () => {
         const value = 'x'.repeat(100);
         const some = async (n) => {
           for (let i = 0; i < n; i += 1000) {
             await Promise.all(Array.from({ length: 1000 }, (_, j) => j % 50 === 0 ? client.put('m' + j).value(value) : j % 50 === 1 ? client.get('m' + j).exec() : j % 25 === 2 ? client.get('m' + j) : grouped.get('m' + j)));
           }
         };
         await some(50_000);
         gc(); const before = process.memoryUsage().rss;
         await some(250_000);
         gc(); const after = process.memoryUsage().rss;
         console.log(JSON.stringify({ before, after }));
         await client.close();
         await grouped.close();
       })();`,
      ['--expose-gc'],
    );
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const { before, after } = JSON.parse(stdout) as { before: number; after: number };
    expect(after - before).toBeLessThan(24 * 1024 * 1024);
  });
});

describe('worker threads', () => {
  const code = `
    const { parentPort, workerData } = require('node:worker_threads');
    const { Etcd3 } = require('rollcall/etcd');
    const client = new Etcd3({ hosts: workerData.hosts });
    const work = async (n) => { for (;;) { await client.put('w' + n).value('v'.repeat(n * 500)); await client.get('w' + n); await client.getAll().prefix('w').keys(); } };
    client.watchClient.watch().then((watch) => { watch.on('error', () => {}); watch.write({ create_request: { key: Buffer.from('w'), range_end: Buffer.from('x') } }); });
    for (let n = 0; n < 50; n++) work(n).catch(() => {});
    client.put('w').value('v').then(() => parentPort.postMessage('running'));
    if (workerData.close) setTimeout(() => client.close(), 5);
  `;

  it('are terminated in mid-flight, twenty rounds: nothing crashes, nothing hangs, this thread goes on', async () => {
    const client = connect();
    for (let round = 0; round < 20; round++) {
      const workers = Array.from(
        { length: 2 },
        (_, i) =>
          new Worker(code, { eval: true, workerData: { hosts: [...etcd.hosts], close: (round + i) % 4 === 0 } }),
      );
      await Promise.all(
        workers.map(async (worker, i) => {
          worker.on('error', () => {}); // those that close() are refused their first call, perhaps
          const exited = new Promise((resolve) => worker.once('exit', resolve));
          if (round % 3) await Promise.race([new Promise((resolve) => worker.once('message', resolve)), exited]);
          else await new Promise((resolve) => worker.once('online', resolve));
          if (i) await client.get('w').string();
          await within(worker.terminate(), 5000, 'the end of a worker');
          await within(exited, 5000, 'its exit');
        }),
      );
      await client.put('here').value(String(round));
    }
    expect(await client.get('here').number()).toBe(19);
    await client.close();
  });

  it('that end by themselves after close() do so soon', async () => {
    const worker = new Worker(
      `const { Etcd3 } = require('rollcall/etcd'); const { workerData, parentPort } = require('node:worker_threads');
       const client = new Etcd3({ hosts: workerData });
       client.put('k').value('v').then(() => client.get('k')).then((value) => { parentPort.postMessage(value); return client.close(); });`,
      { eval: true, workerData: [...etcd.hosts] },
    );
    const said = new Promise((resolve) => worker.once('message', resolve));
    const exit = new Promise((resolve) => worker.once('exit', resolve));
    expect(await within(said, 10_000, 'its word')).toBe('v');
    expect(await within(exit, 3000, 'its end')).toBe(0);
  });
});
