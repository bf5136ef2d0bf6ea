// What the services of Nest and Midway are called, and how health is told to each version of Terminus. Without either.

import 'reflect-metadata';
import { createRequire } from 'node:module';
import { connect } from 'rollcall';
import { describe, expect, it } from 'vitest';
import { uniqueName, waitFor } from '../support/process.js';

const load = createRequire(import.meta.url);
const { Config, EtcdConfig, InjectEtcdHealth, InjectRegistryHealth } = load('../../dist/cjs/nest/decorators.js');
const { EtcdHealthIndicator, RegistryHealthIndicator } = load('../../dist/cjs/nest/shared/health.js');
const { RegistryService } = load('../../dist/cjs/nest/shared/registry-service.js');
const { RegistryService: MidwayService } = load('../../dist/cjs/midway/registry-service.js');

describe('the health of the registry', () => {
  /** Terminus 12, 11 and 10 by what their modules provide. */
  class HealthCheckService {}
  const indicatorService = (session: object) => {
    class HealthIndicatorService {
      check = () => session;
    }
    return [HealthIndicatorService, new HealthIndicatorService()] as const;
  };
  const modulesWith = (...providers: (readonly [unknown, object])[]) =>
    new Map([['terminus', { providers: new Map(providers.map(([token, instance]) => [token, { instance }])) }]]);
  const terminus = {
    12: modulesWith([HealthCheckService, new HealthCheckService()], indicatorService({ degraded() {} })),
    11: modulesWith([HealthCheckService, new HealthCheckService()], indicatorService({})),
    10: modulesWith([HealthCheckService, new HealthCheckService()]),
    none: new Map([['own', {}]]),
  };
  const state = (stale: string[], refused: string[] = []) => ({
    stale,
    refused,
    wanted: false,
    registersItself: false,
  });

  it.each([
    [12, 'degraded'],
    [11, 'down'],
    ['none', 'down'],
  ] as const)('of a stale service, for Terminus %s: %s', async (version, status) => {
    const told = await new RegistryHealthIndicator(state(['payments']), terminus[version]).isHealthy('registry');
    expect(told).toEqual({ registry: { status, stale: ['payments'] } });
  });

  it.each([12, 11, 10, 'none'] as const)('is up where nothing is wrong, for Terminus %s', async (version) => {
    const told = await new RegistryHealthIndicator(state([]), terminus[version]).isHealthy();
    expect(told).toEqual({ registry: { status: 'up' } });
  });

  it('of a service that is refused is down in each', async () => {
    const told = await new RegistryHealthIndicator(state(['a'], ['b']), terminus[12]).isHealthy();
    expect(told).toMatchObject({ registry: { status: 'down' } });
  });

  it('of etcd is not asked with its time under two names', async () => {
    const asked = new EtcdHealthIndicator({ ready: async () => {} }).isHealthy('etcd', {
      timeout: 500,
      timeoutMs: 1000,
    });
    await expect(asked).rejects.toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
      message: 'timeout: given together with timeoutMs, which it is another name of',
    });
  });

  it('is thrown for Terminus 10, as it knows an error of its own', async () => {
    const down = new RegistryHealthIndicator(state(['payments']), terminus[10]).isHealthy();
    await expect(down).rejects.toMatchObject({
      isHealthCheckError: true,
      causes: { registry: { status: 'down', stale: ['payments'] } },
    });
  });
});

describe('the names', () => {
  it('are those of the class, and of decorators that nobody else has', () => {
    expect(EtcdConfig).toBe(Config);
    class Health {}
    InjectRegistryHealth('eu')(Health, undefined, 0);
    InjectEtcdHealth()(Health, undefined, 1);
    const tokens = Reflect.getMetadata('self:paramtypes', Health) as { param: unknown }[];
    const { EtcdHealthIndicator } = load('../../dist/cjs/nest/shared/health.js');
    expect(tokens.map(({ param }) => param)).toEqual(
      expect.arrayContaining(['REGISTRY_SERVICE:eu:health', EtcdHealthIndicator]),
    );
  });

  it('of what a program does with its registry are the same in Nest and Midway', async () => {
    const registry = await connect(`memory://${uniqueName('names')}`);
    const nest = new RegistryService(registry, undefined, console);
    const midway = new MidwayService();
    const followed = new Set();
    Object.assign(midway, {
      instance: registry,
      factory: { self: undefined, followed, staleServices: () => [] },
      container: { get: () => ({ getLogger: () => undefined }) },
    });
    for (const service of [nest, midway]) {
      expect(service.client).toBe(registry);
      expect([service.self, service.stale, service.staleServices(), service.refused, service.registersItself]).toEqual([
        undefined,
        [],
        [],
        [],
        false,
      ]);
      const name = uniqueName('orders');
      const lists: unknown[] = [];
      const stop = service.onChange(name, (list: unknown) => lists.push(list));
      await service.register({ name, id: 'a' });
      await waitFor(() => JSON.stringify(lists.at(-1))?.includes('"a"'));
      stop();
      expect(await service.getService(name)).toHaveLength(1);
      expect(await service.services()).toContain(name);
      expect(service.watch(name)).toBeDefined();
      expect(service.watchServices()).toBeDefined();
      expect(await service.service(name).ready()).toBeDefined();
      expect(await service.ping()).toBeGreaterThanOrEqual(0);
      await service.ready();
      expect(Object.keys(service.metrics())).toEqual(Object.keys(registry.metrics()));
      for (const method of ['registerSelf', 'withdrawSelf', 'restoreSelf', 'deregisterSelf']) {
        expect(service[method], method).toBeTypeOf('function');
      }
    }
    await registry.close();
  });
});
