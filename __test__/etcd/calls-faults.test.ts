// Calls on servers and networks that fail: what is retried, what is told, and how long it takes.
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { ConsecutiveBreaker, ConstantBackoff, circuitBreaker, handleAll, handleWhen, retry } from 'cockatiel';
import { Etcd3, type IOptions, isRecoverableError } from 'rollcall/etcd';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { ETCD_VERSIONS, type EtcdCluster, startEtcd } from '../support/etcd.js';
import { freePorts } from '../support/ports.js';
import { uniqueName, waitFor, within } from '../support/process.js';
import { startSilentServer, startTcpProxy, type TcpProxy } from '../support/tcp.js';
import { startToxiproxy, type Toxiproxy } from '../support/toxiproxy.js';

interface Failed extends Error {
  code: string;
  grpcCode: number;
  retryable: boolean;
  outcomeUnknown: boolean;
  tried: { host: string; message: string }[];
}

const failure = async (call: PromiseLike<unknown>): Promise<Failed> =>
  Promise.resolve(call).then(
    (value) => expect.unreachable(`it gave ${JSON.stringify(value)}`),
    (error: Failed) => error,
  );

const clients: Etcd3[] = [];
function connect(hosts: readonly string[], options: Partial<IOptions> = {}): Etcd3 {
  const client = new Etcd3({ hosts: [...hosts], logger: false, ...options });
  clients.push(client);
  return client;
}
const closeAll = () => Promise.all(clients.splice(0).map((client) => client.close()));

describe.each(ETCD_VERSIONS)('one member, etcd %s', (version) => {
  let etcd: EtcdCluster;
  let proxy: TcpProxy;
  let direct: Etcd3;

  beforeAll(async () => {
    etcd = await startEtcd({ version });
    proxy = await startTcpProxy(etcd.hosts[0] as string);
    direct = new Etcd3({ hosts: [...etcd.hosts] });
  });
  beforeEach(closeAll);
  afterAll(async () => {
    await closeAll();
    await direct?.close();
    await proxy?.close();
    await etcd?.close();
  });
  const versionOf = async (key: string) => (await direct.get(key).exec()).kvs[0]?.version ?? '0';

  it('the answer of a write is lost: it is applied once, and its outcome is unknown', async () => {
    const client = connect([proxy.host]);
    await client.get('warm');
    const key = uniqueName();
    const lost = proxy.loseNextAnswer();
    const error = await failure(client.put(key).value('v'));
    await lost;
    expect(error).toMatchObject({ name: 'GRPCUnavailableError', outcomeUnknown: true, retryable: false });
    expect(await versionOf(key)).toBe('1');
    // The next call goes over a new connection.
    await client.put(key).value('w');
    expect(await versionOf(key)).toBe('2');
  });

  it('every answer is lost: each kind of write is applied once', async () => {
    const [put, getPrevious, txn, del] = Array.from({ length: 4 }, () => uniqueName()) as [
      string,
      string,
      string,
      string,
    ];
    await direct.put(del).value('v');
    const before = await etcd.leases();
    for (const [what, write] of [
      ['put', (client: Etcd3) => client.put(put).value('v').exec()],
      ['getPrevious', (client: Etcd3) => client.put(getPrevious).value('v').getPrevious()],
      ['txn', (client: Etcd3) => client.if(txn, 'Create', '==', 0).then(client.put(txn).value('v')).commit()],
      ['delete', (client: Etcd3) => client.delete().key(del).exec()],
      ['lease', (client: Etcd3) => client.leaseClient.leaseGrant({ TTL: 60 })],
    ] as const) {
      const client = connect([proxy.host]);
      await client.get('warm');
      const lost = proxy.loseNextAnswer();
      expect(await failure(write(client)), what).toMatchObject({ outcomeUnknown: true, retryable: false });
      await lost;
    }
    for (const key of [put, getPrevious, txn]) expect(await versionOf(key)).toBe('1');
    expect(await direct.get(del).exists()).toBe(false);
    expect((await etcd.leases()).length - before.length).toBe(1);
  });

  it('a create-if-absent without a competitor is never told that it failed', async () => {
    const client = connect([proxy.host]);
    const told = { done: 0, unknown: 0 };
    for (let i = 0; i < 40; i++) {
      const key = uniqueName();
      const lost = i % 3 === 0 ? proxy.loseNextAnswer() : undefined;
      const create = client.if(key, 'Create', '==', 0).then(client.put(key).value('mine')).commit();
      try {
        expect((await create).succeeded).toBe(true);
        told.done++;
      } catch (error) {
        expect(error).toMatchObject({ outcomeUnknown: true });
        told.unknown++;
      }
      await lost;
      expect(await versionOf(key)).toBe('1');
    }
    expect(told.done).toBeGreaterThan(20);
    expect(told.unknown).toBeGreaterThan(0);
  });

  it('the answer of a read is lost: it is asked again, and nobody sees it', async () => {
    const client = connect([proxy.host]);
    const key = uniqueName();
    await client.put(key).value('v');
    for (const read of [
      () => client.get(key).string(),
      async () => (await client.get(key).exec()).kvs[0]?.value.toString(),
      async () => (await client.getAll().prefix(key).strings())[key],
      async () =>
        (
          await client.if(key, 'Version', '>', 0).then(client.get(key)).commit()
        ).responses[0]?.response_range.kvs[0]?.value.toString(),
    ]) {
      const lost = proxy.loseNextAnswer();
      expect(await read()).toBe('v');
      await lost;
    }
  });

  it('connections are reset under load: no read fails, no write is applied twice', async () => {
    const client = connect([proxy.host]);
    const ns = client.namespace(`${uniqueName()}/`);
    const told = new Map<string, Failed | undefined>();
    let reads = 0;
    let on = true;
    const workers = Array.from({ length: 16 }, async (_, worker) => {
      for (let i = 0; on; i++) {
        const key = `${worker}.${i}`;
        try {
          await ns.put(key).value('v');
          told.set(key, undefined);
        } catch (error) {
          told.set(key, error as Failed);
        }
        await ns.get(key).string();
        reads++;
      }
    });
    for (let cut = 0; cut < 5; cut++) {
      const goal = told.size + 150;
      await waitFor(() => told.size > goal, { what: 'more writes' });
      proxy.sever();
    }
    on = false;
    await within(Promise.all(workers), 20_000, 'the end of all calls');
    expect(reads).toBeGreaterThan(500);
    const versions = new Map(
      (await direct.namespace(ns.prefix).getAll().exec()).kvs.map((kv) => [kv.key.toString(), kv.version]),
    );
    for (const [key, error] of told) {
      if (!error) expect(versions.get(key)).toBe('1');
      else if (error.outcomeUnknown) expect(versions.get(key) ?? '1').toBe('1');
      else expect(versions.get(key)).toBeUndefined();
    }
  });

  it('its deadline passes for one call: others are not held up, and the connection stays', async () => {
    const client = connect([proxy.host]);
    await client.put('warm').value('v');
    const { accepted } = proxy;
    proxy.hold('down');
    const late = Array.from({ length: 20 }, () => failure(client.get('warm').options({ timeoutMs: 150 })));
    const controller = new AbortController();
    const gone = Array.from({ length: 20 }, () => failure(client.get('warm').options(controller)));
    const patient = Array.from({ length: 20 }, () => client.get('warm').options({ timeoutMs: 20_000 }).string());
    for (const error of await Promise.all(late)) expect(error).toMatchObject({ code: 'ERR_TIMEOUT', grpcCode: 4 });
    controller.abort();
    for (const error of await Promise.all(gone)) expect(error).toMatchObject({ code: 'ERR_ABORTED', grpcCode: 1 });
    proxy.release();
    expect(new Set(await within(Promise.all(patient), 5000, 'the other calls'))).toEqual(new Set(['v']));
    expect(await within(client.get('warm').string(), 2000, 'a later call')).toBe('v');
    expect(proxy.accepted).toBe(accepted);
  });

  it('a restart is over for the client as soon as it is for the server', async () => {
    const client = connect(etcd.hosts);
    const key = uniqueName();
    await client.put(key).value('v');
    await etcd.kill();
    const error = await within(failure(client.put(key).value('w')), 5000, 'a failure');
    expect(error).toMatchObject({ name: 'GRPCUnavailableError', outcomeUnknown: false, retryable: true });
    expect(error.tried.length).toBeGreaterThan(0);
    for (const { host, message } of error.tried) {
      expect(host).toContain(etcd.hosts[0]);
      expect(message).toMatch(/refused/);
    }
    expect(error.message).toMatch(/refused/);
    await etcd.start();
    expect(await within(client.get(key).string(), 5000, 'a read')).toBe('v');
    await within(client.put(key).value('w').exec(), 5000, 'a write');
  });

  it('the policies of a program run each call, each attempt and each host by its name', async () => {
    const [deadPort] = await freePorts(1);
    const hosts = [`http://127.0.0.1:${deadPort}`, `http://${etcd.hosts[0]}`];
    for (let round = 0; round < 4; round++) {
      const asked: string[] = [];
      const failed = new Map<string, number>();
      let attempts = 0;
      const client = connect(hosts, {
        defaultCallOptions: (context) => {
          attempts++;
          expect(context).toMatchObject({ service: 'KV', isStream: false });
          return { timeoutMs: 5000 };
        },
        faultHandling: {
          global: retry(handleWhen(isRecoverableError), { maxAttempts: 5, backoff: new ConstantBackoff(1) }),
          host: (name) => {
            asked.push(name);
            const policy = circuitBreaker(handleAll, { halfOpenAfter: 60_000, breaker: new ConsecutiveBreaker(2) });
            policy.onFailure(() => failed.set(name, (failed.get(name) ?? 0) + 1));
            return policy;
          },
        },
      });
      const ns = client.namespace(`${uniqueName()}/`);
      for (let i = 0; i < 12; i++) await ns.put(`k${i}`).value(String(i));
      expect((await ns.getAll().exec()).kvs.every((kv) => kv.version === '1')).toBe(true);
      expect(asked).toEqual(hosts);
      // The dead one is the one that failed, and is passed over from then on.
      expect([...failed.keys()].filter((name) => name !== hosts[0])).toEqual([]);
      expect(failed.get(hosts[0] as string) ?? 0).toBeLessThanOrEqual(2);
      expect(attempts).toBeGreaterThanOrEqual(13);
    }
  });

  it('a policy that retries writes does so because the program says it', async () => {
    const client = connect([proxy.host], {
      faultHandling: {
        global: retry(handleWhen(isRecoverableError), { maxAttempts: 2, backoff: new ConstantBackoff(1) }),
      },
    });
    await client.get('warm');
    const key = uniqueName();
    const lost = proxy.loseNextAnswer();
    await client.put(key).value('v');
    await lost;
    expect(await versionOf(key)).toBe('2');
  });
});

describe.concurrent('no call is pending for ever', () => {
  let etcd: EtcdCluster;
  let toxiproxy: Toxiproxy;

  beforeAll(async () => {
    // Pings every 5 s, the least a client may ask for, do not anger this one.
    etcd = await startEtcd({ args: ['--grpc-keepalive-min-time', '1s'] });
    toxiproxy = await startToxiproxy();
  });
  afterAll(async () => {
    await closeAll();
    await toxiproxy?.close();
    await etcd?.close();
  });

  it('a server that accepts and never speaks: dialTimeout ends the wait, and nothing was sent', async () => {
    const silent = await startSilentServer();
    const client = connect([silent.host], { dialTimeout: 700 });
    const start = performance.now();
    for (const call of [
      () => client.get('k').exec(),
      () => client.put('k').value('v').exec(),
      () => client.maintenance.status(),
    ]) {
      const error = await within(failure(call()), 8000, 'a failure');
      expect(error).toMatchObject({ name: 'GRPCUnavailableError', outcomeUnknown: false });
      expect(error.tried[0]?.host).toContain(silent.host);
      expect(error.message).toContain('said nothing within 700 ms');
    }
    expect(performance.now() - start).toBeGreaterThan(700);
    await silent.close();
  });

  it('and another endpoint does not wait for it, with default options', async () => {
    const silent = await startSilentServer();
    for (let i = 0; i < 4; i++) {
      const client = connect([silent.host, etcd.hosts[0] as string]);
      const key = uniqueName();
      await within(client.put(key).value('v').exec(), 6000, 'a write');
      expect(await within(client.get(key).string(), 6000, 'a read')).toBe('v');
      expect((await client.get(key).exec()).kvs[0]?.version).toBe('1');
      await client.close();
    }
    await silent.close();
  });

  it('a connect that is lost in a black hole: dialTimeout ends the wait, and others go on', async () => {
    // A listener whose queue is full takes no connection, and refuses none: SYNs are dropped, as by a firewall.
    const server = createServer(() => {});
    server.listen({ host: '127.0.0.1', port: 0, backlog: 1 });
    await once(server, 'listening');
    const proxy = await toxiproxy.proxy(etcd.hosts[0] as string);
    await proxy.timeout();
    const client = connect([proxy.host], { dialTimeout: 500 });
    const error = await within(failure(client.put('k').value('v')), 6000, 'a failure');
    expect(error).toMatchObject({ name: 'GRPCUnavailableError', outcomeUnknown: false });
    const two = connect([proxy.host, etcd.hosts[0] as string]);
    for (let i = 0; i < 3; i++) await within(two.put('k').value('v').exec(), 6000, 'a write');
    await proxy.remove();
    server.close();
  });

  it('a link that goes half-open: reads and writes end within the keep-alive time', async () => {
    const proxy = await toxiproxy.proxy(etcd.hosts[0] as string);
    const client = connect([proxy.host], { keepAliveMs: 5000, keepAliveTimeoutMs: 500, timeoutMs: 0 });
    const key = uniqueName();
    await client.put(key).value('v');
    await proxy.timeout();
    const start = performance.now();
    const calls = [
      failure(client.put(key).value('w')),
      failure(client.get(key).string()),
      failure(client.getAll().prefix(key).strings()),
    ];
    const [write, ...reads] = await within(Promise.all(calls), 25_000, 'the end of all calls');
    expect(write).toMatchObject({ outcomeUnknown: true });
    for (const read of reads) expect(read).toMatchObject({ outcomeUnknown: false });
    expect(performance.now() - start).toBeLessThan(20_000);
    await proxy.clear();
    expect(await within(client.get(key).string(), 5000, 'a read')).toBe('v');
    await proxy.remove();
  });

  it('the same with default options: 15 seconds and no more', async () => {
    const proxy = await startTcpProxy(etcd.hosts[0] as string);
    const client = connect([proxy.host]);
    const key = uniqueName();
    await client.put(key).value('v');
    proxy.hold();
    const start = performance.now();
    const write = await within(failure(client.put(key).value('w')), 20_000, 'the end of a write');
    expect(write).toMatchObject({ outcomeUnknown: true });
    expect(performance.now() - start).toBeLessThan(18_000);
    proxy.sever();
    proxy.release();
    expect(await within(client.get(key).string(), 5000, 'a read')).not.toBeNull();
    await proxy.close();
  });

  it('every endpoint that was tried is named with what was wrong with it, each in its own way', async () => {
    const silent = await startSilentServer();
    const [port] = await freePorts(1);
    const rude = createServer((socket: Socket) => {
      socket.on('error', () => {});
      socket.end('HTTP/1.1 400 Bad Request\r\n\r\n');
    });
    rude.listen(0, '127.0.0.1');
    await once(rude, 'listening');
    const hosts = {
      silent: silent.host,
      dead: `127.0.0.1:${port}`,
      rude: `127.0.0.1:${(rude.address() as { port: number }).port}`,
      unknown: 'no-such-host.invalid:2379',
    };
    const client = connect(Object.values(hosts), { dialTimeout: 500 });
    for (const call of [() => client.put('k').value('v').exec(), () => client.get('k').string()]) {
      const error = await within(failure(call()), 20_000, 'a failure');
      const about = (host: string) => error.tried.find((one) => one.host.includes(host))?.message;
      expect(error).toMatchObject({ name: 'GRPCUnavailableError', outcomeUnknown: false });
      expect(about(hosts.silent)).toMatch(/said nothing/);
      expect(about(hosts.dead)).toMatch(/refused/);
      expect(about(hosts.rude)).toMatch(/answers with HTTP\/1.*something else than etcd/);
      expect(about(hosts.unknown)).toMatch(/does not resolve/);
      for (const host of Object.values(hosts)) expect(error.message).toContain(host);
    }
    rude.close();
    await silent.close();
  });

  it('while every endpoint fails, each call tries again: none is refused for what happened before', async () => {
    const proxy = await startTcpProxy(etcd.hosts[0] as string);
    const client = connect([proxy.host]);
    await client.put('k').value('v');
    proxy.setEnabled(false);
    for (let i = 0; i < 10; i++) await failure(client.get('k').string());
    proxy.setEnabled(true);
    expect(await within(client.get('k').string(), 2000, 'a read')).toBe('v');
    await proxy.close();
  });
});
