/** The Polaris backend: its options and its URL. */

import { hostList, hostOf } from '../../common/hosts.js';
import { choice, integer, invalid, text } from '../../common/shape.js';
import { type Backend, type Bag, decoded, noPath, splitAuthority } from '../backend.js';
import type { CommonOptions } from '../common-options.js';
import { settleTls, TLS, type TlsOptions } from '../tls.js';

/** A [Polaris](https://github.com/polarismesh/polaris) server or cluster, by its gRPC API. */
export interface PolarisOptions extends CommonOptions {
  backend: 'polaris';
  /**
   * After how long without a heartbeat the server may begin to take an instance for unhealthy, in milliseconds: it does so
   * within three to six times that, and its record stays. Heartbeats are sent twice as often. Polaris counts whole seconds,
   * so it is rounded up to one. 1000 to 60000; default 5000 here. Give 3000 or more: with less a machine that is busy for a
   * second or two is enough for `lost`, which is told when no heartbeat was answered for `ttlMs`.
   */
  ttlMs?: number | undefined;
  /**
   * The servers: `host` or `host:port`, as a list or separated by commas. Port 8091 unless given, which is that of gRPC.
   * Default `127.0.0.1:8091`. Where one does not answer the next is taken.
   */
  hosts?: string | readonly string[] | undefined;
  /** The namespace of all services: 1 to 128 letters, digits and `-./:_`. The server makes one that it does not know. Default `default`. */
  namespace?: string | undefined;
  /** The token of a user of Polaris. Default: none, for a server whose access control is off. */
  token?: string | undefined;
  /**
   * How an instance is written; one layout does not see what the other writes. `polaris`: as Go Kratos's package
   * `contrib/polaris` does, all endpoints in the service `{name}`. `registry`: as `contrib/registry/polaris` does, those of
   * each of Kratos's schemes in the service `{name}{scheme}`. Default `polaris`.
   */
  layout?: 'polaris' | 'registry' | undefined;
  /** The weight of an instance whose metadata has no `weight`: a whole number of 0 to 10000. Default 100. */
  weight?: number | undefined;
  /** `true`, or the details: TLS on. Default: off, and on with a URL of `polariss://`. */
  tls?: boolean | TlsOptions | undefined;
}

/** @internal */
export const polaris: Backend<PolarisOptions> = {
  options: {
    hosts: 'list',
    namespace: 'text',
    token: 'text',
    layout: 'text',
    weight: 'number',
    tls: TLS,
  },

  ttlMs: 5000,

  urls: ['polaris://host:port', 'polariss://host:port'],

  fromUrl({ scheme, authority, path }) {
    noPath(path, 'a namespace is options.namespace');
    const options: Bag = scheme === 'polariss' ? { tls: true } : {};
    const { user, hosts } = splitAuthority(authority);
    if (user === undefined) return { ...options, ...hosts };
    if (/[:,]/.test(user)) {
      throw invalid(
        'options.token',
        'expected a token alone before the "@" of the URL: write %3A for ":" and %2C for ","',
      );
    }
    return { ...options, token: decoded('options.token', user), ...hosts };
  },

  async settle(options) {
    const tls = await settleTls(options.tls, undefined);
    return {
      hosts: hostList(options.hosts, (given, path) => {
        const { name, port = 8091 } = hostOf(given, path, { expected: '"host:port"', plain: true });
        return `${name}:${port}`;
      }),
      namespace: text('options.namespace', options.namespace) ?? 'default',
      token: text('options.token', options.token) ?? null,
      layout: choice('options.layout', options.layout, ['polaris', 'registry'], 'polaris'),
      weight: integer('options.weight', options.weight, 100, { min: 0, max: 10_000 }),
      tls,
    };
  },
};
