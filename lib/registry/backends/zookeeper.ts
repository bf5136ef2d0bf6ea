/** The ZooKeeper backend: its options and its URL. */

import { hostList, hostOf } from '../../common/hosts.js';
import { choice, invalid, text } from '../../common/shape.js';
import { type Backend, type Bag, credentialsOf, decoded, userAndHosts } from '../backend.js';
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
    const options: Bag = { ...(scheme === 'zookeepers' ? { tls: true } : {}), ...userAndHosts(authority) };
    if (path !== '' && path !== '/') options.chroot = decoded('options.chroot', path);
    return options;
  },

  async settle(options) {
    const tls = await settleTls(options.tls, undefined);
    const { username, password } = credentialsOf(options);
    if (username?.includes(':'))
      throw invalid('options.username', 'expected no ":", which ends a user name of ZooKeeper');
    const known = username !== null;
    const acl = choice(
      'options.acl',
      options.acl,
      ['anyone', 'creator', 'creator-anyone-reads'],
      known ? 'creator' : 'anyone',
    );
    if (acl !== 'anyone' && !known) throw invalid('options.acl', `expected a username and password with "${acl}"`);
    return {
      hosts: hostList(options.hosts, plainHost),
      chroot: path('options.chroot', options.chroot, ''),
      prefix: path('options.prefix', options.prefix, '/microservices'),
      codec: choice('options.codec', options.codec, ['kratos', 'metadata'], 'kratos'),
      username,
      password,
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

/** ZooKeeper has no URLs of its own. */
function plainHost(text: string, path: string): string {
  const expected = '"host:port"; a chroot is given by options.chroot';
  const { name, port = 2181 } = hostOf(text, path, { expected, plain: true });
  return `${name}:${port}`;
}
