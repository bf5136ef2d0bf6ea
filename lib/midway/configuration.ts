/** The component: what it does from the start of an application to its end. */

import { ApplicationContext, Configuration, type IMidwayContainer, Init } from '@midwayjs/core';
import { invalid } from '../common/shape.js';
import { refusedOf } from '../frameworks/follow.js';
import { explained } from '../frameworks/open.js';
import { BreakerService } from './breaker.js';
import type { RegistryConfig } from './config.js';
import { configOf, loggerOf } from './container.js';
import { CoordService, decorate, hasCoord, noCoord, notOpen } from './coord.js';
import { ETCDServiceFactory } from './etcd.js';
import { listeningEndpoints } from './listening.js';
import { OnceService } from './once.js';
import { RateLimitService } from './rate-limit.js';
import { isGiven, notGiven, type RecipeKey } from './recipes.js';
import { filterRefusals } from './refusal-filter.js';
import { RegistryServiceFactory } from './registry-factory.js';
import { serve, servedIn } from './served.js';
import { UidService } from './uid.js';

/** What `onHealthCheck` answers. */
interface Health {
  status: boolean;
  reason?: string;
}

/** A recipe of the configuration, open. */
interface Recipe {
  close(): unknown;
}

/** The services of the recipes, by the keys of their configurations. */
const RECIPES = { breakers: BreakerService, once: OnceService, rateLimit: RateLimitService, uid: UidService } as const;

/** etcd clients and the registry, as a component of Midway 3 and 4. */
@Configuration({
  namespace: 'rollcall',
  importConfigs: [{ default: { etcd: { default: {} }, registry: { default: {} } } }],
})
export class RollcallConfiguration {
  /** @internal */
  @ApplicationContext()
  container!: IMidwayContainer;

  #coord: CoordService | undefined;
  #etcd: ETCDServiceFactory | undefined;
  #registry: RegistryServiceFactory | undefined;
  /** By their keys, in the order in which they were opened. */
  readonly #recipes = new Map<RecipeKey, Recipe>();

  /**
   * Opens the store of configuration, before anything of the program is made.
   *
   * @internal
   */
  @Init()
  async init(): Promise<void> {
    const service = () => {
      if (this.#coord) return this.#coord;
      throw hasCoord(this.container) ? notOpen() : noCoord();
    };
    await decorate(this.container, service);
    serve(this.container, {
      coord: () => service().methods,
      breakers: () => this.#recipe('breakers', BreakerService).breakers,
    });
    await this.#openCoord(this.container);
  }

  /** What of the store goes into the configuration of the application. */
  async onConfigLoad(): Promise<object | undefined> {
    return this.#coord?.values();
  }

  async #openCoord(container: IMidwayContainer): Promise<void> {
    if (this.#coord || !hasCoord(container)) return;
    try {
      this.#coord = await container.getAsync(CoordService);
    } catch (error) {
      await this.onStop(); // nothing is left of a start that has failed
      throw error;
    }
  }

  /** Makes all clients, side by side: Midway 4 gives this 30 seconds. */
  async onReady(container: IMidwayContainer): Promise<void> {
    await this.#openCoord(container); // where the configuration has it only now
    this.#methodsIn(container);
    const [etcd, registry] = await Promise.allSettled([
      container.getAsync(ETCDServiceFactory),
      container.getAsync(RegistryServiceFactory),
    ]);
    this.#etcd = etcd.status === 'fulfilled' ? etcd.value : undefined;
    this.#registry = registry.status === 'fulfilled' ? registry.value : undefined;
    const failed = [etcd, registry].find(({ status }) => status === 'rejected');
    if (!failed) return await this.#openRecipes(container);
    await this.onStop(); // nothing is left of a start that has failed
    throw (failed as PromiseRejectedResult).reason;
  }

  async #openRecipes(container: IMidwayContainer): Promise<void> {
    try {
      for (const [key, type] of Object.entries(RECIPES) as [RecipeKey, new () => Recipe][]) {
        if (isGiven(container, key)) this.#recipes.set(key, await container.getAsync(type));
      }
    } catch (error) {
      await this.onStop(); // nothing is left of a start that has failed
      throw error;
    }
    if (this.#recipes.size > 0) filterRefusals(container);
  }

  #recipe<Service>(key: RecipeKey, _: new () => Service): Service {
    const recipe = this.#recipes.get(key);
    if (recipe) return recipe as Service;
    throw isGiven(this.container, key) ? invalid(key, 'it is not open yet') : notGiven(key);
  }

  /** Registers the application where its servers listen, and stands for the elections of its methods. */
  async onServerReady(container: IMidwayContainer): Promise<void> {
    const factory = this.#registry;
    if (factory) await this.#enter(container, factory);
    const methods = this.#methodsIn(container); // with those of classes that came meanwhile
    try {
      this.#coord?.started(
        methods.flatMap(({ leader }) => leader ?? []),
        methods.flatMap(({ tick }) => tick ?? []),
      );
    } catch (error) {
      throw explained('coord', error);
    }
    // Not before: a start that fails is to end the process.
    for (const registry of factory?.getClients().values() ?? []) registry.ref();
  }

  /** The methods that need something of the application. Fails where there are some and it is not there. */
  #methodsIn(container: IMidwayContainer): ReturnType<typeof servedIn> {
    const methods = servedIn(container);
    for (const { place, needs } of methods) {
      if (needs === 'coord' ? this.#coord : isGiven(container, needs)) continue;
      throw explained(place.path, needs === 'coord' ? noCoord() : notGiven(needs));
    }
    return methods;
  }

  async #enter(container: IMidwayContainer, { self }: RegistryServiceFactory): Promise<void> {
    const { register } = configOf<RegistryConfig>(container, 'registry');
    if (!self || !register) return;
    try {
      const endpoints = register.endpoints || register.when === 'bootstrap' ? [] : await listeningEndpoints(container);
      if (endpoints.length === 0 && !register.endpoints && register.when !== 'manual') {
        // So it is in tests, which call the application without a port.
        loggerOf(container).warn(
          `${register.name} is not registered: nothing of it listens; give koa.port or the like, or registry.register.endpoints`,
        );
        return;
      }
      await self.listening(endpoints);
      await self.started(endpoints.length > 0);
    } catch (error) {
      throw explained('registry.register', error);
    }
  }

  /** Well when etcd answers, the application is registered, and nothing that it follows is stale, nor any configuration stale or refused, nor any election. */
  async onHealthCheck(): Promise<Health> {
    const problems = (await this.#etcd?.problems()) ?? [];
    const self = this.#registry?.self;
    const state = self?.registration?.state;
    if (self?.wanted && state !== 'registered') problems.push(`registry: the application is ${state ?? 'waiting'}`);
    const stale = this.#registry?.staleServices() ?? [];
    if (stale.length > 0) problems.push(`registry: stale: ${stale.join(', ')}`);
    const refused = this.#registry ? refusedOf(this.#registry.followed) : [];
    if (refused.length > 0) problems.push(`registry: refused: ${refused.join(', ')}`);
    const { stale: old = [], rejected = [], refusedElections = [] } = this.#coord ?? {};
    if (old.length > 0) problems.push(`coord: stale: ${old.join(', ')}`);
    if (rejected.length > 0) problems.push(`coord: rejected: ${rejected.join(', ')}`);
    if (refusedElections.length > 0) problems.push(`coord: refused elections: ${refusedElections.join(', ')}`);
    return problems.length === 0 ? { status: true } : { status: false, reason: problems.join('; ') };
  }

  /** Takes the application out of the registry while its servers still answer, drains, lets another lead, then closes all clients. */
  async onStop(): Promise<void> {
    await Promise.all([this.#registry?.leave(), this.#coord?.methods.leave()]);
    for (const recipe of [...this.#recipes.values()].reverse()) await recipe.close();
    await this.#coord?.close();
    await this.#registry?.stop(); // before the clients whose connections its own may share
    await this.#etcd?.stop();
  }
}
