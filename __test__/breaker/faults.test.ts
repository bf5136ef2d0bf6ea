// Breakers among processes and servers that fail: policies in an etcd that is killed, calls to a gRPC server that is frozen and killed.
import { fileURLToPath } from 'node:url';
import { createBreakers } from 'rollcall/breaker';
import { expect, test } from 'vitest';
import { client, until } from '../coord/kit.js';
import { callerOf, load, ORDERS, project } from '../grpc/kit.js';
import { startEtcd } from '../support/etcd.js';
import { ordered, runScript, waitFor } from '../support/process.js';

const programs = (path: string) => fileURLToPath(new URL(path, import.meta.url));

interface Line {
  event: 'through' | 'ERR_BREAKER_OPEN' | 'refusedPolicy';
  at: number;
  name?: string;
  message?: string;
}

test('three processes take what lies in etcd, as Go writes it; what is wrong changes nothing, and no more does etcd’s end', async (finish) => {
  const server = await startEtcd();
  finish.onTestFinished(() => server.close());
  const folder = '/config/dev/orders/breakers/';
  await server.put(
    `${folder}default.json`,
    '{"failureThreshold":5,"successThreshold":2,"openStateTimeout":60000000000}',
  );
  const callers = [1, 2, 3].map(() => ordered<Line>(finish, programs('fixtures/caller.mjs'), { url: server.url }));
  const all = (event: Line['event'], times: number) =>
    until(`${times} × ${event}, of each`, () =>
      callers.every(({ seen }) => seen.filter((line) => line.event === event).length === times),
    );
  await all('through', 1);
  await server.put(`${folder}grpc:users:Get.json`, '{"force":"open","openStateTimeout":"1m"}');
  await all('ERR_BREAKER_OPEN', 1);
  await server.put(`${folder}grpc:users:Get.json`, '{"force":"ajar"}');
  await all('refusedPolicy', 1);
  for (const { seen } of callers) {
    const { name, message } = seen.find(({ event }) => event === 'refusedPolicy') as Line;
    expect(name).toBe('grpc:users:Get');
    expect(message).toContain('policy.force: expected "open" or "closed", got "ajar"');
  }
  await server.kill();
  const coord = await client(finish, server.url, { lazy: true });
  await until('nothing to be reached', () => coord.registry.status !== 'connected');
  for (const { seen } of callers) expect(seen.at(-2)?.event).toBe('ERR_BREAKER_OPEN'); // and then the refusal
  await server.start();
  await coord.config.delete(`${folder}grpc:users:Get.json`, { timeoutMs: 20_000 });
  await all('through', 2);
});

test('a gRPC server is frozen, goes on, and is killed: calls are lost by the threshold and no more', async (finish) => {
  const folder = await project();
  const script = runScript<{ event: string; port: number }>(programs('../grpc/fixtures/server.mjs'), [
    JSON.stringify({ registry: { backend: 'memory' }, id: 'a', project: folder }),
  ]);
  finish.onTestFinished(() => script.kill('SIGKILL'));
  const { port } = await script.line(({ event }) => event === 'registered');
  const grpc = await load(14);
  const Client = grpc.makeGenericClientConstructor(ORDERS, 'Orders');
  const stub = new Client(`127.0.0.1:${port}`, grpc.credentials.createInsecure());
  finish.onTestFinished(() => stub.close());
  const { call } = callerOf(grpc, stub);
  const policy = { failureThreshold: 3, successThreshold: 2, maxProbes: 1, openStateTimeout: 300, timeoutMs: 1000 };
  const breakers = createBreakers({ default: policy, logger: false });
  const moves: string[] = [];
  let lostByThen = 0;
  breakers.on('state', ({ to }) => {
    moves.push(to);
    if (to === 'closed') lostByThen = told.lost;
  });
  const breaker = breakers.get('orders');
  const told = { answered: 0, lost: 0, refused: 0 };
  let over = false;
  const calling = (async () => {
    while (!over) {
      await breaker
        .do(async () => {
          const { code, details } = await call();
          if (code !== 0) throw Object.assign(new Error(details), { code });
        })
        .then(
          () => told.answered++,
          ({ code }) => (code === 'ERR_BREAKER_OPEN' ? told.refused++ : told.lost++),
        );
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  })();
  const opens = () => moves.filter((to) => to === 'open').length;
  await waitFor(() => told.answered > 5, { what: 'answers' });
  process.kill(script.pid, 'SIGSTOP');
  await waitFor(() => opens() >= 2, { what: 'a try that failed' });
  process.kill(script.pid, 'SIGCONT');
  await waitFor(() => moves.at(-1) === 'closed', { what: 'it to close' });
  expect(lostByThen, 'three, and one for each try').toBe(3 + opens() - 1);
  const before = { lost: told.lost, opens: opens() };
  script.kill('SIGKILL');
  await waitFor(() => opens() >= before.opens + 2, { what: 'another try that failed' });
  over = true;
  await calling;
  expect(told.lost - before.lost).toBeLessThanOrEqual(3 + opens() - before.opens);
  expect(told.refused).toBeGreaterThan(told.lost);
  expect(moves.slice(0, 4)).toEqual(['open', 'half-open', 'open', 'half-open']);
});
