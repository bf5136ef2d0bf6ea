// connect-node calls by name: its transport for HTTP/1.1 takes an agent of Node.js.
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { roundRobin } from 'rollcall';
import { httpAgent } from 'rollcall/http';
import { beforeAll, expect, test } from 'vitest';
import { installed } from '../packaging/tools.js';
import { type Finish, refusingPort, service } from './kit.js';

/** What the test uses of Connect. */
interface Connect {
  createClient(service: object, transport: object): { get(message: { value: string }): Promise<{ value: string }> };
  createConnectTransport(options: object): object;
  createGrpcWebTransport(options: object): object;
  connectNodeAdapter(options: object): (request: object, response: object) => void;
  readonly Orders: object;
}

let connect: Connect;
beforeAll(async () => {
  const packages = ['@connectrpc/connect@2', '@connectrpc/connect-node@2', '@bufbuild/protobuf@2'];
  const require = createRequire(join(await installed('connect', packages), 'package.json'));
  const { create, createFileRegistry } = require('@bufbuild/protobuf');
  const wkt = require('@bufbuild/protobuf/wkt');
  const type = '.google.protobuf.StringValue';
  const file = create(wkt.FileDescriptorProtoSchema, {
    name: 'orders.proto',
    package: 'orders.v1',
    syntax: 'proto3',
    dependency: ['google/protobuf/wrappers.proto'],
    service: [{ name: 'Orders', method: [{ name: 'Get', inputType: type, outputType: type }] }],
  });
  const Orders = createFileRegistry(file, () => wkt.file_google_protobuf_wrappers).getService('orders.v1.Orders');
  connect = { ...require('@connectrpc/connect'), ...require('@connectrpc/connect-node'), Orders };
}, 300_000);

/** A server of Connect that answers with its id and what it was asked. */
async function ordersServer({ onTestFinished }: Finish, id: string): Promise<number> {
  const get = ({ value }: { value: string }) => ({ value: `${value} from ${id}` });
  const routes = (router: { service(type: object, handlers: object): void }) => router.service(connect.Orders, { get });
  const server = createServer(connect.connectNodeAdapter({ routes }) as never);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

test.each(['createConnectTransport', 'createGrpcWebTransport'] as const)(
  '%s of connect-node calls by name through httpAgent(), and instances take turns',
  async (transport) => {
    const finishes: (() => unknown)[] = [];
    const context = { onTestFinished: (finish: () => unknown) => void finishes.push(finish) };
    try {
      const ports = [await ordersServer(context, 'a'), await ordersServer(context, 'b')];
      const { registry, orders } = await service(context, ports);
      const agent = httpAgent(registry, { service: { strategy: roundRobin() } });
      const how = { baseUrl: 'http://orders', httpVersion: '1.1', nodeOptions: { agent } };
      const client = connect.createClient(connect.Orders, connect[transport](how));
      const answers = [];
      for (let turn = 0; turn < 4; turn++) answers.push((await client.get({ value: `${turn}` })).value);
      expect(answers.map((answer) => answer.replace(/. from /, '')).sort()).toEqual(['a', 'a', 'b', 'b']);
      expect(answers.map((answer) => answer[0])).toEqual(['0', '1', '2', '3']);
      expect(orders.metrics()).toMatchObject({ picks: 4, inFlight: 0, ejections: 0 });
    } finally {
      for (const finish of finishes.reverse()) await finish();
    }
  },
);

test('connect-node: who refuses is set aside, and its call fails with Unavailable', async (context) => {
  const { registry, orders } = await service(context, [await refusingPort(), await ordersServer(context, 'b')]);
  const agent = httpAgent(registry, { service: { strategy: roundRobin() } });
  const how = { baseUrl: 'http://orders', httpVersion: '1.1', nodeOptions: { agent } };
  const client = connect.createClient(connect.Orders, connect.createConnectTransport(how));
  const codes = [];
  for (let turn = 0; turn < 4; turn++) {
    const answer = await client.get({ value: '7' }).catch((error) => error);
    codes.push(answer.code ?? answer.value);
  }
  const UNAVAILABLE = 14;
  expect(codes.filter((code) => code !== '7 from b')).toEqual([UNAVAILABLE]);
  expect(orders.metrics()).toMatchObject({ picks: 4, inFlight: 0, ejections: 1 });
});
