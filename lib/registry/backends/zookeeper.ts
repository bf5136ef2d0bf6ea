/** The ZooKeeper backend: its options and its URL. */

import { choice, invalid, kindOf, text } from '../../common/shape.js';
import { type Backend, type Bag, decoded } from '../backend.js';
import type { CommonOptions } from '../common-options.js';
import { settleTls, TLS, type TlsOptions } from '../tls.js';

/** A ZooKeeper ensemble, version 3.5 or later. `ttlMs` is the timeout of its session; what the server grants counts. */
export interface ZookeeperOptions extends CommonOptions {
  backend: 'zookeeper';
  /** The members: `host` or `host:port`, as a list or separated by commas. Port 2181 unless given. Default `127.0.0.1:2181`. */
  hosts?: string | readonly string[] | undefined;
  /**
   * A path that exists, below which everything of this client lies; in a URL, the path after the hosts. A missing one is
   * not made: it counts as a registry that can't be reached. Default: none.
   */
  chroot?: string | undefined;
  /** The parent of all names, below the chroot; made when something is registered. Default `/microservices`, as in Kratos. */
  prefix?: string | undefined;
  /** How an instance is written: `kratos` the whole of it, `metadata` the metadata alone. Default `kratos`. */
  codec?: 'kratos' | 'metadata' | undefined;
  /** Default: none. Needs `password`. */
  username?: string | undefined;
  /** Default: none. Needs `username`. */
  password?: string | undefined;
  /**
   * How the user is proved: `digest`, ZooKeeper's own scheme, or `sasl` (DIGEST-MD5). A wrong password of `digest` is
   * refused only where an access list asks for the right one. Default `digest`.
   */
  auth?: 'digest' | 'sasl' | undefined;
  /**
   * Who may do what with the nodes that this client makes, parents included: `anyone` everything; `creator` everything
   * to the user and nothing to others, as Kratos has it with a digest; `creator-anyone-reads` everything to the user and
   * reading to others. Default `creator` with a user, else `anyone`.
   */
  acl?: 'anyone' | 'creator' | 'creator-anyone-reads' | undefined;
  /** `true`, or the details: TLS on. Default: off, and on with a URL of `zookeepers://`. */
  tls?: boolean | TlsOptions | undefined;
}

/** @internal */
export const zookeeper: Backend<ZookeeperOptions> = {
  options: {
    hosts: 'list',
    chroot: 'text',
    prefix: 'text',
    codec: 'text',
    username: 'text',
    password: 'text',
    auth: 'text',
    acl: 'text',
    tls: TLS,
  },

  urls: ['zookeeper://host:port/chroot', 'zookeepers://host:port/chroot'],

  fromUrl({ scheme, authority, path }) {
    const options: Bag = scheme === 'zookeepers' ? { tls: true } : {};
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
    if (path !== '' && path !== '/') options.chroot = decoded('options.chroot', path);
    return options;
  },

  async settle(options) {
    const tls = await settleTls(options.tls, undefined);
    const username = text('options.username', options.username);
    const password = text('options.password', options.password);
    if (username !== undefined && password === undefined) throw invalid('options.password', 'expected with a username');
    if (password !== undefined && username === undefined) throw invalid('options.username', 'expected with a password');
    if (username?.includes(':'))
      throw invalid('options.username', 'expected no ":", which ends a user name of ZooKeeper');
    const known = username !== undefined;
    const acl = choice(
      'options.acl',
      options.acl,
      ['anyone', 'creator', 'creator-anyone-reads'],
      known ? 'creator' : 'anyone',
    );
    if (acl !== 'anyone' && !known) throw invalid('options.acl', `expected a username and password with "${acl}"`);
    return {
      hosts: hostsOf(options.hosts),
      chroot: path('options.chroot', options.chroot, ''),
      prefix: path('options.prefix', options.prefix, '/microservices'),
      codec: choice('options.codec', options.codec, ['kratos', 'metadata'], 'kratos'),
      username: username ?? null,
      password: password ?? null,
      auth: choice('options.auth', options.auth, ['digest', 'sasl'], 'digest'),
      acl,
      tls,
    };
  },
};

/** Core checks the characters; a path that begins with none of "/" would be a name. */
function path(option: string, value: unknown, fallback: string): string {
  const given = text(option, value);
  if (given !== undefined && !given.startsWith('/')) throw invalid(option, 'expected a path that begins with "/"');
  return given ?? fallback;
}

const HOST = /^(\[[0-9a-f:.]+\]|[^\s:/@?#[\]]+)(?::(\d{1,5}))?$/i;

/** Messages don't show the host: a misplaced password would be in it. */
function hostsOf(value: unknown): string[] {
  if (value === undefined) return ['127.0.0.1:2181'];
  const list = typeof value === 'string' ? value.split(',') : value;
  if (!Array.isArray(list)) {
    throw invalid('options.hosts', `expected "host:port", or an array of them, got ${kindOf(value)}`);
  }
  if (list.length === 0) throw invalid('options.hosts', 'expected at least one "host:port"');
  return list.map((entry: unknown, index) => {
    const at = typeof value === 'string' && list.length === 1 ? 'options.hosts' : `options.hosts[${index}]`;
    if (typeof entry !== 'string') throw invalid(at, `expected "host:port", got ${kindOf(entry)}`);
    const [, host, port = '2181'] = HOST.exec(entry.trim()) ?? [];
    if (!host) throw invalid(at, 'expected "host:port"; a chroot is given by options.chroot');
    if (Number(port) < 1 || Number(port) > 65_535) throw invalid(at, 'expected a port from 1 to 65535');
    return `${host}:${Number(port)}`;
  });
}
