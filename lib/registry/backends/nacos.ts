/** The Nacos backend: its options and its URL. */

import { hostList, hostOf } from '../../common/hosts.js';
import { choice, integer, invalid, kindOf, text } from '../../common/shape.js';
import { type Backend, type Bag, credentialsOf, noPath, userAndHosts } from '../backend.js';
import type { CommonOptions } from '../common-options.js';
import { settleTls, TLS, type TlsOptions } from '../tls.js';

/** Nacos servers, version 2 or 3, or r-nacos, by their gRPC API. */
export interface NacosOptions extends CommonOptions {
  backend: 'nacos';
  /**
   * How long the servers may be silent before a registration counts as lost, in milliseconds. Default 20000 here, after
   * which a server has given up a client that it does not hear. The record of a process that ends goes with its connection,
   * within a second or two.
   */
  ttlMs?: number | undefined;
  /**
   * The servers: `host` or `host:port`, as a list or separated by commas. Port 8848 unless given, which is that of HTTP; gRPC
   * is 1,000 above it. Default `127.0.0.1:8848`. Where one does not answer the next is taken.
   */
  hosts?: string | readonly string[] | undefined;
  /** The port of gRPC of every server, where it is not that of HTTP plus 1,000. */
  grpcPort?: number | undefined;
  /** The path of the HTTP API, by which a user logs in. Default `/nacos`. */
  contextPath?: string | undefined;
  /** The id of the namespace, not the name that the console shows. Default `public`. */
  namespace?: string | undefined;
  /** The group of all services. Default `DEFAULT_GROUP`. */
  group?: string | undefined;
  /** The cluster of what is registered; all clusters are read. Default `DEFAULT`. */
  cluster?: string | undefined;
  /**
   * How an instance is written. `kratos`: the endpoints of each of Kratos's schemes in a service of their own,
   * `{name}.{scheme}`; what lies under `{name}` is read as well. `plain`: all endpoints in the service `{name}`, as Java and
   * Node.js services do, and nothing else is read. Default `kratos`.
   */
  codec?: 'kratos' | 'plain' | undefined;
  /** The weight of an instance whose metadata has no `weight`: above 0, at most 10000. Default 100, as in Kratos. */
  weight?: number | undefined;
  /** Default: none. Needs `password`. */
  username?: string | undefined;
  /** Default: none. Needs `username`. */
  password?: string | undefined;
  /** Signs every request, as Alibaba Cloud's Nacos (MSE) wants it. Default: none. Needs `secretKey`; not with `username`. */
  accessKey?: string | undefined;
  /** The secret of `accessKey`. It is never sent. */
  secretKey?: string | undefined;
  /** The region, as `cn-hangzhou`, of whose key the secret is the root (signature version 4). Default: none. */
  regionId?: string | undefined;
  /** `true`, or the details: TLS on, for gRPC and HTTP. Default: off, and on with a URL of `nacoss://`. */
  tls?: boolean | TlsOptions | undefined;
}

/** @internal */
export const nacos: Backend<NacosOptions> = {
  options: {
    hosts: 'list',
    grpcPort: 'number',
    contextPath: 'text',
    namespace: 'text',
    group: 'text',
    cluster: 'text',
    codec: 'text',
    weight: 'number',
    username: 'text',
    password: 'text',
    accessKey: 'text',
    secretKey: 'text',
    regionId: 'text',
    tls: TLS,
  },

  ttlMs: 20_000,

  urls: ['nacos://host:port', 'nacoss://host:port'],

  fromUrl({ scheme, authority, path }) {
    noPath(path, 'the path of the HTTP API is options.contextPath');
    const options: Bag = scheme === 'nacoss' ? { tls: true } : {};
    return { ...options, ...userAndHosts(authority) };
  },

  async settle(options) {
    const tls = await settleTls(options.tls, undefined);
    const { grpcPort } = options;
    return {
      hosts: hostList(options.hosts, plainHost),
      grpcPort: grpcPort === undefined ? null : integer('options.grpcPort', grpcPort, 9848, { min: 1, max: 65_535 }),
      contextPath: text('options.contextPath', options.contextPath) ?? '/nacos',
      namespace: text('options.namespace', options.namespace) ?? 'public',
      group: text('options.group', options.group) ?? 'DEFAULT_GROUP',
      cluster: text('options.cluster', options.cluster) ?? 'DEFAULT',
      codec: choice('options.codec', options.codec, ['kratos', 'plain'], 'kratos'),
      weight: weightOf(options.weight),
      ...credentialsOf(options),
      ...accessKeyOf(options),
      tls,
    };
  },
};

function accessKeyOf(options: Bag): { accessKey: string | null; secretKey: string | null; regionId: string | null } {
  const accessKey = text('options.accessKey', options.accessKey) ?? null;
  const secretKey = text('options.secretKey', options.secretKey) ?? null;
  const regionId = text('options.regionId', options.regionId) ?? null;
  if (accessKey !== null && secretKey === null) throw invalid('options.secretKey', 'expected with an accessKey');
  if (secretKey !== null && accessKey === null) throw invalid('options.accessKey', 'expected with a secretKey');
  if (regionId !== null && accessKey === null) throw invalid('options.accessKey', 'expected with a regionId');
  return { accessKey, secretKey, regionId };
}

function weightOf(value: unknown): number {
  if (value === undefined) return 100;
  if (typeof value !== 'number' || !(value > 0 && value <= 10_000)) {
    const got = typeof value === 'number' ? value : kindOf(value);
    throw invalid('options.weight', `expected a number above 0 and at most 10000, got ${got}`);
  }
  return value;
}

function plainHost(text: string, path: string): string {
  const { name, port = 8848 } = hostOf(text, path, { expected: '"host:port"', plain: true });
  return `${name}:${port}`;
}
