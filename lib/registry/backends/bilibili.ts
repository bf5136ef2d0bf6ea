/** The backend of bilibili's discovery: its options and its URL. */

import { hostList, hostOf } from '../../common/hosts.js';
import { boolean, integer, invalid, text } from '../../common/shape.js';
import { type Backend, noPath, splitAuthority } from '../backend.js';
import type { CommonOptions } from '../common-options.js';

/** A cluster of [bilibili's discovery](https://github.com/bilibili/discovery), which has no users and no TLS. */
export interface BilibiliOptions extends CommonOptions {
  backend: 'bilibili';
  /**
   * For how long an instance counts as registered without renewal, in milliseconds; it is renewed three times as often.
   * Default 90000 here, the constant of the server: it evicts after 90 to 150 s, whatever is given here, or after an hour
   * while so many instances are not renewed that it takes that for a fault of its own. A shorter one makes renewals more
   * frequent, which ends that protection for everybody. At least 1000.
   */
  ttlMs?: number | undefined;
  /**
   * Nodes, the preferred one first: `host` or `host:port`, as a list or separated by commas. Port 7171 unless given. Default
   * `127.0.0.1:7171`. Where one does not answer the next is asked, then those that the cluster tells of.
   */
  hosts?: string | readonly string[] | undefined;
  /** The zone of this process: it registers there and reads of there. Default: the environment variable `ZONE`, else none, which is refused. */
  zone?: string | undefined;
  /** The environment, such as `prod`: one does not see the other. Default: the variable `DEPLOY_ENV`, else none, which is refused. */
  env?: string | undefined;
  /** The region, which is only written. Default: the variable `REGION`, else none. */
  region?: string | undefined;
  /** `true`: where the own zone has no instance, those of all others are read. Default false, as in Kratos. */
  zoneFallback?: boolean | undefined;
  /**
   * `false`: only `hosts` are asked, where the addresses that the nodes tell of themselves can't be reached from here. Nor
   * does `connect()` look then whether the cluster has nodes in `env` and `zone`. Default true.
   */
  discoverNodes?: boolean | undefined;
  /** The largest answer accepted, in bytes. Default 64 MiB. */
  maxMessageBytes?: number | undefined;
}

/** @internal */
export const bilibili: Backend<BilibiliOptions> = {
  options: {
    hosts: 'list',
    zone: 'text',
    env: 'text',
    region: 'text',
    zoneFallback: 'boolean',
    discoverNodes: 'boolean',
    maxMessageBytes: 'number',
  },

  ttlMs: 90_000,

  urls: ['bilibili://host:port', 'discovery://host:port'],

  fromUrl({ scheme, authority, path }) {
    if (scheme === 'discovery' && path !== '' && path !== '/') {
      throw invalid(
        'options',
        'expected a URL such as "bilibili://host:port"; "discovery:///name" is what a client of gRPC dials: see rollcall/grpc',
      );
    }
    noPath(path, 'discovery has no prefix');
    const { user, hosts } = splitAuthority(authority);
    if (user !== undefined) throw invalid('options', 'expected no "@" in the URL: discovery has no users');
    return hosts;
  },

  async settle(options) {
    return {
      hosts: hostList(options.hosts, (given, path) => {
        const { name, port = 7171 } = hostOf(given, path, { expected: '"host:port"', plain: true });
        return `${name}:${port}`;
      }),
      zone: needed('zone', options.zone, 'ZONE', 'sh001'),
      env: needed('env', options.env, 'DEPLOY_ENV', 'prod'),
      region: text('options.region', options.region) ?? process.env.REGION ?? '',
      zoneFallback: boolean('options.zoneFallback', options.zoneFallback, false),
      discoverNodes: boolean('options.discoverNodes', options.discoverNodes, true),
      maxMessageBytes: integer('options.maxMessageBytes', options.maxMessageBytes, 64 * 1024 * 1024, {
        min: 64 * 1024,
      }),
    };
  },
};

/** The servers take an empty one, and then nobody finds what is there. */
function needed(name: string, given: unknown, variable: string, example: string): string {
  const value = text(`options.${name}`, given) ?? process.env[variable];
  if (value) return value;
  throw invalid(
    `options.${name}`,
    `expected the ${name} that this process is in, such as "${example}", here or in the environment variable ${variable}`,
  );
}
