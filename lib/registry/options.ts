/** The options of `connect()`: their types, their defaults, and the way from what was given to what the native side takes. */

import { readFile } from 'node:fs/promises';
import { constants } from 'node:os';
import type { NativeOptions } from '../native.js';
import { type Log, type Logger, logOf } from './logger.js';
import { boolean, choice, didYouMean, integer, invalid, isRecord, kindOf, onlyKnown, record, text } from './shape.js';

/** Options of every backend. */
export interface CommonOptions {
  /**
   * How long an instance outlives a process that died without a word, in milliseconds. What the server grants counts.
   * Default 15000, at least 1000.
   */
  ttlMs?: number;
  /** Time for the whole first contact, credentials included, in milliseconds. Default 10000. */
  connectTimeoutMs?: number;
  /** Time for one call, in milliseconds; most calls take their own. Default 10000. */
  timeoutMs?: number;
  /** `true`: `connect()` resolves without touching the network. Default false. */
  lazy?: boolean;
  /**
   * The stall guard: an instance is withdrawn when the JavaScript thread that registered it has not ticked for this
   * many milliseconds, and put back as soon as it ticks again. Default 30000, at least 100; 0 turns it off.
   */
  stallTimeoutMs?: number;
  /**
   * How long, in milliseconds, a watch keeps its list when a reconnection shows less than half of it, before it believes
   * it. Default 15000; 0 turns it off.
   */
  emptyGraceMs?: number;
  /**
   * The host to write instead of a wildcard (`0.0.0.0`, `[::]`) in endpoints. Default: the environment variable
   * `ROLLCALL_ADVERTISE_HOST`, else an address of this machine, chosen by Kratos's rule.
   */
  advertiseHost?: string;
  /**
   * On these signals, such as `SIGTERM`, the registry is closed; then the signal goes through. Default none. Not in
   * worker threads, which get no signals.
   */
  signals?: readonly `SIG${string}`[];
  /** Where log lines go; `false` is nowhere. Default: warnings and errors to `console`. */
  logger?: Logger | false;
}

/** The embedded registry of this process, shared by its worker threads: for development and tests. */
export interface MemoryOptions extends CommonOptions {
  backend: 'memory';
  /** Registries of different namespaces don't see each other. Default `default`. */
  namespace?: string;
}

/** An etcd cluster, version 3.4 or later. */
export interface EtcdOptions extends CommonOptions {
  backend: 'etcd';
  /**
   * The members: `host`, `host:port` or `http(s)://host:port`, as a list or separated by commas. Port 2379 unless given.
   * Default `127.0.0.1:2379`.
   */
  hosts?: string | readonly string[];
  /** What every key begins with. Default `/microservices`, as in Kratos. */
  prefix?: string;
  /** How an instance is written: `kratos` the whole of it, `metadata` the metadata alone. Default `kratos`. */
  codec?: 'kratos' | 'metadata';
  /** Default: none. Needs `password`. */
  username?: string;
  /** Default: none. Needs `username`. */
  password?: string;
  /** `true`, or the details: TLS on. Default: on when a host says `https://`. */
  tls?: boolean | TlsOptions;
  /** Milliseconds between two HTTP/2 pings. Default 10000, at least 5000: servers refuse more. */
  keepAliveMs?: number;
  /** How long a ping may stay unanswered before the connection is given up, in milliseconds. Default 5000. */
  keepAliveTimeoutMs?: number;
  /** The largest answer accepted, in bytes. Default 64 MiB. */
  maxMessageBytes?: number;
}

/** Certificates, as PEM or as the files that hold it. Files are read by `connect()`. */
export interface TlsOptions {
  /** Who may sign the server's certificate. Default: the usual public authorities. */
  ca?: string | Uint8Array;
  /** The client's certificate. Needs a key. */
  cert?: string | Uint8Array;
  /** The client's key. Needs a certificate. */
  key?: string | Uint8Array;
  /** The file of `ca`. */
  caFile?: string;
  /** The file of `cert`. */
  certFile?: string;
  /** The file of `key`. */
  keyFile?: string;
  /** The name that the server's certificate must carry. Default: the host. */
  serverName?: string;
}

/** The options of `connect()`, told apart by `backend`. */
export type RegistryOptions = MemoryOptions | EtcdOptions;

/**
 * Options that were checked and completed.
 *
 * @internal
 */
export interface Settings {
  readonly native: NativeOptions;
  readonly lazy: boolean;
  readonly signals: readonly NodeJS.Signals[];
  readonly log: Log;
}

/** Names and kinds of the options: the URL form parses by them. */
export type OptionKind = 'number' | 'boolean' | 'text' | 'list' | 'off' | 'group';

const COMMON = {
  ttlMs: 'number',
  connectTimeoutMs: 'number',
  timeoutMs: 'number',
  lazy: 'boolean',
  stallTimeoutMs: 'number',
  emptyGraceMs: 'number',
  advertiseHost: 'text',
  signals: 'list',
  logger: 'off',
} as const satisfies Record<keyof CommonOptions, OptionKind>;

const TLS = {
  ca: 'text',
  cert: 'text',
  key: 'text',
  caFile: 'text',
  certFile: 'text',
  keyFile: 'text',
  serverName: 'text',
} as const satisfies Record<keyof TlsOptions, OptionKind>;

export type Backend = RegistryOptions['backend'];

/** Every backend with its options. */
export const BACKENDS: Readonly<Record<Backend, Readonly<Record<string, OptionKind>>>> = {
  memory: { ...COMMON, namespace: 'text' } satisfies Record<Exclude<keyof MemoryOptions, 'backend'>, OptionKind>,
  etcd: {
    ...COMMON,
    hosts: 'list',
    prefix: 'text',
    codec: 'text',
    username: 'text',
    password: 'text',
    tls: 'group',
    keepAliveMs: 'number',
    keepAliveTimeoutMs: 'number',
    maxMessageBytes: 'number',
  } satisfies Record<Exclude<keyof EtcdOptions, 'backend'>, OptionKind>,
};

/** What `tls` may hold. */
export const TLS_OPTIONS: Readonly<Record<string, OptionKind>> = TLS;

/** The names of the backends, in the order in which messages list them. */
export const BACKEND_NAMES = Object.keys(BACKENDS) as readonly Backend[];

/** Why an option that `backend` doesn't have is refused. */
export function unknownOption(backend: Backend, key: string): string {
  const other = BACKEND_NAMES.find((name) => name !== backend && Object.hasOwn(BACKENDS[name], key));
  if (other) return `not an option of the ${backend} backend, only of ${other}`;
  return `unknown option${didYouMean(key, Object.keys(BACKENDS[backend]))}`;
}

/**
 * Checks and completes options; reads the files that they name.
 *
 * @internal
 */
export async function settle(given: unknown): Promise<Settings> {
  const options = record('options', given, 'a URL or an object with `backend`');
  const backend = choice('options.backend', options.backend, BACKEND_NAMES);
  onlyKnown('options', options, ['backend', ...Object.keys(BACKENDS[backend])], (key) => unknownOption(backend, key));

  const log = logOf('options.logger', options.logger);
  const advertiseHost = text('options.advertiseHost', options.advertiseHost) ?? process.env.ROLLCALL_ADVERTISE_HOST;
  return {
    native: {
      backend,
      ttlMs: integer('options.ttlMs', options.ttlMs, 15_000, { min: 1000 }),
      connectTimeoutMs: integer('options.connectTimeoutMs', options.connectTimeoutMs, 10_000, { min: 1 }),
      timeoutMs: integer('options.timeoutMs', options.timeoutMs, 10_000, { min: 1 }),
      stallTimeoutMs: stallTimeout(options.stallTimeoutMs, 30_000),
      emptyGraceMs: integer('options.emptyGraceMs', options.emptyGraceMs, 15_000, { min: 0 }),
      advertiseHost: advertiseHost || null,
      logLevel: log.level,
      memory: backend === 'memory' ? { namespace: text('options.namespace', options.namespace) ?? 'default' } : null,
      etcd: backend === 'etcd' ? await etcd(options) : null,
    },
    lazy: boolean('options.lazy', options.lazy, false),
    signals: signals(options.signals),
    log,
  };
}

/** `options.stallTimeoutMs`, of a registry or of one registration. */
export function stallTimeout(value: unknown, fallback: number): number {
  return integer('options.stallTimeoutMs', value, fallback, { min: 100, zeroIsOff: true });
}

/** `options.timeoutMs` of one call. */
export function callTimeout(value: unknown, fallback: number): number {
  return integer('options.timeoutMs', value, fallback, { min: 1 });
}

/** `options.drainMs` of a removal. */
export function drainTime(value: unknown): number {
  return integer('options.drainMs', value, 0, { min: 0 });
}

function signals(value: unknown): NodeJS.Signals[] {
  if (value === undefined) return [];
  if (!Array.isArray(value))
    throw invalid('options.signals', `expected an array of signal names, got ${kindOf(value)}`);
  const known = Object.keys(constants.signals);
  const names = value.map((name: unknown, index) => {
    const path = `options.signals[${index}]`;
    if (typeof name !== 'string') throw invalid(path, `expected a signal name such as "SIGTERM", got ${kindOf(name)}`);
    if (!known.includes(name)) throw invalid(path, `expected the name of a signal${didYouMean(name, known)}`);
    if (name === 'SIGKILL' || name === 'SIGSTOP') {
      throw invalid(path, `expected a signal that can be caught, not "${name}"`);
    }
    return name as NodeJS.Signals;
  });
  return [...new Set(names)];
}

async function etcd(options: Record<string, unknown>): Promise<NonNullable<NativeOptions['etcd']>> {
  const { secure, hosts } = hostsOf(options.hosts);
  const tls = await tlsOf(options.tls, secure);
  const username = text('options.username', options.username);
  const password = text('options.password', options.password);
  if (username !== undefined && password === undefined) throw invalid('options.password', 'expected with a username');
  if (password !== undefined && username === undefined) throw invalid('options.username', 'expected with a password');
  return {
    hosts: hosts.map((host) => `${tls ? 'https' : 'http'}://${host}`),
    prefix: text('options.prefix', options.prefix) ?? '/microservices',
    codec: choice('options.codec', options.codec, ['kratos', 'metadata'], 'kratos'),
    username: username ?? null,
    password: password ?? null,
    tls,
    keepAliveMs: integer('options.keepAliveMs', options.keepAliveMs, 10_000, { min: 5000 }),
    keepAliveTimeoutMs: integer('options.keepAliveTimeoutMs', options.keepAliveTimeoutMs, 5000, { min: 100 }),
    maxMessageBytes: integer('options.maxMessageBytes', options.maxMessageBytes, 64 * 1024 * 1024, {
      min: 64 * 1024,
    }),
  };
}

const HOST = /^(?:(https?):\/\/)?(\[[0-9a-f:.]+(?:%[\w.-]+)?\]|[^\s:/@?#[\]]+)(?::(\d{1,5}))?\/?$/i;

/** Messages don't show the host: a misplaced password would be in it. */
function hostsOf(value: unknown): { secure: boolean | undefined; hosts: string[] } {
  if (value === undefined) return { secure: undefined, hosts: ['127.0.0.1:2379'] };
  const list = typeof value === 'string' ? value.split(',') : value;
  if (!Array.isArray(list)) {
    throw invalid('options.hosts', `expected "host:port", or an array of them, got ${kindOf(value)}`);
  }
  if (list.length === 0) throw invalid('options.hosts', 'expected at least one "host:port"');
  const schemes = new Set<boolean>();
  const hosts = list.map((entry: unknown, index) => {
    const path = typeof value === 'string' && list.length === 1 ? 'options.hosts' : `options.hosts[${index}]`;
    if (typeof entry !== 'string') throw invalid(path, `expected "host:port", got ${kindOf(entry)}`);
    const [, scheme, host, port = '2379'] = HOST.exec(entry.trim()) ?? [];
    if (!host) throw invalid(path, 'expected "host:port" or "http(s)://host:port"');
    if (Number(port) < 1 || Number(port) > 65_535) throw invalid(path, 'expected a port from 1 to 65535');
    if (scheme) schemes.add(scheme.toLowerCase() === 'https');
    return `${host}:${Number(port)}`;
  });
  if (schemes.size > 1) throw invalid('options.hosts', 'expected all hosts with https:// or none');
  return { secure: [...schemes][0], hosts };
}

type NativeTls = NonNullable<NonNullable<NativeOptions['etcd']>['tls']>;

async function tlsOf(value: unknown, secure: boolean | undefined): Promise<NativeTls | null> {
  if (value !== undefined && typeof value !== 'boolean' && !isRecord(value)) {
    throw invalid('options.tls', `expected true, false or an object, got ${kindOf(value)}`);
  }
  const on = value === undefined ? secure === true : value !== false;
  if (secure !== undefined && secure !== on) {
    throw invalid('options.tls', `contradicts the ${secure ? 'https' : 'http'}:// of options.hosts`);
  }
  if (!on) return null;
  const tls = isRecord(value) ? value : {};
  onlyKnown('options.tls', tls, Object.keys(TLS));
  const [ca, cert, key] = await Promise.all([pem(tls, 'ca'), pem(tls, 'cert'), pem(tls, 'key')]);
  if (cert && !key) throw invalid('options.tls.key', 'expected with a client certificate');
  if (key && !cert) throw invalid('options.tls.cert', 'expected with a client key');
  return { ca, cert, key, serverName: text('options.tls.serverName', tls.serverName) ?? null };
}

/** The PEM of `ca`, `cert` or `key`: given as it is, or in a file. */
async function pem(tls: Record<string, unknown>, name: 'ca' | 'cert' | 'key'): Promise<Buffer | null> {
  const path = `options.tls.${name}`;
  const value = tls[name];
  const file = text(`${path}File`, tls[`${name}File`]);
  if (value !== undefined && file !== undefined) throw invalid(path, `given together with ${path}File`);
  if (file !== undefined) {
    const bytes = await readFile(file).catch((cause: NodeJS.ErrnoException) => {
      throw invalid(`${path}File`, `can't read the file: ${cause.message}`, cause);
    });
    return checkedPem(`${path}File`, bytes);
  }
  if (value === undefined) return null;
  if (typeof value === 'string') return checkedPem(path, Buffer.from(value));
  if (ArrayBuffer.isView(value)) {
    return checkedPem(path, Buffer.from(value.buffer as ArrayBuffer, value.byteOffset, value.byteLength));
  }
  throw invalid(path, `expected a PEM string or Buffer, got ${kindOf(value)}`);
}

function checkedPem(path: string, bytes: Buffer): Buffer {
  if (!bytes.includes('-----BEGIN ')) throw invalid(path, 'expected PEM, which holds a line "-----BEGIN …"');
  return bytes;
}
