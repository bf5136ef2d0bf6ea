// What instances say where they are, and a grpc-js that is too old for policies.
import { createRequire } from 'node:module';
import { connect as connectTo, createServer } from 'node:net';
import { join } from 'node:path';
import { registerResolver } from 'rollcall/grpc';
import { beforeAll, expect, test } from 'vitest';
import { client, server } from '../faults/kit.js';
import { installed } from '../packaging/tools.js';
import { temporaryFolder } from '../support/process.js';
import { callerOf, counts, dial, type Finish, type Grpc, LINES, memory, ORDERS, ordersServer, project } from './kit.js';

beforeAll(async () => void (await project()), 300_000);

/** Another address of a server: an address of IPv6 or a socket file. Gives the port, 0 for a file. */
async function alsoAt({ onTestFinished }: Finish, port: number, where: { host: string; port: 0 } | { path: string }) {
  const relay = createServer((socket) => {
    const onward = connectTo(port, '127.0.0.1');
    socket.on('error', () => {}).pipe(onward);
    onward.on('error', () => {}).pipe(socket);
    onTestFinished(() => {
      socket.destroy();
      onward.destroy();
    });
  });
  await new Promise<void>((resolve) => relay.listen(where, resolve));
  onTestFinished(() => relay.close());
  const address = relay.address();
  return typeof address === 'object' && address ? address.port : 0;
}

test('addresses of IPv6 and Unix sockets are called', async (context) => {
  const etcd = await server(context, {});
  const registry = await client(context, etcd);
  const [six, file] = [await ordersServer(context, 'six'), await ordersServer(context, 'file')];
  const { path, remove } = temporaryFolder('rollcall-sockets-');
  context.onTestFinished(remove);
  const socket = join(path, 'orders.sock');
  await alsoAt(context, file.port, { path: socket });
  const port = await alsoAt(context, six.port, { host: '::1', port: 0 });
  await registry.register({ name: 'orders', id: 'six', endpoints: [`grpc://[::1]:${port}`] });
  // rollcall itself registers no socket; somebody else may have.
  const record = { id: 'file', name: 'orders', version: '', metadata: {}, endpoints: [`unix://${socket}`] };
  await etcd.put('/microservices/orders/file', JSON.stringify(record));
  for (const line of LINES) {
    const orders = await dial(context, line, registry, { allowLocal: true });
    await orders.reaches(['six', 'file']);
  }
});

test('two instances at one address are one connection, which stays until both have left', async (context) => {
  const { registry } = await memory(context);
  const server = await ordersServer(context, 'both');
  const endpoints = [`grpc://127.0.0.1:${server.port}`];
  for (const line of LINES) {
    const before = server.connections;
    const name = `orders${line}`;
    const one = await registry.register({ name, id: 'one', endpoints });
    const other = await registry.register({ name, id: 'other', endpoints });
    const orders = await dial(context, line, registry, { service: name });
    await orders.reaches(['both']);
    await one.deregister();
    await orders.reaches(['both']);
    expect(server.connections - before).toBe(1);
    await other.deregister();
  }
});

test('a grpc-js before 1.10 calls by name with round_robin, and says so once', {
  timeout: 300_000,
}, async (context) => {
  const { registry, add } = await memory(context);
  const folder = await installed('grpc-1.9', ['@grpc/grpc-js@~1.9']);
  const grpc = createRequire(join(folder, 'package.json'))('@grpc/grpc-js') as Grpc;
  const servers = await Promise.all(['a', 'b'].map((id) => ordersServer(context, id)));
  for (const server of servers) await add(server);
  const warnings: string[] = [];
  const hear = ({ message }: Error) => void warnings.push(message);
  process.on('warning', hear);
  context.onTestFinished(() => void process.off('warning', hear));
  const registrations = ['old', 'older'].map((authority) => registerResolver(registry, { grpc, authority }));
  const Client = grpc.makeGenericClientConstructor(ORDERS, 'Orders');
  const client = new Client('discovery://old/orders', grpc.credentials.createInsecure());
  context.onTestFinished(() => {
    client.close();
    for (const { unregister } of registrations) unregister();
  });
  const orders = callerOf(grpc, client);
  await orders.reaches(['a', 'b']);
  const outcomes = [];
  for (let call = 0; call < 10; call++) outcomes.push(await orders.call());
  expect(counts(outcomes)).toEqual({ a: 5, b: 5 }); // one after the other
  expect(warnings).toEqual([
    'rollcall: this @grpc/grpc-js takes no policies, so round_robin is used: install 1.10 or later',
  ]);
});
