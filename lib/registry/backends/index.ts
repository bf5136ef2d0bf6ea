/** Every backend. A new one is a file beside this one, and its name in each of the lists here. */

import type { Backend } from '../backend.js';
import { type BilibiliOptions, bilibili } from './bilibili.js';
import { type ConsulOptions, consul } from './consul.js';
import { type EtcdOptions, etcd, type SharedEtcdOptions } from './etcd.js';
import { type KubernetesOptions, kubernetes } from './kubernetes.js';
import { type MemoryOptions, memory } from './memory.js';
import { type NacosOptions, nacos } from './nacos.js';
import { type PolarisOptions, polaris } from './polaris.js';
import { type ZookeeperOptions, zookeeper } from './zookeeper.js';

/** The options of `connect()`, told apart by `backend`. */
export type RegistryOptions =
  | MemoryOptions
  | EtcdOptions
  | SharedEtcdOptions
  | ConsulOptions
  | ZookeeperOptions
  | NacosOptions
  | KubernetesOptions
  | PolarisOptions
  | BilibiliOptions;

/** The kinds of registries. */
export type BackendName = NonNullable<RegistryOptions['backend']>;

/**
 * In the order in which messages list them.
 *
 * @internal
 */
export const BACKENDS: { readonly [Name in BackendName]: Backend<Extract<RegistryOptions, { backend: Name }>> } = {
  memory,
  etcd,
  consul,
  zookeeper,
  nacos,
  kubernetes,
  polaris,
  bilibili,
};

/** @internal */
export const BACKEND_NAMES = Object.keys(BACKENDS) as readonly BackendName[];
