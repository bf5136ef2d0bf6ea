/** The etcd backend: its options and its URL. */

import { choice, integer, invalid, kindOf, text } from '../../common/shape.js';
import { type Backend, type Bag, decoded, noPath } from '../backend.js';
import type { CommonOptions } from '../common-options.js';
import { settleTls, TLS, type TlsOptions } from '../tls.js';

/** An etcd cluster, version 3.4 or later. */
export interface EtcdOptions extends CommonOptions {
  backend: 'etcd';
  /**
   * The members: `host`, `host:port` or `http(s)://host:port`, as a list or separated by commas. Port 2379 unless given.
   * Default `127.0.0.1:2379`.
   */
  hosts?: string | readonly string[] | undefined;
  /** What every key begins with. Default `/microservices`, as in Kratos. */
  prefix?: string | undefined;
  /**
   * How an instance is written: `kratos` the whole of it, `metadata` the metadata alone, `json` the text of
   * `metadata['']` alone, which is any JSON. Default `kratos`.
   */
  codec?: 'kratos' | 'metadata' | 'json' | undefined;
  /** Default: none. Needs `password`. */
  username?: string | undefined;
  /** Default: none. Needs `username`. */
  password?: string | undefined;
  /** `true`, or the details: TLS on. Default: on when a host says `https://`. */
  tls?: boolean | TlsOptions | undefined;
  /** Milliseconds between two HTTP/2 pings. Default 10000, at least 5000: servers refuse more. */
  keepAliveMs?: number | undefined;
  /** How long a ping may stay unanswered before the connection is given up, in milliseconds. Default 5000. */
  keepAliveTimeoutMs?: number | undefined;
  /** The largest answer accepted, in bytes. Default 64 MiB. */
  maxMessageBytes?: number | undefined;
}

/** @internal */
export const etcd: Backend<EtcdOptions> = {
  options: {
    hosts: 'list',
    prefix: 'text',
    codec: 'text',
    username: 'text',
    password: 'text',
    tls: TLS,
    keepAliveMs: 'number',
    keepAliveTimeoutMs: 'number',
    maxMessageBytes: 'number',
  },

  urls: ['etcd://host:port', 'etcds://host:port'],

  fromUrl({ scheme, authority, path }) {
    noPath(path, 'write the prefix as "?prefix=/…"');
    const options: Bag = scheme === 'etcds' ? { tls: true } : {};
    const at = authority.lastIndexOf('@');
    if (at >= 0) {
      const user = authority.slice(0, at);
      if (user.includes(',')) {
        throw invalid(
          'options',
          'expected no "," before the "@" of the URL: write %2C in a user name or password, which stand once, before the first host',
        );
      }
      const colon = user.indexOf(':');
      if (colon < 0) throw invalid('options.password', 'expected "user:password" before the "@" of the URL');
      options.username = decoded('options.username', user.slice(0, colon));
      options.password = decoded('options.password', user.slice(colon + 1));
    }
    const hosts = authority.slice(at + 1);
    if (hosts !== '') options.hosts = hosts.split(',').map((host) => decoded('options.hosts', host));
    return options;
  },

  async settle(options) {
    const { secure, hosts } = hostsOf(options.hosts);
    const tls = await settleTls(options.tls, secure);
    const username = text('options.username', options.username);
    const password = text('options.password', options.password);
    if (username !== undefined && password === undefined) throw invalid('options.password', 'expected with a username');
    if (password !== undefined && username === undefined) throw invalid('options.username', 'expected with a password');
    return {
      hosts: hosts.map((host) => `${tls ? 'https' : 'http'}://${host}`),
      prefix: text('options.prefix', options.prefix) ?? '/microservices',
      codec: choice('options.codec', options.codec, ['kratos', 'metadata', 'json'], 'kratos'),
      username: username ?? null,
      password: password ?? null,
      tls,
      keepAliveMs: integer('options.keepAliveMs', options.keepAliveMs, 10_000, { min: 5000 }),
      keepAliveTimeoutMs: integer('options.keepAliveTimeoutMs', options.keepAliveTimeoutMs, 5000, { min: 100 }),
      maxMessageBytes: integer('options.maxMessageBytes', options.maxMessageBytes, 64 * 1024 * 1024, {
        min: 64 * 1024,
      }),
    };
  },
};

const HOST = /^(?:(https?):\/\/)?(\[[0-9a-f:.]+\]|[^\s:/@?#[\]]+)(?::(\d{1,5}))?\/?$/i;

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
    if (/\[[0-9a-f:.]*%/i.test(entry)) throw invalid(path, 'expected an IPv6 address without a zone (from "%" on)');
    const [, scheme, host, port = '2379'] = HOST.exec(entry.trim()) ?? [];
    if (!host) throw invalid(path, 'expected "host:port" or "http(s)://host:port"');
    if (Number(port) < 1 || Number(port) > 65_535) throw invalid(path, 'expected a port from 1 to 65535');
    if (scheme) schemes.add(scheme.toLowerCase() === 'https');
    return `${host}:${Number(port)}`;
  });
  if (schemes.size > 1) throw invalid('options.hosts', 'expected all hosts with https:// or none');
  return { secure: [...schemes][0], hosts };
}
