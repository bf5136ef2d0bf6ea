/** The backend of Kubernetes: its options and its URL. */

import { boolean, choice, integer, invalid, text } from '../../common/shape.js';
import { type Backend, decoded } from '../backend.js';
import type { CommonOptions } from '../common-options.js';

/** A Kubernetes cluster, by its API: the labels of Kratos on pods, and the EndpointSlices of Services. */
export interface KubernetesOptions extends CommonOptions {
  backend: 'kubernetes';
  /**
   * The own pod is looked at three times as often as this, in milliseconds, and a registration that could not be looked at for
   * so long counts as lost. Default 30000 here. Nothing expires: a record goes with its pod, and one of a process that died
   * stays as long as the pod does. At least 1000.
   */
  ttlMs?: number | undefined;
  /**
   * The API server: `https://host:6443`, or `host:port`, which is the same. Default: that of `kubeconfig` where it or `context`
   * is given; else of the cluster that this process runs in; else of the file that the variable `KUBECONFIG` names, or of
   * `~/.kube/config`.
   */
  server?: string | undefined;
  /** A kubeconfig file. Excludes `server`. Default: see `server`. */
  kubeconfig?: string | undefined;
  /** The context of the kubeconfig. Excludes `server`. Default: its `current-context`. */
  context?: string | undefined;
  /** A bearer token. Default: that of the kubeconfig, or of the service account of the pod. */
  token?: string | undefined;
  /** A file with a bearer token, which is read anew once a minute and after each refusal. Excludes `token`. Default: as `token`. */
  tokenFile?: string | undefined;
  /** A PEM file of the authorities that may sign the server's certificate. Default: those of the kubeconfig or the pod, else the system's. */
  caFile?: string | undefined;
  /** The namespace; `*` reads all of them, and registers in that of the pod. Default: that of the pod or the context, else `default`. */
  namespace?: string | undefined;
  /** The own pod, which a registration labels. Default: the variable `POD_NAME`, else `HOSTNAME`. */
  pod?: string | undefined;
  /**
   * Where instances are read from. `pods`: pods that carry the labels of Kratos. `endpointslices`: the EndpointSlices of the
   * Service of that name. `auto`: for each name pods where there are any, else slices; it needs the right to read both, and
   * warns where it has one only. Registering is by labels in each case. Default `auto`.
   */
  source?: 'auto' | 'pods' | 'endpointslices' | undefined;
  /** A label selector that pods or slices must match too, such as `team=a,tier!=test`. Default: none. */
  selector?: string | undefined;
  /** `true`: pods and endpoints that are not ready are listed too. Default false. */
  notReady?: boolean | undefined;
  /** `true`: endpoints that are about to end, but still serve, are listed too. Default false. */
  terminating?: boolean | undefined;
  /** Which address of a dual-stack pod is listed, where it has both. Default `ipv4`. */
  ipFamily?: 'ipv4' | 'ipv6' | undefined;
  /** Only the port of this name, of EndpointSlices. Default: all. */
  portName?: string | undefined;
  /**
   * How long one watch lasts, in milliseconds, in whole seconds: the next one follows without a gap. A watch that says nothing
   * for 5 s longer is given up, so a server that hangs is noticed after that. Default 30000, at least 1000, at most 600000.
   */
  watchTimeoutMs?: number | undefined;
  /** The largest answer accepted, in bytes; lists are read in pages. Default 64 MiB. */
  maxMessageBytes?: number | undefined;
}

/** @internal */
export const kubernetes: Backend<KubernetesOptions> = {
  options: {
    server: 'text',
    kubeconfig: 'text',
    context: 'text',
    token: 'text',
    tokenFile: 'text',
    caFile: 'text',
    namespace: 'text',
    pod: 'text',
    source: 'text',
    selector: 'text',
    notReady: 'boolean',
    terminating: 'boolean',
    ipFamily: 'text',
    portName: 'text',
    watchTimeoutMs: 'number',
    maxMessageBytes: 'number',
  },

  ttlMs: 30_000,

  urls: ['kubernetes://host:port'],

  fromUrl({ authority, path }) {
    if (authority === '') {
      if (path === '' || path === '/') return {};
      throw invalid(
        'options',
        'expected a host before the path of the URL, or neither: "kubernetes://" is the cluster around',
      );
    }
    if (authority.includes('@')) {
      throw invalid('options', 'expected no "@" in the URL: give tokenFile, or a kubeconfig');
    }
    if (authority.includes(',')) {
      throw invalid('options', 'expected one host in the URL: the API server of a cluster has one address');
    }
    return { server: `https://${decoded('options.server', authority)}${path === '/' ? '' : path}` };
  },

  async settle(options) {
    const optional = (name: string) => text(`options.${name}`, options[name]) || null;
    const server = optional('server');
    const kubeconfig = optional('kubeconfig');
    const context = optional('context');
    const token = optional('token');
    const tokenFile = optional('tokenFile');
    if (server !== null && kubeconfig !== null) throw invalid('options.kubeconfig', 'expected without a server');
    if (server !== null && context !== null) throw invalid('options.context', 'expected without a server');
    if (token !== null && tokenFile !== null) throw invalid('options.tokenFile', 'expected without a token');
    return {
      server,
      kubeconfig,
      context,
      token,
      tokenFile,
      caFile: optional('caFile'),
      namespace: optional('namespace'),
      pod: optional('pod') ?? (process.env.POD_NAME || process.env.HOSTNAME || null),
      source: choice('options.source', options.source, ['auto', 'pods', 'endpointslices'], 'auto'),
      selector: optional('selector'),
      notReady: boolean('options.notReady', options.notReady, false),
      terminating: boolean('options.terminating', options.terminating, false),
      ipFamily: choice('options.ipFamily', options.ipFamily, ['ipv4', 'ipv6'], 'ipv4'),
      portName: optional('portName'),
      watchTimeoutMs: integer('options.watchTimeoutMs', options.watchTimeoutMs, 30_000, { min: 1000, max: 600_000 }),
      maxMessageBytes: integer('options.maxMessageBytes', options.maxMessageBytes, 64 * 1024 * 1024, {
        min: 64 * 1024,
      }),
    };
  },
};
