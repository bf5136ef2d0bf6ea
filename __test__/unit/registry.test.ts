import { type EventEmitter, getEventListeners, once } from 'node:events';
import { runInNewContext } from 'node:vm';
import { afterEach, describe, expect, it } from 'vitest';
import { AbortedError, ClosedError, TimeoutError } from '../../lib/errors.js';
import type { InstanceInput } from '../../lib/registry/instance.js';
import { Registry } from '../../lib/registry/registry.js';
import { type FakeRegistration, nativeError, type Opened, openFake } from './fake-client.js';

let opened: Opened;
const fresh = async () => {
  opened = await openFake();
  return opened;
};
afterEach(() => opened.registry.close().catch(() => {}));

describe('register()', () => {
  it('completes the instance and freezes it', async () => {
    const { registry } = await fresh();
    const registration = await registry.register({ name: 'orders' });
    expect(registration.instance).toEqual({ id: 'made-up', name: 'orders', version: '', metadata: {}, endpoints: [] });
    expect(Object.isFrozen(registration.instance.metadata)).toBe(true);
    expect(registration).toMatchObject({ id: 'made-up', name: 'orders', state: 'registered' });
  });

  it('takes instances of another realm, and copies them', async () => {
    const { registry, client } = await fresh();
    const input = runInNewContext('({ name: "orders", metadata: { a: "b" }, endpoints: ["grpc://h:1"] })');
    await registry.register(input);
    input.metadata.a = 'c';
    expect(client.registrations[0]?.record.metadata).toEqual({ a: 'b' });
  });

  it.each<[unknown, string]>([
    [undefined, 'instance: expected an object, got undefined'],
    ['orders', 'instance: expected an object, got string'],
    [{}, 'instance.name: expected a string, got undefined'],
    [{ name: 5 }, 'instance.name: expected a string, got number'],
    [{ name: 'x', id: 5 }, 'instance.id: expected a string, got number'],
    [{ name: 'x', id: '' }, 'instance.id: expected a string that is not empty'],
    [{ name: 'x', version: 1 }, 'instance.version: expected a string, got number'],
    [{ name: 'x', metadata: [] }, 'instance.metadata: expected an object of strings, got array'],
    [{ name: 'x', metadata: new Map() }, 'instance.metadata: expected an object of strings, got Map'],
    [
      { name: 'x', metadata: { weight: 10 } },
      'instance.metadata.weight: expected a string, got number; write String(10)',
    ],
    [{ name: 'x', metadata: { a: true } }, 'instance.metadata.a: expected a string, got boolean; write String(true)'],
    [{ name: 'x', metadata: { a: null } }, 'instance.metadata.a: expected a string, got null'],
    [{ name: 'x', endpoints: 'grpc://h:1' }, 'instance.endpoints: expected an array of strings, got string'],
    [{ name: 'x', endpoints: ['a', 5] }, 'instance.endpoints[1]: expected a string, got number'],
    [{ name: 'x\ud800' }, 'instance.name: expected a string of well-formed Unicode, got a lone surrogate'],
    [{ name: 'x', id: '\udc00' }, 'instance.id: expected a string of well-formed Unicode, got a lone surrogate'],
    [
      { name: 'x', version: '\ud800' },
      'instance.version: expected a string of well-formed Unicode, got a lone surrogate',
    ],
    [
      { name: 'x', metadata: { a: '\ud800' } },
      'instance.metadata.a: expected a string of well-formed Unicode, got a lone surrogate',
    ],
    [
      { name: 'x', metadata: { '\ud800': 'a' } },
      'instance.metadata: expected keys of well-formed Unicode, got a lone surrogate',
    ],
    [
      { name: 'x', endpoints: ['grpc://h:1/\ud800'] },
      'instance.endpoints[0]: expected a string of well-formed Unicode, got a lone surrogate',
    ],
    [{ name: 'x', meta: {} }, 'instance.meta: unknown field'],
    [{ name: 'x', endpoint: [] }, 'instance.endpoint: unknown field; did you mean "endpoints"?'],
  ])('refuses %o', async (input, message) => {
    const { registry, client } = await fresh();
    await expect(registry.register(input as InstanceInput)).rejects.toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
      message,
    });
    expect(client.calls).toEqual([]);
  });

  it('hands metadata over without a prototype, and with every key of its own', async () => {
    const { registry, client } = await fresh();
    const metadata = JSON.parse('{ "__proto__": "p", "constructor": "c", "a": "b" }');
    await registry.register({ name: 'x', metadata });
    const given = client.registrations[0]?.record.metadata ?? {};
    expect(Object.getPrototypeOf(given)).toBeNull();
    expect(Object.entries(given)).toEqual([
      ['__proto__', 'p'],
      ['constructor', 'c'],
      ['a', 'b'],
    ]);
  });

  it('that comes through while the registry is closed rejects', async () => {
    const { registry, client } = await fresh();
    let answer: (() => void) | undefined;
    client.beforeAnswer = () =>
      new Promise<void>((resolve) => {
        answer = resolve;
      });
    const pending = registry.register({ name: 'x' });
    const closing = registry.close();
    answer?.();
    await expect(pending).rejects.toMatchObject({ code: 'ERR_CLOSED', operation: 'register' });
    await closing;
    expect(client.referenced).toBe(false);
  });

  it('rejects at once when the signal has fired, without a call', async () => {
    const { registry, client } = await fresh();
    const reason = new Error('why');
    const error = await registry
      .register({ name: 'x' }, { signal: AbortSignal.abort(reason) })
      .catch((e: unknown) => e);
    expect(error).toBeInstanceOf(AbortedError);
    expect(error).toMatchObject({ name: 'AbortError', cause: reason, operation: 'register' });
    expect(client.calls).toEqual([]);
  });

  it('is cancelled by its signal', async () => {
    const { registry, client } = await fresh();
    client.beforeAnswer = () => new Promise(() => {});
    const abort = new AbortController();
    const pending = registry.register({ name: 'x' }, { signal: abort.signal });
    abort.abort();
    await expect(pending).rejects.toMatchObject({ name: 'AbortError', cause: abort.signal.reason });
    expect(client.referenced).toBe(false);
  });

  it('leaves nothing behind when it comes through in the moment of the abort', async () => {
    const { registry, client } = await fresh();
    const abort = new AbortController();
    client.beforeAnswer = (registration) => {
      // The answer is on its way: the cancellation comes too late.
      registration.gate = Promise.resolve().then(() => {});
      queueMicrotask(() => abort.abort());
    };
    const outcome = await registry.register({ name: 'x' }, { signal: abort.signal }).catch((e: unknown) => e);
    expect(outcome).toBeInstanceOf(AbortedError);
    expect(client.registrations[0]?.deregistered).toBe(1);
    expect(client.referenced).toBe(false);
  });

  it('has the caller in the stack of its error', async () => {
    const { registry, client } = await fresh();
    client.refusal = nativeError('ERR_TIMEOUT', 'no answer');
    async function theCaller() {
      await registry.register({ name: 'x' });
    }
    const error = (await theCaller().catch((e: unknown) => e)) as TimeoutError;
    expect(error).toBeInstanceOf(TimeoutError);
    expect(error.stack).toContain('theCaller');
    expect(error.operation).toBe('register');
    client.refusal = undefined;
  });
});

describe('a registration', () => {
  it('can be waited for with once() of Node', async () => {
    const { registry, client } = await fresh();
    const registration = await registry.register({ name: 'x' });
    const lost = once(registration as unknown as EventEmitter, 'lost');
    await client.tell('lost', 1, { text: 'expired' });
    expect(await lost).toEqual(['expired']);
  });

  it('tells what happens to it', async () => {
    const { registry, client } = await fresh();
    const registration = await registry.register({ name: 'x' });
    const heard: string[] = [];
    registration
      .on('lost', (reason) => heard.push(`lost ${reason}`))
      .on('stalled', () => heard.push('stalled'))
      .once('restored', () => heard.push('restored'))
      .on('replaced', () => heard.push('replaced'));
    await client.tell('lost', 1, { text: 'stalled for 30 s' });
    await client.tell('restored', 1);
    await client.tell('restored', 1);
    expect(client.referenced).toBe(true);
    (client.registrations[0] as FakeRegistration).current = 'replaced';
    await client.tell('replaced', 1);
    expect(heard).toEqual(['stalled', 'lost stalled for 30 s', 'restored', 'replaced']);
    expect(client.referenced).toBe(false);
  });

  it('is updated by whole fields, also when the update fails', async () => {
    const { registry, client } = await fresh();
    const registration = await registry.register({ name: 'x', version: '1', metadata: { a: 'b' } });
    await registration.update({ metadata: { c: 'd' } });
    expect(registration.instance).toMatchObject({ version: '1', metadata: { c: 'd' } });
    const handle = client.registrations[0];
    if (handle) handle.refusal = nativeError('ERR_UNAVAILABLE');
    await expect(registration.update({ version: '2' })).rejects.toMatchObject({
      code: 'ERR_UNAVAILABLE',
      operation: 'update',
    });
    expect(registration.instance.version).toBe('2');
    await expect(registration.update({ id: 'y' } as never)).rejects.toThrow(
      'patch.id: never changes: register another instance',
    );
    await expect(registration.update({ version: '3' }, { signal: AbortSignal.abort() })).rejects.toMatchObject({
      name: 'AbortError',
    });
    expect(registration.instance.version).toBe('2');
  });

  it('says what holds it out of traffic, by a set of its own', async () => {
    const { registry, client } = await fresh();
    const registration = await registry.register({ name: 'x' });
    await registration.withdraw();
    await registration.withdraw('unhealthy');
    const before = registration.outFor;
    expect([...before]).toEqual(['withdrawn', 'unhealthy']);
    await registration.restore();
    expect([[...registration.outFor], before.size]).toEqual([['unhealthy'], 2]);
    const heard: unknown[] = [];
    registration.on('out', (reason, all) => heard.push([reason, ...all])).on('in', () => heard.push('in'));
    await client.tell('out', 1, { key: 'unhealthy', text: 'stalled,unhealthy' });
    await client.tell('in', 1);
    expect(heard).toEqual([['unhealthy', 'stalled', 'unhealthy'], 'in']);
  });

  it('tells who listens late where it stands, and not what is over', async () => {
    const { registry, client } = await fresh();
    const heard: string[] = [];
    const listen = (to: Awaited<ReturnType<typeof registry.register>>) =>
      to
        .on('out', (reason, all) => heard.push(`out ${reason} of ${all.size}`))
        .on('in', () => heard.push('in'))
        .on('lost', () => heard.push('lost'))
        .on('replaced', () => heard.push('replaced'));
    const [out, back, over] = [
      await registry.register({ name: 'x' }),
      await registry.register({ name: 'y' }),
      await registry.register({ name: 'z' }),
    ];
    await client.tell('out', 1, { key: 'withdrawn', text: 'withdrawn' });
    await client.tell('out', 1, { key: 'unhealthy', text: 'withdrawn,unhealthy' });
    await client.tell('out', 2, { key: 'withdrawn', text: 'withdrawn' });
    await client.tell('in', 2);
    await client.tell('out', 3, { key: 'withdrawn', text: 'withdrawn' });
    await client.tell('replaced', 3);
    for (const [one, expected] of [
      [out, 'out unhealthy of 2'],
      [back, 'in'],
      [over, 'replaced'],
    ] as const) {
      listen(one);
      await Promise.resolve();
      expect(heard.splice(0)).toEqual([expected]);
    }
  });

  it('tells an abort of its signal from one that another call brings', async () => {
    const { registry, client } = await fresh();
    const registration = await registry.register({ name: 'x' });
    const handle = client.registrations[0];
    if (!handle) throw new Error('no registration');
    handle.refusal = nativeError('ERR_ABORTED', 'it was taken back');
    const { signal } = new AbortController();
    await expect(registration.withdraw('withdrawn', { signal })).rejects.toMatchObject({
      code: 'ERR_ABORTED',
      message: expect.stringContaining('it was taken back'),
      operation: 'withdraw',
    });
    handle.gate = new Promise(() => {});
    const abort = new AbortController();
    const waiting = registration.withdraw('withdrawn', { signal: abort.signal });
    abort.abort(new Error('enough'));
    await expect(waiting).rejects.toMatchObject({ name: 'AbortError', cause: new Error('enough') });
  });

  it('that was drained keeps the process alive no longer, and is not deregistered twice', async () => {
    const { registry, client } = await fresh();
    const registration = await registry.register({ name: 'x' });
    const handle = client.registrations[0];
    if (!handle) throw new Error('no registration');
    let go = () => {};
    handle.gate = new Promise<void>((resolve) => {
      go = resolve;
    });
    const draining = registration.drain(1000);
    expect(client.referenced).toBe(true);
    go();
    await draining;
    expect(client.referenced).toBe(false);
    await expect(registration.drain(Number.NaN)).rejects.toThrow('ms: expected a whole number');
  });

  it('is deregistered once; after a failure a later call tries again', async () => {
    const { registry, client } = await fresh();
    const registration = await registry.register({ name: 'x' });
    const handle = client.registrations[0];
    if (!handle) throw new Error('no registration');
    handle.refusal = nativeError('ERR_TIMEOUT');
    const first = registration.deregister();
    expect(registration.deregister()).toBe(first);
    await expect(first).rejects.toMatchObject({ code: 'ERR_TIMEOUT', operation: 'deregister' });
    handle.refusal = undefined;
    const second = registration.deregister();
    const wrong = { timeoutMs: 0 };
    await expect(registration.deregister(wrong)).rejects.toMatchObject({ operation: 'deregister' });
    await second;
    await expect(registration.deregister(wrong)).rejects.toThrow('options.timeoutMs');
    await registration.deregister();
    await registration[Symbol.asyncDispose]();
    expect(handle.deregistered).toBe(2);
    expect(client.referenced).toBe(false);
    await expect((await registry.register({ name: 'x' })).deregister({ drain: 1 } as never)).rejects.toThrow(
      'options.drain: unknown option; did you mean "drainMs"?',
    );
  });
});

it('goes on with the other events when one of them fails', async () => {
  const { registry, client, logged } = await fresh();
  registry.watch('x');
  const registration = await registry.register({ name: 'x' });
  const heard: string[] = [];
  registration.on('restored', () => heard.push('restored'));
  const handle = client.watchers[0];
  if (!handle) throw new Error('no watcher');
  handle.error = () => {
    throw new Error('broken');
  };
  const { wake } = client;
  client.wake = () => {};
  await client.tell('watchError', 1);
  client.wake = wake;
  await client.tell('restored', 2); // drained together
  expect(heard).toEqual(['restored']);
  expect(logged.at(-1)?.message).toMatch(/^rollcall: the event "watchError" failed: Error: broken/);
});

describe('one signal for many', () => {
  it('has one listener, and none when all are done', async () => {
    const { registry, client } = await fresh();
    const abort = new AbortController();
    const { signal } = abort;
    const watchers = Array.from({ length: 20 }, () => registry.watch('x', { signal }));
    const calls = Array.from({ length: 20 }, () => registry.getService('y', { signal }).catch((e: unknown) => e));
    expect(getEventListeners(signal, 'abort')).toHaveLength(1);
    watchers[0]?.stop();
    expect(getEventListeners(signal, 'abort')).toHaveLength(1);
    abort.abort();
    for (const watcher of watchers) expect(await watcher.next()).toEqual({ done: true, value: undefined });
    for (const call of calls) expect(await call).toBeInstanceOf(AbortedError);
    expect(client.watchers.every(({ stopped }) => stopped)).toBe(true);

    const other = new AbortController().signal;
    const [one, two] = [registry.watch('x', { signal: other }), registry.watch('x', { signal: other })];
    one.stop();
    two.stop();
    expect(getEventListeners(other, 'abort')).toHaveLength(0);
    registry.watch('x', { signal: other });
    expect(getEventListeners(other, 'abort')).toHaveLength(1);
  });
});

describe('ref() and unref()', () => {
  it('count what is registered and watched', async () => {
    const { registry, client } = await fresh();
    expect(client.referenced).toBe(false);
    const registration = await registry.register({ name: 'x' });
    const watcher = registry.watch('x');
    expect(client.referenced).toBe(true);
    expect(registry.unref()).toBe(registry);
    expect(client.referenced).toBe(false);
    registry.ref();
    expect(client.referenced).toBe(true);
    await registration.deregister();
    expect(client.referenced).toBe(true);
    watcher.stop();
    expect(client.referenced).toBe(false);
  });
});

describe('close()', () => {
  it('is one, ends watches and refuses later calls', async () => {
    const { registry, client } = await fresh();
    const registration = await registry.register({ name: 'x' });
    const first = registry.close();
    expect(registry.close()).toBe(first);
    expect(registry.closed).toBe(true);
    await first;
    await registry[Symbol.asyncDispose]();
    expect(client.calls.filter((name) => name === 'close')).toHaveLength(1);
    expect(client.referenced).toBe(false);
    for (const call of [
      () => registry.register({ name: 'x' }),
      () => registry.getService('x'),
      () => registry.services(),
    ]) {
      await expect(call()).rejects.toThrow(ClosedError);
    }
    const handle = client.registrations[0];
    if (handle) handle.current = 'deregistered';
    await registration.deregister();
    expect(handle?.deregistered).toBe(0);
  });

  it('refuses wrong options and stays open', async () => {
    const { registry } = await fresh();
    await expect(registry.close({ drainMs: -1 })).rejects.toThrow('options.drainMs: expected');
    expect(registry.closed).toBe(false);
    await registry.close({ drainMs: 0, timeoutMs: 100 });
    expect(registry.closed).toBe(true);
  });

  it('rejects when something could not be removed, and is closed all the same', async () => {
    const { registry, client } = await fresh();
    await registry.register({ name: 'x' });
    client.refusal = nativeError('ERR_TIMEOUT');
    await expect(registry.close()).rejects.toMatchObject({ code: 'ERR_TIMEOUT', operation: 'close' });
    expect(registry.closed).toBe(true);
    expect(client.referenced).toBe(false);
  });
});

describe('ping(), ready() and metrics()', () => {
  it('hand the time on, and say what came of it', async () => {
    const { registry, client } = await fresh();
    expect(await registry.ping()).toBe(1.5);
    expect(await registry.ready({ timeoutMs: 70 })).toBe(undefined);
    expect(client.calls).toEqual(['ping 10000', 'ready 70']);
    client.refusal = nativeError('ERR_UNAVAILABLE');
    for (const ask of ['ping', 'ready'] as const) {
      await expect(registry[ask]()).rejects.toMatchObject({ code: 'ERR_UNAVAILABLE', operation: ask });
    }
  });

  it.each(['ping', 'ready'] as const)('%s() refuses wrong options, aborts, and ends with the registry', async (ask) => {
    const { registry, client } = await fresh();
    await expect(registry[ask]({ timeoutMs: 0 })).rejects.toThrow('options.timeoutMs: expected');
    await expect(registry[ask]({ timeoutMS: 5 } as never)).rejects.toThrow('did you mean "timeoutMs"');
    await expect(registry[ask]({ signal: 'soon' as never })).rejects.toThrow('options.signal: expected');
    await expect(registry[ask]({ signal: AbortSignal.abort() })).rejects.toThrow(AbortedError);
    expect(client.calls).toEqual([]);
    const abort = new AbortController();
    const asked = registry[ask]({ signal: abort.signal });
    abort.abort();
    await expect(asked).rejects.toMatchObject({ code: 'ERR_ABORTED', operation: ask });
    await registry.close();
    await expect(registry[ask]()).rejects.toThrow(ClosedError);
  });

  it('metrics are a frozen copy, each under its name', async () => {
    const { registry } = await fresh();
    const metrics = registry.metrics();
    expect(metrics).toEqual({
      registrations: { alive: 1, out: 2, attempts: 3, failed: 4, losses: 5, repairs: 6, replaced: 7 },
      watches: { followed: 8, stale: 9, reads: 10, breaks: 11, lists: 12 },
      methods: { getService: { calls: 13, failed: 14 }, services: { calls: 15, failed: 16 } },
      services: {},
    });
    const parts = [
      metrics,
      metrics.registrations,
      metrics.watches,
      metrics.methods,
      metrics.services,
      ...Object.values(metrics.methods),
    ];
    expect(parts.filter((part) => !Object.isFrozen(part))).toEqual([]);
    expect(registry.metrics()).not.toBe(metrics);
  });
});

describe('status', () => {
  it('is what the native side says, until the end', async () => {
    const { registry, client } = await fresh();
    expect(registry.status).toBe('connecting');
    client.reached = 'disconnected';
    expect(registry.status).toBe('disconnected');
    expect(() => Object.assign(registry, { status: 'connected' })).toThrow(TypeError);
    await registry.close();
    expect(registry.status).toBe('closed');
  });

  it('its events take turns, also when one was dropped on its way, and end with the registry', async () => {
    const { registry, client } = await fresh();
    const told: string[] = [];
    registry.on('connected', () => told.push('connected')).on('disconnected', () => told.push('disconnected'));
    for (const kind of ['disconnected', 'connected', 'connected', 'disconnected', 'disconnected', 'connected']) {
      await client.tell(kind, 0);
    }
    expect(told).toEqual(['connected', 'disconnected', 'connected']);
    await registry.close();
    await client.tell('disconnected', 0);
    expect(told).toHaveLength(3);
  });

  it('who listens late hears the newest alone', async () => {
    const { registry, client } = await fresh();
    for (const kind of ['connected', 'disconnected', 'connected', 'disconnected']) await client.tell(kind, 0);
    const told: string[] = [];
    registry.on('connected', () => told.push('connected')).on('disconnected', () => told.push('disconnected'));
    await Promise.resolve();
    expect(told).toEqual(['disconnected']);
  });
});

describe('events', () => {
  it('report bad records, frozen', async () => {
    const { registry, client, logged } = await fresh();
    const heard: unknown[] = [];
    registry.on('badRecord', (record) => heard.push(record));
    registry.on('badRecord', () => {
      throw new Error('oops');
    });
    await client.tell('badRecord', 0, { key: '/k', text: 'no JSON' });
    await client.tell('log', 0, { level: 'warn', text: 'connection lost' });
    expect(heard).toEqual([{ key: '/k', reason: 'no JSON' }]);
    expect(logged.map(({ level, message }) => `${level} ${message.split('\n')[0]}`)).toEqual([
      'error rollcall: a listener of "badRecord" failed: Error: oops',
      'warn rollcall: connection lost',
    ]);
  });
});

it('has methods only on its prototype, and none called init', () => {
  const members = Object.entries(Object.getOwnPropertyDescriptors(Registry.prototype));
  for (const [name, descriptor] of members) expect(typeof descriptor.value, name).toBe('function');
  expect(members.map(([name]) => name)).not.toContain('init');
});
