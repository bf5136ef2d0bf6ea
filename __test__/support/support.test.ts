// The support proves itself: what the other tests lean on does what it says.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { get } from 'node:http';
import { get as getSecurely } from 'node:https';
import { connect } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { EtcdCluster } from './etcd.js';
import { ETCD_VERSIONS, startEtcd } from './etcd.js';
import { startPeer } from './peer.js';
import { freePorts } from './ports.js';
import { GiveUp, output, runProgram, runScript, temporaryFolder, uniqueName, waitFor } from './process.js';
import { startRedis } from './redis.js';
import { startSilentServer, startTcpProxy } from './tcp.js';
import { makeCertificates } from './tls.js';
import { startToxiproxy } from './toxiproxy.js';

const alive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

/** The health of an etcd through a proxy, on a connection of its own: its status, or `timeout`. */
const healthAt = (host: string, timeout = 5000): Promise<number | 'timeout'> =>
  new Promise((resolve, reject) => {
    const request = get(`http://${host}/health`, { agent: false, timeout }, (answer) => {
      answer.resume().on('end', () => resolve(answer.statusCode ?? 0));
    });
    request.on('timeout', () => {
      request.destroy();
      resolve('timeout');
    });
    request.on('error', reject);
  });

describe('processes', () => {
  test('waitFor gives the first truthy value, and tells the last one in vain', async () => {
    let count = 0;
    expect(await waitFor(() => ++count === 3 && { count })).toEqual({ count: 3 });
    await expect(waitFor(() => null, { timeoutMs: 30, what: 'the moon' })).rejects.toThrow(
      /^waited in vain for the moon \(\d+ ms\); last value: null$/,
    );
    const failing = waitFor(
      () => {
        throw new Error('not yet');
      },
      { timeoutMs: 30 },
    );
    await expect(failing).rejects.toThrow(/last error: not yet/);
    await expect(failing).rejects.toMatchObject({ cause: new Error('not yet') });
    const hopeless = waitFor(() => {
      throw new GiveUp('never');
    });
    await expect(hopeless).rejects.toThrow('never');
  });

  test('a script is read line by line and killed', async () => {
    const folder = temporaryFolder();
    const file = join(folder.path, 'script.mjs');
    writeFileSync(
      file,
      `process.stdin.once('data', (text) => { console.log(JSON.stringify({ got: JSON.parse(text) })); });
       console.log(JSON.stringify({ arg: process.argv[2], env: process.env.OF_THE_TEST }));
       console.log('not JSON');
       process.stdout.write('{"half":'); setTimeout(() => console.log('true}'), 20);`,
    );
    const script = runScript(file, ['x'], { OF_THE_TEST: 'y' });
    expect(await script.line(({ half }) => half === true)).toEqual({ half: true });
    script.send({ to: 'you' });
    await script.line(({ got }) => got !== undefined);
    script.kill('SIGKILL');
    expect(await script.exit).toMatchObject({ code: null, signal: 'SIGKILL' });
    const lines = [];
    for await (const line of script.lines) lines.push(line);
    expect(lines).toEqual([{ arg: 'x', env: 'y' }, { half: true }, { got: { to: 'you' } }]);
    folder.remove();
    expect(existsSync(folder.path)).toBe(false);
  });

  test('a script that ends too early fails with what it wrote', async () => {
    const script = runProgram(process.execPath, ['-e', 'console.error("of no use"); process.exit(3)']);
    await expect(script.line(() => true)).rejects.toThrow(/ended \(3\)[\s\S]*of no use/);
    await expect(output(process.execPath, ['-e', 'throw new Error("broken")'])).rejects.toThrow(/broken/);
  });

  test('programs and folders go when the test process is killed', async () => {
    // In a process of its own, which knows no TypeScript.
    const folder = temporaryFolder();
    const file = join(folder.path, 'killed.mjs');
    const { transformWithOxc } = await import('vite');
    const source = fileURLToPath(new URL('./process.ts', import.meta.url));
    const { code } = await transformWithOxc(readFileSync(source, 'utf8'), source, { sourcemap: false });
    writeFileSync(
      file,
      `${code}
       const child = spawnGuarded('sleep', ['600']);
       const folder = temporaryFolder();
       console.log(JSON.stringify({ pid: child.pid, path: folder.path }));
       setInterval(() => {}, 1000);`,
    );
    const script = runScript<{ pid: number; path: string }>(file);
    const { pid, path } = await script.line(() => true);
    expect(alive(pid)).toBe(true);
    expect(existsSync(path)).toBe(true);
    script.kill('SIGKILL');
    await waitFor(() => !alive(pid), { what: 'the end of the program' });
    await waitFor(() => !existsSync(path), { what: 'the end of the folder' });
    folder.remove();
  });

  test('ports are given once', async () => {
    const ports = (await Promise.all(Array.from({ length: 10 }, () => freePorts(10)))).flat();
    expect(new Set(ports).size).toBe(100);
  });
});

describe.each(ETCD_VERSIONS)('etcd %s', (version) => {
  let etcd: EtcdCluster;
  beforeAll(async () => {
    etcd = await startEtcd({ version });
  });
  afterAll(() => etcd?.close());

  test('reads and writes', async () => {
    const prefix = `/${uniqueName()}/`;
    await etcd.put(`${prefix}é`, 'grüße');
    expect(await etcd.get(`${prefix}é`)).toBe('grüße');
    expect(await etcd.get(`${prefix}f`)).toBe(null);
    expect(await etcd.keys(prefix)).toEqual([`${prefix}é`]);
    const lease = await etcd.grant(60);
    expect(await etcd.leases()).toContain(lease);
    await etcd.put(`${prefix}x`, 'leased', lease);
    expect(await etcd.leaseOf(`${prefix}x`)).toBe(lease);
    expect(await etcd.leaseOf(`${prefix}é`)).toBe(null);
    await etcd.revoke(lease);
    expect(await etcd.get(`${prefix}x`)).toBe(null);
    expect(await etcd.del(`${prefix}é`)).toBe(true);
    expect(await etcd.del(`${prefix}é`)).toBe(false);
    expect(etcd.url).toBe(`etcd://${etcd.hosts[0]}`);
  });

  test('runs the version it says, and its etcdctl', async () => {
    const { body } = { body: await (await fetch(`${etcd.httpUrl}/version`)).json() };
    expect(body).toMatchObject({ etcdserver: version === '3.4.23' ? expect.stringMatching(/^3\.4\./) : version });
    await etcd.put('/by', 'ctl');
    expect(await etcd.ctl('get', '/by', '--print-value-only')).toBe('ctl\n');
    await expect(etcd.ctl('nonsense')).rejects.toThrow(/nonsense/);
  });

  test('compacts', async () => {
    const key = `/${uniqueName()}`;
    await etcd.put(key, '1');
    const old = await etcd.revision();
    await etcd.put(key, '2');
    await etcd.compact();
    await expect(etcd.ctl('get', key, '--rev', String(old))).rejects.toThrow(/compacted/);
  });

  test('keeps its data and its port over a kill and a stop, and loses the data by a wipe', async () => {
    const { url } = etcd;
    await etcd.put('/kept', 'yes');
    await etcd.kill();
    await expect(etcd.get('/kept')).rejects.toThrow(/no member runs/);
    await etcd.start();
    expect(await etcd.get('/kept')).toBe('yes');
    await etcd.stop();
    await etcd.start();
    expect(await etcd.get('/kept')).toBe('yes');
    await etcd.wipe();
    expect(await etcd.get('/kept')).toBe(null);
    expect(etcd.url).toBe(url);
  });

  test('is silent while frozen and answers when thawed', async () => {
    await etcd.put('/ice', 'cold');
    etcd.freeze();
    const host = etcd.hosts[0] as string;
    expect(await healthAt(host, 300)).toBe('timeout');
    etcd.thaw();
    expect(await etcd.get('/ice')).toBe('cold');
  });

  test('asks for a password, and keeps a user to the prefix', async () => {
    const guarded = await startEtcd({
      version,
      authTokenTtl: 1,
      users: [
        { name: 'app', password: 'secret', roles: [{ prefix: '/mine/' }, { prefix: '/theirs/', permission: 'read' }] },
      ],
    });
    try {
      const as = (user: string, ...args: string[]): Promise<string> =>
        output(
          version === '3.4.23' ? '/usr/bin/etcdctl' : 'servers/bin/etcdctl',
          ['--endpoints', guarded.hosts.join(), ...(user ? ['--user', user] : []), ...args],
          {
            ETCDCTL_API: '3',
          },
        );
      await expect(as('', 'get', '/mine/a')).rejects.toThrow(/user name is empty/);
      await expect(as('app:wrong', 'get', '/mine/a')).rejects.toThrow(/authentication failed/);
      await as('app:secret', 'put', '/mine/a', '1');
      await as('app:secret', 'get', '/theirs/a');
      await expect(as('app:secret', 'put', '/theirs/a', '1')).rejects.toThrow(/permission denied/);
      // The administrator, whose token is renewed when it has run out, and after a wipe.
      await waitFor(async () => (await guarded.get('/mine/a')) === '1');
      await guarded.wipe();
      expect(await guarded.get('/mine/a')).toBe(null);
      await expect(as('app:wrong', 'get', '/mine/a')).rejects.toThrow(/authentication failed/);
      expect(await guarded.ctl('user', 'list')).toBe('app\nroot\n');
      await guarded.disableAuth();
      await as('', 'get', '/mine/a');
    } finally {
      await guarded.close();
    }
  });

  test('speaks TLS, and asks for client certificates', async () => {
    for (const tls of [true, 'mutual'] as const) {
      const secured = await startEtcd({ version, tls });
      try {
        expect(secured.url).toMatch(/^etcds:/);
        await secured.put('/a', tls.toString());
        expect(await secured.get('/a')).toBe(tls.toString());
        expect(await secured.ctl('get', '/a', '--print-value-only')).toBe(`${tls}\n`);
        if (tls === 'mutual') {
          const ca = readFileSync(secured.certificates?.ca.certFile as string);
          const bare = new Promise((resolve, reject) => {
            getSecurely(`${secured.httpUrl}/health`, { ca, agent: false }, resolve).on('error', reject);
          });
          await expect(bare).rejects.toThrow(/certificate required|bad certificate|ECONNRESET|socket hang up/);
        }
      } finally {
        await secured.close();
      }
    }
  });
});

describe('a cluster of three', () => {
  test.each(ETCD_VERSIONS)('etcd %s elects another leader and takes the old one back', async (version) => {
    const etcd = await startEtcd({ version, members: 3 });
    try {
      const old = await etcd.leader();
      await etcd.put('/a', '1');
      await old.kill();
      const next = await waitFor(async () => {
        const leader = await etcd.leader();
        return leader !== old && leader;
      });
      expect(next.running).toBe(true);
      await etcd.put('/a', '2');
      await old.start();
      expect(await old.isLeader()).toBe(false);
      expect(await output('servers/bin/etcdctl', ['--endpoints', old.host, 'get', '/a', '--print-value-only'])).toBe(
        '2\n',
      );
      // Two of three gone: nobody leads and nothing is written.
      const others = etcd.members.filter((member) => member !== old);
      for (const member of others) member.freeze();
      const alone = ['--endpoints', old.host, '--command-timeout', '1s'];
      await expect(output('servers/bin/etcdctl', [...alone, 'put', '/a', '3'])).rejects.toThrow(/deadline|timed out/);
      for (const member of others) member.thaw();
      await waitFor(async () => {
        await etcd.put('/a', '4');
        return true;
      });
    } finally {
      await etcd.close();
    }
  });
});

describe('between client and server', () => {
  let etcd: EtcdCluster;
  beforeAll(async () => {
    etcd = await startEtcd();
  });
  afterAll(() => etcd?.close());

  test('toxiproxy cuts, delays, swallows and resets', async () => {
    const toxiproxy = await startToxiproxy();
    try {
      const proxy = await toxiproxy.proxy(etcd.hosts[0] as string);
      expect(await healthAt(proxy.host)).toBe(200);
      await proxy.setEnabled(false);
      await expect(healthAt(proxy.host)).rejects.toThrow();
      await proxy.setEnabled(true);
      expect(await healthAt(proxy.host)).toBe(200);

      await proxy.latency(200);
      const start = performance.now();
      expect(await healthAt(proxy.host)).toBe(200);
      expect(performance.now() - start).toBeGreaterThan(390);
      await proxy.clear();

      await proxy.timeout();
      expect(await healthAt(proxy.host, 300)).toBe('timeout');
      await proxy.clear();
      expect(await healthAt(proxy.host)).toBe(200);

      await proxy.resetPeer();
      await expect(healthAt(proxy.host)).rejects.toThrow();
      await proxy.clear();
      expect(await healthAt(proxy.host)).toBe(200);
      await proxy.remove();
      await expect(healthAt(proxy.host)).rejects.toThrow();
    } finally {
      await toxiproxy.close();
    }
    expect(alive(toxiproxy.pid)).toBe(false);
  });

  test('the proxy in the test process holds, drops, cuts and counts', async () => {
    const proxy = await startTcpProxy(etcd.hosts[0] as string);
    expect(await healthAt(proxy.host)).toBe(200);
    expect(proxy.accepted).toBe(1);
    expect(proxy.bytesUp).toBeGreaterThan(0);
    expect(proxy.bytesDown).toBeGreaterThan(0);

    proxy.hold();
    const { bytesUp } = proxy;
    const held = healthAt(proxy.host);
    await waitFor(() => proxy.accepted === 2);
    expect(await healthAt(proxy.host, 200)).toBe('timeout');
    expect(proxy.bytesUp).toBe(bytesUp);
    proxy.release();
    expect(await held).toBe(200);

    proxy.dropAnswers();
    expect(await healthAt(proxy.host, 200)).toBe('timeout');
    expect(proxy.bytesUp).toBeGreaterThan(bytesUp);
    proxy.dropAnswers(false);

    proxy.setEnabled(false);
    await expect(healthAt(proxy.host)).rejects.toThrow();
    proxy.setEnabled(true);
    expect(await healthAt(proxy.host)).toBe(200);

    const before = proxy.accepted;
    await waitFor(() => proxy.open === 0, { what: 'the end of the connections before' });
    const idle = connect({ host: '127.0.0.1', port: Number(proxy.host.split(':')[1]) });
    const cut = new Promise((resolve) => idle.once('error', resolve));
    await waitFor(() => proxy.accepted === before + 1);
    proxy.sever();
    expect(await cut).toMatchObject({ code: 'ECONNRESET' });
    await proxy.close();
    await expect(healthAt(proxy.host)).rejects.toThrow();
  });

  test('the proxy counts gRPC requests and loses an answer that the server has given', async () => {
    const proxy = await startTcpProxy(etcd.hosts[0] as string);
    const key = `/${uniqueName()}`;
    const put = (value: string): Promise<string> =>
      output('servers/bin/etcdctl', ['--endpoints', proxy.host, 'put', key, value, '--command-timeout', '3s']);
    await put('1');
    expect(proxy.requests).toBe(1);
    const lost = proxy.loseNextAnswer();
    // etcdctl does not repeat a write whose answer it has not seen.
    await expect(put('2')).rejects.toThrow();
    await lost;
    expect(await etcd.get(key)).toBe('2');
    await put('3');
    expect(await etcd.get(key)).toBe('3');
    await proxy.close();
  });

  test('the silent server accepts and never answers', async () => {
    const server = await startSilentServer();
    expect(await healthAt(server.host, 200)).toBe('timeout');
    expect(server.accepted).toBe(1);
    expect(server.bytes).toBeGreaterThan(0);
    await waitFor(() => server.open === 0);
    await server.close();
  });
});

describe('certificates', () => {
  test('are signed by their authority and by no other', async () => {
    const { ca, server, client, stranger, folder, remove } = await makeCertificates({ clientName: 'app' });
    for (const one of [server, client]) await output('openssl', ['verify', '-CAfile', ca.certFile, one.certFile]);
    await expect(output('openssl', ['verify', '-CAfile', stranger.certFile, server.certFile])).rejects.toThrow(
      /verification failed/,
    );
    expect(await output('openssl', ['x509', '-in', client.certFile, '-noout', '-subject'])).toMatch(/CN = ?app/);
    expect(await output('openssl', ['x509', '-in', server.certFile, '-noout', '-ext', 'subjectAltName'])).toMatch(
      /DNS:localhost, IP Address:127\.0\.0\.1/,
    );
    expect(readFileSync(client.keyFile, 'utf8')).toMatch(/BEGIN PRIVATE KEY/);
    remove();
    expect(existsSync(folder)).toBe(false);
  });
});

describe('the Go peer', () => {
  let etcd: EtcdCluster;
  beforeAll(async () => {
    etcd = await startEtcd();
  });
  afterAll(() => etcd?.close());

  test('writes what was captured from Kratos, byte for byte', async () => {
    const peer = await startPeer({ endpoints: etcd.hosts });
    try {
      await peer.register({
        id: '5f8d-1',
        name: 'helloworld',
        version: 'v1.0.0',
        metadata: { zone: 'sh001', weight: '10', q: 'a&b<c>é' },
        endpoints: ['http://127.0.0.1:8000', 'grpc://127.0.0.1:9000'],
      });
      await peer.register({ id: 'x', name: 'helloworld-admin' });
      expect(await etcd.get('/microservices/helloworld/5f8d-1')).toBe(
        String.raw`{"id":"5f8d-1","name":"helloworld","version":"v1.0.0","metadata":{"q":"a\u0026b\u003cc\u003eé","weight":"10","zone":"sh001"},"endpoints":["http://127.0.0.1:8000","grpc://127.0.0.1:9000"]}`,
      );
      expect(await etcd.get('/microservices/helloworld-admin/x')).toBe(
        '{"id":"x","name":"helloworld-admin","version":"","metadata":null,"endpoints":null}',
      );
      expect(await etcd.leaseOf('/microservices/helloworld-admin/x')).not.toBe(null);
      await peer.stop();
      expect(await etcd.keys('/microservices/helloworld')).toEqual([]);
    } finally {
      await peer.close();
    }
  });

  test('registers, reads, watches and is told of faults', async () => {
    const namespace = `/${uniqueName()}`;
    const [one, other] = await Promise.all([
      startPeer({ endpoints: etcd.hosts, namespace }),
      startPeer({ endpoints: etcd.hosts, namespace }),
    ]);
    try {
      const watch = await other.watch('svc');
      await watch.list((list) => list.length === 0, { what: 'the first list' });
      await one.register({ id: 'a', name: 'svc', metadata: { k: '1' } });
      await watch.list((list) => list[0]?.metadata?.k === '1');
      await one.register({ id: 'a', name: 'svc', metadata: { k: '2' } });
      await watch.list((list) => list[0]?.metadata?.k === '2');
      await one.register({ id: 'b', name: 'svc', endpoints: ['grpc://127.0.0.1:1'] });
      expect((await other.get('svc')).map(({ id }) => id)).toEqual(['a', 'b']);
      await one.deregister({ id: 'a', name: 'svc' });
      await watch.list((list) => list.length === 1 && list[0]?.id === 'b');

      await etcd.put(`${namespace}/svc/bad`, 'not-json');
      await expect(other.get('svc')).rejects.toThrow(/invalid character/);
      await waitFor(() => watch.events.some(({ error }) => error !== undefined), { what: 'the error of the watch' });
      await etcd.del(`${namespace}/svc/bad`);
      await watch.stop();

      // A crash leaves the record until its lease ends.
      await one.kill();
      expect(await etcd.keys(`${namespace}/svc/`)).toEqual([`${namespace}/svc/b`]);
      await waitFor(async () => (await etcd.keys(`${namespace}/svc/`)).length === 0, {
        what: 'the end of the lease',
        timeoutMs: 15_000,
      });
    } finally {
      await Promise.all([one.close(), other.close()]);
    }
  });
});

test('Redis is started, frozen, killed and started again on its port, empty', async () => {
  await using redis = await startRedis();
  expect(await redis.ask('SET key value')).toBe('+OK');
  redis.freeze();
  redis.thaw();
  expect(await redis.ask('GET key')).toBe('$5');
  await redis.kill();
  await redis.start();
  expect(await redis.ask('GET key')).toBe('$-1');
  await redis.wipe();
});
