/** etcd clients, under the names and with the configuration of `@midwayjs/etcd`. */

import {
  ApplicationContext,
  delegateTargetAllPrototypeMethod,
  delegateTargetProperties,
  type IMidwayContainer,
  Init,
  MidwayCommonError,
  Provide,
  Scope,
  ScopeEnum,
} from '@midwayjs/core';
import { kindOf } from '../common/shape.js';
import { Etcd3, type IOptions } from '../etcd/index.js';
import { explained, openEtcd } from '../frameworks/open.js';
import { ClientFactory, placeOf } from './client-factory.js';
import type { EtcdClientOptions, EtcdConfig } from './config.js';
import { configOf, healthBudgetMs } from './container.js';

/** All etcd clients of an application. */
@Provide()
@Scope(ScopeEnum.Singleton)
export class ETCDServiceFactory extends ClientFactory<Etcd3> {
  /** @internal */
  @ApplicationContext()
  container!: IMidwayContainer;

  /** @internal */
  @Init()
  async init(): Promise<void> {
    await this.start(configOf<EtcdConfig>(this.container, 'etcd'));
  }

  /** `etcd`. */
  getName(): string {
    return 'etcd';
  }

  /** @internal */
  byDefault(): Etcd3 {
    const client = this.defaultClient('etcd');
    if (client) return client;
    throw new MidwayCommonError(
      'etcd default instance not found: give etcd.client, such as { hosts: ["10.0.0.1:2379"] }, or say by ' +
        'etcd.defaultClientName which of etcd.clients it is',
    );
  }

  /**
   * Why clients are not well, one reason each.
   *
   * @internal
   */
  async problems(): Promise<string[]> {
    const timeoutMs = healthBudgetMs(this.container);
    const results = await Promise.all(
      [...this.getClients()].map(async ([name, client]) => {
        try {
          await client.ready?.({ timeoutMs });
          return [];
        } catch (error) {
          return [`etcd client ${name}: ${(error as Error).message}`];
        }
      }),
    );
    return results.flat();
  }

  protected override async createClient(config: EtcdClientOptions, name?: string): Promise<Etcd3> {
    const { where, log } = placeOf(this.container, 'etcd', name);
    if (typeof config !== 'object' || config === null) {
      throw new MidwayCommonError(`${where}: expected the options of a client, got ${kindOf(config)}`);
    }
    const { customClientClass, host, ...rest } = config;
    if (host !== undefined && rest.hosts !== undefined) log.warn(`${where}: host is without effect beside hosts`);
    const options = { ...rest, hosts: rest.hosts ?? host };
    if (!customClientClass) return await openEtcd(where, options as IOptions, log);
    try {
      const { connectTimeoutMs: _, lazy: __, ...own } = options;
      return new customClientClass(own) as Etcd3;
    } catch (error) {
      throw explained(where, error);
    }
  }

  protected override async destroyClient(client: Etcd3): Promise<void> {
    await client.close?.();
  }
}

/** The default etcd client: everything that `Etcd3` can do. */
@Provide()
@Scope(ScopeEnum.Singleton)
// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: its methods are put there below
export class ETCDService {
  /** @internal */
  @ApplicationContext()
  container!: IMidwayContainer;

  /** @internal */
  instance!: Etcd3;

  /** @internal */
  @Init()
  async init(): Promise<void> {
    const factory = await this.container.getAsync(ETCDServiceFactory);
    this.instance = factory.byDefault();
  }

  /** The same as `close()`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.instance.close();
  }
}

export interface ETCDService extends Etcd3 {}

delegateTargetAllPrototypeMethod(ETCDService, Etcd3);
// The rest of its public side: those of `Etcd3`, those of a namespace, and what classes of rollcall/etcd take of a client.
delegateTargetProperties(ETCDService, ['auth', 'cluster', 'maintenance', 'kv', 'leaseClient', 'watchClient', 'prefix']);
delegateTargetProperties(ETCDService, ['connection', 'keyspace']);
