// TLS and authentication: who is trusted, what the error says when it is not, and how tokens are got and renewed.
import { readFileSync } from 'node:fs';
import { inspect } from 'node:util';
import {
  Etcd3,
  EtcdAuthenticationFailedError,
  EtcdPermissionDeniedError,
  GRPCUnavailableError,
  type IOptions,
} from 'rollcall/etcd';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { ETCD_VERSIONS, type EtcdCluster, startEtcd } from '../support/etcd.js';
import { uniqueName, waitFor, within } from '../support/process.js';
import { startTcpProxy } from '../support/tcp.js';
import { connectBoth, outcome } from './both.js';

const clients: Etcd3[] = [];
function connect(options: Partial<IOptions>): Etcd3 {
  const client = new Etcd3({ logger: false, ...options } as IOptions);
  clients.push(client);
  return client;
}
afterEach(() => Promise.all(clients.splice(0).map((client) => client.close())));

const failure = async (call: PromiseLike<unknown>): Promise<Error & { tried: { message: string }[] }> =>
  within(Promise.resolve(call), 15_000, 'a failure').then(
    (value) => expect.unreachable(`it gave ${inspect(value)}`),
    (error) => error,
  );

describe.each(ETCD_VERSIONS)('TLS, etcd %s', (version) => {
  let etcd: EtcdCluster;
  let plain: EtcdCluster;
  beforeAll(async () => {
    [etcd, plain] = await Promise.all([startEtcd({ version, tls: 'mutual' }), startEtcd({ version })]);
  });
  afterAll(async () => {
    await Promise.all([etcd?.close(), plain?.close()]);
  });
  const pem = () => {
    const { ca, client, stranger } = etcd.certificates as NonNullable<EtcdCluster['certificates']>;
    const read = (file: string) => readFileSync(file);
    return {
      rootCertificate: read(ca.certFile),
      privateKey: read(client.keyFile),
      certChain: read(client.certFile),
      stranger: read(stranger.certFile),
    };
  };

  it('credentials and tls let in, whatever the hosts begin with, as in etcd3', async () => {
    const { rootCertificate, privateKey, certChain } = pem();
    const key = uniqueName();
    const both = connectBoth(etcd.hosts, { credentials: { rootCertificate, privateKey, certChain } });
    await both.theirs.put(key).value('v');
    expect(await both.ours.get(key).string()).toBe('v');
    await both.close();
    for (const options of [
      {
        hosts: etcd.hosts.map((host) => `https://${host}`),
        tls: { ca: rootCertificate, key: privateKey, cert: certChain },
      },
      // As the options of the registry have it.
      {
        hosts: `etcds://${etcd.hosts.join(',')}`,
        tls: {
          caFile: etcd.certificates?.ca.certFile,
          certFile: etcd.certificates?.client.certFile,
          keyFile: etcd.certificates?.client.keyFile,
        },
      },
      { hosts: etcd.hosts.map((host) => `http://${host}`), credentials: { rootCertificate, privateKey, certChain } },
      {
        hosts: [...etcd.hosts],
        credentials: { rootCertificate, privateKey, certChain },
        grpcOptions: { 'grpc.ssl_target_name_override': 'localhost' },
      },
    ] as Partial<IOptions>[]) {
      const client = connect(options);
      expect(await client.get(key).string()).toBe('v');
    }
  });

  it.each([
    [
      'a server whose signer is unknown',
      () => ({ credentials: { rootCertificate: pem().stranger } }),
      /not trusted.*tls\.ca/,
    ],
    [
      'a server of another name',
      () => ({
        credentials: { rootCertificate: pem().rootCertificate },
        grpcOptions: { 'grpc.ssl_target_name_override': 'elsewhere' },
      }),
      /not trusted.*tls\.serverName/,
    ],
    [
      'a server that wants a certificate',
      () => ({ credentials: { rootCertificate: pem().rootCertificate } }),
      /certificate/i,
    ],
    ['a server with TLS that is spoken to without', () => ({}), /is the server TLS/],
  ])('%s: the error says so, and that nothing was applied', async (_what, options, says) => {
    const client = connect({ hosts: [...etcd.hosts], dialTimeout: 2000, ...options() });
    for (const call of [() => client.put('k').value('v').exec(), () => client.get('k').string()]) {
      const error = await failure(call());
      expect(error).toBeInstanceOf(GRPCUnavailableError);
      expect(error.message).toMatch(says);
    }
  });

  it('a server without TLS that is spoken to with: the error says so', async () => {
    const client = connect({ hosts: plain.hosts.map((host) => `https://${host}`), dialTimeout: 2000 });
    const error = await failure(client.put('k').value('v'));
    expect(error).toMatchObject({ name: 'GRPCUnavailableError', outcomeUnknown: false });
    expect(error.message).toMatch(/no TLS with .*; is the server TLS\?/);
  });
});

describe.each(ETCD_VERSIONS)('authentication, etcd %s', (version) => {
  let etcd: EtcdCluster;
  const user = { username: 'reader', password: 'opensesame-7' };
  beforeAll(async () => {
    etcd = await startEtcd({
      version,
      authTokenTtl: 4,
      users: [{ name: 'reader', password: user.password, roles: [{ prefix: 'open/' }] }],
    });
  });
  afterAll(() => etcd?.close());

  it('a thousand first calls share one connection and one authentication', async () => {
    const proxy = await startTcpProxy(etcd.hosts[0] as string);
    const client = connect({ hosts: [proxy.host], auth: user });
    const before = await etcd.calls('Authenticate');
    await Promise.all(Array.from({ length: 1000 }, (_, i) => client.get(`open/${i}`).string()));
    // A second one where the first takes longer than a read waits for a member, on a machine that is very busy.
    const made = (await etcd.calls('Authenticate')) - before;
    expect(made).toBeGreaterThanOrEqual(1);
    expect(made).toBeLessThanOrEqual(2);
    expect(proxy.accepted).toBeLessThanOrEqual(made);
    await proxy.close();
  });

  it('an expired token is renewed once for all, and nobody sees it', async () => {
    const proxy = await startTcpProxy(etcd.hosts[0] as string);
    const client = connect({ hosts: [proxy.host], auth: user });
    await client.put('open/k').value('v');
    const before = await etcd.calls('Authenticate');
    // The server forgets a token that is not used for 4 s; it looks each second.
    await new Promise((resolve) => setTimeout(resolve, 6000));
    const writes = Array.from({ length: 50 }, (_, i) => client.put(`open/w${i}`).value('v').exec());
    const reads = Array.from({ length: 50 }, () => client.get('open/k').string());
    const txn = client.if('open/k', 'Version', '>', 0).then(client.get('open/k')).commit();
    expect(new Set(await Promise.all(reads))).toEqual(new Set(['v']));
    expect((await txn).succeeded).toBe(true);
    await Promise.all(writes);
    expect((await client.getAll().prefix('open/w').exec()).kvs.filter((kv) => kv.version !== '1')).toEqual([]);
    // A second one where the first takes longer than a read waits for a member, on a machine that is very busy.
    const made = (await etcd.calls('Authenticate')) - before;
    expect(made).toBeGreaterThanOrEqual(1);
    expect(made).toBeLessThanOrEqual(2);
    expect(proxy.accepted).toBeLessThanOrEqual(made);
    await proxy.close();
  });

  it('a server that has forgotten all tokens is authenticated at again', async () => {
    const client = connect({ hosts: [...etcd.hosts], auth: user });
    await client.put('open/k').value('v');
    await etcd.kill();
    await etcd.start();
    expect(await within(client.get('open/k').string(), 5000, 'a read')).toBe('v');
    await within(client.put('open/k').value('w').exec(), 5000, 'a write');
  });

  it('a wrong password or user fails every call by its class, as in etcd3, with few tries', async () => {
    for (const auth of [
      { username: 'reader', password: 'wrong-secret' },
      { username: 'nobody', password: 'wrong-secret' },
    ]) {
      const both = connectBoth(etcd.hosts, { auth });
      const before = await etcd.calls('Authenticate');
      const error = await failure(both.ours.put('open/k').value('v'));
      expect(error).toBeInstanceOf(EtcdAuthenticationFailedError);
      expect(error).toMatchObject({
        code: 'ERR_UNAUTHENTICATED',
        details: 'etcdserver: authentication failed, invalid user ID or password',
        outcomeUnknown: false,
        retryable: false,
      });
      expect(await etcd.calls('Authenticate')).toBe(before + 1);
      expect(inspect(error, { depth: 9 })).not.toContain('wrong-secret');
      expect(await outcome(() => both.ours.get('open/k'))).toEqual(await outcome(() => both.theirs.get('open/k')));
      await both.close();
    }
  });

  it('the exchange of a password has the time of auth.callOptions, over defaultCallOptions, as in etcd3', async () => {
    const past = () => ({ deadline: Date.now() - 1000 });
    const later = () => ({ deadline: Date.now() + 20_000 });
    const ways = [
      { own: past(), defaults: undefined, ends: 'late' },
      { own: past, defaults: undefined, ends: 'late' },
      { own: past(), defaults: later(), ends: 'late' },
      { own: later, defaults: undefined, ends: 'good' },
      { own: later(), defaults: later, ends: 'good' },
    ];
    for (const { own: callOptions, defaults: defaultCallOptions, ends } of ways) {
      const both = connectBoth(etcd.hosts, { auth: { ...user, callOptions }, defaultCallOptions, logger: false });
      for (const client of [both.ours, both.theirs]) {
        const got = await client.get('open/none').then(
          () => 'good',
          (error: Error) => error.constructor.name,
        );
        expect(got).toBe(ends === 'late' ? 'GRPCDeadlineExceededError' : ends);
      }
      await both.close();
    }
  });

  it('auth.callOptions is asked for each exchange with what it is for, as in etcd3', async () => {
    const asked: object[] = [];
    const callOptions = (context: object) => {
      asked.push(context);
      return { deadline: Date.now() + (asked.length === 1 ? -1000 : 10_000) };
    };
    const both = connectBoth(etcd.hosts, { auth: { ...user, callOptions }, logger: false });
    for (const client of [both.ours, both.theirs]) {
      asked.length = 0;
      await client
        .get('open/none')
        .string()
        .catch(() => {});
      await client.get('open/none').string();
      await client.get('open/none').string();
      expect(asked.length).toBe(2);
      const params = { name: user.username, password: user.password };
      expect(asked[1]).toEqual({ service: 'Auth', method: 'authenticate', isStream: false, params });
    }
    await both.close();
    const bad = connect({
      hosts: etcd.hosts as string[],
      auth: {
        ...user,
        callOptions: () => {
          throw new Error('no options');
        },
      },
    });
    const error = await failure(bad.get('open/none'));
    expect(error.message).toContain('options.auth.callOptions failed: no options');
  });

  it('an exchange that is not answered ends with its own time, before the call', async () => {
    const proxy = await startTcpProxy(etcd.hosts[0] as string);
    proxy.hold('down');
    let timeoutMs = 200;
    const late = { name: 'GRPCDeadlineExceededError', outcomeUnknown: false, retryable: true };
    const put = (client: Etcd3) => client.put('open/k').value('v');
    const [fixed, asked] = [{ timeoutMs }, () => ({ timeoutMs })].map((callOptions) =>
      connect({ hosts: proxy.host, auth: { ...user, callOptions }, defaultCallOptions: { timeoutMs: 60_000 } }),
    ) as [Etcd3, Etcd3];
    for (const client of [fixed, asked]) expect(await failure(put(client))).toMatchObject(late);
    timeoutMs = 20_000;
    proxy.release();
    await put(asked);
    await proxy.close();
  });

  it('what a user may not do fails alone, by its class, as in etcd3', async () => {
    const both = connectBoth(etcd.hosts, { auth: user });
    const { ours, theirs } = both;
    const shut = [
      (client: Etcd3) => client.put('shut/k').value('v').exec(),
      (client: Etcd3) => client.get('shut/k').string(),
      (client: Etcd3) => client.get('shut/k').exec(),
      (client: Etcd3) => client.getAll().all().keys(),
      (client: Etcd3) => client.delete().key('shut/k').exec(),
      (client: Etcd3) => client.if('shut/k', 'Mod', '>', 0).then(client.get('shut/k')).commit(),
      (client: Etcd3) => client.getRoles(),
      (client: Etcd3) => client.user('x').create('p'),
    ];
    const open = Array.from({ length: 100 }, (_, i) => ours.put(`open/p${i}`).value('v').exec());
    for (const call of shut) {
      const error = await failure(call(ours));
      expect(error).toBeInstanceOf(EtcdPermissionDeniedError);
      expect(error).toMatchObject({
        code: 'ERR_PERMISSION_DENIED',
        grpcCode: 7,
        details: 'etcdserver: permission denied',
      });
      expect(await outcome(() => call(ours))).toEqual(await outcome(() => call(theirs)));
    }
    await Promise.all(open);
    await both.close();
  });

  it('without a user the server refuses, and the error says what is missing', async () => {
    const client = connect({ hosts: [...etcd.hosts] });
    for (const call of [() => client.get('open/k').string(), () => client.put('open/k').value('v').exec()]) {
      const error = await failure(call());
      expect(error).toMatchObject({
        outcomeUnknown: false,
        retryable: false,
        details: 'etcdserver: user name is empty',
      });
      expect(error.message).toContain('etcdserver: user name is empty');
    }
  });

  it('a password that is changed: calls go on with the token, then fail by the class', async () => {
    await etcd.ctl('user', 'add', 'changing:first');
    await etcd.ctl('user', 'grant-role', 'changing', 'root');
    const client = connect({ hosts: [...etcd.hosts], auth: { username: 'changing', password: 'first' } });
    await client.put('k').value('v');
    const admin = connect({ hosts: [...etcd.hosts], auth: { username: 'root', password: 'root' } });
    await admin.user('changing').setPassword('second');
    const error = await waitFor(
      () =>
        client
          .get('k')
          .string()
          .then(
            () => undefined,
            (e: Error) => e,
          ),
      { what: 'a refusal' },
    );
    expect(error).toBeInstanceOf(EtcdAuthenticationFailedError);
  });

  it('no password and no token is in a message or a log, at whatever level', async () => {
    const lines: unknown[] = [];
    const log = (...args: unknown[]) => void lines.push(args);
    const logger = { debug: log, info: log, warn: log, error: log, level: 'debug' };
    const proxy = await startTcpProxy(etcd.hosts[0] as string);
    const client = connect({ hosts: [proxy.host], auth: user, logger: logger as never });
    await client.put('open/k').value('v');
    lines.push(await failure(client.get('shut/k')));
    const lost = proxy.loseNextAnswer();
    lines.push(await failure(client.put('open/k').value('v')));
    await lost;
    proxy.setEnabled(false);
    lines.push(await failure(client.get('open/k').string()));
    const wrong = connect({
      hosts: [...etcd.hosts],
      auth: { ...user, password: 'not-opensesame' },
      logger: logger as never,
    });
    lines.push(await failure(wrong.get('open/k')));
    lines.push(client, wrong, client.metrics());
    const everything = inspect(lines, { depth: 12, showHidden: true });
    expect(everything).toContain('permission denied');
    expect(everything).not.toContain('opensesame');
    // What etcd's simple tokens look like.
    expect(everything).not.toMatch(/\b[A-Za-z]{16}\.\d+\b/);
    await proxy.close();
  });
});

describe('a user at a server without authentication', () => {
  it.each(ETCD_VERSIONS)('is left out, with one warning that names no password; etcd %s', async (version) => {
    const etcd = await startEtcd({ version });
    const warnings: string[] = [];
    const log = (line: unknown) => void warnings.push(String(line));
    const client = connect({
      hosts: [...etcd.hosts],
      auth: { username: 'someone', password: 'opensesame-7' },
      logger: { debug() {}, info() {}, warn: log, error: log } as never,
    });
    await Promise.all(Array.from({ length: 100 }, (_, i) => client.put(`k${i}`).value('v').exec()));
    await waitFor(() => warnings.length > 0, { what: 'a warning' });
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatch(/no authentication/);
    expect(warnings[0]).not.toContain('opensesame');
    // Turned on later, it is used.
    await etcd.enableAuth([{ name: 'someone', password: 'opensesame-7' }]);
    await within(client.put('k').value('v').exec(), 10_000, 'a write with a token');
    await etcd.close();
  });
});
