// Calls by name through an observer, by the built package: each fetch() with its tries, and the counters of each service.
import { connect, openTelemetry, type RegistryMetrics, roundRobin } from 'rollcall';
import { expect, test } from 'vitest';
import { uniqueName } from '../support/process.js';
import { httpServer, refusingPort } from './kit.js';

test('fetch() is told with its tries and its outcome, and counters are read by name', async (context) => {
  const told: object[] = [];
  let read = (): RegistryMetrics => expect.fail('not attached');
  const asked = new Map<string, () => unknown[]>();
  const observable = (name: string) => ({
    addCallback(callback: (result: { observe(value: number, attributes?: object): void }) => void) {
      asked.set(name, () => {
        const values: unknown[] = [];
        callback({ observe: (value, attributes) => void values.push([value, attributes]) });
        return values;
      });
    },
  });
  const telemetry = openTelemetry({
    meter: {
      createHistogram: () => ({ record() {} }),
      createObservableCounter: observable,
      createObservableGauge: observable,
    },
  });
  const registry = await connect({
    url: `memory://${uniqueName()}`,
    logger: false,
    observe: {
      begin({ backend, method, name }) {
        const ended = telemetry.begin({ backend, method, name });
        if (method !== 'fetch') return ended;
        return (error, end) => {
          ended?.(error, end);
          told.push({ backend, name, code: (error as { code?: string } | undefined)?.code, attempts: end.attempts });
        };
      },
      attach(client) {
        read = client.read;
        return telemetry.attach?.(client);
      },
    },
  });
  context.onTestFinished(() => registry.close());
  const server = await httpServer(context);
  for (const [n, port] of [await refusingPort(), server.port].entries()) {
    await registry.register({ name: 'orders', id: `i${n}`, endpoints: [`http://127.0.0.1:${port}`] });
  }
  const orders = registry.service('orders', { strategy: roundRobin() });
  // By turns: one goes to the server at once, one after the other instance has refused.
  for (const path of ['/1', '/2']) expect(await (await orders.fetch(path)).text()).toBe('ok');
  await expect(orders.fetch(7 as never)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
  const about = { backend: 'memory', name: 'orders' };
  expect(told.slice(0, 2)).toEqual(
    expect.arrayContaining([
      { ...about, code: undefined, attempts: 1 },
      { ...about, code: undefined, attempts: 2 },
    ]),
  );
  expect(told.slice(2)).toEqual([{ ...about, code: 'ERR_INVALID_ARGUMENT', attempts: 0 }]);
  expect(read().services).toEqual({ orders: orders.metrics() });
  expect(orders.metrics()).toMatchObject({ picks: 3, retries: 1, ejections: 1, inFlight: 0 });

  const attributes = { 'rollcall.backend': 'memory', 'rollcall.service': 'orders' };
  const services = ['picks', 'in_flight', 'ejections', 'retries', 'retry_budget'];
  expect(services.map((name) => asked.get(`rollcall.service.${name}`)?.())).toEqual([
    [[3, attributes]],
    [[0, attributes]],
    [[1, attributes]],
    [[1, attributes]],
    [[orders.metrics().budget, attributes]],
  ]);
  await registry.close();
  expect([...asked.values()].flatMap((ask) => ask())).toEqual([]);
});

test('an observer that throws costs no call by name', async (context) => {
  const boom = () => {
    throw new Error('boom');
  };
  const registry = await connect({
    url: `memory://${uniqueName()}`,
    logger: false,
    observe: { begin: () => boom, attach: boom },
  });
  context.onTestFinished(() => registry.close());
  const { port } = await httpServer(context);
  await registry.register({ name: 'orders', endpoints: [`http://127.0.0.1:${port}`] });
  expect((await registry.service('orders').fetch('/')).status).toBe(200);
});
