// A thousand registrations that come back after an outage, without a herd.
import type { ClientHttp2Session, IncomingHttpHeaders, ServerHttp2Session } from 'node:http2';
import { createServer, connect as dial } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { describe, expect, test } from 'vitest';
import { hear, inTime, waitFor } from '../conformance/kit.js';
import { ETCD_VERSIONS } from '../support/etcd.js';
import { client, server } from './kit.js';

/** A proxy that counts calls by their method, and answers late, so that calls pile up as far as the client lets them. */
async function startCounter(upstream: string, delayMs: number) {
  const sessions = new Map<ServerHttp2Session, ClientHttp2Session>();
  const open = new Map<string, number>();
  const begun: { at: number; method: string }[] = [];
  const peaks = new Map<string, number>();
  let enabled = true;

  const kindOf = (method: string): string =>
    /^(Txn|Put|DeleteRange|LeaseGrant|LeaseRevoke)$/.test(method)
      ? 'write'
      : method === 'Range'
        ? 'read'
        : method === 'LeaseKeepAlive'
          ? 'renewal'
          : 'stream';
  const count = (method: string, by: 1 | -1): void => {
    const kind = kindOf(method);
    const now = (open.get(kind) ?? 0) + by;
    open.set(kind, now);
    peaks.set(kind, Math.max(peaks.get(kind) ?? 0, now));
    if (by === 1) begun.push({ at: Date.now(), method });
  };

  const proxy = createServer();
  proxy.on('session', (down) => {
    if (!enabled) {
      down.destroy();
      return;
    }
    const up = dial(`http://${upstream}`);
    sessions.set(down, up);
    const end = (): void => {
      sessions.delete(down);
      down.destroy();
      up.destroy();
    };
    for (const session of [down, up]) session.on('error', end).on('close', end);
  });
  proxy.on('stream', (down, headers) => {
    const path = headers[':path'] ?? '';
    const method = path.slice(path.lastIndexOf('/') + 1);
    const session = sessions.get(down.session as ServerHttp2Session);
    if (!session || session.destroyed) {
      down.close();
      return;
    }
    count(method, 1);
    const up = session.request({ ...headers, ':authority': upstream });
    let trailers: IncomingHttpHeaders = {};
    up.on('trailers', (told) => {
      trailers = told;
    });
    up.on('response', (told, flags) => {
      const only = Boolean(flags & 1); // END_STREAM: no body, the trailers are in the headers
      setTimeout(
        () => {
          if (down.destroyed) return;
          down.respond(told, { waitForTrailers: !only, endStream: only });
          if (!only) up.pipe(down);
        },
        kindOf(method) === 'stream' ? 0 : delayMs,
      );
    });
    down.on('wantTrailers', () => down.sendTrailers(trailers));
    down.pipe(up);
    for (const stream of [down, up]) stream.on('error', () => undefined);
    down.on('close', () => {
      count(method, -1);
      up.close();
    });
    up.on('close', () => {
      if (!down.headersSent) down.close();
    });
  });
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  return {
    host: `127.0.0.1:${(proxy.address() as AddressInfo).port}`,
    setEnabled(on: boolean): void {
      enabled = on;
      if (!on) for (const session of sessions.keys()) session.destroy();
    },
    /** Counts anew from here. */
    reset(): void {
      begun.length = 0;
      peaks.clear();
    },
    /** The most calls of a kind that were under way at once. */
    peak: (kind: 'write' | 'read' | 'renewal'): number => peaks.get(kind) ?? 0,
    /** The most calls begun within one second. */
    get peakPerSecond() {
      let most = 0;
      for (let first = 0, last = 0; last < begun.length; last++) {
        while ((begun[last]?.at ?? 0) - (begun[first]?.at ?? 0) >= 1000) first++;
        most = Math.max(most, last - first + 1);
      }
      return most;
    },
    /** Calls by method. */
    get calls() {
      const calls: Record<string, number> = {};
      for (const { method } of begun) calls[method] = (calls[method] ?? 0) + 1;
      return calls;
    },
    async close(): Promise<void> {
      for (const session of sessions.keys()) session.destroy();
      await new Promise((resolve) => proxy.close(resolve));
    },
  };
}

describe.each(ETCD_VERSIONS)('1,000 registrations, etcd %s', (version) => {
  test('come back after an outage with at most 64 publications and 32 reads in flight', {
    timeout: 300_000,
  }, async (context) => {
    const etcd = await server(context, { version });
    const counter = await startCounter(etcd.hosts[0] as string, 20);
    context.onTestFinished(() => counter.close());
    const registry = await client(context, etcd, { hosts: [counter.host], ttlMs: 3000 });
    const all = Array.from({ length: 1000 }, (_, i) => String(i).padStart(4, '0'));
    const registrations = await Promise.all(
      all.map((id) => registry.register({ name: 'orders', id, metadata: { zone: 'a' } }, { timeoutMs: 60_000 })),
    );
    expect(await etcd.keys('/microservices/orders/')).toHaveLength(1000);
    const tell = (what: string): Promise<unknown> =>
      context.annotate(
        `${what}: at most ${counter.peak('write')} writes and ${counter.peak('read')} reads and ${counter.peak('renewal')} renewals in flight, at most ${counter.peakPerSecond} calls begun in one second; ${JSON.stringify(counter.calls)}`,
      );
    await tell('registered');
    expect(counter.peak('write'), 'registering').toBeLessThanOrEqual(64);
    const heard = registrations.map(hear);
    counter.setEnabled(false);
    await waitFor(async () => (await etcd.keys('/microservices/orders/')).length === 0, {
      timeoutMs: 15_000,
      what: 'all leases to end',
    });
    await waitFor(() => registrations.every(({ state }) => state === 'lost'), {
      timeoutMs: 10_000,
      what: 'all to be lost',
    });
    counter.reset();
    counter.setEnabled(true);
    const start = performance.now();
    await waitFor(async () => (await etcd.keys('/microservices/orders/')).length === 1000, {
      timeoutMs: 45_000,
      what: 'all to be back',
    });
    const seconds = (performance.now() - start) / 1000;
    await waitFor(() => heard.every((one) => one.count('restored') === 1), {
      timeoutMs: 5000,
      what: 'all to be told',
    });
    await tell(`back in ${seconds.toFixed(1)} s`);
    expect(counter.peak('write'), 'writes while coming back').toBeLessThanOrEqual(64);
    expect(counter.peak('read'), 'reads while coming back').toBeLessThanOrEqual(32);
    expect(counter.peak('write'), 'an answer takes 20 ms, so calls do pile up').toBeGreaterThan(8);
    expect(seconds).toBeLessThan(inTime(30));
    for (const { events } of heard) expect(events).toEqual(['lost', 'restored']);
  });
});
