import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runInNewContext } from 'node:vm';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { InvalidArgumentError } from '../../lib/errors.js';
import { BACKEND_NAMES, BACKENDS } from '../../lib/registry/backends/index.js';
import { settle } from '../../lib/registry/options.js';
import { makeCertificates } from '../support/tls.js';

const certificates = await makeCertificates();
afterAll(() => certificates.remove());
const PEM = await readFile(certificates.ca.certFile, 'utf8');
const KEY = await readFile(certificates.ca.keyFile, 'utf8');
const RUBBISH = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'rollcall-options-'));
  await writeFile(join(folder, 'ca.pem'), PEM);
});
afterAll(() => rm(folder, { recursive: true, force: true }));
afterEach(() => {
  delete process.env.ROLLCALL_ADVERTISE_HOST;
});

async function refusal(options: unknown): Promise<string> {
  const error = await settle(options).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(InvalidArgumentError);
  return (error as Error).message;
}

/** Native options have a group for every backend. */
const noGroups = Object.fromEntries(BACKEND_NAMES.map((name) => [name, null]));

const NO_FILES = { caFile: null, certFile: null, keyFile: null };

describe('defaults', () => {
  it('completes memory options', async () => {
    const { native, lazy, signals } = await settle({ backend: 'memory' });
    expect(native).toEqual({
      ...noGroups,
      backend: 'memory',
      ttlMs: 15_000,
      connectTimeoutMs: 10_000,
      timeoutMs: 10_000,
      stallTimeoutMs: 30_000,
      emptyGraceMs: 15_000,
      advertiseHost: null,
      logLevel: 'warn',
      memory: { namespace: 'default' },
    });
    expect(lazy).toBe(false);
    expect(signals).toEqual([]);
  });

  it('completes etcd options', async () => {
    const { native } = await settle({ backend: 'etcd' });
    expect(native).toMatchObject({ ...noGroups, etcd: expect.anything() });
    expect(native.etcd).toEqual({
      prefix: '/microservices',
      codec: 'kratos',
      connection: {
        hosts: ['http://127.0.0.1:2379'],
        username: null,
        password: null,
        tls: null,
        keepAliveMs: 10_000,
        keepAliveTimeoutMs: 5000,
        maxMessageBytes: 67_108_864,
      },
    });
  });

  it('takes undefined for none given', async () => {
    const { native } = await settle({ backend: 'etcd', ttlMs: undefined, tls: undefined, nonsense: undefined });
    expect(native.ttlMs).toBe(15_000);
  });

  it('takes advertiseHost from the option, else from the environment', async () => {
    process.env.ROLLCALL_ADVERTISE_HOST = '10.9.9.9';
    expect((await settle({ backend: 'memory' })).native.advertiseHost).toBe('10.9.9.9');
    expect((await settle({ backend: 'memory', advertiseHost: 'h' })).native.advertiseHost).toBe('h');
    process.env.ROLLCALL_ADVERTISE_HOST = '';
    expect((await settle({ backend: 'memory' })).native.advertiseHost).toBeNull();
  });
});

describe('hosts', () => {
  it.each([
    ['a', ['http://a:2379']],
    ['a:1,b:2', ['http://a:1', 'http://b:2']],
    [
      ['http://a:1/', 'b'],
      ['http://a:1', 'http://b:2379'],
    ],
    [
      ['https://a', 'b:1'],
      ['https://a:2379', 'https://b:1'],
    ],
    [
      ['[::1]:2379', '[fe80::1]'],
      ['http://[::1]:2379', 'http://[fe80::1]:2379'],
    ],
  ])('reads %j', async (hosts, expected) => {
    expect((await settle({ backend: 'etcd', hosts })).native.etcd?.connection?.hosts).toEqual(expected);
  });

  it('says https when tls is on', async () => {
    const { native } = await settle({ backend: 'etcd', hosts: 'a:1', tls: true });
    expect(native.etcd?.connection?.hosts).toEqual(['https://a:1']);
    expect(native.etcd?.connection?.tls).toEqual({ ca: null, cert: null, key: null, serverName: null, ...NO_FILES });
  });
});

describe('tls', () => {
  it('takes PEM as text, as bytes of any realm, and as files', async () => {
    const foreign = runInNewContext('Uint8Array.from(bytes)', { bytes: [...Buffer.from(PEM)] });
    for (const tls of [{ ca: PEM }, { ca: Buffer.from(PEM) }, { ca: foreign }, { caFile: join(folder, 'ca.pem') }]) {
      const { native } = await settle({ backend: 'etcd', tls });
      expect(native.etcd?.connection?.tls?.ca?.toString()).toBe(PEM);
    }
  });

  it('names the path of a file that can not be read', async () => {
    const file = join(folder, 'missing.pem');
    const message = await refusal({ backend: 'etcd', tls: { caFile: file } });
    expect(message).toMatch(/^options\.tls\.caFile: can't read the file: ENOENT/);
    expect(message).toContain(file);
  });
});

describe('objects of another realm', () => {
  it('are judged by shape', async () => {
    const options = runInNewContext(
      '({ backend: "etcd", hosts: ["a:1"], tls: { serverName: "x" }, signals: ["SIGTERM"], logger: { info() {} } })',
    );
    const { native, signals } = await settle(options);
    expect(native.etcd?.connection?.hosts).toEqual(['https://a:1']);
    expect(signals).toEqual(['SIGTERM']);
    expect(native.logLevel).toBe('info');
  });
});

describe('log level', () => {
  const silent = { info() {}, warn() {}, error() {} };
  it.each([
    [false, 'off'],
    [undefined, 'warn'],
    [silent, 'info'],
    [{ ...silent, level: 'debug', debug() {} }, 'debug'],
    [{ ...silent, isLevelEnabled: (level: string) => level === 'error' }, 'error'],
    [{ log() {}, warn() {}, error() {}, debug() {}, verbose() {} }, 'info'],
  ])('of %o is %s', async (logger, level) => {
    expect((await settle({ backend: 'memory', logger })).native.logLevel).toBe(level);
  });
});

describe('refuses, naming the path', () => {
  const MS = 'a whole number from';
  const backend = `options.backend: expected ${BACKEND_NAMES.map((name) => `"${name}"`).join(' or ')}`;
  const owners = (option: string) => BACKEND_NAMES.filter((name) => option in BACKENDS[name].options).join(' and ');
  it.each<[unknown, string]>([
    [null, 'options: expected a URL or an object with `backend`, got null'],
    [7, 'options: expected a URL or an object with `backend`, got number'],
    [[], 'options: expected a URL or an object with `backend`, got array'],
    [new Map(), 'options: expected a URL or an object with `backend`, got Map'],
    [{}, `${backend}, got undefined`],
    [{ backend: 'etdc' }, `${backend}, got "etdc"; did you mean "etcd"?`],
    [{ backend: 'Memory' }, `${backend}, got "Memory"; did you mean "memory"?`],
    [{ backend: 'carrier-pigeon' }, `${backend}, got "carrier-pigeon"`],
    [{ backend: 'etcd', host: 'a' }, 'options.host: unknown option; did you mean "hosts"?'],
    [{ backend: 'etcd', ttl: 1 }, 'options.ttl: unknown option; did you mean "ttlMs"?'],
    [{ backend: 'etcd', dialTimeout: 1 }, 'options.dialTimeout: unknown option'],
    [{ backend: 'etcd', auth: 'root:secret' }, 'options.auth: expected an object, got string'],
    [{ backend: 'etcd', auth: { username: 'root' } }, 'options.auth.password: expected a string'],
    [{ backend: 'etcd', auth: { user: 'root' } }, 'options.auth.user: unknown option'],
    [
      { backend: 'etcd', username: 'root', auth: { username: 'root', password: 'secret' } },
      'options.username: given together with options.auth',
    ],
    [
      { backend: 'memory', hosts: 'a' },
      `options.hosts: not an option of the memory backend, only of ${owners('hosts')}`,
    ],
    [{ backend: 'memory', ttlMs: '3000' }, `options.ttlMs: expected ${MS} 1000 to 2147483647, got string`],
    [{ backend: 'memory', ttlMs: 999 }, `options.ttlMs: expected ${MS} 1000 to 2147483647, got 999`],
    [{ backend: 'memory', ttlMs: null }, `options.ttlMs: expected ${MS} 1000 to 2147483647, got null`],
    [{ backend: 'memory', ttlMs: 1500.5 }, `options.ttlMs: expected ${MS} 1000 to 2147483647, got 1500.5`],
    [{ backend: 'memory', timeoutMs: 0 }, `options.timeoutMs: expected ${MS} 1 to 2147483647, got 0`],
    [{ backend: 'memory', timeoutMs: Number.NaN }, `options.timeoutMs: expected ${MS} 1 to 2147483647, got NaN`],
    [
      { backend: 'memory', connectTimeoutMs: Number.POSITIVE_INFINITY },
      `options.connectTimeoutMs: expected ${MS} 1 to 2147483647, got Infinity`,
    ],
    [
      { backend: 'memory', stallTimeoutMs: 5 },
      `options.stallTimeoutMs: expected 0 (off) or ${MS} 100 to 2147483647, got 5`,
    ],
    [{ backend: 'memory', emptyGraceMs: -1 }, `options.emptyGraceMs: expected ${MS} 0 to 2147483647, got -1`],
    [{ backend: 'memory', lazy: 1 }, 'options.lazy: expected true or false, got number'],
    [{ backend: 'memory', advertiseHost: 1 }, 'options.advertiseHost: expected a string, got number'],
    [{ backend: 'memory', advertiseHost: '' }, 'options.advertiseHost: expected a string that is not empty'],
    [{ backend: 'memory', signals: 'SIGTERM' }, 'options.signals: expected an array of signal names, got string'],
    [
      { backend: 'memory', signals: ['SIGTRM'] },
      'options.signals[0]: expected the name of a signal; did you mean "SIGTERM"?',
    ],
    [
      { backend: 'memory', signals: ['SIGKILL'] },
      'options.signals[0]: expected a signal that can be caught, not "SIGKILL"',
    ],
    [{ backend: 'memory', signals: [15] }, 'options.signals[0]: expected a signal name such as "SIGTERM", got number'],
    [
      { backend: 'memory', logger: true },
      'options.logger: expected false or an object with methods such as info, warn and error, got boolean',
    ],
    [
      { backend: 'memory', logger: {} },
      'options.logger: expected false or an object with methods such as info, warn and error, got object',
    ],
    [{ backend: 'memory', namespace: 3 }, 'options.namespace: expected a string, got number'],
    [{ backend: 'etcd', hosts: 3 }, 'options.hosts: expected "host:port", or an array of them, got number'],
    [{ backend: 'etcd', hosts: [] }, 'options.hosts: expected at least one "host:port"'],
    [{ backend: 'etcd', hosts: [3] }, 'options.hosts[0]: expected "host:port", got number'],
    [{ backend: 'etcd', hosts: 'a,' }, 'options.hosts[1]: expected "host:port" or "http(s)://host:port"'],
    [{ backend: 'etcd', hosts: 'user:secret@a:1' }, 'options.hosts: expected "host:port" or "http(s)://host:port"'],
    [{ backend: 'etcd', hosts: ['a:0'] }, 'options.hosts[0]: expected a port from 1 to 65535'],
    [{ backend: 'etcd', hosts: ['a:70000'] }, 'options.hosts[0]: expected a port from 1 to 65535'],
    [{ backend: 'etcd', hosts: ['http://a', 'https://b'] }, 'options.hosts: expected all hosts with https:// or none'],
    [{ backend: 'etcd', hosts: 'https://a', tls: false }, 'options.tls: contradicts the https:// of options.hosts'],
    [{ backend: 'etcd', hosts: 'http://a', tls: true }, 'options.tls: contradicts the http:// of options.hosts'],
    [{ backend: 'etcd', codec: 'xml' }, 'options.codec: expected "kratos" or "metadata" or "json", got "xml"'],
    [{ backend: 'etcd', username: 'u' }, 'options.password: expected with a username'],
    [{ backend: 'etcd', password: 'p' }, 'options.username: expected with a password'],
    [{ backend: 'etcd', username: 'u', password: 5 }, 'options.password: expected a string, got number'],
    [{ backend: 'etcd', keepAliveMs: 4999 }, `options.keepAliveMs: expected ${MS} 5000 to 2147483647, got 4999`],
    [{ backend: 'etcd', tls: 'yes' }, 'options.tls: expected true, false or an object, got string'],
    [{ backend: 'etcd', tls: { ca: 5 } }, 'options.tls.ca: expected a PEM string or Buffer, got number'],
    [{ backend: 'etcd', tls: { ca: 'secret' } }, 'options.tls.ca: expected PEM, which holds a line "-----BEGIN …"'],
    [{ backend: 'etcd', tls: { caFIle: 'x' } }, 'options.tls.caFIle: unknown option; did you mean "caFile"?'],
    [{ backend: 'etcd', tls: { caFile: 5 } }, 'options.tls.caFile: expected a string, got number'],
    [{ backend: 'etcd', tls: { ca: PEM, caFile: 'x' } }, 'options.tls.ca: given together with options.tls.caFile'],
    [{ backend: 'etcd', tls: { cert: PEM } }, 'options.tls.key: expected with a client certificate'],
    [{ backend: 'etcd', tls: { key: KEY } }, 'options.tls.cert: expected with a client key'],
    [
      { backend: 'etcd', tls: { cert: PEM, key: PEM } },
      "options.tls.key: expected the PEM of a private key; it can't be read",
    ],
    [{ backend: 'etcd', tls: { ca: RUBBISH } }, "options.tls.ca: expected the PEM of a certificate; it can't be read"],
    [
      { backend: 'memory', advertiseHost: 'a:80' },
      'options.advertiseHost: expected a host name or address without a port, such as "10.0.0.1"',
    ],
  ])('%o', async (options, message) => {
    expect(await refusal(options)).toBe(message);
  });
});

describe('Consul', () => {
  const consul = async (options: object) => (await settle({ backend: 'consul', ...options })).native;

  it('has the defaults of Kratos', async () => {
    const native = await consul({});
    expect(native.ttlMs).toBe(20_000);
    expect(native.consul).toMatchObject({
      ...{ hosts: ['http://127.0.0.1:8500'], token: null, tls: null, tags: [], weights: null },
      ...{ healthCheck: 'tcp', healthCheckIntervalMs: 10_000, healthCheckTimeoutMs: 5000, heartbeat: true },
      ...{ deregisterCriticalAfterMs: 600_000, passingOnly: true, consistency: 'default', waitMs: 55_000 },
    });
  });

  it('takes hosts with and without ports, TLS and sockets', async () => {
    const hosts = async (options: object) => (await consul(options)).consul?.hosts;
    expect(await hosts({ hosts: 'a,b:1' })).toEqual(['http://a:8500', 'http://b:1']);
    expect(await hosts({ hosts: ['https://a', 'https://[::1]:2'] })).toEqual(['https://a:8501', 'https://[::1]:2']);
    expect(await hosts({ hosts: ['unix:///run/a,b.sock'] })).toEqual(['unix:///run/a,b.sock']);
    for (const [given, native] of [
      [true, 'tcp'],
      [false, 'off'],
      ['false', 'off'],
      ['grpc', 'grpc'],
    ] as const)
      expect((await consul({ healthCheck: given })).consul?.healthCheck).toBe(native);
  });

  it.each([
    [{ hosts: 'a:0' }, 'options.hosts: expected a port'],
    [{ hosts: ['http://a', 'https://b'] }, 'options.hosts: expected all hosts with https:// or none'],
    [{ token: 'a b' }, 'options.token: expected printable ASCII'],
    [{ tags: ['version=1'] }, 'options.tags[0]: expected another tag'],
    [{ weights: { passing: 0 } }, 'options.weights.passing: expected a whole number from 1'],
    [{ weights: { pasing: 1 } }, 'options.weights.pasing: unknown option; did you mean "passing"?'],
    [{ healthCheck: 'tpc' }, 'options.healthCheck'],
    [{ consistency: 'fresh' }, 'options.consistency'],
    [{ waitMs: 10 }, 'options.waitMs: expected a whole number from 1000'],
    [{ prefix: '/x' }, 'options.prefix: not an option of the consul backend, only of etcd'],
  ])('refuses %j', async (options, message) => {
    expect(await refusal({ backend: 'consul', ...options })).toContain(message);
  });
});
