// What the errors of Consul and ZooKeeper tell when nobody listens, and when the server is frozen: class, code, operation, who was
// asked, what about, and what lies below. The etcd client's own are in etcd/calls-faults.
import type { Registry, RegistryOptions } from 'rollcall';
import { connect, RollcallError, TimeoutError, UnavailableError } from 'rollcall';
import { describe, expect, test } from 'vitest';
import { refused } from '../conformance/kit.js';
import { startConsul } from '../support/consul.js';
import { freePorts } from '../support/ports.js';
import { startZookeeper } from '../support/zookeeper.js';
import type { Finish } from './kit.js';

interface Frozen {
  readonly host: string;
  freeze(): void;
}

interface Kind {
  options(host: string): RegistryOptions;
  /** The endpoint of errors for a host. */
  endpoint(host: string): string;
  /** The key of errors about a name, and about an instance. */
  readonly keys: readonly [string, string];
  start(context: Finish): Promise<Frozen>;
}

const kinds: Record<string, Kind> = {
  consul: {
    options: (host) => ({ backend: 'consul', hosts: host, healthCheck: false, ttlMs: 30_000, logger: false }),
    endpoint: (host) => `http://${host}`,
    keys: ['orders', 'orders/a'],
    async start({ onTestFinished }) {
      const consul = await startConsul();
      onTestFinished(() => consul.close());
      return { host: consul.server.host, freeze: () => consul.server.freeze() };
    },
  },
  zookeeper: {
    options: (host) => ({ backend: 'zookeeper', hosts: host, ttlMs: 30_000, logger: false }),
    endpoint: (host) => host,
    keys: ['/microservices/orders', '/microservices/orders/a'],
    async start({ onTestFinished }) {
      const zookeeper = await startZookeeper();
      onTestFinished(() => zookeeper.close());
      return { host: zookeeper.hosts[0] as string, freeze: () => zookeeper.freeze() };
    },
  },
};

async function client(
  { onTestFinished }: Finish,
  options: RegistryOptions,
  more: Partial<RegistryOptions> = {},
): Promise<Registry> {
  const registry = await connect({ ...options, ...more } as RegistryOptions);
  onTestFinished(() => registry.close({ timeoutMs: 500 }).catch(() => undefined));
  return registry;
}

/** The messages of an error and of what lies below it, outermost first. Each of these is an error that says something new. */
function told(error: Error): string[] {
  if (error.cause === undefined) return [error.message];
  expect(error.cause).toBeInstanceOf(Error);
  const below = told(error.cause as Error);
  for (const text of below) expect(error.message).not.toContain(text);
  return [error.message, ...below];
}

/** What somebody sees who prints it: the refusal of the system, once, and nothing of the libraries below. */
function isShort(error: Error): void {
  expect(error.message).toMatch(/refused/i);
  expect(told(error).slice(1).join()).not.toMatch(/refused|transport|sending/i);
  expect(told(error).length).toBeLessThan(3);
}

describe.concurrent.each(Object.entries(kinds))('errors of %s', (_, kind) => {
  test('nobody listens: unavailable, with the refusal of the system, told once', async (context) => {
    const [port] = await freePorts(1);
    const host = `127.0.0.1:${port}`;
    const endpoint = kind.endpoint(host);
    const registry = await client(context, kind.options(host), { lazy: true });

    const read = await refused(registry.getService('orders', { timeoutMs: 1000 }), 'ERR_UNAVAILABLE');
    expect(read).toBeInstanceOf(UnavailableError);
    expect(read).toMatchObject({ operation: 'getService', retryable: true, endpoint, key: kind.keys[0] });
    isShort(read);

    const names = await refused(registry.services({ timeoutMs: 1000 }), 'ERR_UNAVAILABLE');
    expect(names).toMatchObject({ operation: 'services', endpoint });
    isShort(names);

    const registering = registry.register({ name: 'orders', id: 'a' }, { timeoutMs: 1000 });
    const late = await refused(registering, 'ERR_TIMEOUT', /^not visible within 1000 ms: /);
    expect(late).toBeInstanceOf(TimeoutError);
    expect(late).toMatchObject({ operation: 'register', retryable: true, endpoint, key: kind.keys[1] });
    isShort(late);

    const first = await refused(connect({ ...kind.options(host), connectTimeoutMs: 1000 }), 'ERR_UNAVAILABLE');
    expect(first).toMatchObject({ operation: 'connect', endpoint });
    isShort(first);
  });

  test('the server is frozen: a timeout that says who was asked, and what about', async (context) => {
    const server = await kind.start(context);
    const endpoint = kind.endpoint(server.host);
    const registry = await client(context, kind.options(server.host));
    const registration = await registry.register({ name: 'orders', id: 'a' });
    server.freeze();

    const read = await refused(registry.getService('orders', { consistent: true, timeoutMs: 700 }), 'ERR_TIMEOUT');
    expect(read).toBeInstanceOf(TimeoutError);
    expect(read).toBeInstanceOf(RollcallError);
    expect(read.message).toContain(`${server.host} did not answer within 700 ms`);
    expect(read).toMatchObject({ operation: 'getService', retryable: true, endpoint, key: kind.keys[0] });

    const ping = await refused(registry.ping({ timeoutMs: 700 }), 'ERR_TIMEOUT');
    expect(ping).toMatchObject({ operation: 'ping', endpoint });

    const update = await refused(registration.update({ version: '2' }, { timeoutMs: 700 }), 'ERR_TIMEOUT');
    expect(update).toMatchObject({ operation: 'update', endpoint, key: kind.keys[1] });
    const out = await refused(registration.withdraw('unhealthy', { timeoutMs: 700 }), 'ERR_TIMEOUT');
    expect(out).toMatchObject({ operation: 'withdraw', endpoint, key: kind.keys[1] });
    const end = await refused(registration.deregister({ timeoutMs: 700 }), 'ERR_TIMEOUT');
    expect(end).toMatchObject({ operation: 'deregister', endpoint, key: kind.keys[1] });
  });

  test('the server is frozen for longer than a call may take: what hindered the last try is told', async (context) => {
    const server = await kind.start(context);
    const endpoint = kind.endpoint(server.host);
    const registry = await client(context, kind.options(server.host), { timeoutMs: 500 });
    server.freeze();
    const registering = registry.register({ name: 'orders', id: 'a' }, { timeoutMs: 2500 });
    const late = await refused(registering, 'ERR_TIMEOUT', /^not visible within 2500 ms: /);
    expect(late).toMatchObject({ operation: 'register', endpoint, key: kind.keys[1] });
    expect(late.message).toMatch(/did not answer within \d+ ms/);
    told(late);
  });
});
