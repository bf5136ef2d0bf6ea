// Services on the clients of Nacos that most people have, Java's and npm `nacos`, and rollcall, in the same r-nacos, both ways.
import type { NacosOptions, Registry } from 'rollcall';
import { connect } from 'rollcall';
import { afterAll, beforeAll, describe, expect, type TestContext, test } from 'vitest';
import { hear, ids, inProcess, listsUntil, nextList, quiet, sees, waitFor } from '../conformance/kit.js';
import { type NacosServer, startNacos } from '../support/nacos.js';
import { type ClientHost, type NacosClient, startJavaClient, startNodeClient } from '../support/nacos-client.js';

const NAMESPACE = 'interop';

const CLIENTS = [
  { who: 'the Java client 2.4.3', start: startJavaClient, tellsEmpty: true, diesWithConnection: true },
  // It takes no empty list: it goes on telling of whoever left last.
  { who: 'npm nacos 2.6.3', start: startNodeClient, tellsEmpty: false, diesWithConnection: false },
];

const idOf = (service: string, ip: string, port = 8080, { cluster = 'DEFAULT', group = 'DEFAULT_GROUP' } = {}) =>
  `${ip}#${port}#${cluster}#${group}@@${service}`;
const addresses = (hosts: readonly ClientHost[]): string[] => hosts.map(({ ip, port }) => `${ip}:${port}`).sort();
const areAt =
  (...wanted: string[]) =>
  (hosts: readonly ClientHost[]): boolean =>
    addresses(hosts).join() === wanted.join();

// npm `nacos` asks every ten seconds, and its beats are missed for half a minute.
describe.each(CLIENTS)(
  '$who and rollcall on r-nacos',
  { timeout: 180_000 },
  ({ who, start, tellsEmpty, diesWithConnection }) => {
    let nacos: NacosServer;
    let peer: NacosClient;
    let plain: Registry;
    let kratos: Registry;

    const optionsFor = (more: Partial<NacosOptions> = {}): NacosOptions => ({
      ...{ backend: 'nacos', hosts: nacos.host, grpcPort: nacos.ports.grpc },
      ...{ namespace: NAMESPACE, codec: 'plain', logger: false },
      ...more,
    });
    const client = async (context: TestContext, more: Partial<NacosOptions>): Promise<Registry> => {
      const registry = await connect(optionsFor(more));
      context.onTestFinished(() => registry.close());
      return registry;
    };
    const another = async (context: TestContext): Promise<NacosClient> => {
      const one = await start(nacos, NAMESPACE);
      context.onTestFinished(() => one.kill());
      return one;
    };

    beforeAll(async () => {
      // As it is by default: what is registered by HTTP, and beats no more, is gone half a minute later.
      nacos = await startNacos({
        env: { RNACOS_NAMING_HEALTH_TIMEOUT_SECOND: '15', RNACOS_NAMING_INSTANCE_TIMEOUT_SECOND: '30' },
      });
      peer = await start(nacos, NAMESPACE);
      plain = await connect(optionsFor());
      kratos = await connect(optionsFor({ codec: 'kratos' }));
    });
    afterAll(async () => {
      await plain?.close();
      await kratos?.close();
      await peer?.kill();
      await nacos?.close();
    });

    test('what it registers is read and watched, an update too, and its leaving is heard', async () => {
      const watcher = plain.watch('theirs');
      expect(await nextList(watcher)).toEqual([]);
      const host = { ip: '10.8.0.1', port: 8080, metadata: { zone: 'sh001' } };
      await peer.register('theirs', host);
      const id = idOf('theirs', '10.8.0.1');
      const [first] = (await listsUntil(watcher, [id])).at(-1) ?? [];
      const read = { id, name: 'theirs', version: '', endpoints: ['http://10.8.0.1:8080'] };
      expect(first).toMatchObject(read);
      expect(first?.metadata).toEqual({ zone: 'sh001' });
      // With Kratos's form as well: what lies under the bare name is read.
      expect(await sees(kratos, 'theirs', [id])).toMatchObject([read]);
      expect(await plain.services()).toContain('theirs');
      expect(await kratos.services()).toContain('theirs');

      await peer.register('theirs', { ...host, weight: 5, metadata: { zone: 'b', version: 'v3', kind: 'grpc' } });
      const isUpdated = async () => {
        const [one] = await nextList(watcher);
        return one?.metadata.zone === 'b' && one;
      };
      const updated = await waitFor(isUpdated, { what: 'the update' });
      expect(updated).toMatchObject({ id, version: 'v3', endpoints: ['grpc://10.8.0.1:8080'] });
      expect(updated.metadata).toEqual({ zone: 'b', weight: '5' });

      const second = { ip: '10.8.0.2', port: 8080 };
      await peer.register('theirs', second);
      await listsUntil(watcher, [id, idOf('theirs', '10.8.0.2')]);
      await peer.deregister('theirs', host);
      await listsUntil(watcher, [idOf('theirs', '10.8.0.2')]);
      await peer.deregister('theirs', second);
      await listsUntil(watcher, []);
      watcher.stop();
    });

    test('what we register is read, selected and told of, an update and a leaving too', async (context) => {
      const heard = await peer.subscribe('ours');
      const registration = await plain.register({
        ...{ name: 'ours', id: 'node-1', version: 'v2', metadata: { zone: 'a', weight: '30' } },
        endpoints: ['http://10.7.0.1:8000', 'grpc://10.7.0.1:9000'],
      });
      const both = areAt('10.7.0.1:8000', '10.7.0.1:9000');
      const [told] = await heard.newest(both, 'both endpoints');
      const read = {
        ...{ ip: '10.7.0.1', weight: 30, healthy: true, enabled: true, ephemeral: true, cluster: 'DEFAULT' },
        metadata: { zone: 'a', weight: '30', version: 'v2', 'rollcall.id': 'node-1' },
      };
      expect(told).toMatchObject(read);
      const got = await peer.get('ours');
      expect(got).toMatchObject([read, read]);
      const kinds = got.map(({ port, metadata }) => `${metadata.kind}:${port}`);
      expect(kinds.sort()).toEqual(['grpc:9000', 'http:8000']);
      expect(addresses(await peer.select('ours'))).toEqual(addresses(got));
      expect(await peer.services()).toContain('ours');

      await registration.update({ metadata: { zone: 'b', weight: '40' } });
      const areUpdated = (hosts: ClientHost[]) =>
        both(hosts) && hosts.every(({ weight, metadata }) => weight === 40 && metadata.zone === 'b');
      await heard.newest(areUpdated, 'the update');

      const other = await client(context, {});
      const second = await other.register({ name: 'ours', id: 'node-2', endpoints: ['http://10.7.0.2:8000'] });
      await heard.newest(areAt('10.7.0.1:8000', '10.7.0.1:9000', '10.7.0.2:8000'), 'the second');
      await registration.deregister();
      await heard.newest(areAt('10.7.0.2:8000'), 'the second alone');
      await second.deregister();
      expect(await nacos.list(NAMESPACE, 'ours')).toEqual([]);
      if (tellsEmpty) {
        await heard.newest(areAt(), 'nobody');
        expect(await peer.get('ours')).toEqual([]);
      } else {
        expect(addresses(await peer.get('ours'))).toEqual(['10.7.0.2:8000']);
        expect(await (await another(context)).get('ours')).toEqual([]);
      }
    });

    test("Kratos's form: each scheme is a service of its own for it, and its host there is one of the name", async () => {
      const registration = await kratos.register({
        ...{ name: 'hello', id: 'node-1', version: 'v1' },
        endpoints: ['http://10.7.0.1:8000', 'grpc://10.7.0.1:9000'],
      });
      expect(await peer.select('hello.grpc')).toMatchObject([{ port: 9000, weight: 100, metadata: { kind: 'grpc' } }]);
      expect(await peer.select('hello.http')).toMatchObject([{ port: 8000, weight: 100, metadata: { kind: 'http' } }]);
      const host = { ip: '10.8.0.1', port: 8080, metadata: { kind: 'grpc', version: 'v1' } };
      await peer.register('hello.grpc', host);
      const list = await sees(kratos, 'hello', [idOf('hello.grpc', '10.8.0.1'), 'node-1']);
      expect(list[0]).toMatchObject({ name: 'hello', version: 'v1', endpoints: ['grpc://10.8.0.1:8080'] });
      await peer.deregister('hello.grpc', host);
      await sees(kratos, 'hello', ['node-1']);
      await registration.deregister();
    });

    test('groups are apart, and the cluster is told both ways', async (context) => {
      const ours = await client(context, { group: 'BILLING', cluster: 'blue' });
      const service = { service: 'grouped', group: 'BILLING' };
      await ours.register({ name: 'grouped', id: 'node-1', endpoints: ['http://10.7.0.1:8000'] });
      expect(await peer.get(service)).toMatchObject([{ ip: '10.7.0.1', cluster: 'blue' }]);
      expect(await peer.get('grouped')).toEqual([]);
      await peer.register(service, { ip: '10.8.0.1', port: 8080, cluster: 'green' });
      const place = { cluster: 'green', group: 'BILLING' };
      await sees(ours, 'grouped', [idOf('grouped', '10.8.0.1', 8080, place), 'node-1']);
      expect(await plain.getService('grouped', { consistent: true })).toEqual([]);
      expect(await ours.services()).toEqual(['grouped']);
      expect(await plain.services()).not.toContain('grouped');
    });

    test('beside each other under one name: each leaves alone', async () => {
      const ours = await plain.register({ name: 'both', id: 'node', endpoints: ['http://10.7.0.1:8000'] });
      const events = hear(ours);
      const heard = await peer.subscribe('both');
      const theirs = { ip: '10.8.0.1', port: 8080 };
      await peer.register('both', theirs);
      await sees(plain, 'both', [idOf('both', '10.8.0.1'), 'node']);
      await heard.newest(areAt('10.7.0.1:8000', '10.8.0.1:8080'), 'both');
      await peer.deregister('both', theirs);
      await sees(plain, 'both', ['node']);
      await heard.newest(areAt('10.7.0.1:8000'), 'ours alone');
      await quiet(1500); // a push may be a second late
      expect(ids(await plain.getService('both', { consistent: true }))).toEqual(['node']);
      await peer.register('both', theirs);
      await sees(plain, 'both', [idOf('both', '10.8.0.1'), 'node']);
      await ours.deregister();
      await sees(plain, 'both', [idOf('both', '10.8.0.1')]);
      await heard.newest(areAt('10.8.0.1:8080'), 'theirs alone');
      expect(events.events).toEqual([]);
      await peer.deregister('both', theirs);
    });

    test('killed without a word, each is gone for the other, and what is closed is at once', async (context) => {
      const [victim, closing] = [await another(context), await another(context)];
      await victim.register('mortal', { ip: '10.8.0.1', port: 8080 });
      await closing.register('mortal', { ip: '10.8.0.2', port: 8080 });
      await peer.register('mortal', { ip: '10.8.0.3', port: 8080 });
      const ours = inProcess(optionsFor(), [
        ['connect'],
        ['register', { name: 'mortal', id: 'node', endpoints: ['http://10.7.0.1:8000'] }],
      ]);
      context.onTestFinished(() => ours.stop());
      const heard = await peer.subscribe('mortal');
      const all = ['10.7.0.1:8000', '10.8.0.1:8080', '10.8.0.2:8080', '10.8.0.3:8080'];
      await heard.newest(areAt(...all), 'all four');
      const theirs = [1, 2, 3].map((at) => idOf('mortal', `10.8.0.${at}`));
      await sees(plain, 'mortal', [...theirs, 'node']);

      ours.kill('SIGKILL');
      await heard.newest(areAt(...all.slice(1)), 'ours to be gone');
      await sees(plain, 'mortal', theirs);

      const watcher = plain.watch('mortal');
      await listsUntil(watcher, theirs);
      await victim.kill();
      // By HTTP, its beats fail to come.
      await listsUntil(watcher, theirs.slice(1), diesWithConnection ? 10_000 : 45_000);
      await closing.stop();
      await listsUntil(watcher, theirs.slice(2), diesWithConnection ? 10_000 : 45_000);
      watcher.stop();
      await peer.deregister('mortal', { ip: '10.8.0.3', port: 8080 });
    });

    test.runIf(who.includes('Java'))('a batch of it is read whole, and weight 0 is out of traffic', async () => {
      const hosts = [8080, 8081, 8082].map((port) => ({ ip: '10.8.0.1', port, weight: port === 8082 ? 0 : 2 }));
      await peer.batch('batched', hosts);
      const listed = [8080, 8081].map((port) => idOf('batched', '10.8.0.1', port));
      const list = await sees(plain, 'batched', listed);
      expect(list.map(({ metadata }) => metadata)).toEqual([{ weight: '2' }, { weight: '2' }]);
      await peer.deregister('batched', { ip: '10.8.0.1', port: 8080 });
    });

    // r-nacos takes no such word of npm `nacos`, and keeps the first that it takes of an address.
    test.runIf(who.includes('Java'))('what it registers as disabled is in no list', async () => {
      await peer.register('switched', { ip: '10.8.0.1', port: 8080, enabled: false });
      await peer.register('switched', { ip: '10.8.0.2', port: 8080 });
      await sees(plain, 'switched', [idOf('switched', '10.8.0.2')]);
    });

    test('what it registers for good outlives it', async (context) => {
      const one = await another(context);
      await one.register('lasting', { ip: '10.8.0.1', port: 8080, ephemeral: false });
      await sees(plain, 'lasting', [idOf('lasting', '10.8.0.1')]);
      await one.kill();
      await quiet(3000);
      await sees(plain, 'lasting', [idOf('lasting', '10.8.0.1')]);
    });
  },
);
