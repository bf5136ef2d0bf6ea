/** The etcd backend: its options and its URL. */

import { hostList, hostOf, secureOf } from '../../common/hosts.js';
import { lenderOf, type SharedClient } from '../../common/lending.js';
import { choice, integer, invalid, onlyKnown, record, text } from '../../common/shape.js';
import { type Backend, type Bag, credentialsOf, type NativeGroup, noPath, userAndHosts } from '../backend.js';
import type { CommonOptions } from '../common-options.js';
import { settleTls, TLS, type TlsOptions } from '../tls.js';

/** An etcd cluster, version 3.4 or later. */
export interface EtcdOptions extends CommonOptions {
  backend: 'etcd';
  /** The client whose connection it shares, as of `SharedEtcdOptions`. Default: a connection of its own. */
  client?: SharedClient | undefined;
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
  /** The user, as the options of `rollcall/etcd` have it, in place of `username` and `password`. */
  auth?: { readonly username: string; readonly password: string } | undefined;
  /** `true`, or the details: TLS on. Default: on when a host says `https://`. */
  tls?: boolean | TlsOptions | undefined;
  /** Milliseconds between two HTTP/2 pings. Default 10000, at least 5000: servers refuse more. */
  keepAliveMs?: number | undefined;
  /** How long a ping may stay unanswered before the connection is given up, in milliseconds. Default 5000. */
  keepAliveTimeoutMs?: number | undefined;
  /** The largest answer accepted, in bytes. Default 64 MiB. */
  maxMessageBytes?: number | undefined;
}

/** The cluster of an etcd client that is there, over the client's own connection. */
export interface SharedEtcdOptions extends CommonOptions {
  /** Not needed: the client says it. (`{ backend: 'etcd', client }` is the same.) */
  backend?: undefined;
  /**
   * The client: its connections, user, token, TLS and streams serve the registry too, so `hosts`, `auth`, `tls` and what else
   * is the client's own can't be given beside it. Its policies (`faultHandling`), `observe` and `groupGets` are for its own
   * calls alone. Closing the registry leaves the client open. Close the registry first: a client that is closed before takes
   * the registry with it, whose registrations are removed and tell `lost`.
   */
  client: SharedClient;
  /** As of `EtcdOptions`. */
  prefix?: string | undefined;
  /** As of `EtcdOptions`. */
  codec?: 'kratos' | 'metadata' | 'json' | undefined;
}

/** What a client that is shared has of its own. */
const OF_CLIENT = [
  'hosts',
  'username',
  'password',
  'auth',
  'tls',
  'keepAliveMs',
  'keepAliveTimeoutMs',
  'maxMessageBytes',
] as const;

/** @internal */
export const etcd: Backend<EtcdOptions> = {
  impliedBy: 'client',

  options: {
    client: 'object',
    hosts: 'list',
    prefix: 'text',
    codec: 'text',
    username: 'text',
    password: 'text',
    auth: { username: 'text', password: 'text' },
    tls: TLS,
    keepAliveMs: 'number',
    keepAliveTimeoutMs: 'number',
    maxMessageBytes: 'number',
  },

  urls: ['etcd://host:port', 'etcds://host:port'],

  fromUrl({ scheme, authority, path }) {
    noPath(path, 'write the prefix as "?prefix=/…"');
    return { ...(scheme === 'etcds' ? { tls: true } : {}), ...userAndHosts(authority) };
  },

  async settle(options) {
    const records = {
      prefix: text('options.prefix', options.prefix) ?? '/microservices',
      codec: choice('options.codec', options.codec, ['kratos', 'metadata', 'json'], 'kratos'),
    };
    if (options.client !== undefined) {
      const twice = OF_CLIENT.find((name) => options[name] !== undefined);
      if (twice)
        throw invalid(`options.${twice}`, 'given together with options.client, which has its own: leave it out');
      return { ...records, connection: null };
    }
    return { ...records, connection: await settleConnection(options) };
  },

  lender: ({ client }) => (client === undefined ? undefined : lenderOf('options.client', client)),
};

async function settleConnection(options: Bag): Promise<NonNullable<NativeGroup<'etcd'>['connection']>> {
  const hosts = hostList(options.hosts, hostOf);
  const tls = await settleTls(options.tls, secureOf(hosts));
  return {
    hosts: hosts.map(({ name, port = 2379 }) => `${tls ? 'https' : 'http'}://${name}:${port}`),
    ...credentialsOf(withAuth(options)),
    tls,
    keepAliveMs: integer('options.keepAliveMs', options.keepAliveMs, 10_000, { min: 5000 }),
    keepAliveTimeoutMs: integer('options.keepAliveTimeoutMs', options.keepAliveTimeoutMs, 5000, { min: 100 }),
    maxMessageBytes: integer('options.maxMessageBytes', options.maxMessageBytes, 64 * 1024 * 1024, {
      min: 64 * 1024,
    }),
  };
}

/** `auth` in the place of the user and the password. */
function withAuth(options: Bag): Bag {
  const { auth, username, password } = options;
  if (auth === undefined) return options;
  if (username !== undefined || password !== undefined) {
    throw invalid(`options.${username === undefined ? 'password' : 'username'}`, 'given together with options.auth');
  }
  const given = record('options.auth', auth);
  onlyKnown('options.auth', given, ['username', 'password']);
  const required = (name: 'username' | 'password') => {
    const value = text(`options.auth.${name}`, given[name]);
    if (value === undefined) throw invalid(`options.auth.${name}`, 'expected a string');
    return value;
  };
  return { username: required('username'), password: required('password') };
}
