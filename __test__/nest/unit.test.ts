/** What listens where, and how it is told: without Nest, on plain servers. */

import 'reflect-metadata';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { dirname, join } from 'node:path';
import { connect, MemoryServer, type Registry } from 'rollcall';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { output, temporaryFolder, uniqueName, waitFor } from '../support/process.js';

const load = createRequire(import.meta.url);
const { followHttp, followMicroservice } = load('../../dist/cjs/nest/shared/listening.js');
const { endsOf, placeAtEnds } = load('../../dist/cjs/nest/shared/lifecycle.js');
const { Liveness } = load('../../dist/cjs/nest/shared/liveness.js');
const { SelfRegistration } = load('../../dist/cjs/frameworks/self-registration.js');
const { drainOf, leave } = load('../../dist/cjs/frameworks/leaving.js');
const { follow } = load('../../dist/cjs/frameworks/follow.js');
const { Config, OnServiceChange } = load('../../dist/cjs/nest/decorators.js');
const { handlersOf, markHandler, markSetting, settingsOf } = load('../../dist/cjs/nest/shared/handlers.js');

/** Answers whatever property is asked for. */
const every: ProxyHandler<object> = { get: (target, key) => Reflect.get(target, key) ?? (() => {}) };

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

function adapterOf(server: Server) {
  servers.push(server);
  return {
    getHttpServer: () => server,
    listen: (...args: unknown[]) => (server.listen as (...args: unknown[]) => unknown)(...args),
  };
}

function started(adapter: ReturnType<typeof adapterOf>, ...args: unknown[]): Promise<unknown> {
  return new Promise((resolve) => adapter.listen(...args, resolve));
}

describe('an HTTP server that listens', () => {
  it.each([
    ['on one address', createServer(), ['127.0.0.1'], /^http:\/\/127\.0\.0\.1:[1-9]\d*$/],
    ['on all addresses', createServer(), ['0.0.0.0'], /^http:\/\/0\.0\.0\.0:[1-9]\d*$/],
    ['on IPv6', createServer(), ['::1'], /^http:\/\/\[::1\]:[1-9]\d*$/],
    ['with TLS', createSecureServer(), ['127.0.0.1'], /^https:\/\/127\.0\.0\.1:[1-9]\d*$/],
  ])('%s is told with its real port', async (_, server, args, expected) => {
    const adapter = adapterOf(server as Server);
    const told: string[][] = [];
    followHttp(adapter, { listens: async (endpoints: string[]) => void told.push(endpoints) });
    expect(await started(adapter, 0, ...args)).toBeUndefined();
    expect(told).toEqual([[expect.stringMatching(expected)]]);
  });

  it('on a socket of Unix has no endpoint', async () => {
    const { path, remove } = temporaryFolder();
    const adapter = adapterOf(createServer());
    const told: string[][] = [];
    followHttp(adapter, { listens: async (endpoints: string[]) => void told.push(endpoints) });
    await started(adapter, `${path}/socket`);
    expect(told).toEqual([[]]);
    remove();
  });

  it('waits for all who hear of it, and is closed when one of them fails', async () => {
    const server = createServer();
    const adapter = adapterOf(server);
    const order: string[] = [];
    followHttp(adapter, {
      begins: () => order.push('begins'),
      listens: async () => void order.push('first'),
      heard: () => order.push('heard'),
    });
    followHttp(adapter, {
      listens: async () => {
        order.push('second');
        throw new Error('no');
      },
    });
    expect(await started(adapter, 0)).toEqual(new Error('no'));
    expect(order).toEqual(['begins', 'first', 'second']);
    expect(server.listening).toBe(false);
  });
});

describe('the server of a microservice', () => {
  const listening = (server: object): Promise<unknown> =>
    new Promise((resolve) => (server as { listen(callback: (error?: unknown) => void): void }).listen(resolve));

  it.each([
    [
      'gRPC by its servers',
      { transportId: 4, grpcClient: { http2Servers: new Map([[at('::', 5000), 0]]) } },
      ['grpc://[::]:5000'],
    ],
    ['gRPC by its url', { transportId: 4, url: 'localhost:5001' }, ['grpc://localhost:5001']],
    [
      'gRPC with TLS',
      { transportId: 4, url: 'a:1', options: { credentials: { _isSecure: () => true } } },
      ['grpcs://a:1'],
    ],
    ['gRPC on a port that nobody knows', { transportId: 4, url: 'localhost:0' }, []],
    ['TCP', { transportId: 0, server: at('10.0.0.1', 3001) }, ['tcp://10.0.0.1:3001']],
    ['a broker', { transportId: 1 }, []],
  ])('of the transport %s', async (_, fields, expected) => {
    const server = { ...fields, listen: (done: () => void) => done() };
    const told: string[][] = [];
    followMicroservice(server, { listens: async (endpoints: string[]) => void told.push(endpoints) });
    expect(await listening(server)).toBeUndefined();
    expect(told).toEqual([expected]);
  });

  it('that can not listen is told to nobody', async () => {
    const told: unknown[] = [];
    const server = { transportId: 0, listen: (done: (error: unknown) => void) => done(new Error('in use')) };
    followMicroservice(server, { listens: async (endpoints: string[]) => void told.push(endpoints) });
    expect(await listening(server)).toEqual(new Error('in use'));
    expect(told).toEqual([]);
  });

  it('of Nest 10 is found in each copy of the package that the program has, and told once', async () => {
    const { path, remove } = temporaryFolder();
    const microservices = 'node_modules/@nestjs/microservices/index.js';
    const copy = 'exports.NestMicroservice = class { registerListeners() { return "done"; } };';
    const files = {
      'node_modules/@nestjs/core/index.js': '',
      [microservices]: copy,
      [`node_modules/@nestjs/core/${microservices}`]: copy, // the one that Nest itself takes
      'main.js': `
        const { microservicesOf } = require(${JSON.stringify(load.resolve('../../dist/cjs/nest/shared/listening.js'))});
        const [modules, others] = [{}, {}];
        const told = [];
        microservicesOf(modules, ({ name }) => told.push('first ' + name));
        microservicesOf(modules, ({ name }) => told.push('second ' + name));
        microservicesOf(others, () => told.push('of another application'));
        for (const name of ['${microservices}', 'node_modules/@nestjs/core/${microservices}']) {
          const { NestMicroservice } = require('./' + name);
          const one = Object.assign(new NestMicroservice(), { container: { getModules: () => modules }, server: { name: told.length } });
          told.push(one.registerListeners());
        }
        console.log(JSON.stringify(told));`,
    };
    for (const [name, text] of Object.entries(files)) {
      mkdirSync(dirname(join(path, name)), { recursive: true });
      writeFileSync(join(path, name), text);
    }
    const told = JSON.parse(await output(process.execPath, [join(path, 'main.js')]));
    expect(told).toEqual(['first 0', 'second 0', 'done', 'first 3', 'second 3', 'done']);
    remove();
  });

  function at(address: string, port: number) {
    return { address: () => ({ address, port }) };
  }
});

describe('the order of hooks', () => {
  class First {}
  class Last {}

  it('is set where Nest has such a thing, and nothing is thrown where it has not', () => {
    const refs = [Object, First, Last].map((metatype) => ({ metatype, distance: 2 }));
    expect(placeAtEnds(refs, First, Last)).toBe(true);
    expect(refs.map(({ distance }) => distance)).toEqual([2, Number.POSITIVE_INFINITY, -1]);
    const ignoring = Object.create(
      {
        get distance() {
          return 1;
        },
        set distance(_value) {},
      },
      { metatype: { value: Last } },
    );
    for (const other of [{ metatype: First }, Object.freeze({ metatype: First, distance: 1 }), ignoring]) {
      expect(placeAtEnds([...refs, other], First, Last)).toBe(false);
    }
  });

  it('of our own two modules does not matter for the life of a client', async () => {
    for (const order of [(ends: object[]) => ends, (ends: object[]) => ends.reverse()]) {
      const life: string[] = [];
      const does = (what: string) => async () => void life.push(what);
      const resident = { prepare: does('prepare'), start: does('start'), leave: does('leave'), close: does('close') };
      const { first, last } = endsOf(resident);
      const ends = order([first, last]) as Record<string, (() => unknown) | undefined>[];
      for (const hook of ['onModuleInit', 'onApplicationBootstrap', 'onModuleDestroy', 'onApplicationShutdown']) {
        for (const end of ends) await end[hook]?.();
      }
      expect(life).toEqual(['prepare', 'start', 'leave', 'leave', 'close']);
    }
  });

  it.each([true, false])('that Nest sets: %s. An application registers itself, and leaves', async (isSet) => {
    const { Module } = load('@nestjs/common');
    const { Module: Ref } = load('@nestjs/core/injector/module.js');
    const { NestFactory } = load('@nestjs/core');
    const { RegistryModule, RegistryService } = load('../../dist/cjs/nest/index.js');
    const namespace = uniqueName('nest');
    const registry = await connect({ backend: 'memory', namespace });
    const heard: string[] = [];
    const stops: string[][] = [];
    class Other {
      async onModuleDestroy() {
        stops.push(await registry.services());
      }
    }
    // Whatever the usual order is, one of them stops before the registry does.
    class Before {}
    class After {}
    for (const module of [Before, After]) Module({ providers: [Other] })(module);
    class App {}
    const register = { name: 'orders', endpoints: ['grpc://10.0.0.1:1'], drainMs: 0 };
    const registryModule = RegistryModule.forRoot({ registry: { backend: 'memory', namespace }, register });
    Module({
      imports: [Before, registryModule, After],
    })(App);
    const place = Object.getOwnPropertyDescriptor(Ref.prototype, 'distance') as PropertyDescriptor;
    if (!isSet) Object.defineProperty(Ref.prototype, 'distance', { ...place, set() {} });
    try {
      const log = (message: unknown) => void heard.push(String(message));
      const app = await NestFactory.createApplicationContext(App, { logger: { log() {}, warn: log, error: log } });
      expect(heard.filter((line) => line.includes('order of its hooks'))).toHaveLength(isSet ? 0 : 1);
      expect(await registry.services()).toEqual(['orders']);
      if (!isSet) await app.get(RegistryService).deregisterSelf(); // as the log says
      await app.close();
      expect(stops).toEqual([[], []]);
      expect(await registry.services()).toEqual([]);
    } finally {
      Object.defineProperty(Ref.prototype, 'distance', place);
      await registry.close();
    }
  });
});

describe('what keeps the process alive', () => {
  it('is nothing until all have started, nor while a server is about to listen', async () => {
    const held: Record<string, boolean> = {};
    const client = (name: string) => ({ ref: () => (held[name] = true), unref: () => (held[name] = false) });
    const modules = { getRpcTargetRegistry: () => ({ subscribe() {} }) };
    const liveness = Liveness.of(modules);
    expect(Liveness.of(modules)).toBe(liveness);
    const [one, two, own, fake] = [client('one'), client('two'), client('own'), {}];
    liveness.join(one, one, fake);
    liveness.letGo(one);
    liveness.join(two, two, own);
    liveness.letGo(two);
    const adapter = adapterOf(createServer());
    liveness.started(one, adapter);
    expect(held).toEqual({ one: false, two: false });
    liveness.started(two, adapter);
    expect(held).toEqual({ one: true, two: true }); // what was not let go is the program's
    const taken = createServer().listen(0, '127.0.0.1');
    servers.push(taken);
    await once(taken, 'listening');
    const { port } = taken.address() as AddressInfo;
    adapter.listen(port, '127.0.0.1', () => {});
    expect(held).toEqual({ one: false, two: false, own: false });
    await once(adapter.getHttpServer(), 'error');
    expect(held).toEqual({ one: false, two: false, own: false });
    await started(adapter, 0, '127.0.0.1'); // another try
    expect(held).toEqual({ one: true, two: true, own: true });
  });
});

describe('the registration of the application', () => {
  const log = { log() {}, warn() {}, error() {} };
  const name = uniqueName('orders');
  let registry: Registry;
  beforeAll(async () => {
    registry = await connect({ backend: 'memory', namespace: uniqueName('nest') });
  });
  afterAll(() => registry.close());
  const self = (options: object = {}) =>
    new SelfRegistration({ registry, options: { name, ...options }, background: false, log });
  const endpoints = async () => (await registry.getService(name)).map((instance) => instance.endpoints);

  it('waits for the start and for a server, and hears of more', async () => {
    const mine = self();
    await mine.listening(['tcp://10.0.0.1:1']);
    expect(await endpoints()).toEqual([]);
    await mine.started(true);
    expect(await endpoints()).toEqual([['tcp://10.0.0.1:1']]);
    await mine.listening(['http://10.0.0.1:2']);
    expect(await endpoints()).toEqual([['tcp://10.0.0.1:1', 'http://10.0.0.1:2']]);
    await Promise.all([mine.leave(), mine.leave()]);
    await mine.listening(['http://10.0.0.1:3']);
    expect(await endpoints()).toEqual([]);
  });

  it('leaves nothing when it is to leave while it comes', async () => {
    const mine = self();
    await mine.started(true);
    const coming = mine.listening(['http://10.0.0.1:2']);
    await mine.leave();
    await coming;
    expect(await endpoints()).toEqual([]);
  });

  it('comes back when it is asked to, and not once it is to stop', async () => {
    const mine = self({ endpoints: ['http://10.0.0.1:80'] });
    await mine.started(true);
    await mine.listening(['http://10.0.0.1:80']);
    const [first] = await registry.getService(name);
    for (let round = 0; round < 2; round++) {
      await mine.deregister();
      expect([await endpoints(), mine.wanted]).toEqual([[], false]);
      await mine.listening(['http://10.0.0.1:81']); // asks for nothing
      expect(await endpoints()).toEqual([]);
      await mine.now();
      expect(await endpoints()).toEqual([['http://10.0.0.1:80']]);
      expect([mine.wanted, mine.registration.state]).toEqual([true, 'registered']);
    }
    expect((await registry.getService(name))[0]?.id).not.toBe(first?.id);
    // In the order in which they are asked for, whoever waits.
    const overtaken = { code: 'ERR_ABORTED', operation: 'register' };
    const out = mine.deregister();
    const second = expect(mine.now()).rejects.toMatchObject(overtaken);
    await Promise.all([out, second, mine.deregister(), mine.now()]);
    expect(await endpoints()).toHaveLength(1);
    const late = mine.deregister().then(() => mine.now());
    await mine.leave();
    await expect(late).rejects.toMatchObject({ code: 'ERR_CLOSED', operation: 'register' });
    await expect(mine.now()).rejects.toMatchObject({ code: 'ERR_CLOSED' });
    await mine.deregister();
    expect(await endpoints()).toEqual([]);
  });

  it('fails no start when it is taken out and brought back while it comes', async () => {
    const mine = self();
    await mine.started(true);
    const coming = mine.listening(['http://10.0.0.1:2']);
    await Promise.all([coming, mine.deregister(), mine.now()]);
    expect(await endpoints()).toEqual([['http://10.0.0.1:2']]);
    await mine.leave();
  });

  it('goes out of traffic and comes back, and leaves once whatever it was', async () => {
    const mine = self({ when: 'manual' });
    const none = {
      code: 'ERR_CLOSED',
      operation: 'withdraw',
      message: expect.stringMatching(/registerSelf\(\) first/),
    };
    await expect(mine.withdraw()).rejects.toMatchObject(none);
    await mine.listening(['http://10.0.0.1:80']);
    const coming = mine.now();
    await mine.withdraw('unhealthy'); // waits for what is on its way
    await coming;
    expect([await endpoints(), mine.wanted, mine.registration.state]).toEqual([[], false, 'out']);
    await mine.listening(['http://10.0.0.1:81']); // kept for the return
    await mine.now(); // it is registered, and does not call it back
    expect([await endpoints(), mine.wanted]).toEqual([[], false]);
    await expect(mine.restore()).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT', operation: 'restore' });
    await expect(mine.withdraw('stalled')).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    await mine.restore('unhealthy');
    expect([await endpoints(), mine.wanted]).toEqual([[['http://10.0.0.1:80', 'http://10.0.0.1:81']], true]);
    // Registered anew it is in traffic, whatever held out the one before.
    await mine.withdraw();
    await mine.deregister();
    await expect(mine.restore()).rejects.toMatchObject({ code: 'ERR_CLOSED', operation: 'restore' });
    await mine.now();
    expect([await endpoints(), [...mine.registration.outFor]]).toEqual([[expect.any(Array)], []]);
    await mine.withdraw();
    const { registration } = mine;
    let removals = 0;
    const deregister = registration.deregister.bind(registration);
    registration.deregister = (how: object) => {
      removals++;
      return deregister(how);
    };
    await Promise.all([mine.leave(), mine.leave()]);
    expect([await endpoints(), registration.state, removals]).toEqual([[], 'deregistered', 1]);
    await expect(mine.withdraw()).rejects.toMatchObject({
      code: 'ERR_CLOSED',
      message: expect.stringMatching(/stopping/),
    });
    await expect(mine.restore()).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  });

  it('is logged once for each thing that becomes of it', async () => {
    const lines: string[] = [];
    const add = (line: unknown) => void lines.push(String(line));
    const logger = { log: add, warn: add, error: add };
    const namespace = uniqueName('nest');
    const logged = await connect({ backend: 'memory', namespace, logger });
    const options = { name, id: 'x', endpoints: ['http://10.0.0.1:80'] };
    const mine = new SelfRegistration({ registry: logged, options, background: false, log: logger });
    const seen = async (...expected: RegExp[]) => {
      await waitFor(() => lines.length >= expected.length, { what: 'the lines' });
      expect(lines.splice(0)).toEqual(expected.map((each) => expect.stringMatching(each)));
    };
    process.once('SIGTERM', onTerm);
    await mine.started(false);
    await seen(/orders.*\/x is registered at http:\/\/10\.0\.0\.1:80$/);
    MemoryServer.of(namespace).expire(name, 'x');
    await seen(/\/x was lost/, /\/x is registered again/);
    const rival = await logged.register({ name, id: 'x' });
    await waitFor(() => lines.length >= 2, { what: 'the lines of the replacement' });
    lines.sort((a, b) => Number(a.includes('replaced')) - Number(b.includes('replaced')));
    await seen(/\/x is registered at no endpoint/, /\/x was replaced/);
    expect(mine.registration.state).toBe('replaced');
    await mine.now(); // it takes its id back
    expect(await logged.getService(name)).toMatchObject([{ endpoints: options.endpoints }]);
    await waitFor(() => rival.state === 'replaced' && lines.length >= 2);
    lines.sort((a, b) => Number(a.includes('replaced')) - Number(b.includes('replaced')));
    await seen(/\/x is registered at http/, /\/x was replaced/);
    await mine.leave();
    await seen(/\/x is deregistered/);
    process.off('SIGTERM', onTerm);
    await logged.close();
    function onTerm() {}
  });

  it('by hand, at the start, and never without an address', async () => {
    const manual = self({ when: 'manual', endpoints: ['http://10.0.0.1:80'] });
    await manual.started(true);
    await manual.listening(['http://10.0.0.1:2']);
    expect(await endpoints()).toEqual([]);
    await manual.now();
    expect(await endpoints()).toEqual([['http://10.0.0.1:80']]);
    await manual.leave();
    const early = self({ when: 'bootstrap', endpoints: ['http://10.0.0.1:81'] });
    await early.started(true);
    expect(await endpoints()).toEqual([['http://10.0.0.1:81']]);
    await early.leave();
    const context = self({ endpoints: ['http://10.0.0.1:82'] });
    await context.started(false);
    expect(await endpoints()).toEqual([['http://10.0.0.1:82']]);
    await context.leave();
  });

  it('of something that listens nowhere is missed aloud, and fails no start', async () => {
    const warned: string[] = [];
    const logged = { ...log, warn: (text: string) => void warned.push(text) };
    const nowhere = (options: object = {}) =>
      new SelfRegistration({
        ...{ registry, background: false, signalHint: '', patienceMs: 20 },
        options: { name, ...options },
        log: logged,
      });
    await nowhere().started(false);
    expect(warned).toEqual([expect.stringContaining(`${name} is not registered: it has no HTTP server`)]);
    // One that listens by means of its own, on a socket of Unix, or through a broker.
    const socket = nowhere();
    await socket.started(true);
    await socket.listening([]);
    await waitFor(async () => warned.length === 2, { what: 'a warning' });
    expect(warned[1]).toContain('nothing of it that the framework knows of listens at a port; give register.endpoints');
    // Whoever is registered, or is to come by hand, or has left, is not missed.
    const there = nowhere();
    await there.started(true);
    await there.listening(['http://10.0.0.1:2']);
    await nowhere({ when: 'manual' }).started(true);
    const left = nowhere();
    await left.started(true);
    await left.leave();
    const last = nowhere();
    await last.started(true);
    await waitFor(async () => warned.length === 3, { what: 'the last warning' });
    expect(await endpoints()).toEqual([['http://10.0.0.1:2']]);
    await there.leave();
  });
});

describe('what the program has registered', () => {
  const log = { log() {}, warn() {}, error() {} };
  it('leaves at once, all but the application itself, and then drains', async () => {
    const registry = await connect({ backend: 'memory', namespace: uniqueName('nest') });
    const [one, two, self] = await Promise.all(
      ['one', 'two', 'self'].map((name) => registry.register({ name }, { background: name === 'two' })),
    );
    let drained = false;
    const leaving = leave(registry, { drainMs: 1000, except: self, log }).then(() => (drained = true));
    await waitFor(() => one?.state === 'deregistered' && two?.state === 'deregistered');
    expect([await registry.services(), drained]).toEqual([['self'], false]);
    await leaving;
    await leave(registry, { drainMs: 60_000, except: self, log }); // there is nothing to drain
    for (const mock of [{}, new Proxy({}, every)]) await leave(mock, { drainMs: 60_000, except: undefined, log });
    expect([drainOf({ backend: 'etcd' }), drainOf(registry), drainOf(registry, 20)]).toEqual([250, 0, 20]);
    await registry.close();
  });
});

describe('the handlers of changes', () => {
  it('are found once, on classes and what they inherit, but not where they can not work', () => {
    class Base {
      heard() {
        return this;
      }
    }
    class Derived extends Base {}
    class Asked extends Base {}
    markHandler(Base.prototype.heard, { service: 'a', registry: undefined });
    markHandler(Base.prototype.heard, { service: 'b', registry: 'second' });
    const one = new Derived();
    const providers = new Map<string, object>([
      ['one', { instance: one }],
      ['again', { instance: one }],
      ['value', { instance: 'text' }],
      ['scoped', { instance: Object.create(Asked.prototype), isDependencyTreeStatic: () => false }],
      ['transient', { instance: Object.create(Base.prototype), isTransient: true }],
      // As mocks are that have something under every name.
      ['mock', { instance: Object.create(new Proxy({ method: new Proxy(() => {}, every) }, every)) }],
    ]);
    const refused: string[] = [];
    const found = [...handlersOf([{ providers, controllers: new Map() }], (problem: string) => refused.push(problem))];
    expect(found.map(({ service, registry }) => [service, registry])).toEqual([
      ['a', undefined],
      ['b', 'second'],
    ]);
    expect(found[0].call([])).toBe(one);
    expect(refused).toEqual([
      '@OnServiceChange on Asked.heard(): without effect, since Asked, or something it depends on, is made for each request or each user; put it into a provider of the default scope, and inject that one into Asked',
      expect.stringMatching(/^@OnServiceChange on Base\.heard\(\): without effect, since Base, /),
    ]);
    expect([...settingsOf([{ providers, controllers: new Map() }], () => {})]).toEqual([]);
  });

  it('are found where another decorator has put its own function, and settings on what inherits them', () => {
    class Base {
      heard() {
        return 'inner';
      }
    }
    const wrapped = function (this: Base) {
      return `outer ${inner.call(this)}`;
    };
    const inner = Base.prototype.heard;
    markHandler(inner, { service: 'a', registry: undefined });
    for (const key of Reflect.getMetadataKeys(inner))
      Reflect.defineMetadata(key, Reflect.getMetadata(key, inner), wrapped);
    Base.prototype.heard = wrapped;
    class Derived extends Base {}
    const setting = (property: string) => ({ property, key: property, client: undefined, parse: Number });
    markSetting(Base, setting('limit'));
    markSetting(Derived, setting('rate'));
    const modulesOf = (wrapper: object) => [{ providers: new Map([['one', wrapper]]), controllers: new Map() }];
    const derived = modulesOf({ instance: new Derived() });
    expect([...handlersOf(derived, () => {})].map(({ call }) => call([]))).toEqual(['outer inner']);
    const keys = (modules: object[], refused: string[] = []) =>
      [...settingsOf(modules, (problem: string) => refused.push(problem))].map(({ key }) => key);
    expect(keys(derived)).toEqual(['limit', 'rate']);
    expect(keys(modulesOf({ instance: new Base() }))).toEqual(['limit']);
    const refused: string[] = [];
    expect(keys(modulesOf({ instance: new Base(), isTransient: true }), refused)).toEqual([]);
    expect(refused).toEqual([expect.stringMatching(/^@Config on Base\.limit: without effect, since Base, /)]);
  });

  it('are refused where nobody would find them', () => {
    class Orders {
      get heard() {
        return () => {};
      }
    }
    const accessor = Object.getOwnPropertyDescriptor(Orders.prototype, 'heard');
    expect(() => OnServiceChange('a')(Orders.prototype, 'heard', accessor)).toThrow(
      '@OnServiceChange on Orders.heard: expected a method',
    );
    expect(() => OnServiceChange('a')(Orders, 'all', { value() {} })).toThrow(
      '@OnServiceChange on Orders.all: expected a member that is not static',
    );
    expect(() => Config('a')(Orders, 'limit')).toThrow('@Config on Orders.limit: expected a member that is not static');
  });

  it('are called one after the other, with the latest list', async () => {
    const registry = await connect({ backend: 'memory', namespace: uniqueName('nest') });
    const heard: number[] = [];
    let release: () => void = () => {};
    const watcher = follow(
      registry,
      'orders',
      async (list: readonly unknown[]) => {
        heard.push(list.length);
        if (heard.length === 1) await new Promise<void>((resolve) => (release = resolve));
      },
      { error() {} },
    );
    await waitFor(() => heard.length === 1);
    for (const id of ['a', 'b', 'c']) await registry.register({ name: 'orders', id });
    release();
    await waitFor(() => heard.at(-1) === 3);
    expect(heard.length).toBeLessThanOrEqual(4);
    watcher.stop();
    await registry.close();
  });
});
