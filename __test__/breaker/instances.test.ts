// A breaker for each instance of a service, over a registry in memory.
import { connect, type Registry, roundRobin } from 'rollcall';
import { BreakerOpenError, createBreakers, type Policy } from 'rollcall/breaker';
import { expect, it, onTestFinished } from 'vitest';
import { changing } from '../support/changing.js';
import { uniqueName } from '../support/process.js';

const MINUTE: Policy = { failureThreshold: 2, openStateTimeout: '1m' };

async function orders(count: number) {
  const registry: Registry = await connect({ backend: 'memory', namespace: uniqueName('breakers'), logger: false });
  onTestFinished(() => registry.close());
  for (let n = 0; n < count; n++) {
    await registry.register({ id: `orders-${n}`, name: 'orders', endpoints: [`http://127.0.0.1:${9000 + n}`] });
  }
  const service = registry.service('orders', { outlier: false, strategy: roundRobin() });
  await service.ready();
  return service;
}

it('passes over an instance whose breaker is open, and calls it again when its policy says so', async () => {
  const ref = changing<Record<string, Policy>>({ orders: MINUTE });
  const breakers = createBreakers({ policies: ref, logger: false });
  const instances = breakers.instancesOf(await orders(3));
  const picks = () =>
    Array.from({ length: 30 }, () => {
      const { instance, done } = instances.pick();
      done();
      return instance.id;
    });
  expect(new Set(picks()).size).toBe(3);
  for (let failures = 0; failures < 2; ) {
    const { instance, done } = instances.pick();
    if (instance.id !== 'orders-1') done();
    else done({ failed: failures++ < 2 });
  }
  expect(breakers.get('orders/orders-1').state).toBe('open');
  expect(new Set(picks())).toEqual(new Set(['orders-0', 'orders-2']));
  // The switch of an operator, for one instance and then for all.
  ref.set({ orders: MINUTE, 'orders/orders-1': { force: 'closed' } });
  expect(new Set(picks()).size).toBe(3);
  ref.set({ orders: { force: 'open' } });
  expect(picks).toThrow(BreakerOpenError);
});

it('refuses when all that fit are refused, and says when to come again', async () => {
  const breakers = createBreakers({ default: MINUTE, logger: false });
  const service = await orders(2);
  const instances = breakers.instancesOf(service);
  for (let n = 0; n < 4; n++) instances.pick().done({ error: new Error('boom') });
  const refused = (() => {
    try {
      return instances.pick();
    } catch (error) {
      return error;
    }
  })();
  expect(refused).toMatchObject({ code: 'ERR_BREAKER_OPEN', breaker: expect.stringMatching(/^orders\/orders-[01]$/) });
  expect((refused as BreakerOpenError).retryAfterMs).toBeGreaterThan(50_000);
  expect(service.metrics()).toMatchObject({ inFlight: 0 });
});

it('an aborted call counts neither way, and what pick() throws is told as it is', async () => {
  const breakers = createBreakers({ default: { failureThreshold: 1 }, logger: false });
  const instances = breakers.instancesOf(await orders(1));
  instances.pick().done({ error: new DOMException('enough', 'AbortError') });
  expect(breakers.get('orders/orders-0').state).toBe('closed');
  expect(() => instances.pick({ exclude: new Set(['orders-0']) })).toThrow(/no instance of orders/);
  expect(() => instances.pick({ scheme: 7 as never })).toThrow(/options.scheme/);
  for (const exclude of ['orders-0', 5, {}, ['orders-0']]) {
    expect(() => instances.pick({ exclude: exclude as never })).toThrow(/^options.exclude: expected a Set of ids/);
  }
  for (const wrong of [undefined, null, {}, { pick: 1, name: 'orders' }]) {
    expect(() => breakers.instancesOf(wrong as never)).toThrow(/^service: expected a service/);
  }
});

it('a call is to the breaker what it is to the service', async () => {
  const breakers = createBreakers({ default: { failureThreshold: 1 }, logger: false });
  const service = await orders(1);
  const instances = breakers.instancesOf(service);
  const breaker = () => breakers.get('orders/orders-0');
  instances.pick().done({ error: null });
  instances.pick().done({ error: Object.assign(new Error('x'), { code: 'ERR_CANCELED' }) });
  instances.pick().done({ error: new Error('boom'), failed: false });
  for (const wrong of [new Error('boom'), 5, null, { failed: 'yes' }]) {
    expect(() => instances.pick().done(wrong as never)).toThrow(/^result/);
  }
  expect([breaker().state, breaker().stats.consecutiveFailures]).toEqual(['closed', 0]);
  expect(service.metrics()).toMatchObject({ inFlight: 0 });
  instances.pick().done({ error: Object.assign(new Error('none'), { status: 404 }), failed: true });
  expect(breaker().state).toBe('open');
});
