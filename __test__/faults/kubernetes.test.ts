// What befalls an API server of Kubernetes and the own pod, and what follows.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Registry } from 'rollcall';
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
  staysPending,
  waitFor,
} from '../conformance/kit.js';
import { ADMIN, kratosPatch, RULES } from '../support/kubernetes.js';
import { inTime } from '../support/process.js';
import { instance, wayTo } from './kit.js';
import { client, clientByWay, oneServer, optionsFor, PORTS, put, shared } from './kubernetes-kit.js';

/** Rounds of kill and start. `ROUNDS=50` is the full size, which takes eight minutes. */
const ROUNDS = Number(process.env.ROUNDS ?? 3);

oneServer();

describe.concurrent('the own pod', () => {
  test('is labelled as Kratos labels it, and what was there stays', async (context) => {
    const namespace = await shared.kubernetes.namespace();
    await namespace.pod('p1', { labels: { app: 'orders' }, annotations: { note: 'mine' }, ports: PORTS });
    const registry = await client(context, namespace);
    const registration = await registry.register(instance);
    const { labels, annotations } = (await namespace.read('p1'))?.metadata ?? {};
    expect(labels).toEqual({
      ...{ app: 'orders', 'kratos-service-id': 'a', 'kratos-service-app': 'orders', 'kratos-service-version': '1' },
    });
    expect(annotations?.note).toBe('mine');
    expect(JSON.parse(annotations?.['kratos-service-metadata'] ?? '')).toEqual(instance.metadata);
    expect(JSON.parse(annotations?.['kratos-service-protocols'] ?? '')).toEqual({ '8000': 'http', '9000': 'grpc' });
    await registration.update({ metadata: {}, version: '2' });
    const updated = (await namespace.read('p1'))?.metadata;
    expect(updated?.labels?.['kratos-service-version']).toBe('2');
    await registration.deregister();
    const { metadata } = (await namespace.read('p1')) ?? {};
    expect(metadata?.labels).toEqual({ app: 'orders' });
    expect(metadata?.annotations).toEqual({ note: 'mine' });
  });

  test('is replaced under its name: the successor is left alone, and the loss is told once', async (context) => {
    const namespace = await shared.kubernetes.namespace();
    await namespace.pod('p1');
    const registry = await client(context, namespace);
    const registration = await registry.register(instance);
    const heard = hear(registration);
    await namespace.end('p1');
    await namespace.pod('p1', { labels: { app: 'successor' } });
    await waitFor(() => heard.count('lost') === 1, { what: '"lost"' });
    await refused(registration.update({ version: '2' }, { timeoutMs: 3000 }), ['ERR_UNAVAILABLE', 'ERR_TIMEOUT']);
    await quiet(3000); // the first tries of a repair fall into this
    expect((await namespace.read('p1'))?.metadata.labels).toEqual({ app: 'successor' });
    expect(heard.events).toEqual(['lost']);
    await registration.deregister({ timeoutMs: 5000 });
    expect((await namespace.read('p1'))?.metadata.labels).toEqual({ app: 'successor' });
  });

  test('ends: the instance goes with it at once', async (context) => {
    const namespace = await shared.kubernetes.namespace();
    for (const pod of ['p1', 'p2']) await namespace.pod(pod);
    const [registry, other] = [await client(context, namespace), await client(context, namespace, { pod: 'p2' })];
    const watcher = other.watch('orders');
    await registry.register(instance);
    await listsUntil(watcher, ['a']);
    await namespace.end('p1');
    await listsUntil(watcher, []);
  });

  test('stays when its process is killed, and so does the record, which the next process takes over', async (context) => {
    const namespace = await shared.kubernetes.namespace();
    await namespace.pod('p1');
    const owner = inProcess(optionsFor(namespace), [['register', { ...instance, version: 'old' }], ['hold']]);
    context.onTestFinished(() => owner.stop());
    await owner.until('register:done');
    await owner.stop();
    const registry = await client(context, namespace);
    await sees(registry, 'orders', ['a']);
    const registration = await registry.register({ ...instance, id: 'b', version: 'new' });
    const [only] = await sees(registry, 'orders', ['b']);
    expect(only?.version).toBe('new');
    await registration.deregister();
    await sees(registry, 'orders', []);
  });

  test('is taken by another container: replaced, and the end of the older leaves the newer', async (context) => {
    const namespace = await shared.kubernetes.namespace();
    await namespace.pod('p1');
    const registry = await client(context, namespace);
    const registration = await registry.register(instance);
    const heard = hear(registration);
    await namespace.patch('p1', kratosPatch({ id: 'newer', name: 'orders' }));
    await waitFor(() => heard.count('replaced') === 1, { what: '"replaced"' });
    await registration.deregister();
    await registry.close();
    expect((await namespace.read('p1'))?.metadata.labels?.['kratos-service-id']).toBe('newer');
  });

  test('has one registration: a second one of its client is refused by its name', async (context) => {
    const namespace = await shared.kubernetes.namespace();
    await namespace.pod('p1');
    const registry = await client(context, namespace);
    const first = await registry.register(instance);
    await refused(registry.register({ name: 'payments', id: 'b' }), 'ERR_INVALID_ARGUMENT', /orders|one/);
    await first.deregister();
    await registry.register({ name: 'payments', id: 'b' });
    await sees(registry, 'payments', ['b']);
  });

  test('is listed while it is up alone: not ready, starting, ending and ended ones are not', async (context) => {
    const namespace = await shared.kubernetes.namespace();
    const registry = await client(context, namespace);
    const everything = await client(context, namespace, { notReady: true });
    const watcher = registry.watch('orders');
    const labels = (id: string) => ({ 'kratos-service-id': id, 'kratos-service-app': 'orders' });
    await namespace.pod('up', { labels: labels('up') });
    await namespace.pod('unready', { labels: labels('unready'), ready: false });
    await namespace.pod('pending', { labels: labels('pending'), ready: false, phase: 'Pending', ips: [] });
    await namespace.pod('done', { labels: labels('done'), ready: false, phase: 'Succeeded' });
    await namespace.pod('ending', { labels: labels('ending'), node: 'n1' });
    await namespace.pod('left', { labels: { 'kratos-service-id': '', 'kratos-service-app': '' } });
    await listsUntil(watcher, ['ending', 'up']);
    await namespace.delete('ending');
    await listsUntil(watcher, ['up']);
    expect((await namespace.read('ending'))?.metadata.deletionTimestamp).toBeDefined();
    await sees(everything, 'orders', ['unready', 'up']);
    await namespace.setReady('unready', true);
    await listsUntil(watcher, ['unready', 'up']);
    await namespace.setReady('up', false);
    await listsUntil(watcher, ['unready']);
  });

  test('is read as Kratos reads it: by its annotation, else by its ports', async (context) => {
    const namespace = await shared.kubernetes.namespace();
    const registry = await client(context, namespace);
    const bad: { key: string; reason: string }[] = [];
    registry.on('badRecord', (found) => bad.push(found));
    const ports = [{ port: 8000, name: 'http-main' }, { port: 9000, name: 'grpc' }, { port: 9100 }];
    const pod = async (name: string, annotations: Record<string, string>): Promise<void> => {
      const labels = { 'kratos-service-id': name, 'kratos-service-app': 'orders', 'kratos-service-version': 'v1' };
      await namespace.pod(name, { labels, annotations, ports, ips: ['10.9.8.7'] });
    };
    await pod('bare', {});
    await pod('told', {
      'kratos-service-metadata': ' {"zone": "a"}\n',
      'kratos-service-protocols': '{"8000":"ws","9000":"grpc"}\n',
    });
    await pod('broken', { 'kratos-service-metadata': '{"zone":' });
    await pod('numbers', { 'kratos-service-metadata': '{"weight":10}' });
    const list = await sees(registry, 'orders', ['bare', 'told']);
    expect([...(list[0]?.endpoints ?? [])].sort()).toEqual([
      'grpc://10.9.8.7:9000',
      'http://10.9.8.7:8000',
      'tcp://10.9.8.7:9100',
    ]);
    expect(list[1]).toMatchObject({ version: 'v1', metadata: { zone: 'a' } });
    expect(list[1]?.endpoints).toContain('ws://10.9.8.7:8000');
    expect(list[1]?.endpoints).toContain('grpc://10.9.8.7:9000');
    await waitFor(() => bad.length === 2, { what: 'the reports' });
    expect(bad.map(({ key }) => key.split('/').at(-1)).sort()).toEqual(['broken', 'numbers']);
    await sees(registry, 'orders', ['bare', 'told']);
    expect(bad).toHaveLength(2);
  });

  test('is replaced under its name while a registration is on its way: the successor has nothing of it', async (context) => {
    const namespace = await shared.kubernetes.namespace();
    await namespace.pod('p1');
    const { link, registry } = await clientByWay(context, namespace);
    let writes = 0;
    link.before = (method) => {
      if (method !== 'PATCH' || writes++ > 0) return undefined;
      return namespace.end('p1').then(() => void namespace.pod('p1', { labels: { app: 'successor' } }));
    };
    await refused(registry.register(instance, { timeoutMs: 3000 }), ['ERR_TIMEOUT', 'ERR_UNAVAILABLE'], /gone/);
    expect(writes).toBeGreaterThan(0);
    await registry.close();
    expect((await namespace.read('p1'))?.metadata.labels).toEqual({ app: 'successor' });
  });

  test('is written to by others in between: tried again at once, and what they wrote stays', async (context) => {
    const namespace = await shared.kubernetes.namespace();
    await namespace.pod('p1');
    const { link, registry } = await clientByWay(context, namespace);
    let writes = 0;
    link.before = (method) => {
      if (method !== 'PATCH' || writes++ > 1) return undefined;
      return namespace.patch('p1', { metadata: { labels: { [`other-${writes}`]: 'x' } } }).then(() => undefined);
    };
    const registration = await registry.register(instance);
    const there = (await namespace.read('p1'))?.metadata.labels;
    expect(there).toMatchObject({ 'other-1': 'x', 'kratos-service-id': 'a' });
    await registration.deregister();
    const left = Object.keys((await namespace.read('p1'))?.metadata.labels ?? {});
    expect(left.filter((key) => key.startsWith('kratos'))).toEqual([]);
    expect(left).toContain('other-1');
  });

  test('what a slow server does after register() has given up is taken back', async (context) => {
    const namespace = await shared.kubernetes.namespace();
    await namespace.pod('p1');
    const link = await wayTo(context, shared.kubernetes.host);
    const registry = await client(context, namespace, { server: `https://${link.host}` });
    await registry.getService('orders');
    link.hold('down');
    await refused(registry.register(instance, { timeoutMs: 1500 }), ['ERR_TIMEOUT', 'ERR_UNAVAILABLE']);
    link.release();
    const isClean = async () => (await namespace.read('p1'))?.metadata.labels?.['kratos-service-id'] === undefined;
    await waitFor(isClean, { timeoutMs: 15_000, what: 'the labels to go' });
    await quiet(1000); // a late write would be on its way for less than this on a loopback
    expect(await isClean()).toBe(true);
  });
});

describe.concurrent('what is read', () => {
  test('200 changes of status a second tell nobody anything', async (context) => {
    const namespace = await shared.kubernetes.namespace();
    await put(namespace, 'a');
    const registry = await client(context, namespace);
    const watcher = registry.watch('orders');
    await listsUntil(watcher, ['a']);
    const next = watcher.next();
    for (let i = 0; i < 100; i++) {
      const conditions = [{ type: 'Noise', status: 'True', lastProbeTime: new Date(i * 1000).toISOString() }];
      await namespace.server.call('PATCH', `${namespace.pods}/kratos-a/status`, { status: { conditions } });
    }
    await staysPending(500, next, 'next() after changes of status alone'); // an event takes milliseconds
    await put(namespace, 'b');
    expect(ids((await next).value)).toEqual(['a', 'b']);
  });

  test('all namespaces with "*", and what a selector takes', async (context) => {
    const [one, two] = [await shared.kubernetes.namespace(), await shared.kubernetes.namespace()];
    const name = `orders-${one.name}`;
    await put(one, 'a', { name });
    await put(two, 'b', { name });
    await two.patch('kratos-b', { metadata: { labels: { tier: 'test' } } });
    const all = await client(context, one, { namespace: '*', token: ADMIN });
    const watcher = all.watch(name);
    await listsUntil(watcher, ['a', 'b']);
    expect(await all.services()).toContain(name);
    const some = await client(context, one, { namespace: '*', token: ADMIN, selector: 'tier!=test' });
    await sees(some, name, ['a']);
    await two.end('kratos-b');
    await listsUntil(watcher, ['a']);
  });
});

describe.concurrent('rights and tokens', () => {
  test('a token file that is replaced, by one that ends in a newline, before the old token expires', {
    timeout: 90_000,
  }, async (context) => {
    const namespace = await shared.kubernetes.namespace();
    await namespace.pod('p1');
    const tokenFile = join(shared.kubernetes.folder, namespace.name);
    writeFileSync(tokenFile, namespace.token(-50)); // it is taken for 10 to 20 s more: leeway of a minute, and a cache
    const registry = await client(context, namespace, { tokenFile });
    const heard = hear(await registry.register(instance));
    const watcher = registry.watch('orders');
    await listsUntil(watcher, ['a']);
    writeFileSync(tokenFile, `${namespace.token()}\n`);
    await quiet(25_000); // the old one is refused by then
    await sees(registry, 'orders', ['a']);
    await put(namespace, 'b');
    await listsUntil(watcher, ['a', 'b']);
    expect(heard.events).toEqual([]);
  });

  test('… and after the server refuses the old one: an error that says so, then all goes on', {
    timeout: 90_000,
  }, async (context) => {
    const namespace = await shared.kubernetes.namespace();
    await namespace.pod('p1');
    const tokenFile = join(shared.kubernetes.folder, namespace.name);
    writeFileSync(tokenFile, namespace.token(-50));
    const registry = await client(context, namespace, { tokenFile });
    const read = () => registry.getService('orders', { consistent: true });
    const error = await waitFor(
      () =>
        read().then(
          () => undefined,
          (thrown: Error) => thrown,
        ),
      {
        timeoutMs: 40_000,
        intervalMs: 500,
        what: 'the old token to be refused',
      },
    );
    expect(error).toMatchObject({ code: 'ERR_UNAUTHENTICATED' });
    writeFileSync(tokenFile, `${namespace.token()}\n`);
    expect(await read()).toEqual([]);
    await registry.register(instance);
  });

  test('the right to read is taken away under a watch: its list stays, stale, an error says what to grant', {
    timeout: 90_000,
  }, async (context) => {
    const namespace = await shared.kubernetes.namespace();
    await put(namespace, 'a');
    const registry = await client(context, namespace, { watchTimeoutMs: 2000, source: 'pods' });
    const watcher = registry.watch('orders');
    await listsUntil(watcher, ['a']);
    await namespace.allow([]);
    await waitFor(() => watcher.stale, { timeoutMs: 30_000, what: 'the watch to be refused' });
    expect(ids(watcher.current ?? [])).toEqual(['a']);
    const read = registry.getService('orders', { consistent: true });
    await refused(read, 'ERR_PERMISSION_DENIED', /list.*pods|pods.*list/s);
    await namespace.allow(RULES);
    await waitFor(() => !watcher.stale, { timeoutMs: 30_000, what: 'the watch to go on' });
    await put(namespace, 'b');
    await listsUntil(watcher, ['a', 'b']);
  });

  test('with the right to read pods or slices alone, the other is left out', async (context) => {
    const namespace = await shared.kubernetes.namespace();
    await put(namespace, 'a');
    await namespace.slice('payments', 's', { endpoints: [{ addresses: ['10.0.0.9'] }] });
    const [pods, slices] = RULES;
    const registry = await client(context, namespace);
    const read = async (name: string): Promise<string[] | undefined> =>
      ids(await registry.getService(name, { consistent: true }).catch(() => [{ id: 'refused' }] as never));
    await namespace.allow([pods as never]);
    await waitFor(async () => (await read('payments'))?.join() === '', { what: 'slices to be left out' });
    expect(await read('orders')).toEqual(['a']);
    await namespace.allow([slices as never]);
    await waitFor(async () => (await read('orders'))?.join() === '', { what: 'pods to be left out' });
    expect(await read('payments')).toEqual(['10.0.0.9']);
  });
});

/** One after another, and last: they are about the server that all share. */
describe('the server', () => {
  test('frozen: stale after watchTimeoutMs and 5 s, and fresh when it goes on', {
    timeout: 120_000,
  }, async (context) => {
    const namespace = await shared.kubernetes.namespace();
    await namespace.pod('p1');
    const registry = await client(context, namespace, { watchTimeoutMs: 5000 });
    const heard = hear(await registry.register(instance));
    const watcher = registry.watch('orders');
    await listsUntil(watcher, ['a']);
    shared.kubernetes.server.freeze();
    const began = performance.now();
    try {
      await waitFor(() => watcher.stale, { timeoutMs: 20_000, what: 'the silence to be noticed' });
      expect(performance.now() - began).toBeLessThan(inTime(13_000));
      expect(ids(watcher.current ?? [])).toEqual(['a']);
    } finally {
      shared.kubernetes.server.thaw();
    }
    await waitFor(() => !watcher.stale, { timeoutMs: 20_000, what: 'the watch to go on' });
    await put(namespace, 'b');
    await listsUntil(watcher, ['a', 'b']);
    expect(heard.events, 'nothing expires').toEqual([]);
  });

  test(`killed and started ${ROUNDS} times under changes: no change is lost, no refusal is told`, {
    timeout: 60_000 + ROUNDS * 30_000,
  }, async (context) => {
    const namespace = await shared.kubernetes.namespace();
    await namespace.pod('p1');
    const registry = await client(context, namespace);
    const heard = hear(await registry.register(instance));
    const clients = [registry, await client(context, namespace), await client(context, namespace)];
    const watchers = clients.map((one) => one.watch('orders'));
    const failures: unknown[] = [];
    for (const watcher of watchers) {
      void (async () => {
        for await (const _ of watcher);
      })().catch((error) => failures.push(error));
    }
    const wanted = ['a'];
    for (let round = 0; round < ROUNDS; round++) {
      await put(namespace, `before-${round}`);
      await shared.kubernetes.server.kill();
      await shared.kubernetes.server.start();
      await put(namespace, `after-${round}`);
      wanted.push(`before-${round}`, `after-${round}`);
      wanted.sort();
      const read = () =>
        clients[0]?.getService('orders', { consistent: true, timeoutMs: 2000 }).then(
          (list) => list.length === wanted.length,
          (error: { code: string }) => {
            if (error.code === 'ERR_PERMISSION_DENIED') failures.push(error);
            return false;
          },
        );
      await waitFor(read, { timeoutMs: 20_000, what: 'a read' });
      for (const watcher of watchers) {
        const all = () => {
          const seen = ids(watcher.current ?? []).join();
          if (seen !== wanted.join() || watcher.stale) throw new Error(`${seen}${watcher.stale ? ', stale' : ''}`);
          return true;
        };
        await waitFor(all, { timeoutMs: 20_000, what: `${wanted.join()} in round ${round}` });
      }
    }
    expect(failures).toEqual([]);
    expect(heard.events).toEqual([]);
  });

  test('etcd frozen: reads end in time, and all goes on', { timeout: 120_000 }, async (context) => {
    const namespace = await shared.kubernetes.namespace();
    await put(namespace, 'a');
    const registry = await client(context, namespace);
    const watcher = registry.watch('orders');
    await listsUntil(watcher, ['a']);
    shared.kubernetes.etcd.freeze();
    try {
      const read = registry.getService('orders', { consistent: true, timeoutMs: 2000 });
      await refused(read, ['ERR_TIMEOUT', 'ERR_UNAVAILABLE']);
      expect(ids(watcher.current ?? [])).toEqual(['a']);
    } finally {
      shared.kubernetes.etcd.thaw();
    }
    await waitFor(
      () =>
        put(namespace, 'b').then(
          () => true,
          () => false,
        ),
      { timeoutMs: 60_000, what: 'the server to write again' },
    );
    await waitFor(() => ids(watcher.current ?? []).join() === 'a,b', { timeoutMs: 30_000, what: 'the news' });
  });

  test('etcd emptied under a watch: the list is the new truth', { timeout: 120_000 }, async (context) => {
    const namespace = await shared.kubernetes.namespace();
    for (const id of ['a', 'b', 'c']) await put(namespace, id);
    const registry = await client(context, namespace, { token: ADMIN, emptyGraceMs: 0 });
    const watcher = registry.watch('orders');
    await listsUntil(watcher, ['a', 'b', 'c']);
    await shared.kubernetes.empty();
    await waitFor(() => ids(watcher.current ?? []).length === 0, { timeoutMs: 30_000, what: 'the truth' });
    const anew = await shared.kubernetes.namespace(namespace.name);
    await put(anew, 'd');
    await waitFor(() => ids(watcher.current ?? []).join() === 'd', { timeoutMs: 30_000, what: 'the news' });
    expect(ids(await nextListOf(registry))).toEqual(['d']);
  });
});

/** By a watch that begins now. */
async function nextListOf(registry: Registry) {
  const watcher = registry.watch('orders');
  const list = await nextList(watcher);
  watcher.stop();
  return list;
}
