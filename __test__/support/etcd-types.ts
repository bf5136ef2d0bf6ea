// What a test can do with etcd servers, and how it starts them.
import type { CertificateOptions, Certificates } from './tls.js';

/** The two ends of what people run. The old one is Debian's or what ETCD_34 names, whatever 3.4 that is. */
export const ETCD_VERSIONS = ['3.7.3', '3.4.23'] as const;
export type EtcdVersion = (typeof ETCD_VERSIONS)[number];

export type EtcdPermission = 'read' | 'write' | 'readwrite';

/** `root`, or a permission on everything that begins with a prefix (the empty prefix: on every key). */
export type EtcdRole = 'root' | { readonly prefix: string; readonly permission?: EtcdPermission };

export interface EtcdUser {
  readonly name: string;
  readonly password: string;
  /** Reading and writing of everything by default. */
  readonly roles?: readonly EtcdRole[];
}

export interface EtcdOptions {
  /** 3.7.3 by default. */
  version?: EtcdVersion;
  members?: 1 | 3;
  /** Turns authentication on, with these users and a `root` (password `root`) unless it is among them. */
  users?: readonly EtcdUser[];
  /** Clients come by TLS, with a certificate of their own if `mutual`. Members talk to each other in plain text. */
  tls?: boolean | 'mutual';
  /** What its certificates are like. */
  certificates?: CertificateOptions;
  /** Seconds; 300 by default, as etcd has it. */
  authTokenTtl?: number;
  /** More command line of the server. */
  args?: readonly string[];
}

export interface EtcdMember {
  readonly name: string;
  /** host:port */
  readonly host: string;
  /** The one host, in the form that a client takes. */
  readonly hosts: readonly string[];
  /** http://host:port, or https */
  readonly httpUrl: string;
  readonly running: boolean;
  readonly frozen: boolean;
  /** The process, while it runs. */
  readonly pid: number | undefined;
  /** What it has logged, warnings and worse. */
  readonly log: string;
  isLeader(): Promise<boolean>;
  /** SIGKILL, and waits. */
  kill(): Promise<void>;
  /** SIGTERM, and waits. */
  stop(): Promise<void>;
  /** Same port, same data; waits until it is healthy. */
  start(): Promise<void>;
  /** SIGSTOP: connections stand, nothing is answered. */
  freeze(): void;
  thaw(): void;
}

export interface EtcdCluster {
  readonly version: EtcdVersion;
  /** etcd://host:port,host:port, or etcds with TLS. Without user and password. */
  readonly url: string;
  /** http://host:port of the first member, or https. */
  readonly httpUrl: string;
  readonly hosts: readonly string[];
  readonly members: readonly EtcdMember[];
  /** Of a cluster with TLS. */
  readonly certificates: Certificates | undefined;
  leader(): Promise<EtcdMember>;
  stop(): Promise<void>;
  kill(): Promise<void>;
  start(): Promise<void>;
  freeze(): void;
  thaw(): void;
  /** Stops, deletes all data and starts: a server restored from nothing, with the users it was started with. */
  wipe(): Promise<void>;
  /** Takes a snapshot; what it gives stops all members and starts them from that, with `etcdutl snapshot restore`. */
  backup(): Promise<() => Promise<void>>;
  /** etcdctl of the server's version, as root when authentication is on. */
  ctl(...args: string[]): Promise<string>;
  get(key: string): Promise<string | null>;
  /** With a lease in hexadecimal, as `leases()` gives it. */
  put(key: string, value: string, lease?: string): Promise<void>;
  del(key: string): Promise<boolean>;
  keys(prefix: string): Promise<string[]>;
  /** The lease of a key in hexadecimal; null when there is no key or no lease. */
  leaseOf(key: string): Promise<string | null>;
  /** Ids in hexadecimal. */
  leases(): Promise<string[]>;
  /** How many times a method of gRPC was called, by the members' own counts. */
  calls(method: string): Promise<number>;
  grant(ttlSeconds: number): Promise<string>;
  revoke(lease: string): Promise<void>;
  revision(): Promise<number>;
  /** Compacts everything up to now. */
  compact(): Promise<void>;
  /** Turns authentication on with these users, and a `root` unless it is among them. */
  enableAuth(users: readonly EtcdUser[]): Promise<void>;
  disableAuth(): Promise<void>;
  /** Any call of the JSON gateway, for example `call('/v3/kv/txn', {…})`. Keys and values are in base64. */
  call<T = Record<string, unknown>>(path: string, body: unknown): Promise<T>;
  /** Kills all members and deletes their data. */
  close(): Promise<void>;
}
