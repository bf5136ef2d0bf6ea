/** The options of a client: those of etcd3, checked as etcd3 does, and those of rollcall. */

import { Harmless } from '../../common/harmless.js';
import { type Host, hostOf } from '../../common/hosts.js';
import { type Log, type Logger, logOf } from '../../common/logger.js';
import { checkedPem } from '../../common/pem.js';
import {
  abortSignal,
  boolean,
  didYouMean,
  integer,
  invalid,
  isRecord,
  kindOf,
  MAX_MS,
  record,
  text,
} from '../../common/shape.js';
import type { NativeTlsOptions } from '../../native.js';
import { plainError } from '../check.js';
import type { CallOptions, CallOptionsFactory } from '../rpc/calls.js';
import type { FaultHandlingOptions } from './fault-handling.js';
import { settleGrpcOptions } from './grpc-options.js';
import type { CallObserver } from './observe.js';

/** A user of etcd. */
export interface AuthOptions {
  username: string;
  /** Exchanged for a token at the first call. It appears in no message and no log. */
  password: string;
  /**
   * For each exchange, over `defaultCallOptions`: its `deadline` and `timeoutMs` count, within the time of the call that
   * needs the token. An exchange that is not done by then is tried on the other members; then the call rejects with
   * `GRPCDeadlineExceededError`, and nothing of it was sent. A function is called on the JavaScript thread: while that is
   * blocked, no token is got.
   */
  callOptions?: CallOptionsFactory | undefined;
}

/** TLS, in the terms of Node.js: PEM, or the files that hold it, which are read anew for every later connection. */
export interface ClientTlsOptions {
  /** Who may sign the server's certificate. Default: the usual public authorities. */
  ca?: string | Uint8Array | undefined;
  /** The client's certificate. Needs a key. */
  cert?: string | Uint8Array | undefined;
  /** The client's key. Needs a certificate. */
  key?: string | Uint8Array | undefined;
  /** The file of `ca`. */
  caFile?: string | undefined;
  /** The file of `cert`. */
  certFile?: string | undefined;
  /** The file of `key`. */
  keyFile?: string | undefined;
  /** The name that the server's certificate must carry. Default: the host. */
  serverName?: string | undefined;
}

/** Options of a client. */
export interface IOptions {
  /**
   * The members: `host:port`, `http://host:port` or `https://host:port`, as a list or separated by commas; or all of them as
   * one URL, `etcd://host:port,host:port`, with `etcds` for TLS. Without a port: 443 with TLS, as in etcd3, else 2379. (The
   * registry takes 2379 in both cases.) Default `127.0.0.1:2379`.
   */
  hosts?: readonly string[] | string | undefined;
  /**
   * TLS with these, PEM each, whatever the hosts begin with. Default: TLS with the usual authorities for `https://`.
   */
  credentials?:
    | { rootCertificate: Buffer; privateKey?: Buffer | undefined; certChain?: Buffer | undefined }
    | undefined;
  /** TLS in other words than `credentials`; `true` is the usual authorities. Default: on for `https://`. */
  tls?: boolean | ClientTlsOptions | undefined;
  /** Default: no user. */
  auth?: AuthOptions | undefined;
  /** The user, as the options of the registry have it, in place of `auth`. Needs `password`. */
  username?: string | undefined;
  /** Needs `username`. */
  password?: string | undefined;
  /**
   * Channel options of grpc. With a meaning here: `grpc.keepalive_time_ms`, `grpc.keepalive_timeout_ms`,
   * `grpc.keepalive_permit_without_calls`, `grpc.max_receive_message_length`, `grpc.max_send_message_length`,
   * `grpc.ssl_target_name_override`, `grpc.default_authority`, `grpc.primary_user_agent`, `grpc.secondary_user_agent`.
   * Those that tune the inside of grpc-js are accepted without effect; any other is refused.
   */
  grpcOptions?: { [key: string]: unknown } | undefined;
  /** Options of every call, below those of the call itself. A function is asked once for each attempt. */
  defaultCallOptions?: CallOptionsFactory | undefined;
  /** Time to reach one endpoint, TLS included, in milliseconds. Others are not kept waiting. Default 30000. */
  dialTimeout?: number | undefined;
  /** Policies of the program in place of the built-in handling of faults. */
  faultHandling?: Partial<FaultHandlingOptions> | undefined;
  /**
   * Time for one call, retries included, in milliseconds; 0 for no limit. Maintenance that may take long has none.
   * Default 60000.
   */
  timeoutMs?: number | undefined;
  /** Milliseconds between two HTTP/2 pings. Default 10000, at least 5000: servers refuse more. */
  keepAliveMs?: number | undefined;
  /** How long a ping may stay unanswered before the connection is given up, in milliseconds. Default 5000. */
  keepAliveTimeoutMs?: number | undefined;
  /** The largest answer accepted, in bytes. Default 64 MiB. */
  maxMessageBytes?: number | undefined;
  /** How many calls may be under way; more wait for their turn. Default 4096. */
  maxInFlight?: number | undefined;
  /** Whether single reads of the same moment are sent as one transaction. Default false. */
  groupGets?: boolean | undefined;
  /** Is told of every call, for traces and measurements: see `openTelemetry()`. Default: nobody. */
  observe?: CallObserver | undefined;
  /** Where to log: `console`, pino, winston and their like; `false` for silence. Default: `console`, from `warn` on. */
  logger?: Logger | false | undefined;
}

/**
 * Options, checked and complete.
 *
 * @internal
 */
export interface SettledOptions {
  /** `host:port`, without scheme. */
  readonly hosts: readonly string[];
  /** The same as the program wrote them: what policies of hosts are asked for. */
  readonly hostNames: readonly string[];
  readonly tls: NativeTlsOptions | null;
  readonly auth: AuthOptions | null;
  readonly defaultCallOptions: CallOptionsFactory | undefined;
  readonly faultHandling: FaultHandlingOptions;
  readonly dialTimeoutMs: number;
  /** 0: no limit. */
  readonly timeoutMs: number;
  readonly keepAliveMs: number;
  readonly keepAliveTimeoutMs: number;
  readonly keepAliveWhileIdle: boolean;
  /** The largest answer. */
  readonly maxMessageBytes: number;
  /** The largest request. */
  readonly maxRequestBytes: number;
  readonly maxInFlight: number;
  readonly groupGets: boolean;
  /** What is asked for in place of the host; `null`: the host. */
  readonly authority: string | null;
  /** What stands before the client's own name; `null`: nothing. */
  readonly userAgent: string | null;
  readonly observe: CallObserver | undefined;
  readonly log: Log;
}

const KNOWN: readonly (keyof IOptions)[] = [
  'hosts',
  'credentials',
  'tls',
  'auth',
  'username',
  'password',
  'grpcOptions',
  'defaultCallOptions',
  'dialTimeout',
  'faultHandling',
  'timeoutMs',
  'keepAliveMs',
  'keepAliveTimeoutMs',
  'maxMessageBytes',
  'maxInFlight',
  'groupGets',
  'observe',
  'logger',
];

/**
 * Checks and completes the options of a client. Throws an `InvalidArgumentError` that names the option; for what etcd3
 * itself refuses, a plain `Error` with its text. No host and no secret is in a message. An option that nobody knows is
 * logged, not refused: etcd3 passes over it.
 *
 * @internal
 */
export function settleOptions(given: IOptions | undefined): SettledOptions {
  const options = given === undefined ? {} : record('options', given);
  const log = logOf('options.logger', options.logger);
  for (const key of Object.keys(options)) {
    if (KNOWN.includes(key as keyof IOptions) || options[key] === undefined) continue;
    log.write('warn', `options.${key}: unknown option, without effect${didYouMean(key, KNOWN)}`);
  }
  const channel = settleGrpcOptions(options.grpcOptions);
  for (const name of ['keepAliveMs', 'keepAliveTimeoutMs', 'maxMessageBytes'] as const) {
    if (options[name] !== undefined && channel[name] !== undefined) {
      throw invalid(`options.${name}`, 'given together with the option of grpc that means the same');
    }
  }
  const hostNames = listOf(options.hosts);
  const hosts = hostNames.map((host, index) => hostOf(host, `options.hosts[${index}]`));
  const tls = settleTls(options, hosts, channel.serverName);
  const { defaultCallOptions } = options;
  if (defaultCallOptions !== undefined) checkFactory('options.defaultCallOptions', defaultCallOptions);
  return {
    hosts: hosts.map(({ name, port = tls ? 443 : 2379 }) => `${name}:${port}`),
    hostNames,
    tls,
    auth: settleAuth(options),
    defaultCallOptions: defaultCallOptions as CallOptionsFactory | undefined,
    faultHandling: settleFaultHandling(options.faultHandling),
    dialTimeoutMs: integer('options.dialTimeout', options.dialTimeout, 30_000, { min: 1 }),
    timeoutMs: integer('options.timeoutMs', options.timeoutMs, 60_000, { min: 1, zeroIsOff: true }),
    keepAliveMs: channel.keepAliveMs ?? integer('options.keepAliveMs', options.keepAliveMs, 10_000, { min: 5000 }),
    keepAliveTimeoutMs:
      channel.keepAliveTimeoutMs ??
      integer('options.keepAliveTimeoutMs', options.keepAliveTimeoutMs, 5000, { min: 100 }),
    keepAliveWhileIdle: channel.keepAliveWhileIdle ?? false,
    maxMessageBytes:
      channel.maxMessageBytes ??
      integer('options.maxMessageBytes', options.maxMessageBytes, 64 * 1024 * 1024, { min: 64 * 1024 }),
    maxRequestBytes: channel.maxRequestBytes ?? MAX_MS,
    maxInFlight: integer('options.maxInFlight', options.maxInFlight, 4096, { min: 1, max: 1_000_000 }),
    groupGets: boolean('options.groupGets', options.groupGets, false),
    observe: settleObserver(options.observe, log),
    authority: channel.authority ?? null,
    userAgent: channel.userAgent ?? null,
    log,
  };
}

/** All members as one URL, as the registry takes them. */
const URL_OF_ALL = /^(etcds?):\/\/(.*?)\/?$/i;

function listOf(value: unknown): string[] {
  if (value === undefined) return ['127.0.0.1:2379'];
  const [, scheme = '', members] = (typeof value === 'string' ? URL_OF_ALL.exec(value.trim()) : null) ?? [];
  if (members !== undefined) {
    if (members.includes('@')) throw invalid('options.hosts', 'expected no user in the URL: give options.auth');
    if (/[/?#]/.test(members)) throw invalid('options.hosts', 'expected nothing after the hosts of the URL');
    const before = scheme.toLowerCase() === 'etcds' ? 'https://' : '';
    return listOf(members.split(',').map((member) => before + member.trim()));
  }
  const list = typeof value === 'string' ? value.split(',').filter((host) => host.trim() !== '') : value;
  if (!Array.isArray(list)) throw invalid('options.hosts', `expected a string or an array, got ${kindOf(value)}`);
  if (list.length === 0) throw plainError('Cannot construct an etcd client with no hosts specified');
  return list.map((host: unknown, index) => {
    if (typeof host !== 'string') throw invalid(`options.hosts[${index}]`, `expected a string, got ${kindOf(host)}`);
    return host.trim();
  });
}

/** TLS from `credentials`, from `tls`, or because the hosts say `https://`. */
function settleTls(
  options: Readonly<Record<string, unknown>>,
  hosts: readonly Host[],
  serverName: string | undefined,
): NativeTlsOptions | null {
  const { credentials, tls } = options;
  if (credentials !== undefined && credentials !== null) {
    if (tls !== undefined) throw invalid('options.tls', 'given together with options.credentials');
    const { rootCertificate, privateKey, certChain } = record('options.credentials', credentials);
    const path = 'options.credentials';
    return pair(
      [`${path}.rootCertificate`, rootCertificate],
      [`${path}.certChain`, certChain],
      [`${path}.privateKey`, privateKey],
      serverName,
    );
  }
  const secure = hosts.filter((host) => host.secure === true).length;
  if (secure > 0 && secure < hosts.length) {
    throw plainError('etcd3 cannot be configured with a mix of secure and insecure hosts');
  }
  if (tls !== undefined && typeof tls !== 'boolean' && !isRecord(tls)) {
    throw invalid('options.tls', `expected true, false or an object, got ${kindOf(tls)}`);
  }
  const plain = hosts.some((host) => host.secure === false);
  if (tls === false && secure > 0) throw invalid('options.tls', 'contradicts the https:// of options.hosts');
  if (tls && plain) throw invalid('options.tls', 'contradicts the http:// of options.hosts');
  if (!tls && secure === 0) return null;
  const given = isRecord(tls) ? tls : {};
  const { ca, cert, key, caFile, certFile, keyFile, serverName: name } = given as Record<string, unknown>;
  const own = text('options.tls.serverName', name);
  if (own !== undefined && serverName !== undefined) {
    throw invalid('options.tls.serverName', 'given together with grpc.ssl_target_name_override');
  }
  const path = 'options.tls';
  return pair(
    [`${path}.ca`, ca, caFile],
    [`${path}.cert`, cert, certFile],
    [`${path}.key`, key, keyFile],
    own ?? serverName,
  );
}

type Given = readonly [path: string, value: unknown, file?: unknown];

function pair(ca: Given, cert: Given, key: Given, serverName: string | undefined): NativeTlsOptions {
  const pems = {
    ...{ ca: pem('ca', ca), cert: pem('cert', cert), key: pem('key', key), serverName: serverName ?? null },
    ...{ caFile: fileOf(ca), certFile: fileOf(cert), keyFile: fileOf(key) },
  };
  if (pems.cert && !pems.key) throw invalid(key[0], `expected with ${cert[0]}`);
  if (pems.key && !pems.cert) throw invalid(cert[0], `expected with ${key[0]}`);
  return pems;
}

/** Absolute: the program may change its folder. */
function fileOf([path, , file]: Given): string | null {
  const given = text(`${path}File`, file);
  return given === undefined ? null : (require('node:path') as typeof import('node:path')).resolve(given);
}

function pem(name: 'ca' | 'cert' | 'key', given: Given): Buffer | null {
  const [path, value] = given;
  const file = fileOf(given);
  if (file !== null) {
    if (value !== undefined && value !== null) throw invalid(path, `given together with ${path}File`);
    const { readFileSync } = require('node:fs') as typeof import('node:fs');
    let bytes: Buffer;
    try {
      bytes = readFileSync(file);
    } catch (cause) {
      throw invalid(`${path}File`, `can't read the file: ${(cause as Error).message}`, cause);
    }
    return checkedPem(name, `${path}File`, bytes);
  }
  if (value === undefined || value === null) return null;
  if (typeof value === 'string') return checkedPem(name, path, Buffer.from(value));
  if (!ArrayBuffer.isView(value)) throw invalid(path, `expected a PEM string or Buffer, got ${kindOf(value)}`);
  return checkedPem(name, path, Buffer.from(value.buffer as ArrayBuffer, value.byteOffset, value.byteLength));
}

/** The user: `auth` of etcd3, or `username` and `password` as the registry has them. */
function settleAuth({
  auth: value,
  username: user,
  password: secret,
}: Readonly<Record<string, unknown>>): AuthOptions | null {
  if (user !== undefined || secret !== undefined) {
    if (value !== undefined && value !== null) {
      throw invalid(`options.${user === undefined ? 'password' : 'username'}`, 'given together with options.auth');
    }
    const name = text('options.username', user);
    const password = text('options.password', secret);
    if (name === undefined) throw invalid('options.username', 'expected with a password');
    if (password === undefined) throw invalid('options.password', 'expected with a username');
    return { username: name, password };
  }
  if (value === undefined || value === null) return null;
  const { username, password, callOptions } = record('options.auth', value);
  if (callOptions !== undefined) checkFactory('options.auth.callOptions', callOptions);
  const required = (name: string, given: unknown) => {
    const found = text(`options.auth.${name}`, given);
    if (found === undefined) throw invalid(`options.auth.${name}`, 'expected a string');
    return found;
  };
  return {
    username: required('username', username),
    password: required('password', password),
    callOptions: callOptions as CallOptionsFactory | undefined,
  };
}

function settleFaultHandling(value: unknown): FaultHandlingOptions {
  if (value === undefined || value === null) return {};
  const path = 'options.faultHandling';
  const { host, global, watchBackoff } = record(path, value);
  const has = (given: unknown, method: string) =>
    typeof (given as Record<string, unknown> | null | undefined)?.[method] === 'function';
  if (host !== undefined && typeof host !== 'function') {
    throw invalid(`${path}.host`, `expected a function that makes the policy of a host, got ${kindOf(host)}`);
  }
  if (global !== undefined && !has(global, 'execute')) {
    throw invalid(`${path}.global`, `expected a policy, which has a method execute, got ${kindOf(global)}`);
  }
  if (watchBackoff !== undefined && !has(watchBackoff, 'next')) {
    throw invalid(`${path}.watchBackoff`, `expected a backoff, which has a method next, got ${kindOf(watchBackoff)}`);
  }
  return { host, global, watchBackoff } as FaultHandlingOptions;
}

/** One that harms no call. */
function settleObserver(value: unknown, log: Log): CallObserver | undefined {
  if (value === undefined || value === null) return undefined;
  const observer = value as CallObserver;
  if (typeof observer.begin !== 'function') {
    throw invalid('options.observe', `expected an object with a method begin, got ${kindOf(value)}`);
  }
  const harmless = new Harmless('the observer of the etcd client', log);
  return {
    begin(call) {
      const ended = harmless.try(() => observer.begin(call));
      return typeof ended === 'function' ? (error) => harmless.try(() => ended(error)) : undefined;
    },
  };
}

function checkFactory(path: string, value: unknown): void {
  if (typeof value === 'function') return;
  if (!isRecord(value)) throw invalid(path, `expected an object or a function, got ${kindOf(value)}`);
  timeLeft(value, 0, path);
}

/**
 * How long a call may take from now, in milliseconds; `undefined` for no limit, 0 or less when its time is up. The
 * earlier of `deadline` and `timeoutMs` counts; `fallbackMs` (0: none) when neither is given. The signal is looked at as
 * well. Throws an `InvalidArgumentError` that begins with `path`.
 *
 * @internal
 */
export function timeLeft(options: CallOptions | undefined, fallbackMs: number, path: string): number | undefined {
  const { deadline, timeoutMs, signal } = options ?? {};
  abortSignal(`${path}.signal`, signal ?? undefined);
  if ((deadline === undefined || deadline === null) && timeoutMs === undefined) return fallbackMs || undefined;
  const limit = integer(`${path}.timeoutMs`, timeoutMs, 0, { min: 1, zeroIsOff: true }) || Number.POSITIVE_INFINITY;
  let until = Number.POSITIVE_INFINITY;
  if (deadline !== undefined && deadline !== null) {
    until = typeof deadline === 'number' ? deadline : dateOf(deadline);
    if (Number.isNaN(until)) throw invalid(`${path}.deadline`, 'expected a Date or milliseconds since 1970');
  }
  const left = Math.min(limit, Math.ceil(until - Date.now()));
  return left === Number.POSITIVE_INFINITY ? undefined : Math.min(left, MAX_MS);
}

/** By shape: fake timers bring dates of their own. */
function dateOf(value: unknown): number {
  const get = (value as Partial<Date>).getTime;
  return typeof get === 'function' ? Number(get.call(value)) : Number.NaN;
}
