/** The Consul backend: its options and its URL. */

import { type Host, hostList, hostOf, secureOf } from '../../common/hosts.js';
import { boolean, choice, integer, invalid, isRecord, kindOf, onlyKnown, text } from '../../common/shape.js';
import { type Backend, type Bag, decoded, noPath, splitAuthority } from '../backend.js';
import type { CommonOptions } from '../common-options.js';
import { settleTls, TLS, type TlsOptions } from '../tls.js';

/** Agents of a Consul datacenter, by their HTTP API. */
export interface ConsulOptions extends CommonOptions {
  backend: 'consul';
  /**
   * How long an instance outlives a process that died without a word, in milliseconds: the TTL of its check. Default
   * 20000 here, as in Kratos, at least 1000.
   */
  ttlMs?: number | undefined;
  /**
   * The agents, the preferred one first: `host`, `host:port`, `http(s)://host:port` or `unix:///path`, as a list or
   * separated by commas. Port 8500 unless given, 8501 with TLS. Default `127.0.0.1:8500`. Where one does not answer the
   * next is asked; a registration moves to it.
   */
  hosts?: string | readonly string[] | undefined;
  /** The ACL token. It needs `service:write` of what is registered, `service:read` and `node:read` of what is read. */
  token?: string | undefined;
  /** The datacenter to read. Default: the agent's own, in which every registration is. */
  datacenter?: string | undefined;
  /** Namespace, of Consul Enterprise. Default none. */
  namespace?: string | undefined;
  /** Admin partition, of Consul Enterprise. Default none. */
  partition?: string | undefined;
  /** `true`, or the details: TLS on. Default: on when a host says `https://`. */
  tls?: boolean | TlsOptions | undefined;
  /**
   * What the agent itself looks at, once for each endpoint: `tcp` whether it can connect; `http` and `grpc` the health of
   * endpoints of that protocol, and `tcp` of the others; `false` nothing. Default `tcp` (or `true`), as in Kratos. An
   * instance is visible until the agent has looked.
   */
  healthCheck?: boolean | 'tcp' | 'http' | 'grpc' | undefined;
  /** The path that an `http` check asks for. Default `/`. */
  healthCheckPath?: string | undefined;
  /** Milliseconds between two looks of the agent. Default 10000. */
  healthCheckIntervalMs?: number | undefined;
  /** How long the agent waits for an answer, in milliseconds. Default 5000. */
  healthCheckTimeoutMs?: number | undefined;
  /**
   * `false`: no TTL check. Then the record of a dead process stays until the agent's own checks remove it, and two owners
   * of one id can't be told apart. Default true.
   */
  heartbeat?: boolean | undefined;
  /** How long a check may be critical before Consul removes the service, in milliseconds. Default 600000, at least 60000. */
  deregisterCriticalAfterMs?: number | undefined;
  /** Tags of every registration, beside `version=…`. Default none. */
  tags?: string | readonly string[] | undefined;
  /** Weights of every registration, while its checks pass and while they warn. Default: Consul's, 1 and 1. */
  weights?: { passing?: number | undefined; warning?: number | undefined } | undefined;
  /** `false`: instances whose checks warn or fail are in the lists, too. Default true. */
  passingOnly?: boolean | undefined;
  /** How consistent reads are, in Consul's words. Default `default`, and then the first list of a watch is `consistent`. */
  consistency?: 'default' | 'stale' | 'consistent' | undefined;
  /** The node from which Consul measures distance, such as `_agent`. Lists are sorted by id all the same. Default none. */
  near?: string | undefined;
  /** A filter expression over what `/v1/health/service` gives, such as `"blue" in Service.Tags`. Default none. */
  filter?: string | undefined;
  /** How long Consul holds a query of a watch without a change, in milliseconds. Default 55000, at least 1000. */
  waitMs?: number | undefined;
  /**
   * The most connections that are held for watched names. In plain text each is of one name; names beyond share three and
   * are a little later. An agent takes 200 connections from one address, of all processes together: when it takes no more,
   * half of those held are given up, and taken back one every 15 seconds. With TLS each is of 200 names. Default 64, at
   * least 1.
   */
  maxWatchConnections?: number | undefined;
  /** The largest answer accepted, in bytes. Default 64 MiB. */
  maxMessageBytes?: number | undefined;
}

/** @internal */
export const consul: Backend<ConsulOptions> = {
  options: {
    hosts: 'list',
    token: 'text',
    datacenter: 'text',
    namespace: 'text',
    partition: 'text',
    tls: TLS,
    healthCheck: 'text',
    healthCheckPath: 'text',
    healthCheckIntervalMs: 'number',
    healthCheckTimeoutMs: 'number',
    heartbeat: 'boolean',
    deregisterCriticalAfterMs: 'number',
    tags: 'list',
    weights: { passing: 'number', warning: 'number' },
    passingOnly: 'boolean',
    consistency: 'text',
    near: 'text',
    filter: 'text',
    waitMs: 'number',
    maxWatchConnections: 'number',
    maxMessageBytes: 'number',
  },

  ttlMs: 20_000,

  urls: ['consul://host:port', 'consuls://host:port'],

  fromUrl({ scheme, authority, path }) {
    noPath(path, 'Consul has no prefix');
    const options: Bag = scheme === 'consuls' ? { tls: true } : {};
    const { user, hosts } = splitAuthority(authority);
    if (user !== undefined) {
      const token = user.replace(/^:/, '');
      if (/[:,]/.test(token)) throw invalid('options.token', 'expected one token before the "@" of the URL');
      options.token = decoded('options.token', token);
    }
    return { ...options, ...hosts };
  },

  async settle(options) {
    const hosts = hostList(options.hosts, hostOrSocket);
    const tls = await settleTls(options.tls, secureOf(hosts.filter((host) => typeof host !== 'string')));
    const token = text('options.token', options.token);
    if (token !== undefined && !/^[\x21-\x7e]+$/.test(token)) {
      throw invalid('options.token', 'expected printable ASCII without blanks');
    }
    const scheme = tls ? 'https' : 'http';
    return {
      hosts: hosts.map((host) => {
        if (typeof host === 'string') return host;
        const { name, port = tls ? 8501 : 8500 } = host;
        return `${scheme}://${name}:${port}`;
      }),
      token: token ?? null,
      datacenter: text('options.datacenter', options.datacenter) ?? null,
      namespace: text('options.namespace', options.namespace) ?? null,
      partition: text('options.partition', options.partition) ?? null,
      tls,
      healthCheck: healthCheck(options.healthCheck),
      healthCheckPath: text('options.healthCheckPath', options.healthCheckPath) ?? '/',
      healthCheckIntervalMs: integer('options.healthCheckIntervalMs', options.healthCheckIntervalMs, 10_000, {
        min: 1000,
      }),
      healthCheckTimeoutMs: integer('options.healthCheckTimeoutMs', options.healthCheckTimeoutMs, 5000, { min: 100 }),
      heartbeat: boolean('options.heartbeat', options.heartbeat, true),
      deregisterCriticalAfterMs: integer(
        'options.deregisterCriticalAfterMs',
        options.deregisterCriticalAfterMs,
        600_000,
        { min: 60_000 },
      ),
      tags: tagsOf(options.tags),
      weights: weightsOf(options.weights),
      passingOnly: boolean('options.passingOnly', options.passingOnly, true),
      consistency: choice('options.consistency', options.consistency, ['default', 'stale', 'consistent'], 'default'),
      near: text('options.near', options.near) ?? null,
      filter: text('options.filter', options.filter) ?? null,
      waitMs: integer('options.waitMs', options.waitMs, 55_000, { min: 1000, max: 600_000 }),
      maxWatchConnections: integer('options.maxWatchConnections', options.maxWatchConnections, 64, {
        min: 1,
        max: 10_000,
      }),
      maxMessageBytes: integer('options.maxMessageBytes', options.maxMessageBytes, 64 * 1024 * 1024, {
        min: 64 * 1024,
      }),
    };
  },
};

function healthCheck(value: unknown): 'off' | 'tcp' | 'http' | 'grpc' {
  if (value === undefined || value === true || value === 'true') return 'tcp';
  if (value === false || value === 'false') return 'off';
  if (typeof value !== 'string') {
    throw invalid('options.healthCheck', `expected "tcp", "http", "grpc", true or false, got ${kindOf(value)}`);
  }
  return choice('options.healthCheck', value, ['tcp', 'http', 'grpc'], 'tcp');
}

function tagsOf(value: unknown): string[] {
  if (value === undefined) return [];
  const list = typeof value === 'string' ? value.split(',') : value;
  if (!Array.isArray(list)) throw invalid('options.tags', `expected an array of strings, got ${kindOf(value)}`);
  return list.map((tag: unknown, index) => {
    const path = `options.tags[${index}]`;
    const given = text(path, tag);
    if (given === undefined) throw invalid(path, 'expected a string');
    if (given.startsWith('version=')) throw invalid(path, 'expected another tag: "version=" is of the instance');
    return given;
  });
}

function weightsOf(value: unknown): [number, number] | null {
  if (value === undefined) return null;
  if (!isRecord(value)) throw invalid('options.weights', `expected { passing, warning }, got ${kindOf(value)}`);
  onlyKnown('options.weights', value, ['passing', 'warning']);
  // Consul's own limits.
  const weight = (name: 'passing' | 'warning', min: number) =>
    integer(`options.weights.${name}`, value[name], 1, { min, max: 65_535 });
  return [weight('passing', 1), weight('warning', 0)];
}

/** A socket stays as it is written. */
function hostOrSocket(text: string, path: string): Host | string {
  if (/^unix:\/\/\/./.test(text)) return text;
  return hostOf(text, path, { expected: '"host:port", "http(s)://host:port" or "unix:///path"' });
}
