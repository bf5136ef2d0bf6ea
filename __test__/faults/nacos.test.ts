// Nacos servers that stop, freeze, refuse a token or answer nonsense; batches as the original keeps them. All tests at the
// same time, because most of each is waiting.
import { readFileSync } from 'node:fs';
import type { NacosOptions, Registry } from 'rollcall';
import { connect } from 'rollcall';
import { describe, expect, test } from 'vitest';
import { hear, ids, inProcess, listsUntil, nextList, refused, sees, waitFor } from '../conformance/kit.js';
import { type NacosRegistry, type NacosServer, type NacosServerOptions, startNacos } from '../support/nacos.js';
import { type NacosStub, type NacosStubOptions, startNacosStub } from '../support/nacos-stub.js';
import { makeCertificates } from '../support/tls.js';
import { connected, type Finish, NO_HTTP2, noServer } from './kit.js';

const instance = { name: 'orders', id: 'a', version: '1', endpoints: ['grpc://10.1.2.3:9000'] };

async function server({ onTestFinished }: Finish, options: NacosServerOptions = {}): Promise<NacosServer> {
  const nacos = await startNacos(options);
  onTestFinished(() => nacos.close());
  return nacos;
}

async function stub({ onTestFinished }: Finish, options: NacosStubOptions = {}): Promise<NacosStub> {
  const nacos = await startNacosStub(options);
  onTestFinished(() => nacos.close());
  return nacos;
}

const optionsFor = (to: Pick<NacosRegistry, 'host' | 'grpcHost'>, more: Partial<NacosOptions> = {}): NacosOptions => ({
  backend: 'nacos',
  hosts: to.host,
  grpcPort: Number(to.grpcHost.split(':')[1]),
  ttlMs: 4000,
  logger: false, // faults are what these tests are about
  ...more,
});

async function client(
  context: Finish,
  to: Pick<NacosRegistry, 'host' | 'grpcHost'>,
  more: Partial<NacosOptions> = {},
): Promise<Registry> {
  return connected(context, optionsFor(to, more));
}

describe.concurrent('a single Nacos', { timeout: 90_000 }, () => {
  test('killed and started again: what is wanted stands again, and a watch catches up', async (context) => {
    const nacos = await server(context);
    const registry = await client(context, nacos, { ttlMs: 20_000 });
    const registrations = await Promise.all(['a', 'b', 'c'].map((id) => registry.register({ name: 'orders', id })));
    const heard = registrations.map(hear);
    const watcher = registry.watch('orders');
    expect(ids(await nextList(watcher))).toEqual(['a', 'b', 'c']);
    await nacos.kill();
    await waitFor(() => watcher.stale, { what: 'the watch to be stale' });
    expect(ids(watcher.current ?? [])).toEqual(['a', 'b', 'c']);
    await nacos.start();
    await waitFor(() => !watcher.stale, { timeoutMs: 30_000, what: 'the watch to be fresh' });
    await sees(registry, 'orders', ['a', 'b', 'c'], 30_000);
    expect(heard.flatMap(({ events }) => events)).toEqual([]);
  });

  test('frozen for longer than the TTL: one lost, one restored', async (context) => {
    const nacos = await server(context);
    const registry = await client(context, nacos);
    const registration = await registry.register(instance);
    const heard = hear(registration);
    nacos.freeze();
    await waitFor(() => registration.state === 'lost', { timeoutMs: 15_000, what: 'the loss' });
    nacos.thaw();
    await waitFor(() => registration.state === 'registered', { timeoutMs: 30_000, what: 'the repair' });
    await waitFor(() => heard.events.length === 2, { what: 'the events' });
    expect(heard.events).toEqual(['lost', 'restored']);
    await sees(registry, 'orders', ['a']);
  });

  test('the instance of a process that is killed is gone about a second later', async (context) => {
    const nacos = await server(context);
    const registry = await client(context, nacos);
    const owner = inProcess(optionsFor(nacos), [['register', instance], ['hold']]);
    context.onTestFinished(() => owner.stop());
    await owner.until('register:done');
    const watcher = registry.watch('orders');
    expect(ids(await nextList(watcher))).toEqual(['a']);
    await owner.stop();
    await listsUntil(watcher, [], 5000);
  });
});

describe.concurrent('several servers', { timeout: 60_000 }, () => {
  test('the next is taken when one is killed, and everything of ours stands there', async (context) => {
    // They are no cluster, so what stands in the second was written there by us.
    const [one, two] = [await stub(context), await stub(context)];
    const hosts = [one, two].map(({ port }) => `127.0.0.1:${port - 1000}`);
    const registry = await connected(context, { backend: 'nacos', hosts, ttlMs: 20_000, logger: false });
    const heard = hear(await registry.register(instance));
    expect(await one.list('public', 'orders.grpc')).toHaveLength(1);
    await one.close();
    await waitFor(async () => (await two.list('public', 'orders.grpc')).length === 1, {
      timeoutMs: 20_000,
      what: 'the instance at the second server',
    });
    expect(heard.events).toEqual([]);
  });

  test('a server that sends its clients away: no reader sees a gap, whether it names a server of ours or not', async (context) => {
    const [one, two] = [await stub(context), await stub(context)];
    const hosts = [one, two].map(({ port }) => `127.0.0.1:${port - 1000}`);
    const registry = await connected(context, { backend: 'nacos', hosts, ttlMs: 20_000, logger: false });
    const heard = hear(await registry.register(instance));
    const watcher = registry.watch('orders');
    expect(ids(await nextList(watcher))).toEqual(['a']);
    const lists: string[] = [];
    void (async () => {
      for await (const list of watcher) lists.push(ids(list).join());
    })();
    const stands = async (at: NacosStub, elsewhere: NacosStub) => {
      const [here, there] = await Promise.all([at, elsewhere].map((nacos) => nacos.list('public', 'orders.grpc')));
      return here?.length === 1 && there?.length === 0;
    };
    await one.reset('127.0.0.1', String(two.port - 1000));
    await waitFor(() => stands(two, one), { timeoutMs: 20_000, what: 'the instance at the server that was named' });
    await two.reset('10.255.255.1', '8848');
    await waitFor(() => stands(one, two), { timeoutMs: 20_000, what: 'the instance at the next server' });
    expect(heard.events).toEqual([]);
    expect(lists).toEqual([]);
  });

  test('a server that has forgotten our subscription: a loss is noticed all the same, within the TTL', async (context) => {
    const nacos = await stub(context);
    const heard = hear(await (await client(context, nacos)).register(instance));
    await waitFor(() => nacos.forget('public', 'orders.grpc'), { what: 'the subscription' });
    await nacos.delete({ namespace: 'public', service: 'orders.grpc', ip: '10.1.2.3', port: 9000 });
    // A TTL of 4 s; what nobody looks for is read after 24 s, at the soonest.
    await waitFor(() => heard.count('restored') === 1, { timeoutMs: 8000, what: '"restored"' });
    expect(heard.events).toEqual(['lost', 'restored']);
  });

  test('a list of before that is pushed ahead of the answer is not the first that a watch shows', async (context) => {
    const nacos = await stub(context);
    await (await client(context, nacos)).register(instance);
    const registry = await client(context, nacos);
    await nacos.overtake('public', 'orders.grpc');
    expect(ids(await nextList(registry.watch('orders')))).toEqual(['a']);
  });

  test('what could not be sent again after a connection broke is sent until it stands', async (context) => {
    const nacos = await stub(context);
    const registry = await client(context, nacos, { ttlMs: 60_000 });
    await registry.register(instance);
    for (const codes of [[500], [301], [500, 500, 500]]) {
      await nacos.fail('BatchInstanceRequest', codes);
      const asked = await nacos.count('BatchInstanceRequest');
      await nacos.hangUp();
      await waitFor(async () => (await nacos.count('BatchInstanceRequest')) > asked + codes.length - 1, {
        timeoutMs: 20_000,
        what: 'the failures',
      });
      await waitFor(async () => (await nacos.list('public', 'orders.grpc')).length === 1, {
        timeoutMs: 20_000,
        what: `the instance after ${codes.join()}`,
      });
    }
  });
});

describe.concurrent('access', { timeout: 90_000 }, () => {
  const user = { username: 'nacos', password: 'nacos' };

  test('no user and a wrong password are refused by their name', async (context) => {
    const nacos = await server(context, { tokenSeconds: 3600 });
    await refused(connect(optionsFor(nacos)), ['ERR_PERMISSION_DENIED', 'ERR_UNAUTHENTICATED']);
    const wrong = connect(optionsFor(nacos, { ...user, password: 'secret-word' }));
    const error = await refused(wrong, 'ERR_UNAUTHENTICATED', /options\.username/);
    expect(error.message).not.toContain('secret-word');
    const registry = await client(context, nacos, user);
    await registry.register(instance);
    await sees(registry, 'orders', ['a']);
  });

  test('a token that expires is renewed, and records stand meanwhile', async (context) => {
    const nacos = await server(context, { tokenSeconds: 4 });
    const registry = await client(context, nacos, user);
    const registration = await registry.register(instance);
    const heard = hear(registration);
    const end = Date.now() + 12_000; // three lives of a token
    while (Date.now() < end) {
      expect(ids(await registry.getService('orders', { consistent: true }))).toEqual(['a']);
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
    await registration.update({ version: '2' });
    expect(heard.events).toEqual([]);
  });
});

describe.concurrent('an access key', { timeout: 60_000 }, () => {
  const key = { accessKey: 'the-key', secretKey: 'the-secret' };
  for (const [kind, regionId] of [
    ['signs with its secret', undefined],
    ['signs with the key of a region', 'cn-hangzhou'],
  ] as const) {
    test(`${kind}, and a wrong one is refused`, async (context) => {
      const access = { ...key, ...(regionId && { regionId }) };
      const nacos = await stub(context, { access });
      const registry = await client(context, nacos, access);
      await registry.register(instance);
      expect(ids(await nextList(registry.watch('orders')))).toEqual(['a']);
      expect(await registry.services()).toEqual(['orders']);
      for (const wrong of [{ ...access, secretKey: 'another-secret' }, { ...access, accessKey: 'another' }, {}]) {
        const error = await refused(connect(optionsFor(nacos, wrong)), 'ERR_PERMISSION_DENIED');
        expect(error.message).not.toContain('another-secret');
      }
    });
  }
});

describe.concurrent('TLS', { timeout: 60_000 }, () => {
  test('a server whose authority is known is spoken to, and another is not', async (context) => {
    const certificates = await makeCertificates();
    context.onTestFinished(() => certificates.remove());
    const { certFile, keyFile } = certificates.server;
    const tls = { cert: readFileSync(certFile, 'utf8'), key: readFileSync(keyFile, 'utf8') };
    const nacos = await stub(context, { tls });
    const registry = await client(context, nacos, { tls: { caFile: certificates.ca.certFile } });
    await registry.register(instance);
    await sees(registry, 'orders', ['a']);
    const caFile = certificates.stranger.certFile;
    const connecting = connect(optionsFor(nacos, { tls: { caFile }, connectTimeoutMs: 1500 }));
    await refused(connecting, ['ERR_UNAVAILABLE', 'ERR_TIMEOUT']);
    const plain = connect(optionsFor(nacos, { connectTimeoutMs: 1500 }));
    await refused(plain, ['ERR_UNAVAILABLE', 'ERR_TIMEOUT']);
  });
});

describe.concurrent('what others write', { timeout: 60_000 }, () => {
  test('a weight goes both ways, and what an operator switches off is out', async (context) => {
    const nacos = await server(context);
    const registry = await client(context, nacos, { weight: 50 });
    const place = { namespace: 'public', service: 'orders.grpc', ip: '10.1.2.3', port: 9000 };
    const registration = await registry.register({ ...instance, metadata: { zone: 'a', weight: '30' } });
    expect(await nacos.list('public', 'orders.grpc')).toMatchObject([{ weight: 30, metadata: { weight: '30' } }]);
    expect(await sees(registry, 'orders', ['a'])).toMatchObject([{ metadata: { zone: 'a', weight: '30' } }]);
    await registration.update({ metadata: {} });
    expect(await nacos.list('public', 'orders.grpc')).toMatchObject([{ weight: 50 }]);
    await nacos.put({ ...place, ip: '10.1.2.4' }, { kind: 'grpc', version: '1' }, 7);
    const weights = async () =>
      (await registry.getService('orders', { consistent: true })).map(({ metadata }) => metadata.weight).sort();
    await waitFor(async () => (await weights()).includes('7'), { what: 'the weight of another' });
    await nacos.put({ ...place, ip: '10.1.2.5' }, { kind: 'grpc', version: '1' }, 0);
    await sees(registry, 'orders', ['10.1.2.4#9000#DEFAULT#DEFAULT_GROUP@@orders.grpc', 'a']);
  });

  test('Java and Node.js services are read, and with the codec plain we write as they do', async (context) => {
    const nacos = await server(context);
    const [ours, kratos] = [await client(context, nacos, { codec: 'plain' }), await client(context, nacos)];
    await nacos.put({ namespace: 'public', service: 'orders', ip: '10.1.2.4', port: 8080 }, { 'gRPC.port': '1' }, 1);
    await ours.register({ ...instance, endpoints: ['http://10.1.2.3:8000'] });
    expect(await nacos.services('public')).toEqual(['orders']);
    const both = ['10.1.2.4#8080#DEFAULT#DEFAULT_GROUP@@orders', 'a'];
    const [, own] = await sees(ours, 'orders', both);
    expect(own).toMatchObject({ id: 'a', version: '1', endpoints: ['http://10.1.2.3:8000'] });
    const [foreign] = await sees(kratos, 'orders', both);
    expect(foreign).toMatchObject({ endpoints: ['http://10.1.2.4:8080'], metadata: { 'gRPC.port': '1' } });
    await kratos.register({ ...instance, id: 'b' });
    await sees(kratos, 'orders', [both[0] as string, 'a', 'b']);
    await sees(ours, 'orders', both);
  });
});

describe.concurrent('what is no Nacos', { timeout: 60_000 }, () => {
  for (const [what, sends] of NO_HTTP2) {
    test(`a server that ${what} is one that can't be reached, in time`, async (context) => {
      const port = await noServer(context, sends);
      const connecting = connect({
        ...{ backend: 'nacos', hosts: `127.0.0.1:${port}`, grpcPort: port },
        ...{ connectTimeoutMs: 1500, logger: false },
      });
      await refused(connecting, ['ERR_UNAVAILABLE', 'ERR_TIMEOUT']);
    });
  }
});

describe.concurrent('batches', { timeout: 60_000 }, () => {
  for (const [kind, start] of [
    ['r-nacos', server],
    ['the stub', stub],
  ] as const) {
    test(`64 endpoints of one scheme and three instances of a name in one client, each leaves alone, on ${kind}`, async (context) => {
      const nacos = await start(context);
      const [registry, other] = [await client(context, nacos), await client(context, nacos)];
      const endpoints = Array.from({ length: 64 }, (_, i) => `grpc://10.0.0.1:${9000 + i}`);
      const many = await registry.register({ name: 'orders', id: 'many', endpoints });
      const b = await registry.register({ name: 'orders', id: 'b', endpoints: ['grpc://10.0.0.2:1'] });
      await registry.register({ name: 'orders', id: 'c', endpoints: ['grpc://10.0.0.3:1'] });
      const [, , seen] = await sees(other, 'orders', ['b', 'c', 'many']);
      expect(seen?.endpoints).toEqual(endpoints);
      const watcher = other.watch('orders');
      expect(ids(await nextList(watcher))).toEqual(['b', 'c', 'many']);
      const lists: string[] = [];
      void (async () => {
        for await (const list of watcher) lists.push(ids(list).join());
      })();
      await b.deregister();
      await sees(other, 'orders', ['c', 'many']);
      await many.deregister();
      await sees(other, 'orders', ['c']);
      await waitFor(() => lists.at(-1) === 'c', { what: 'the last list' });
      // Nothing that stays is ever missing.
      expect(lists.filter((list) => !list.includes('c'))).toEqual([]);
    });
  }

  test('metadata at the limit of Nacos is taken, and above it nothing is sent', async (context) => {
    const nacos = await stub(context);
    const registry = await client(context, nacos);
    const given = (length: number) => ({ ...instance, metadata: { k: 'v'.repeat(length) } });
    let least = 0;
    let most = 1024;
    while (most - least > 1) {
      const length = Math.floor((least + most) / 2);
      const asked = await nacos.count('BatchInstanceRequest');
      const registered = await registry.register(given(length)).catch((error: Error) => error);
      if (registered instanceof Error) {
        expect(registered).toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
        expect(registered.message).toMatch(/^instance\.metadata: .*1024/);
        expect(await nacos.count('BatchInstanceRequest')).toBe(asked);
        most = length;
      } else {
        await registered.deregister();
        least = length;
      }
    }
    expect(least).toBeGreaterThan(850);
  });
});
