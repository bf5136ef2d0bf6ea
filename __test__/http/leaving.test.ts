// An instance that leaves the registry gets no further request, by whatever calls it; what is under way ends.

import { createServer, get, type ServerResponse } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo, Socket } from 'node:net';
import { connect, MemoryServer, type Registry, roundRobin, type ServiceOptions } from 'rollcall';
import { createFetch, httpAgent, ServiceAgent, type UndiciModule } from 'rollcall/http';
import { beforeAll, describe, expect, it, test } from 'vitest';
import { uniqueName, waitFor } from '../support/process.js';
import type { Finish } from './kit.js';
import { clients } from './project.js';

let undici: UndiciModule;
beforeAll(async () => {
  undici = createRequire(`${await clients()}/`)('undici7');
});

type Call = (path: string) => Promise<string>;
const service: ServiceOptions = { strategy: roundRobin(), outlier: false };
const text = async (response: Promise<Response>) => await (await response).text();

/** GET by `node:http`. */
const byNode = (url: string, agent: ReturnType<typeof httpAgent>) =>
  new Promise<string>((resolve, reject) => {
    const request = get(url, { agent }, async (response) => {
      let body = '';
      for await (const piece of response) body += piece;
      resolve(body);
    });
    request.on('error', reject);
  });

/** Those that keep connections of their own. */
const pooled: [string, (registry: Registry, more?: { drainTimeoutMs: number }) => Call][] = [
  [
    'createFetch() with undici',
    (registry, more) => {
      const fetch = createFetch(registry, { undici, service, ...more });
      return (path) => text(fetch(`http://orders${path}`));
    },
  ],
  [
    'a ServiceAgent',
    (registry, more) => {
      const dispatcher = new ServiceAgent(registry, { undici, service, ...more }) as never;
      return (path) => text(fetch(`http://orders${path}`, { dispatcher }));
    },
  ],
  [
    'httpAgent()',
    (registry) => {
      const agent = httpAgent(registry, { service });
      return (path) => byNode(`http://orders${path}`, agent);
    },
  ],
];
const all: typeof pooled = [
  ...pooled,
  [
    'service.fetch()',
    (registry) => {
      const orders = registry.service('orders', service);
      return (path) => text(orders.fetch(path));
    },
  ],
  [
    'createFetch() without undici',
    (registry) => {
      const fetch = createFetch(registry, { undici: false, service });
      return (path) => text(fetch(`http://orders${path}`));
    },
  ],
];

/** A server that never closes a connection by itself, and answers `/slow` when it is told to. */
async function server({ onTestFinished }: Finish, id: string) {
  const sockets = new Set<Socket>();
  const held: ServerResponse[] = [];
  let arrivals = 0;
  const http = createServer((request, response) => {
    arrivals++;
    if (request.url === '/slow') held.push(response);
    else response.end(id);
    request.resume();
  });
  http.keepAliveTimeout = 60_000;
  http.on('connection', (socket) => sockets.add(socket.on('close', () => sockets.delete(socket))));
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    http.closeAllConnections();
    http.close();
  });
  const { port } = http.address() as AddressInfo;
  return { id, port, held, arrivals: () => arrivals, connections: () => sockets.size };
}

async function two(context: Finish) {
  const namespace = uniqueName();
  const registry = await connect(`memory://${namespace}?logger=0`);
  context.onTestFinished(() => registry.close());
  const memory = MemoryServer.of(namespace);
  const [a, b] = [await server(context, 'a'), await server(context, 'b')];
  // Nobody owns these records, so that nobody puts them back.
  for (const { id, port } of [a, b]) {
    const record = { id, name: 'orders', version: '', metadata: {}, endpoints: [`http://127.0.0.1:${port}`] };
    memory.put('orders', id, JSON.stringify(record));
  }
  const watcher = registry.watch('orders');
  context.onTestFinished(() => watcher.stop());
  await waitFor(() => watcher.current?.length === 2, { what: 'the list' });
  return { registry, a, b, watcher, leave: () => memory.remove('orders', 'b') };
}

/** Within one turn of the event loop: the record goes, and the native side hears of it. */
function leaveUnheard({ leave, watcher }: Pick<Awaited<ReturnType<typeof two>>, 'leave' | 'watcher'>): void {
  leave();
  const until = Date.now() + 20_000;
  while (watcher.current?.length !== 1 && Date.now() < until)
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
  expect(watcher.current).toHaveLength(1);
}

describe.each(all)('%s', (_, make) => {
  it('calls nobody who left while the event loop was blocked', async (context) => {
    const { registry, a, b, watcher, leave } = await two(context);
    const call = make(registry);
    for (let turn = 0; turn < 4; turn++) await call('/');
    expect([a.arrivals(), b.arrivals()]).toEqual([2, 2]);
    const calls = await new Promise<Promise<string>[]>((resolve, reject) => {
      setImmediate(() => {
        try {
          leaveUnheard({ leave, watcher });
          resolve([1, 2, 3, 4].map(() => call('/')));
        } catch (error) {
          reject(error);
        }
      });
    });
    expect(await Promise.all(calls)).toEqual(['a', 'a', 'a', 'a']);
    expect(b.arrivals()).toBe(2);
  });
});

test('a POST is picked with what the native side has heard at that moment', async (context) => {
  const { registry, b, watcher, leave } = await two(context);
  const orders = registry.service('orders', service);
  await orders.ready({ min: 2 });
  // It picks at the end of the turn; so long a turn is one of a busy machine.
  setImmediate(() => leaveUnheard({ leave, watcher }));
  const calls = [1, 2, 3, 4].map(() => text(orders.fetch('/', { method: 'POST', body: 'order' })));
  expect(await Promise.all(calls)).toEqual(['a', 'a', 'a', 'a']);
  expect(b.arrivals()).toBe(0);
});

test.each(pooled.slice(0, 2))(
  '%s writes no request that was dispatched before, to who left before it was written',
  async (_, make) => {
    const finishes: (() => unknown)[] = [];
    const { registry, a, b, watcher, leave } = await two({ onTestFinished: (finish) => void finishes.push(finish) });
    const call = make(registry);
    for (let turn = 0; turn < 4; turn++) await call('/');
    const before = b.arrivals();
    // Two go to each: one on the connection that is kept, which undici looks at for a turn, and one has to connect.
    setImmediate(() => leaveUnheard({ leave, watcher }));
    expect(await Promise.all([1, 2, 3, 4].map(() => call('/')))).toEqual(['a', 'a', 'a', 'a']);
    expect([a.arrivals(), b.arrivals()]).toEqual([6, before]);
    for (const finish of finishes.reverse()) await finish();
  },
);

describe.each(pooled)('the connections of %s', (name, make) => {
  it('to an instance that left are closed, when what is under way on them has ended', async (context) => {
    const { registry, a, b, leave } = await two(context);
    const call = make(registry);
    for (let turn = 0; turn < 2; turn++) await call('/');
    const slow = [call('/slow'), call('/slow')]; // one each
    const idle = [call('/'), call('/')];
    await Promise.all(idle);
    await waitFor(() => a.held.length === 1 && b.held.length === 1, { what: 'the slow requests' });
    expect(b.connections()).toBeGreaterThan(1);
    const others = a.connections();
    leave();
    await waitFor(() => b.connections() === 1, { what: 'the idle connections to be closed' });
    expect(a.connections()).toBe(others);
    for (const { held, id } of [a, b]) held[0]?.end(`slow ${id}`);
    expect((await Promise.all(slow)).sort()).toEqual(['slow a', 'slow b']);
    await waitFor(() => b.connections() === 0, { what: 'the other connection to be closed' });
    expect(a.connections()).toBeGreaterThan(0);
  });

  it.skipIf(name === 'httpAgent()')('are cut after `drainTimeoutMs`', async (context) => {
    const { registry, a, b, leave } = await two(context);
    const call = make(registry, { drainTimeoutMs: 100 });
    const slow = [call('/slow'), call('/slow')].map((one) =>
      one.then(
        () => 'answered',
        () => 'failed',
      ),
    );
    await waitFor(() => b.held.length === 1, { what: 'the slow request' });
    leave();
    await waitFor(() => b.connections() === 0, { what: 'the connection to be cut' });
    // createFetch() asks another instance again.
    const answer = setInterval(() => a.held.splice(0).forEach((response) => void response.end('slow a')), 10);
    context.onTestFinished(() => clearInterval(answer));
    expect(await Promise.all(slow)).toContain('answered');
  });
});
