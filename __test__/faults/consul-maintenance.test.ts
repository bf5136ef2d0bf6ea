// Consul's maintenance mode: an operator's switch takes an instance out of the lists, and nothing of ours undoes it.

import type { Registration, Registry } from 'rollcall';
import { describe, expect, test } from 'vitest';
import { hear, ids, sees, waitFor } from '../conformance/kit.js';
import type { ConsulAgent } from '../support/consul.js';
import { startConsul } from '../support/consul.js';
import { connected, type Finish } from './kit.js';

const ttlMs = 3000;
const instance = { name: 'orders', id: 'a', version: '1', endpoints: ['grpc://10.1.2.3:9000'] };

interface Started {
  readonly agent: ConsulAgent;
  readonly registry: Registry;
  readonly registration: Registration;
  switchOff(on?: boolean, what?: string): Promise<void>;
}

async function started(context: Finish, more: { passingOnly?: boolean } = {}): Promise<Started> {
  const consul = await startConsul({ persistent: true });
  context.onTestFinished(() => consul.close());
  const agent = consul.server;
  const options = { backend: 'consul', hosts: agent.host, healthCheck: false, ttlMs, logger: false, ...more } as const;
  const registry = await connected(context, options);
  const registration = await registry.register(instance);
  await registry.register({ name: 'payments', id: 'p' });
  return {
    agent,
    registry,
    registration,
    switchOff: (on = true, what = 'service/maintenance/a') =>
      agent.call('PUT', `/v1/agent/${what}?enable=${on}&reason=looked+at`),
  };
}

/** The switch is there, and whatever we have written stands beside it. */
async function isOff(agent: ConsulAgent, version: string): Promise<void> {
  const [entry, ...more] = await agent.entries('orders');
  expect(more).toEqual([]);
  expect(entry?.Service.Tags).toContain(`version=${version}`);
  const checks = entry?.Checks.map(({ CheckID, Status }) => [CheckID, Status]) ?? [];
  expect(Object.fromEntries(checks)).toMatchObject({
    '_service_maintenance:a': 'critical',
    'service:a': 'passing',
  });
}

describe.concurrent('a service in maintenance', () => {
  test('is listed nowhere, and again when the operator ends it', async (context) => {
    const { registry, registration, switchOff } = await started(context);
    const heard = hear(registration);
    const [list, names] = [registry.watch('orders'), registry.watchServices()];
    const shows = (orders: string[], services: string[]) =>
      waitFor(
        () =>
          JSON.stringify([ids(list.current ?? []), names.current?.map(({ name }) => name)]) ===
          JSON.stringify([orders, services]),
        { what: `[${orders.join()}] of [${services.join()}]` },
      );
    await shows(['a'], ['orders', 'payments']);
    await switchOff();
    await shows([], ['payments']);
    expect(await registry.getService('orders', { consistent: true })).toEqual([]);
    expect(await registry.services({ consistent: true })).toEqual(['payments']);
    await switchOff(false);
    await shows(['a'], ['orders', 'payments']);
    expect(heard.events).toEqual([]);
    expect(registration.state).toBe('registered');
    expect(registry.capabilities.ownSwitch).toBe(true);
  });

  test('stays in it over an update, a repair and a restart of the agent, until the operator ends it', async (context) => {
    const { agent, registry, registration, switchOff } = await started(context);
    const heard = hear(registration);
    await switchOff();
    await sees(registry, 'orders', []);

    await registration.update({ version: '2', endpoints: ['grpc://10.1.2.3:9001'] });
    await isOff(agent, '2');

    await agent.fail('a');
    await waitFor(() => heard.count('restored') === 1, {
      timeoutMs: 15_000,
      what: '"restored" after the failed check',
    });
    await isOff(agent, '2');
    expect(registration.state).toBe('registered');

    await agent.kill();
    await agent.start();
    await waitFor(
      () => agent.entries('orders').then(([entry]) => entry?.Checks.some(({ Status }) => Status === 'passing')),
      {
        timeoutMs: 15_000,
        what: 'the renewal after the restart',
      },
    );
    await registration.update({ version: '3' });
    await isOff(agent, '3');
    expect(await registry.getService('orders', { consistent: true })).toEqual([]);

    await switchOff(false);
    const [shown] = await sees(registry, 'orders', ['a']);
    expect(shown?.version).toBe('3');
  });

  test('withdrawn and restored by its owner it is in it still, and is listed nowhere in between', async (context) => {
    const { agent, registry, registration, switchOff } = await started(context);
    await switchOff();
    await sees(registry, 'orders', []);
    const lists: string[][] = [];
    const watcher = registry.watch('orders');
    void (async () => {
      for await (const list of watcher) lists.push(ids(list));
    })();
    for (const version of ['2', '3']) {
      await registration.withdraw();
      expect(await agent.entries('orders')).toEqual([]);
      await registration.update({ version });
      await registration.restore();
      await isOff(agent, version);
      expect(registration.state).toBe('registered');
    }
    const [entry] = await agent.entries('orders');
    const check = entry?.Checks.find(({ CheckID }) => CheckID === '_service_maintenance:a');
    expect(check?.Notes, 'the reason that the operator gave').toBe('looked at');
    await switchOff(false);
    await sees(registry, 'orders', ['a']);
    await waitFor(() => lists.at(-1)?.join() === 'a', { what: 'the list after it' });
    expect(lists).toEqual([[], ['a']]);
    // Over is over: what the operator has ended does not come back.
    await registration.withdraw();
    await registration.restore();
    await sees(registry, 'orders', ['a']);
  });

  test('deregistered by somebody it is put back in it', async (context) => {
    const { agent, registry, registration, switchOff } = await started(context);
    const heard = hear(registration);
    await switchOff();
    await registration.update({ version: '2' }); // which looks at what is there, as each renewal does
    await agent.deregister('a');
    expect(await agent.entries('orders')).toEqual([]);
    await waitFor(
      () =>
        isOff(agent, '2').then(
          () => true,
          () => false,
        ),
      {
        timeoutMs: 15_000,
        what: 'the repair, in maintenance',
      },
    );
    expect(heard.count('lost')).toBeGreaterThan(0);
    expect(await registry.getService('orders', { consistent: true })).toEqual([]);
  });

  test('without passingOnly it is out all the same, and a check that fails is not', async (context) => {
    const { agent, registry, switchOff } = await started(context, { passingOnly: false });
    const names = registry.watchServices();
    const shows = (services: string) =>
      waitFor(() => names.current?.map(({ name }) => name).join() === services, { what: services });
    await shows('orders,payments');
    await agent.fail('p');
    await switchOff();
    await shows('payments');
    await sees(registry, 'orders', []);
    await switchOff(false);
    await shows('orders,payments');
    await sees(registry, 'orders', ['a']);
  });

  test('registered while the node is in maintenance: it is there when that ends', async (context) => {
    const { registry, switchOff } = await started(context);
    await switchOff(true, 'maintenance');
    await sees(registry, 'orders', []);
    await registry.register({ name: 'orders', id: 'b' });
    expect(await registry.getService('orders', { consistent: true })).toEqual([]);
    await switchOff(false, 'maintenance');
    await sees(registry, 'orders', ['a', 'b']);
  });
});

test('a check that somebody left under the id is taken away by a registration, and one of more endpoints too', async (context) => {
  const consul = await startConsul();
  context.onTestFinished(() => consul.close());
  const { server: agent } = consul;
  const left = { Name: 'left behind', TTL: '1h', Status: 'critical' };
  await agent.register({ ID: 'a', Name: 'orders', Checks: [{ ...left, CheckID: 'left' }] });
  const registry = await connected(context, {
    backend: 'consul',
    hosts: agent.host,
    ttlMs,
    logger: false,
    healthCheckIntervalMs: 60_000,
  });
  const registration = await registry.register({
    ...instance,
    endpoints: ['grpc://127.0.0.1:1', 'http://127.0.0.1:2'],
  });
  const checks = async () => {
    const all = await agent.get<Record<string, unknown>>('/v1/agent/checks');
    return Object.keys(all).sort();
  };
  expect(await checks()).toEqual(['service:a', 'service:a:1', 'service:a:2']);
  await registration.update({ endpoints: [] });
  expect(await checks()).toEqual(['service:a']);
});
