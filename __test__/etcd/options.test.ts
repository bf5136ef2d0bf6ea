import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { ExponentialBackoff, handleAll, noop, retry } from 'cockatiel';
import { afterAll, describe, expect, it } from 'vitest';
import { InvalidArgumentError } from '../../lib/errors.js';
import { type IOptions, settleOptions, timeLeft } from '../../lib/etcd/transport/options.js';
import { makeCertificates } from '../support/tls.js';

const require = createRequire(import.meta.url);
const { Etcd3 } = require('etcd3') as { Etcd3: new (options: unknown) => unknown };
const { recognizedOptions } = require('@grpc/grpc-js/build/src/channel-options') as { recognizedOptions: object };

const certificates = await makeCertificates();
afterAll(() => certificates.remove());
const CA = await readFile(certificates.ca.certFile);
const KEY = await readFile(certificates.ca.keyFile);

function failure(run: () => unknown): Error & { code?: string } {
  try {
    run();
  } catch (error) {
    return error as Error;
  }
  throw new Error('nothing was thrown');
}

/** Options that JavaScript may pass whatever the types say. */
const settle = (options: unknown) => settleOptions(options as IOptions);

const NO_FILES = { caFile: null, certFile: null, keyFile: null };

describe('defaults', () => {
  it('are complete', () => {
    const { log, ...rest } = settleOptions(undefined);
    expect(log.level).toBe('warn');
    expect(rest).toEqual({
      hosts: ['127.0.0.1:2379'],
      hostNames: ['127.0.0.1:2379'],
      tls: null,
      auth: null,
      defaultCallOptions: undefined,
      faultHandling: {},
      dialTimeoutMs: 30_000,
      timeoutMs: 60_000,
      keepAliveMs: 10_000,
      keepAliveTimeoutMs: 5000,
      keepAliveWhileIdle: false,
      maxMessageBytes: 64 * 1024 * 1024,
      maxRequestBytes: 2 ** 31 - 1,
      maxInFlight: 4096,
      groupGets: false,
      authority: null,
      userAgent: null,
    });
    expect(settle({}).hosts).toEqual(['127.0.0.1:2379']);
  });

  it('give way to what is given', () => {
    const given = {
      hosts: 'a:1',
      dialTimeout: 1000,
      timeoutMs: 0,
      keepAliveMs: 5000,
      keepAliveTimeoutMs: 100,
      maxMessageBytes: 65_536,
      maxInFlight: 1,
      groupGets: true,
      logger: false as const,
    };
    const { dialTimeout, logger, hosts, ...rest } = given;
    expect(settleOptions(given)).toMatchObject({ ...rest, dialTimeoutMs: dialTimeout, hosts: [hosts] });
    expect(settleOptions(given).log.level).toBe('off');
  });
});

describe('hosts', () => {
  it.each([
    ['a:1', ['a:1']],
    ['a', ['a:2379']],
    ['http://a', ['a:2379']],
    ['https://a', ['a:443']],
    ['http://a:02379/', ['a:2379']],
    ['[::1]:5', ['[::1]:5']],
    [
      ['a:1', 'http://b:2'],
      ['a:1', 'b:2'],
    ],
    ['a:1, b:2', ['a:1', 'b:2']],
    ['etcd://a:1, b', ['a:1', 'b:2379']],
    ['ETCDS://a:1,b/', ['a:1', 'b:443']],
  ])('%j are %j', (hosts, expected) => {
    expect(settle({ hosts }).hosts).toEqual(expected);
  });

  it('as a URL say whether TLS is on', () => {
    expect(settle({ hosts: 'etcd://a,b' }).tls).toBeNull();
    expect(settle({ hosts: 'etcds://a,b' }).tls).not.toBeNull();
    const withUser = failure(() => settle({ hosts: 'etcd://root:secret@a' }));
    expect(withUser.message).toBe('options.hosts: expected no user in the URL: give options.auth');
    const withPath = failure(() => settle({ hosts: 'etcd://a/prefix' }));
    expect(withPath.message).toBe('options.hosts: expected nothing after the hosts of the URL');
  });

  it('keep for policies the names that the program gave', () => {
    expect(settle({ hosts: ['http://a:1', 'b'] }).hostNames).toEqual(['http://a:1', 'b']);
  });

  it.each([
    ['none', { hosts: [] }],
    ['a mix of secure and insecure ones', { hosts: ['https://a:1', 'http://b:2'] }],
    ['a mix of secure ones and others', { hosts: ['a:1', 'https://b:2'] }],
  ])('%s fails as in etcd3', (_name, options) => {
    const known = failure(() => new Etcd3(options));
    const error = failure(() => settle(options));
    expect(error.message).toBe(known.message);
    expect(error).toBeInstanceOf(InvalidArgumentError);
    expect(error.code).toBe('ERR_INVALID_ARGUMENT');
  });

  it('may be mixed with credentials, as in etcd3', () => {
    const options = { hosts: ['https://a:1', 'http://b:2'], credentials: { rootCertificate: CA } };
    expect(() => new Etcd3(options)).not.toThrow();
    expect(settle(options).hosts).toEqual(['a:1', 'b:2']);
  });

  it.each([5, null, {}, [5], ['a:0'], ['a:70000'], ['a:b'], ['dns:///a:1'], ['http://user:secret@a:1'], ['a b']])(
    '%j is refused, and not shown',
    (hosts) => {
      const error = failure(() => settle({ hosts }));
      expect(error).toBeInstanceOf(InvalidArgumentError);
      expect(error.message).toMatch(/^options\.hosts(\[0\])?: expected /);
      expect(error.message).not.toMatch(/secret/);
    },
  );
});

describe('TLS', () => {
  it('is on for https, with the usual authorities', () => {
    expect(settle({ hosts: 'https://a:1' }).tls).toEqual({
      ca: null,
      cert: null,
      key: null,
      serverName: null,
      ...NO_FILES,
    });
    expect(settle({ hosts: ['https://a:1', 'HTTPS://b:1'] }).tls).not.toBeNull();
    expect(settle({ hosts: 'a:1' }).tls).toBeNull();
  });

  it('takes credentials as etcd3 does, whatever the hosts begin with', () => {
    const credentials = { rootCertificate: CA, privateKey: KEY, certChain: CA };
    expect(settle({ hosts: 'http://a:1', credentials }).tls).toEqual({
      ca: CA,
      cert: CA,
      key: KEY,
      serverName: null,
      ...NO_FILES,
    });
    expect(settle({ hosts: 'a:1', credentials: {} }).tls).toMatchObject({ ca: null });
  });

  it('takes the terms of Node.js, and text', () => {
    const tls = { ca: CA.toString(), cert: new Uint8Array(CA), key: KEY, serverName: 'etcd' };
    expect(settle({ hosts: 'a', tls }).tls).toEqual({ ca: CA, cert: CA, key: KEY, serverName: 'etcd', ...NO_FILES });
    expect(settle({ hosts: 'a', tls: true })).toMatchObject({ hosts: ['a:443'], tls: { ca: null } });
    expect(settle({ hosts: 'a', tls: false }).tls).toBeNull();
  });

  it('takes files, as the registry does', () => {
    const { certFile: caFile, keyFile } = certificates.ca;
    const files = { caFile, certFile: caFile, keyFile };
    expect(settle({ hosts: 'https://a', tls: files }).tls).toEqual({
      ...{ ca: CA, cert: CA, key: KEY, serverName: null },
      ...files,
    });
  });

  it.each([
    [{ tls: { caFile: '/nowhere' } }, "options.tls.caFile: can't read the file: ENOENT"],
    [{ tls: { caFile: 5 } }, 'options.tls.caFile: expected'],
    [{ tls: { ca: CA, caFile: '/nowhere' } }, 'options.tls.ca: given together with options.tls.caFile'],
    [{ tls: { certFile: certificates.ca.certFile } }, 'options.tls.key: expected with options.tls.cert'],
    [{ credentials: { rootCertificate: 'x' } }, 'options.credentials.rootCertificate: expected PEM'],
    [{ credentials: { rootCertificate: 5 } }, 'options.credentials.rootCertificate: expected a PEM string or Buffer'],
    [
      { credentials: { rootCertificate: KEY } },
      'options.credentials.rootCertificate: expected the PEM of a certificate',
    ],
    [{ credentials: { certChain: CA } }, 'options.credentials.privateKey: expected with options.credentials.certChain'],
    [
      { credentials: { privateKey: KEY } },
      'options.credentials.certChain: expected with options.credentials.privateKey',
    ],
    [{ credentials: CA }, 'options.credentials: expected an object, got Buffer'],
    [{ credentials: { rootCertificate: CA }, tls: true }, 'options.tls: given together with options.credentials'],
    [{ hosts: 'https://a', tls: false }, 'options.tls: contradicts the https:// of options.hosts'],
    [{ hosts: 'http://a', tls: true }, 'options.tls: contradicts the http:// of options.hosts'],
    [{ tls: 5 }, 'options.tls: expected true, false or an object, got number'],
  ])('%# is refused', (options, message) => {
    const error = failure(() => settle(options));
    expect(error).toBeInstanceOf(InvalidArgumentError);
    expect(error.message).toContain(message);
    expect(error.message).not.toContain('BEGIN PRIVATE');
  });
});

describe('grpcOptions', () => {
  it('with a meaning have it', () => {
    const grpcOptions = {
      'grpc.keepalive_time_ms': 20_000,
      'grpc.keepalive_timeout_ms': 3000,
      'grpc.keepalive_permit_without_calls': 1,
      'grpc.max_receive_message_length': 1000,
      'grpc.max_send_message_length': 2000,
      'grpc.ssl_target_name_override': 'etcd',
      'grpc.default_authority': 'other',
      'grpc.secondary_user_agent': 'b',
      'grpc.primary_user_agent': 'a',
    };
    expect(settle({ hosts: 'https://a', grpcOptions })).toMatchObject({
      keepAliveMs: 20_000,
      keepAliveTimeoutMs: 3000,
      keepAliveWhileIdle: true,
      maxMessageBytes: 1000,
      maxRequestBytes: 2000,
      authority: 'other',
      userAgent: 'a b',
      tls: { serverName: 'etcd' },
    });
  });

  it('without limit, and pings that servers refuse', () => {
    const of = (key: string, value: unknown) => settle({ grpcOptions: { [key]: value } });
    expect(of('grpc.max_receive_message_length', -1).maxMessageBytes).toBe(2 ** 31 - 1);
    expect(of('grpc.max_send_message_length', -1).maxRequestBytes).toBe(2 ** 31 - 1);
    expect(of('grpc.keepalive_time_ms', -1).keepAliveMs).toBe(2 ** 31 - 1);
    expect(of('grpc.keepalive_time_ms', 1000).keepAliveMs).toBe(5000);
    expect(of('grpc.max_receive_message_length', undefined).maxMessageBytes).toBe(64 * 1024 * 1024);
  });

  it('that tune the inside of grpc are accepted: all that grpc-js knows, but for these', () => {
    const refused = Object.keys(recognizedOptions).filter((key) => {
      try {
        settle({ grpcOptions: { [key]: /_agent|authority|override/.test(key) ? 'x' : 0 } });
        return false;
      } catch {
        return true;
      }
    });
    expect(refused).toEqual(['grpc.service_config']);
    expect(() => settle({ grpcOptions: { 'grpc.http2.max_ping_strikes': 3 } })).not.toThrow();
  });

  it.each([
    [{ 'grpc.keepalive_time': 5 }, 'options.grpcOptions["grpc.keepalive_time"]: unknown here'],
    [{ 'grpc.enable_http_proxy': 1 }, 'options.grpcOptions["grpc.enable_http_proxy"]: there is no support for a proxy'],
    [{ 'grpc.keepalive_time_ms': '5' }, 'options.grpcOptions["grpc.keepalive_time_ms"]: expected a number, got string'],
    [{ 'grpc.default_authority': 5 }, 'options.grpcOptions["grpc.default_authority"]: expected a string, got number'],
    [[], 'options.grpcOptions: expected an object, got array'],
    [{ __proto__: null, constructor: 1 }, 'options.grpcOptions["constructor"]: unknown here'],
  ])('%j is refused by name', (grpcOptions, message) => {
    expect(failure(() => settle({ grpcOptions })).message).toContain(message);
  });

  it('that say the same as another option are refused', () => {
    const options = { keepAliveMs: 9000, grpcOptions: { 'grpc.keepalive_time_ms': 9000 } };
    expect(failure(() => settle(options)).message).toMatch(/^options\.keepAliveMs: given together/);
  });
});

describe('the rest', () => {
  it('username and password are auth in the words of the registry', () => {
    expect(settle({ username: 'root', password: 'secret' }).auth).toEqual({ username: 'root', password: 'secret' });
    for (const [wrong, message] of [
      [{ username: 'root' }, 'options.password: expected with a username'],
      [{ password: 'secret' }, 'options.username: expected with a password'],
      [
        { password: 'secret', auth: { username: 'a', password: 'b' } },
        'options.password: given together with options.auth',
      ],
    ] as const) {
      expect(failure(() => settle(wrong)).message).toBe(message);
    }
  });

  it('auth needs both, and shows neither', () => {
    const auth = { username: 'root', password: 'secret' };
    expect(settle({ auth }).auth).toEqual({ ...auth, callOptions: undefined });
    for (const wrong of [{ username: 'root' }, { password: 'secret' }, { username: 'secret', password: 5 }, 'secret']) {
      const error = failure(() => settle({ auth: wrong }));
      expect(error).toBeInstanceOf(InvalidArgumentError);
      expect(error.message).toMatch(/^options\.auth(\.\w+)?: expected/);
      expect(error.message).not.toContain('secret');
    }
  });

  it('policies and defaults are judged by shape', () => {
    const faultHandling = { host: () => noop, global: retry(handleAll, {}), watchBackoff: new ExponentialBackoff() };
    expect(settleOptions({ hosts: 'a', faultHandling }).faultHandling).toEqual(faultHandling);
    const factory = () => ({});
    expect(settle({ defaultCallOptions: factory }).defaultCallOptions).toBe(factory);
    const wrong: [unknown, string][] = [
      [{ faultHandling: { host: noop } }, 'options.faultHandling.host: expected a function'],
      [{ faultHandling: { global: () => noop } }, 'options.faultHandling.global: expected a policy'],
      [{ faultHandling: { watchBackoff: 5 } }, 'options.faultHandling.watchBackoff: expected a backoff'],
      [{ defaultCallOptions: 5 }, 'options.defaultCallOptions: expected an object or a function, got number'],
      [{ defaultCallOptions: { timeoutMs: -1 } }, 'options.defaultCallOptions.timeoutMs: expected 0 (off) or a whole'],
      [{ defaultCallOptions: { deadline: 'soon' } }, 'options.defaultCallOptions.deadline: expected a Date'],
      [{ auth: { username: 'a', password: 'b', callOptions: 1 } }, 'options.auth.callOptions: expected an object'],
      [{ dialTimeout: 0 }, 'options.dialTimeout: expected a whole number from 1'],
      [{ timeoutMs: 1.5 }, 'options.timeoutMs: expected 0 (off) or a whole number'],
      [{ keepAliveMs: 10 }, 'options.keepAliveMs: expected a whole number from 5000'],
      ['a:1', 'options: expected an object, got string'],
    ];
    for (const [options, message] of wrong) expect(failure(() => settle(options)).message).toContain(message);
  });

  it('an unknown option is logged, since etcd3 passes over it', () => {
    const said: string[] = [];
    const logger = { warn: (message: string) => said.push(message) };
    settle({ logger, dialTimeOut: 5, retry: true, hosts: 'a' });
    expect(said).toEqual([
      'rollcall: options.dialTimeOut: unknown option, without effect; did you mean "dialTimeout"?',
      'rollcall: options.retry: unknown option, without effect',
    ]);
  });
});

describe('the time of a call', () => {
  const left = (options: unknown, fallbackMs = 60_000) => timeLeft(options as never, fallbackMs, 'options');

  it('is that of the client unless the call says otherwise; the earlier of deadline and timeoutMs counts', () => {
    expect(left(undefined)).toBe(60_000);
    expect(left({})).toBe(60_000);
    expect(left(undefined, 0)).toBeUndefined();
    expect(left({ timeoutMs: 5 })).toBe(5);
    expect(left({ timeoutMs: 0 })).toBeUndefined();
    expect(left({ deadline: Number.POSITIVE_INFINITY })).toBeUndefined();
    const near = (value: number | undefined, expected: number) => {
      expect(value).toBeGreaterThan(expected - 1000);
      expect(value).toBeLessThanOrEqual(expected);
    };
    near(left({ deadline: Date.now() + 90_000 }), 90_000);
    near(left({ deadline: new Date(Date.now() + 90_000) }), 90_000);
    near(left({ deadline: Date.now() + 90_000, timeoutMs: 100_000 }), 90_000);
    expect(left({ deadline: Date.now() + 90_000, timeoutMs: 5 })).toBe(5);
    expect(left({ deadline: new Date(0) })).toBeLessThan(0);
  });

  it('that makes no sense is refused', () => {
    for (const options of [
      { timeoutMs: '5' },
      { timeoutMs: -1 },
      { deadline: 'x' },
      { deadline: new Date(Number.NaN) },
    ]) {
      expect(failure(() => left(options))).toBeInstanceOf(InvalidArgumentError);
    }
  });
});
