// The streaming methods of the low-level clients: what they carry, how they end, and that they stay small.

import { getEventListeners } from 'node:events';
import {
  Etcd3,
  GRPCCancelledError,
  GRPCNotImplementedError,
  GRPCUnavailableError,
  type IOptions,
  type IRangeStreamResponse,
  type ISnapshotResponse,
  type IWatchResponse,
} from 'rollcall/etcd';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { ETCD_VERSIONS, type EtcdCluster, startEtcd } from '../support/etcd.js';
import { uniqueName, waitFor, within } from '../support/process.js';
import { startTcpProxy } from '../support/tcp.js';

const clients: Etcd3[] = [];
function connect(options: Partial<IOptions>): Etcd3 {
  const client = new Etcd3({ logger: false, ...options } as IOptions);
  clients.push(client);
  return client;
}
afterEach(() => Promise.all(clients.splice(0).map((client) => client.close())));

interface Emitter<T> {
  on(event: 'data', fn: (item: T) => void): unknown;
  on(event: 'end', fn: () => void): unknown;
  on(event: 'error', fn: (error: Error) => void): unknown;
  on(event: 'status', fn: (status: { code: number }) => void): unknown;
}

/** Everything that a stream emits, in order. */
function record<T>(stream: Emitter<T>) {
  const seen = { data: [] as T[], order: [] as string[], error: undefined as Error | undefined, status: -1 };
  stream.on('data', (item) => {
    seen.data.push(item);
    seen.order.push('data');
  });
  stream.on('end', () => seen.order.push('end'));
  stream.on('error', (error) => {
    seen.error = error;
    seen.order.push('error');
  });
  stream.on('status', ({ code }) => {
    seen.status = code;
    seen.order.push('status');
  });
  const over = () => waitFor(() => seen.order.includes('status'), { what: 'the end of the stream', timeoutMs: 25_000 });
  return { ...seen, seen, over };
}

describe.each(ETCD_VERSIONS)('etcd %s', (version) => {
  let etcd: EtcdCluster;
  beforeAll(async () => {
    etcd = await startEtcd({ version });
  });
  afterAll(() => etcd?.close());

  it('watch: several watches on one stream, in etcd’s own messages', async () => {
    const client = connect({ hosts: [...etcd.hosts] });
    const key = uniqueName();
    const stream = await client.watchClient.watch();
    const { seen, over } = record<IWatchResponse>(stream as never);
    stream.write({ create_request: { key: Buffer.from(key), prev_kv: true, watch_id: '7' } });
    stream.write({ create_request: { key: Buffer.from(`${key}/`), range_end: Buffer.from(`${key}0`), watch_id: 8 } });
    await waitFor(() => seen.data.filter(({ created }) => created).length === 2, { what: 'two watches' });
    await client.put(key).value('1');
    await client.put(key).value('2');
    await client.put(`${key}/x`).value('3');
    await waitFor(() => seen.data.flatMap(({ events }) => events).length === 3, { what: 'three events' });
    const events = seen.data.flatMap((answer) => answer.events.map((event) => ({ ...event, id: answer.watch_id })));
    expect(events.map(({ id, type, kv }) => [id, type, kv.value.toString()])).toEqual([
      ['7', 'Put', '1'],
      ['7', 'Put', '2'],
      ['8', 'Put', '3'],
    ]);
    expect(events[1]?.prev_kv.value.toString()).toBe('1');
    stream.write({ cancel_request: { watch_id: '7' } });
    await waitFor(() => seen.data.some(({ canceled, watch_id }) => canceled && watch_id === '7'), {
      what: 'the cancel',
    });
    stream.end(); // of the requests: what is watched goes on being watched
    await client.put(`${key}/y`).value('4');
    await waitFor(() => seen.data.flatMap((answer) => answer.events).length === 4, { what: 'a fourth event' });
    expect(seen.order.filter((event) => event !== 'data')).toEqual([]);
    stream.cancel();
    await over();
    expect(seen.order.slice(-2)).toEqual(['error', 'status']);
  });

  it('leaseKeepAlive: a lease that is there and one that is not', async () => {
    const client = connect({ hosts: [...etcd.hosts] });
    const { ID } = await client.leaseClient.leaseGrant({ TTL: 60 });
    const stream = await client.leaseClient.leaseKeepAlive();
    const { seen, over } = record(stream as never as Emitter<{ ID: string; TTL: string }>);
    stream.write({ ID });
    stream.write({ ID: '4711' });
    await waitFor(() => seen.data.length === 2, { what: 'two answers' });
    expect(seen.data.map((answer) => [answer.ID, answer.TTL])).toEqual([
      [ID, '60'],
      ['4711', '0'],
    ]);
    stream.end();
    await over();
    expect(seen.order).toEqual(['data', 'data', 'end', 'status']);
  });

  it('snapshot: all of it, in order, and then the end', async () => {
    const client = connect({ hosts: [...etcd.hosts] });
    await Promise.all(Array.from({ length: 200 }, (_, i) => client.put(`s${i}`).value('x'.repeat(1000))));
    const { seen, over } = record<ISnapshotResponse>((await client.maintenance.snapshot()) as never);
    await over();
    expect(seen.order.slice(-2)).toEqual(['end', 'status']);
    const whole = Buffer.concat(seen.data.map(({ blob }) => blob));
    for (const answer of seen.data) expect(answer.version).toBe(version.startsWith('3.7') ? '3.7.0' : '');
    // bbolt's magic number, after the head of a page.
    expect(whole.readUInt32LE(16)).toBe(0xed0cdaed);
    expect(whole.includes('s199')).toBe(true);
    let left = BigInt(seen.data[0]?.remaining_bytes ?? 0) + BigInt(seen.data[0]?.blob.length ?? 0);
    for (const { blob, remaining_bytes } of seen.data) {
      left -= BigInt(blob.length);
      if (BigInt(remaining_bytes) > 0n) expect(BigInt(remaining_bytes)).toBe(left);
    }
  });

  it('rangeStream: a range in pieces, from the first server that has it on; one before it says so', async () => {
    const client = connect({ hosts: [...etcd.hosts] });
    const prefix = uniqueName();
    await Promise.all(Array.from({ length: 300 }, (_, i) => client.put(`${prefix}/${i}`).value(`${i}`)));
    const range = { key: Buffer.from(`${prefix}/`), range_end: Buffer.from(`${prefix}0`) };
    const { seen, over } = record<IRangeStreamResponse>((await client.kv.rangeStream(range)) as never);
    await over();
    if (version.startsWith('3.4')) {
      expect(seen.order).toEqual(['error', 'status']);
      expect(seen.error).toBeInstanceOf(GRPCNotImplementedError);
      return;
    }
    expect(seen.order.slice(-2)).toEqual(['end', 'status']);
    const pieces = seen.data.map((answer) => answer.range_response);
    const whole = await client.kv.range(range);
    expect(whole.kvs).toHaveLength(300);
    expect(pieces.flatMap(({ kvs }) => kvs)).toEqual(whole.kvs);
    expect(pieces.length).toBeGreaterThan(1);
    expect(pieces.at(-1)).toMatchObject({ header: whole.header, more: false, count: '300' });
    for (const piece of pieces.slice(0, -1)) expect(piece).toMatchObject({ header: null, more: false, count: '0' });
    const limited = record<IRangeStreamResponse>(
      (await client.kv.rangeStream({ ...range, limit: 25, serializable: true, keys_only: true })) as never,
    );
    await limited.over();
    const keys = limited.seen.data.flatMap((answer) => answer.range_response.kvs.map(({ key }) => key));
    expect(keys).toEqual(whole.kvs.slice(0, 25).map(({ key }) => key));
    expect(limited.seen.data.at(-1)?.range_response).toMatchObject({ more: true, count: '300' });
    const sorted = record((await client.kv.rangeStream({ ...range, sort_order: 'Descend' })) as never);
    await sorted.over();
    expect(sorted.seen.error).toBeInstanceOf(GRPCNotImplementedError);
  });

  it('rangeStream: a wrong request is refused before anything is opened', async () => {
    const client = connect({ hosts: [...etcd.hosts] });
    const { signal } = new AbortController();
    for (const [wrong, why] of [
      [{ limit: Number.NaN }, 'RangeRequest.limit'],
      [{ key: 5 }, 'RangeRequest.key'],
      [[], 'RangeRequest'],
    ] as const) {
      const asked = client.kv.rangeStream(wrong as never, { signal });
      await expect(asked).rejects.toMatchObject({
        code: 'ERR_INVALID_ARGUMENT',
        message: expect.stringContaining(why),
      });
    }
    expect(getEventListeners(signal, 'abort')).toEqual([]);
  });

  it('cancel() ends it with one error of its class, at once, and a second one is harmless', async () => {
    const client = connect({ hosts: [...etcd.hosts] });
    for (const opened of [true, false]) {
      const stream = await client.watchClient.watch();
      const { seen, over } = record<IWatchResponse>(stream as never);
      if (opened) {
        stream.write({ create_request: { key: Buffer.from('k') } });
        await waitFor(() => seen.data.length === 1, { what: 'the watch' });
      }
      stream.cancel();
      expect(seen.order.filter((event) => event !== 'data')).toEqual([]); // not from within
      stream.cancel();
      stream.write({ create_request: { key: Buffer.from('k') } }); // dropped
      stream.end();
      await over();
      expect(seen.order.filter((event) => event !== 'data')).toEqual(['error', 'status']);
      expect(seen.error).toBeInstanceOf(GRPCCancelledError);
      expect(seen.status).toBe(1);
    }
  });

  it('end() before anything was written ends it well, and so does end() with a request on its way', async () => {
    const client = connect({ hosts: [...etcd.hosts] });
    const empty = await client.watchClient.watch();
    const one = record<IWatchResponse>(empty as never);
    empty.end();
    await one.over();
    expect(one.seen.order).toEqual(['end', 'status']);
    const { ID } = await client.leaseClient.leaseGrant({ TTL: 60 });
    const keep = await client.leaseClient.leaseKeepAlive();
    const two = record(keep as never);
    keep.write({ ID });
    keep.end();
    await two.over();
    expect(two.seen.order.slice(-2)).toEqual(['end', 'status']);
  });

  it('a signal ends it, before and after it is open; so does close()', async () => {
    const client = connect({ hosts: [...etcd.hosts] });
    const reason = new Error('enough');
    const gone = client.watchClient.watch({ signal: AbortSignal.abort(reason) });
    await expect(gone).rejects.toBeInstanceOf(GRPCCancelledError);
    await expect(gone).rejects.toMatchObject({ code: 'ERR_ABORTED', cause: reason });
    await expect(client.maintenance.snapshot({ deadline: Date.now() - 1 })).rejects.toMatchObject({ grpcCode: 4 });
    await expect(client.leaseClient.leaseKeepAlive({ signal: 5 as never })).rejects.toThrow('options.signal');
    const controller = new AbortController();
    const stream = await client.watchClient.watch(controller);
    const later = record<IWatchResponse>(stream as never);
    stream.write({ create_request: { key: Buffer.from('k') } });
    await waitFor(() => later.seen.data.length === 1, { what: 'the watch' });
    controller.abort();
    await later.over();
    expect(later.seen.error).toBeInstanceOf(GRPCCancelledError);
    const last = await client.watchClient.watch();
    const closed = record<IWatchResponse>(last as never);
    last.write({ create_request: { key: Buffer.from('k') } });
    await waitFor(() => closed.seen.data.length === 1, { what: 'the watch' });
    await within(client.close(), 5000, 'close()');
    await closed.over();
    expect(closed.seen.order.slice(-2)).toEqual(['error', 'status']);
    await expect(client.watchClient.watch()).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  });

  it('what cannot be a request throws where it is written, and the stream goes on', async () => {
    const client = connect({ hosts: [...etcd.hosts] });
    const stream = await client.watchClient.watch();
    const { seen } = record<IWatchResponse>(stream as never);
    const getter = Object.defineProperty({}, 'create_request', {
      enumerable: true,
      get() {
        throw new RangeError('mine');
      },
    });
    for (const hostile of [
      undefined,
      null,
      5,
      'text',
      [],
      { create_request: 5 },
      { create_request: { key: 5 } },
      { create_request: { key: 'k', start_revision: Number.NaN } },
      { create_request: { key: 'k', filters: 'none' } },
      { cancel_request: { watch_id: 2 ** 60 } },
      getter,
      new Proxy({}, { get: () => expect.unreachable, ownKeys: () => [] }),
    ]) {
      try {
        stream.write(hostile as never);
      } catch (error) {
        expect(error).toBeInstanceOf(Error);
        expect((error as Error).message).not.toBe('');
      }
    }
    stream.write({ create_request: { key: Buffer.from('k') } });
    await waitFor(() => seen.data.some(({ created }) => created), { what: 'the watch' });
    expect(seen.error).toBeUndefined();
    stream.cancel();
  });

  it('more writes than etcd can take are told by an error, not by memory', async () => {
    const client = connect({ hosts: [...etcd.hosts] });
    const stream = await client.leaseClient.leaseKeepAlive();
    const { seen, over } = record(stream as never);
    for (let i = 0; i < 100_000; i++) stream.write({ ID: String(i + 1) });
    await over();
    expect(seen.order.filter((event) => event === 'error')).toHaveLength(1);
    expect(seen.error).toMatchObject({ code: expect.stringMatching(/^ERR_/), grpcCode: 8 });
    expect(seen.error?.message).toContain('too many requests');
    // Others are not hurt.
    expect(await client.get('none').string()).toBeNull();
  });

  it('hundreds of streams share one signal without a warning', async () => {
    const client = connect({ hosts: [...etcd.hosts] });
    const warnings: Error[] = [];
    const warn = (warning: Error) => warnings.push(warning);
    process.on('warning', warn);
    const controller = new AbortController();
    const streams = await Promise.all(Array.from({ length: 200 }, () => client.watchClient.watch(controller)));
    const seen = streams.map((stream) => record<IWatchResponse>(stream as never));
    for (const stream of streams) stream.write({ create_request: { key: Buffer.from('k') } });
    await waitFor(() => seen.every((one) => one.seen.data.length === 1), { what: 'all watches' });
    controller.abort();
    await Promise.all(seen.map((one) => one.over()));
    process.off('warning', warn);
    expect(seen.filter((one) => !(one.seen.error instanceof GRPCCancelledError))).toEqual([]);
    expect(warnings).toEqual([]);
  });

  it('a listener that throws is the program’s: the other answers still come', async () => {
    const client = connect({ hosts: [...etcd.hosts] });
    const key = uniqueName();
    const uncaught: unknown[] = [];
    const before = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException');
    process.on('uncaughtException', (error) => uncaught.push(error));
    try {
      const stream = await client.watchClient.watch();
      let count = 0;
      stream.on('data', () => {
        if (count++ === 2) throw new RangeError('mine');
      });
      stream.write({ create_request: { key: Buffer.from(key) } });
      await waitFor(() => count === 1, { what: 'the watch' });
      // Answers that come together, while the thread looks elsewhere.
      await etcd.put(key, '0');
      await waitFor(() => count === 2, { what: 'the first event' });
      for (let i = 0; i < 5; i++) stream.write({ create_request: { key: Buffer.from(key) } });
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300);
      await waitFor(() => count === 7 && uncaught.length === 1, { what: 'the answers after it' });
      expect(uncaught[0]).toBeInstanceOf(RangeError);
      stream.cancel();
    } finally {
      process.removeAllListeners('uncaughtException');
      for (const listener of before) process.on('uncaughtException', listener);
    }
  });

  it('the server is killed in mid-stream: one error of its class, also when nobody listens', async () => {
    const client = connect({ hosts: [...etcd.hosts] });
    const open = async () => {
      const stream = await client.watchClient.watch();
      return stream;
    };
    const heard = await open();
    const { seen, over } = record<IWatchResponse>(heard as never);
    const unheard = await open();
    for (const stream of [heard, unheard]) stream.write({ create_request: { key: Buffer.from('k') } });
    await waitFor(() => seen.data.length === 1, { what: 'the watch' });
    await etcd.kill();
    await over();
    expect(seen.order).toEqual(['data', 'error', 'status']);
    expect(seen.error).toBeInstanceOf(GRPCUnavailableError);
    await etcd.start();
    const again = await open();
    const after = record<IWatchResponse>(again as never);
    again.write({ create_request: { key: Buffer.from('k') } });
    await waitFor(() => after.seen.data.length === 1, { what: 'a new watch' });
  });

  it('a stream that cannot be opened says why, for each endpoint', async () => {
    const hosts = ['127.0.0.1:1', '127.0.0.1:2'];
    const client = connect({ hosts, dialTimeout: 500 });
    const stream = await client.watchClient.watch();
    const { seen, over } = record<IWatchResponse>(stream as never);
    stream.write({ create_request: { key: Buffer.from('k') } });
    await over();
    expect(seen.error).toBeInstanceOf(GRPCUnavailableError);
    const { tried } = seen.error as unknown as { tried: { host: string; message: string }[] };
    expect(tried.map(({ host }) => host).sort()).toEqual(hosts.map((host) => `http://${host}`)); // each once, however often
    for (const { host, message } of tried) expect(message).toMatch(new RegExp(`${host}: .*refused`));
  });
});

describe.each(ETCD_VERSIONS)('with authentication, etcd %s', (version) => {
  let etcd: EtcdCluster;
  beforeAll(async () => {
    etcd = await startEtcd({ version, authTokenTtl: 4, users: [{ name: 'u', password: 'p' }] });
  });
  afterAll(() => etcd?.close());

  it('snapshot sends the token, which etcd3 does not; without one it is refused', async () => {
    const proxy = await startTcpProxy(etcd.hosts[0] as string);
    const root = connect({ hosts: [proxy.host], auth: { username: 'root', password: 'root' } });
    const { seen, over } = record<ISnapshotResponse>((await root.maintenance.snapshot()) as never);
    await over();
    expect(seen.order.slice(-2)).toEqual(['end', 'status']);
    expect(seen.data.length).toBeGreaterThan(0);
    expect(proxy.accepted).toBe(1);
    await proxy.close();
    for (const auth of [undefined, { username: 'u', password: 'p' }]) {
      const client = connect({ hosts: [...etcd.hosts], ...(auth && { auth }) });
      const refused = record<ISnapshotResponse>((await client.maintenance.snapshot()) as never);
      await refused.over();
      expect(refused.seen.order).toEqual(['error', 'status']);
      expect(refused.seen.error?.message).toMatch(auth ? /permission denied/ : /user name is empty/);
    }
  });

  it('watch and keep-alive send it too', async () => {
    const client = connect({ hosts: [...etcd.hosts], auth: { username: 'u', password: 'p' } });
    const stream = await client.watchClient.watch();
    const { seen } = record<IWatchResponse>(stream as never);
    stream.write({ create_request: { key: Buffer.from('k') } });
    await waitFor(() => seen.data.length === 1, { what: 'the watch' });
    expect(seen.data[0]).toMatchObject({ created: true, canceled: false });
    const { ID } = await client.leaseClient.leaseGrant({ TTL: 60 });
    const keep = await client.leaseClient.leaseKeepAlive();
    const kept = record(keep as never as Emitter<{ TTL: string }>);
    keep.write({ ID });
    await waitFor(() => kept.seen.data.length === 1, { what: 'the answer' });
    expect(kept.seen.data[0]?.TTL).toBe('60');
  });
});

it('a snapshot of which nobody takes the answers waits on the server, not in memory', async () => {
  const etcd = await startEtcd();
  const client = connect({ hosts: [...etcd.hosts] });
  const value = Buffer.alloc(1_200_000, 1);
  for (let i = 0; i < 120; i++) await client.put(`k${i % 100}`).value(value);
  const stream = await client.maintenance.snapshot();
  let bytes = 0;
  let done = false;
  stream.on('data', ({ blob }: ISnapshotResponse) => {
    bytes += blob.length;
  });
  stream.on('end', () => {
    done = true;
  });
  await waitFor(() => bytes > 0, { what: 'the first answer' });
  const before = process.memoryUsage().rss;
  // The thread that would take them is busy, as a program's may be.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2500);
  const grown = process.memoryUsage().rss - before;
  expect(done).toBe(false);
  expect(grown).toBeLessThan(70 * 1024 * 1024);
  await waitFor(() => done, { what: 'the end', timeoutMs: 30_000 });
  expect(bytes).toBeGreaterThan(120 * 1024 * 1024);
  await client.close();
  await etcd.close();
});
