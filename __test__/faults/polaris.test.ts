// Polaris that is emptied, killed, frozen or that answers nonsense; and what befalls records there: owners that
// die, two owners of one place, an operator's console. All tests at the same time, because most of each is waiting.
import { connect } from 'rollcall';
import { describe, expect, test } from 'vitest';
import {
  hear,
  ids,
  inProcess,
  listsUntil,
  nextList,
  quiet,
  refused,
  sees,
  timed,
  waitFor,
} from '../conformance/kit.js';
import type { PolarisServer } from '../support/polaris.js';
import { inTime } from '../support/process.js';
import { instance, NO_HTTP2, noServer } from './kit.js';
import { client, NAMESPACE, optionsFor, server, way } from './polaris-kit.js';

describe.concurrent('a server', { timeout: 120_000 }, () => {
  test('emptied under a client: back within one TTL, with one lost and one restored at most', async (context) => {
    const polaris = await server(context);
    const ttlMs = 5000;
    const registry = await client(context, polaris.host, { ttlMs });
    const reader = await client(context, polaris.host);
    const registrations = await Promise.all(['a', 'b', 'c'].map((id) => registry.register({ name: 'orders', id })));
    const heard = registrations.map(hear);
    await polaris.wipe();
    const { ms } = await timed(sees(reader, 'orders', ['a', 'b', 'c']));
    expect(ms).toBeLessThan(inTime(ttlMs));
    await waitFor(() => registrations.every(({ state }) => state === 'registered'), { what: 'all to be registered' });
    for (const { events } of heard) expect(['', 'lost,restored']).toContain(events.join());
  });

  test('emptied of a record, while the connection stands: back within one TTL, before the fifth beat', async (context) => {
    const polaris = await server(context);
    const ttlMs = 6000;
    const registry = await client(context, polaris.host, { ttlMs });
    const heard = hear(await registry.register(instance));
    const at = (port: number) => ({ namespace: NAMESPACE, service: 'orders', host: '10.1.2.3', port });
    await polaris.delete(at(9000), at(8000));
    expect(await polaris.list(NAMESPACE, 'orders')).toEqual([]);
    const back = waitFor(async () => (await polaris.list(NAMESPACE, 'orders')).length === 2, { what: 'the records' });
    const { ms } = await timed(back);
    expect(ms).toBeLessThan(inTime(ttlMs + 1000));
    await waitFor(() => heard.events.length === 2, { what: 'the events' });
    expect(heard.events).toEqual(['lost', 'restored']);
  });

  test('killed and started again: what is wanted stands, watches catch up, nothing is lost', async (context) => {
    const polaris = await server(context);
    const registry = await client(context, polaris.host, { ttlMs: 30_000 });
    const registrations = await Promise.all(['a', 'b', 'c'].map((id) => registry.register({ name: 'orders', id })));
    const heard = registrations.map(hear);
    const watcher = registry.watch('orders');
    expect(ids(await nextList(watcher))).toEqual(['a', 'b', 'c']);
    await polaris.kill();
    await waitFor(() => watcher.stale, { what: 'the watch to be stale' });
    expect(ids(watcher.current ?? [])).toEqual(['a', 'b', 'c']);
    await polaris.start();
    await waitFor(() => !watcher.stale, { timeoutMs: 30_000, what: 'the watch to go on' });
    await polaris.put({ namespace: NAMESPACE, service: 'orders', host: '10.9.9.9', port: 1, metadata: { merge: 'm' } });
    await waitFor(() => watcher.current?.length === 4, { what: 'the news' });
    expect(heard.flatMap(({ events }) => events)).toEqual([]);
    for (const registration of registrations) await registration.deregister();
    await waitFor(() => watcher.current?.length === 1, { what: 'the others to be gone' });
  });

  test('cut off in the middle of updates: each is done, and the client goes on', async (context) => {
    const polaris = await server(context);
    const link = await way(context, polaris);
    const registry = await client(context, link.host, { ttlMs: 12_000 });
    const registration = await registry.register(instance);
    for (let round = 1; round <= 10; round++) {
      const updated = registration.update({ version: `1.${round}` });
      await quiet(round * 10); // into the update, which takes up to a second
      link.setEnabled(false);
      await quiet(50);
      link.setEnabled(true);
      await updated;
    }
    expect(registration.state).toBe('registered');
    expect((await registry.getService('orders', { consistent: true })).map(({ version }) => version)).toEqual(['1.10']);
  });

  test('frozen for 10 s with a TTL of 2 s: silence is noticed, one lost, one restored', async (context) => {
    const polaris = await server(context);
    const registry = await client(context, polaris.host, { ttlMs: 2000 });
    const registration = await registry.register(instance);
    const heard = hear(registration);
    const watcher = registry.watch('orders');
    await listsUntil(watcher, ['a']);
    await registration.update({ version: '2' }); // as good as a beat: without it the last one is up to half a TTL and its own time old
    polaris.freeze();
    const frozen = performance.now();
    const lost = waitFor(() => registration.state === 'lost', { timeoutMs: 8000, what: 'the loss' }).then(() => {
      expect(performance.now() - frozen, 'lost means not renewed for a TTL').toBeGreaterThan(1000);
    });
    await waitFor(() => watcher.stale, { timeoutMs: 8000, what: 'the silence to be noticed' });
    await lost;
    expect(ids(watcher.current ?? [])).toEqual(['a']);
    await quiet(Math.max(0, 10_000 - (performance.now() - frozen))); // as long as it is frozen
    polaris.thaw();
    await waitFor(() => heard.count('restored') === 1, { timeoutMs: 20_000, what: 'the repair' });
    await waitFor(() => !watcher.stale, { timeoutMs: 20_000, what: 'the watch to go on' });
    await sees(registry, 'orders', ['a']);
    expect(heard.events).toEqual(['lost', 'restored']);
  });

  test('the way is cut for less than the TTL: nothing is told', async (context) => {
    const polaris = await server(context);
    const link = await way(context, polaris);
    const registry = await client(context, link.host, { ttlMs: 12_000 });
    const registration = await registry.register(instance);
    const heard = hear(registration);
    link.setEnabled(false);
    await quiet(4000); // a third of the TTL
    link.setEnabled(true);
    await registration.update({ version: '2' });
    await quiet(12_000); // if the renewal had not come back, the loss would be told by now
    expect(heard.events).toEqual([]);
  });

  test('of two servers the other is taken, and what is wanted stands there', async (context) => {
    // They share no store, so what stands in the second was written there by us.
    const [one, two] = [await server(context), await server(context)];
    const registry = await client(context, [one.host, two.host], { ttlMs: 20_000 });
    const heard = hear(await registry.register(instance));
    const has = async (polaris: PolarisServer) => (await polaris.list(NAMESPACE, 'orders')).length === 2;
    const [first, second] = (await has(one)) ? [one, two] : [two, one];
    await first.kill();
    await waitFor(() => has(second), { timeoutMs: 20_000, what: 'the instance at the other server' });
    expect(heard.events).toEqual([]);
  });
});

describe.concurrent('a removal', { timeout: 120_000 }, () => {
  test('of a record older than the server looks back is seen within 2 s', async (context) => {
    const polaris = await server(context, { diffTime: '5s' });
    const registry = await client(context, polaris.host);
    const reader = await client(context, polaris.host);
    const registration = await registry.register(instance);
    const watcher = reader.watch('orders');
    await listsUntil(watcher, ['a']);
    await quiet(10_000); // the server would go on telling of a record of this age for a minute
    const gone = timed(listsUntil(watcher, []));
    await registration.deregister();
    expect((await gone).ms).toBeLessThan(inTime(2000));
    expect(await polaris.list(NAMESPACE, 'orders')).toEqual([]);
  });

  test('by withdraw() is seen as soon, and restore() brings it back', async (context) => {
    const polaris = await server(context, { diffTime: '5s' });
    const registry = await client(context, polaris.host);
    const reader = await client(context, polaris.host);
    const registration = await registry.register(instance);
    await quiet(7000); // see above
    const { ms } = await timed(registration.withdraw());
    expect(ms).toBeLessThan(inTime(3000));
    expect(await reader.getService('orders', { consistent: true })).toEqual([]);
    await registration.restore();
    expect(ids(await reader.getService('orders', { consistent: true }))).toEqual(['a']);
  });

  test('the process is killed: gone for readers after 3 to 6 TTLs, its record stays, and the place comes back healthy', async (context) => {
    const polaris = await server(context);
    const ttlMs = 1000;
    const registry = await client(context, polaris.host, { ttlMs });
    const owner = inProcess(optionsFor(polaris.host, { ttlMs }), [['register', { ...instance, id: 'mortal' }]]);
    context.onTestFinished(() => owner.stop());
    await owner.until('register:done');
    const watcher = registry.watch('orders');
    await listsUntil(watcher, ['mortal']);
    await quiet(10_000); // a server that has just begun to check takes longer, and this is about the usual case
    const died = timed(listsUntil(watcher, [], 30_000));
    await owner.stop();
    const { ms } = await died;
    expect(ms).toBeGreaterThan(2000);
    expect(ms, 'six TTLs, two checks a second late, whole seconds, and clients told').toBeLessThan(inTime(11_000));
    const left = await polaris.list(NAMESPACE, 'orders');
    expect(left.map(({ healthy }) => healthy)).toEqual([false, false]);
    const back = timed(listsUntil(watcher, ['next']));
    await registry.register({ ...instance, id: 'next' });
    expect((await back).ms).toBeLessThan(inTime(4000));
    await quiet(8 * ttlMs); // without its beats it would be out by now
    // A beat that was late on a busy machine is made up for.
    await waitFor(
      async () => {
        const stands = await polaris.list(NAMESPACE, 'orders');
        return stands.length === 2 && stands.every(({ healthy }) => healthy);
      },
      { timeoutMs: 15_000, what: 'both records to be healthy' },
    );
    await sees(registry, 'orders', ['next']);
  });

  test('the process is frozen: gone, and back after it goes on', async (context) => {
    const polaris = await server(context);
    const ttlMs = 1000;
    const registry = await client(context, polaris.host, { ttlMs });
    const owner = inProcess(optionsFor(polaris.host, { ttlMs }), [['register', instance]]);
    context.onTestFinished(() => owner.stop());
    await owner.until('register:done');
    const watcher = registry.watch('orders');
    await listsUntil(watcher, ['a']);
    owner.kill('SIGSTOP');
    await listsUntil(watcher, [], 30_000);
    owner.kill('SIGCONT');
    await listsUntil(watcher, ['a'], 30_000);
  });
});

describe.concurrent('records', { timeout: 120_000 }, () => {
  test('are as contrib/polaris of Kratos writes and reads them', async (context) => {
    const polaris = await server(context);
    const registry = await client(context, polaris.host, { ttlMs: 5000 });
    const registration = await registry.register(instance);
    const read = async () => (await polaris.list(NAMESPACE, 'orders')).sort((a, b) => b.port - a.port);
    const [grpc, http] = await read();
    const common = { namespace: NAMESPACE, service: 'orders', host: '10.1.2.3', version: '1', weight: 100 };
    const checked = { enableHealthCheck: true, healthCheck: { type: 'HEARTBEAT', heartbeat: { ttl: 5 } } };
    const state = { healthy: true, isolate: false };
    expect(grpc).toMatchObject({ ...common, ...checked, ...state, port: 9000, protocol: 'grpc' });
    expect(http).toMatchObject({ ...common, ...checked, ...state, port: 8000, protocol: 'http' });
    // One group, by which Kratos knows that they are one instance, and it stays over updates.
    expect(grpc?.metadata).toMatchObject({ colour: 'gray', merge: expect.stringMatching(/./) });
    expect(http?.metadata?.merge).toBe(grpc?.metadata?.merge);
    await registration.update({ version: '2', metadata: { weight: '30' } });
    const [updated] = await read();
    expect(updated).toMatchObject({ id: grpc?.id, version: '2', weight: 30 });
    expect(updated?.metadata).toMatchObject({ weight: '30', merge: grpc?.metadata?.merge });
    expect(updated?.metadata).not.toHaveProperty('colour');
  });

  test('of contrib/polaris of Kratos are read by their group', async (context) => {
    const polaris = await server(context);
    const registry = await client(context, polaris.host);
    const theirs = {
      ...{ namespace: NAMESPACE, service: 'gohello', host: '10.8.0.1', version: 'v1.0.0', weight: 100 },
      metadata: { zone: 'sh001', merge: '0f8fad5b-d9cb-469f-a165-70867728950e' },
    };
    await polaris.put({ ...theirs, port: 9000, protocol: 'grpc' }, { ...theirs, port: 8000, protocol: 'http' });
    await polaris.put({ ...theirs, host: '10.8.0.2', port: 9000, protocol: 'grpc', metadata: { merge: 'another' } });
    const list = await waitFor(
      async () => {
        const read = await registry.getService('gohello', { consistent: true });
        return read.length === 2 && read;
      },
      { what: 'both instances' },
    );
    const one = list.find(({ endpoints }) => endpoints.length === 2);
    expect(one).toMatchObject({ name: 'gohello', version: 'v1.0.0', metadata: { zone: 'sh001' } });
    expect([...(one?.endpoints ?? [])].sort()).toEqual(['grpc://10.8.0.1:9000', 'http://10.8.0.1:8000']);
    expect(one?.metadata).not.toHaveProperty('merge');
    const stored = await polaris.list(NAMESPACE, 'gohello');
    expect(stored.map(({ id }) => id)).toContain(one?.id);
  });

  test('are as contrib/registry/polaris of Kratos writes them, and no layout sees the other', async (context) => {
    const polaris = await server(context);
    const registry = await client(context, polaris.host, { layout: 'registry' });
    const usual = await client(context, polaris.host);
    const watcher = registry.watch('orders');
    expect(await nextList(watcher)).toEqual([]);
    await registry.register(instance);
    const names = await polaris.services(NAMESPACE);
    expect(names.filter((name) => name.startsWith('orders')).sort()).toEqual(['ordersgrpc', 'ordershttp']);
    const [grpc] = await polaris.discover(NAMESPACE, 'ordersgrpc');
    expect(grpc).toMatchObject({ host: '10.1.2.3', port: 9000, version: '1', weight: 100 });
    expect(grpc?.metadata).toMatchObject({ colour: 'gray', kind: 'grpc', version: '1' });
    const [http] = await polaris.discover(NAMESPACE, 'ordershttp');
    expect(http?.metadata).toMatchObject({ kind: 'http', version: '1' });
    const lists = await listsUntil(watcher, ['a']);
    expect(lists.map((list) => list.map(({ endpoints }) => endpoints))).toEqual([[instance.endpoints]]);
    expect(lists[0]?.[0]).toMatchObject({ version: '1', metadata: instance.metadata });
    expect(await usual.getService('orders')).toEqual([]);
  });

  test('of contrib/registry/polaris of Kratos are read, one for each endpoint', async (context) => {
    const polaris = await server(context);
    const registry = await client(context, polaris.host, { layout: 'registry' });
    const theirs = { namespace: NAMESPACE, host: '10.8.0.1', version: 'v1.0.0', weight: 100 };
    const metadata = { zone: 'sh001', version: 'v1.0.0' };
    await polaris.put(
      { ...theirs, service: 'gohellogrpc', port: 9000, metadata: { ...metadata, kind: 'grpc' } },
      { ...theirs, service: 'gohellohttp', port: 8000, metadata: { ...metadata, kind: 'http' } },
    );
    const list = await waitFor(
      async () => {
        const read = await registry.getService('gohello', { consistent: true });
        return read.length === 2 && read;
      },
      { what: 'both endpoints' },
    );
    expect(list.map(({ endpoints }) => endpoints.join()).sort()).toEqual([
      'grpc://10.8.0.1:9000',
      'http://10.8.0.1:8000',
    ]);
    for (const one of list) expect(one).toMatchObject({ version: 'v1.0.0', metadata: { zone: 'sh001' } });
  });

  test('of one id under two names are two, and none moves', async (context) => {
    const polaris = await server(context);
    const [one, two] = [await client(context, polaris.host), await client(context, polaris.host)];
    const heard = hear(await one.register(instance));
    await two.register({ ...instance, name: 'payments' });
    await sees(two, 'orders', ['a']);
    await sees(one, 'payments', ['a']);
    await quiet(6000); // more than one TTL: whoever looks himself up would have noticed
    expect(heard.events).toEqual([]);
    expect(await polaris.list(NAMESPACE, 'orders')).toHaveLength(2);
  });

  test('of two ids at one place: the newest stands, and the older is told', async (context) => {
    const polaris = await server(context);
    const [one, two] = [
      await client(context, polaris.host, { ttlMs: 2000 }),
      await client(context, polaris.host, { ttlMs: 2000 }),
    ];
    const older = hear(await one.register(instance));
    const newer = await two.register({ ...instance, id: 'b' });
    await waitFor(() => older.count('replaced') === 1, { timeoutMs: 6000, what: '"replaced"' });
    await one.close();
    await sees(two, 'orders', ['b']);
    expect(newer.state).toBe('registered');
  });

  test('with eight endpoints are never seen in part: at the start, an update, the leaving', async (context) => {
    const polaris = await server(context);
    const registry = await client(context, polaris.host);
    const reader = await client(context, polaris.host);
    const watcher = reader.watch('orders');
    const counts: number[] = [];
    void (async () => {
      for await (const list of watcher) for (const { endpoints } of list) counts.push(endpoints.length);
    })();
    const endpoints = Array.from({ length: 8 }, (_, i) => `grpc://10.1.2.3:${9000 + i}`);
    for (let round = 0; round < 5; round++) {
      const registration = await registry.register({ name: 'orders', id: 'a', endpoints });
      await waitFor(() => watcher.current?.length === 1, { what: 'the instance' });
      await registration.update({ version: `${round}` });
      await waitFor(() => watcher.current?.[0]?.version === `${round}`, { what: 'the update' });
      await registration.deregister();
      await waitFor(() => watcher.current?.length === 0, { what: 'the end' });
    }
    expect(new Set(counts)).toEqual(new Set([8]));
  });

  test('isolated, unhealthy and of weight 0 are in no list, and come back', async (context) => {
    const polaris = await server(context);
    const registry = await client(context, polaris.host);
    const watcher = registry.watch('others');
    const at = { namespace: NAMESPACE, service: 'others', host: '10.8.0.1', port: 1, protocol: 'grpc', weight: 100 };
    await polaris.put(at);
    const [here] = (await waitFor(async () => watcher.current?.length === 1 && [watcher.current], {
      what: 'the record',
    })) as [readonly { id: string }[]];
    for (const out of [{ isolate: true }, { healthy: false }, { weight: 0 }]) {
      await polaris.change({ ...at, ...out });
      await waitFor(() => watcher.current?.length === 0, { what: `it to be out by ${JSON.stringify(out)}` });
      await polaris.change({ ...at, isolate: false, healthy: true });
      await waitFor(() => watcher.current?.[0]?.id === here[0]?.id, { what: 'it to be back' });
    }
  });
});

describe.concurrent('what is no Polaris', { timeout: 60_000 }, () => {
  for (const [what, sends] of NO_HTTP2) {
    test(`a server that ${what} is one that can't be reached, in time`, async (context) => {
      const port = await noServer(context, sends);
      const { ms } = await timed(
        refused(connect(optionsFor(`127.0.0.1:${port}`, { connectTimeoutMs: 2000 })), [
          'ERR_UNAVAILABLE',
          'ERR_TIMEOUT',
        ]),
      );
      expect(ms).toBeLessThan(inTime(5000));
    });
  }
});
