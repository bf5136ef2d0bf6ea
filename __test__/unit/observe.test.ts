/** What an observer of a registry may be, and what OpenTelemetry is told. */

import { describe, expect, it } from 'vitest';
import type { TracerLike } from '../../lib/common/telemetry.js';
import type { RegistryObserver } from '../../lib/registry/observe.js';
import { openTelemetry } from '../../lib/registry/open-telemetry.js';
import { settle } from '../../lib/registry/options.js';
import { nativeError, openFake } from './fake-client.js';

describe('options.observe', () => {
  it.each([1, 'x', true, {}, { begin: 1 }, () => {}])('%o is refused', async (observe) => {
    await expect(settle({ backend: 'memory', observe })).rejects.toThrow(
      /^options\.observe: expected an object with a method begin, got /,
    );
  });
  it('attach is a function, if it is there', async () => {
    const observe = { begin: () => undefined, attach: 5 };
    await expect(settle({ backend: 'memory', observe })).rejects.toThrow(
      'options.observe.attach: expected a function, got number',
    );
  });
  it.each([undefined, null, false])('%o is nobody', async (observe) => {
    expect((await settle({ backend: 'memory', observe })).observe).toBeUndefined();
  });
  it('a name that can’t be read is none, and the call says what is wrong', async () => {
    const names: (string | undefined)[] = [];
    const observe: RegistryObserver = { begin: ({ name }) => void names.push(name) as undefined };
    const { registry } = await openFake({ observe });
    const broken = {
      get name() {
        throw new Error('broken');
      },
    };
    await expect(registry.register(broken as never)).rejects.toThrow('broken');
    await expect(registry.getService(Symbol('x') as never)).rejects.toThrow(/^name: expected a string, got symbol/);
    expect(names).toEqual([undefined, undefined]);
  });
});

describe('attempts of a registration', () => {
  it('are those that came while the call was under way', async () => {
    const told: [string, number][] = [];
    const observe: RegistryObserver = {
      begin:
        ({ method }) =>
        (_, { attempts }) =>
          void told.push([method, attempts]),
    };
    const { registry, client } = await openFake({ observe });
    const registration = await registry.register({ name: 'orders', id: 'a' });
    const [fake] = client.registrations;
    if (!fake) throw new Error('no registration');
    fake.tried = 7;
    const later = async (more: number) => {
      await null;
      fake.tried += more;
    };
    fake.gate = later(3);
    await registration.withdraw();
    fake.refusal = nativeError('ERR_TIMEOUT');
    fake.gate = later(2);
    await expect(registration.deregister()).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    expect(told).toEqual([
      ['register', 1],
      ['withdraw', 3],
      ['deregister', 2],
    ]);
  });
});

/** What a tracer and a meter of OpenTelemetry are told. */
function recorder() {
  const spans: object[] = [];
  const measured: object[] = [];
  const asked = new Map<string, () => [number, object | undefined][]>();
  const tracer: TracerLike = {
    startSpan(name, options) {
      const span = { name, kind: options?.kind, attributes: { ...options?.attributes }, ended: 0 };
      spans.push(span);
      return {
        setAttribute: (key, value) => Object.assign(span.attributes, { [key]: value }),
        setStatus: (status) => Object.assign(span, { status }),
        recordException: (error) => Object.assign(span, { error }),
        end: () => void span.ended++,
      };
    },
  };
  type Asked = (result: { observe(value: number, attributes?: object): void }) => void;
  const observable = (kind: string) => (name: string) => ({
    addCallback(callback: Asked) {
      asked.set(`${kind} ${name}`, () => {
        const values: [number, object | undefined][] = [];
        callback({ observe: (value, attributes) => void values.push([value, attributes]) });
        return values;
      });
    },
  });
  const meter = {
    createHistogram: (name: string) => ({
      record: (value: number, attributes?: object) => void measured.push({ name, value, attributes }),
    }),
    createObservableCounter: observable('counter'),
    createObservableGauge: observable('gauge'),
  };
  return { spans, measured, asked, tracer, meter };
}

describe('openTelemetry()', () => {
  it('makes a span and a measurement of each call, of those that fail as well', async () => {
    const { spans, measured, tracer, meter } = recorder();
    const { registry, client } = await openFake({ observe: openTelemetry({ tracer, meter }) });
    await registry.register({ name: 'orders', id: 'a' });
    client.refusal = nativeError('ERR_PERMISSION_DENIED');
    const error = await registry.services().catch((thrown: Error) => thrown);
    const call = (method: string) => ({ 'rollcall.backend': 'memory', 'rollcall.method': method });
    expect(spans).toEqual([
      {
        name: 'rollcall.register',
        kind: 2,
        ended: 1,
        attributes: { ...call('register'), 'rollcall.service': 'orders', 'rollcall.attempts': 1 },
      },
      {
        name: 'rollcall.services',
        kind: 2,
        ended: 1,
        attributes: { ...call('services'), 'rollcall.attempts': 1, 'error.type': 'ERR_PERMISSION_DENIED' },
        error,
        status: { code: 2, message: (error as Error).message },
      },
    ]);
    const name = 'rollcall.call.duration';
    expect(measured).toEqual([
      { name, value: expect.any(Number), attributes: call('register') },
      { name, value: expect.any(Number), attributes: { ...call('services'), 'error.type': 'ERR_PERMISSION_DENIED' } },
    ]);
  });

  it('reads the counters of all clients that are open', async () => {
    const { asked, meter } = recorder();
    const observe = openTelemetry({ meter });
    const first = await openFake({ observe });
    const second = await openFake({ observe });
    const values = (name: string) => asked.get(name)?.();
    const memory = { 'rollcall.backend': 'memory' };
    expect(values('counter rollcall.registrations.losses')).toEqual([[10, memory]]);
    expect(values('gauge rollcall.watches.stale')).toEqual([[18, memory]]);
    expect(values('counter rollcall.service.picks')).toEqual([]);

    await first.registry.close();
    expect(values('counter rollcall.registrations.losses')).toEqual([[5, memory]]);
    await second.registry.close();
    expect([...asked.values()].flatMap((ask) => ask())).toEqual([]);
  });

  it('does with a meter that has histograms alone, and with nothing', async () => {
    const { measured, meter } = recorder();
    for (const given of [{ meter: { createHistogram: meter.createHistogram } }, {}]) {
      const { registry } = await openFake({ observe: openTelemetry(given) });
      await registry.services();
    }
    expect(measured).toHaveLength(1);
  });
});
