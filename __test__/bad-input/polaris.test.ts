// What can't be right of Polaris, and servers that answer what no Polaris does: typed errors in time, and nothing left behind.
import { Server, ServerCredentials, type ServerDuplexStream, type ServiceDefinition, status } from '@grpc/grpc-js';
import type { PolarisOptions, Registry, RegistryOptions } from 'rollcall';
import { connect } from 'rollcall';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ids, refused, timed } from '../conformance/kit.js';
import { connected, type Finish } from '../faults/kit.js';
import { type PolarisServer, startPolaris } from '../support/polaris.js';
import { inTime, uniqueName } from '../support/process.js';
import { startSilentServer } from '../support/tcp.js';

const options = (hosts: string, more: Partial<PolarisOptions> = {}): PolarisOptions => ({
  ...{ backend: 'polaris', hosts, logger: false, connectTimeoutMs: 2000 },
  ...more,
});

/** One field of a message, which is a message or text. */
const field = (number: number, value: Buffer): Buffer => {
  const length: number[] = [];
  for (let left = value.length; ; left >>>= 7) {
    length.push(left > 127 ? (left & 127) | 128 : left);
    if (left <= 127) break;
  }
  return Buffer.concat([Buffer.from([(number << 3) | 2, ...length]), value]);
};
const varint = (value: number): Buffer => {
  const bytes: number[] = [0x08];
  for (let left = value; ; left >>>= 7) {
    bytes.push(left > 127 ? (left & 127) | 128 : left);
    if (left <= 127) return Buffer.from(bytes);
  }
};
/** An answer with a code and a text, to whatever was asked. */
const coded = (code: number, info: string): Buffer =>
  Buffer.concat([field(1, varint(code)), field(2, field(1, Buffer.from(info)))]);

/** A gRPC server whose answers to every question of its Discover are these bytes. */
async function discovering(
  { onTestFinished }: Finish,
  answer: (stream: ServerDuplexStream<Buffer, Buffer>) => void,
): Promise<string> {
  const bytes = { serialize: (value: Buffer) => value, deserialize: (value: Buffer) => value };
  const service: ServiceDefinition = {
    Discover: {
      path: '/v1.PolarisGRPC/Discover',
      requestStream: true,
      responseStream: true,
      requestSerialize: bytes.serialize,
      requestDeserialize: bytes.deserialize,
      responseSerialize: bytes.serialize,
      responseDeserialize: bytes.deserialize,
    },
  };
  const server = new Server();
  server.addService(service, {
    Discover: (stream: ServerDuplexStream<Buffer, Buffer>) => {
      stream.on('error', () => {});
      stream.on('data', () => answer(stream));
    },
  });
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  onTestFinished(() => server.forceShutdown());
  return `127.0.0.1:${port}`;
}

describe.concurrent('a server that answers', () => {
  const cases: [what: string, (stream: ServerDuplexStream<Buffer, Buffer>) => void, code: string[]][] = [
    ['what is no message', (stream) => void stream.write(Buffer.from([255, 255, 255])), ['ERR_UNAVAILABLE']],
    ['a message of another kind', (stream) => void stream.write(Buffer.alloc(0)), ['ERR_UNAVAILABLE']],
    ['that it failed', (stream) => void stream.write(coded(500_000, 'oops')), ['ERR_UNAVAILABLE']],
    ['that it is too much', (stream) => void stream.write(coded(429_001, 'limited')), ['ERR_UNAVAILABLE']],
    ['with 65 MB', (stream) => void stream.write(field(99, Buffer.alloc(65 * 1024 * 1024))), ['ERR_UNAVAILABLE']],
    ['by ending the stream', (stream) => void stream.end(), ['ERR_UNAVAILABLE']],
    [
      'that it has no such method',
      (stream) => void stream.emit('error', { code: status.UNIMPLEMENTED, details: 'unknown service' }),
      ['ERR_UNSUPPORTED', 'ERR_UNAVAILABLE'],
    ],
    [
      'as a proxy that knows nobody',
      (stream) => void stream.emit('error', { code: status.UNAUTHENTICATED, details: 'who are you' }),
      ['ERR_UNAUTHENTICATED'],
    ],
    ['not at all', () => {}, ['ERR_TIMEOUT', 'ERR_UNAVAILABLE']],
  ];
  test.each(cases)('%s', { timeout: 30_000 }, async (_, answer, codes) => {
    const cleanUp: (() => unknown)[] = [];
    const context = { onTestFinished: (undo: () => unknown) => void cleanUp.push(undo) } as unknown as Finish;
    const host = await discovering(context, answer);
    const { ms } = await timed(
      refused(connect(options(host)), [...codes, 'ERR_TIMEOUT'] as never).then((error) => {
        expect(`${error.message} ${error.endpoint}`).toContain(host);
      }),
    );
    expect(ms).toBeLessThan(inTime(5000));
    for (const undo of cleanUp) await undo();
  });

  test('nothing, and is no gRPC server', async ({ onTestFinished }) => {
    const silent = await startSilentServer();
    onTestFinished(() => silent.close());
    await refused(connect(options(silent.host)), ['ERR_TIMEOUT', 'ERR_UNAVAILABLE']);
  });
});

describe('on a real server', () => {
  let polaris: PolarisServer;
  const namespace = uniqueName('bad');
  beforeAll(async () => {
    polaris = await startPolaris();
  });
  afterAll(() => polaris?.close());

  async function client(context: Finish, more: Partial<PolarisOptions> = {}): Promise<Registry> {
    return connected(context, options(polaris.host, { namespace, ...more }));
  }

  const pairs = (count: number): Record<string, string> =>
    Object.fromEntries(Array.from({ length: count }, (_, i) => [`k${i}`, 'v']));

  test.each([
    [{ name: 'a b' }, /instance\.name: /],
    [{ name: 'ü' }, /instance\.name: /],
    [{ name: 'n'.repeat(129) }, /instance\.name: .*128/],
    [{ version: 'v'.repeat(33) }, /instance\.version: .*32/],
    [{ metadata: { merge: 'x' } }, /instance\.metadata\["?merge"?\]|instance\.metadata\.merge/],
    [{ metadata: { 'rollcall.id': 'x' } }, /instance\.metadata/],
    [{ metadata: { 'rollcall.owner': 'x' } }, /instance\.metadata/],
    [{ metadata: pairs(64) }, /instance\.metadata: .*64/],
    [{ metadata: { k: 'v'.repeat(4097) } }, /instance\.metadata.*4,?096/],
    [{ metadata: { ['k'.repeat(129)]: 'v' } }, /instance\.metadata.*128/],
    [{ endpoints: [`grpc://${'h'.repeat(129)}:1`] }, /instance\.endpoints\[0\]: .*128/],
    [{ endpoints: [`${'s'.repeat(33)}://h:1`] }, /instance\.endpoints\[0\]: .*32/],
    [{ endpoints: ['grpc://h:1', 'http://h:1'] }, /instance\.endpoints\[1\]: /],
  ])('%o is refused before anything is sent', async (wrong, message) => {
    const registry = await connect(options(polaris.host, { namespace }));
    try {
      await refused(registry.register({ name: 'refused', id: 'a', ...wrong }), 'ERR_INVALID_ARGUMENT', message);
      expect(await polaris.services(namespace)).not.toContain('refused');
    } finally {
      await registry.close();
    }
  });

  test('what is just within the limits is returned unchanged', async (context) => {
    const registry = await client(context);
    const given = {
      name: `n-.:_${'n'.repeat(123)}`,
      id: 'i'.repeat(512),
      version: 'v'.repeat(32),
      metadata: { ...pairs(50), ['k'.repeat(128)]: 'v'.repeat(4096), protocol_: '', kind_: 'é 😀' },
      endpoints: [`grpc://${'h'.repeat(128)}:1`],
    };
    await registry.register(given);
    const [read] = await registry.getService(given.name, { consistent: true });
    expect(read).toMatchObject(given);
    expect(read?.metadata).toEqual(given.metadata);
  });

  test('metadata whose keys mean something to Polaris is refused, or returned unchanged', async (context) => {
    const registry = await client(context);
    for (const key of ['version', 'protocol', 'kind', 'weight', 'internal-lastheartbeat', 'internal-x']) {
      const given = { name: 'words', id: key, metadata: { [key]: '7' }, endpoints: [`grpc://${key}:1`] };
      const registration = await registry.register(given).catch((error: Error) => error);
      if (registration instanceof Error) {
        expect(registration).toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
        expect(registration.message).toMatch(/^instance\.metadata/);
        continue;
      }
      const [read] = await registry.getService('words', { consistent: true });
      expect(read?.metadata, key).toEqual(given.metadata);
      await registration.deregister();
    }
  });

  test('64 endpoints of one scheme are one instance, and leave together', async (context) => {
    const registry = await client(context, { timeoutMs: 60_000 }); // 64 calls, each a write to a disk
    const endpoints = Array.from({ length: 64 }, (_, i) => `grpc://10.0.0.1:${9000 + i}`);
    const registration = await registry.register({ name: 'many', id: 'a', endpoints });
    expect((await registry.getService('many', { consistent: true }))[0]?.endpoints).toEqual(endpoints);
    await registration.deregister();
    expect(await polaris.list(namespace, 'many')).toEqual([]);
  });

  test('records that others wrote with next to nothing are read', async (context) => {
    const registry = await client(context);
    await polaris.put({ namespace, service: 'bare', host: '10.0.0.9', port: 0 });
    await polaris.put({
      namespace,
      service: 'bare',
      host: '::1',
      port: 65535,
      protocol: 'tcp',
      metadata: { merge: '' },
    });
    const watcher = registry.watch('bare');
    let list: readonly { id: string; endpoints: readonly string[] }[] = [];
    for await (list of watcher) if (list.length === 2) break;
    expect(ids(list as never)).toHaveLength(2);
    expect(list.flatMap(({ endpoints }) => endpoints)).toContain('tcp://[::1]:65535');
  });

  test('a namespace that does not exist is made, and reading one makes none', async (context) => {
    const other = uniqueName('other');
    const registry = await client(context, { namespace: other });
    expect(await registry.getService('orders')).toEqual([]);
    expect(await registry.services()).toEqual([]);
    await registry.register({ name: 'orders', id: 'a' });
    expect(await polaris.services(other)).toEqual(['orders']);
  });
});

describe('options', () => {
  test.each([
    ['polaris://h?namespace=a%20b', /options\.namespace: /],
    [`polaris://h?namespace=${'n'.repeat(129)}`, /options\.namespace: /],
    ['polaris://h?layout=kratos', /options\.layout.*"registry"/s],
    ['polaris://h?ttlMs=61000', /options\.ttlMs: .*60/],
    ['polaris://h?ttlMs=0', /options\.ttlMs: /],
    ['polaris://h?weight=-1', /options\.weight: /],
    ['polaris://h/path', /path/],
  ])('%s', async (url, message) => {
    await refused(connect(`${url}${url.includes('?') ? '&' : '?'}lazy=true`), 'ERR_INVALID_ARGUMENT', message);
  });

  test.each([
    [{ layout: 'kratos' }, /options\.layout/],
    [{ token: 'a\nb' }, /options\.token: /],
    [{ token: 7 }, /options\.token/],
    [{ namespace: '' }, /options\.namespace/],
    [{ weight: 1.5 }, /options\.weight/],
    [{ group: 'x' }, /options\.group/],
  ])('%o', async (wrong, message) => {
    const given = { backend: 'polaris', hosts: '127.0.0.1:1', lazy: true, ...wrong } as unknown as RegistryOptions;
    await refused(connect(given), 'ERR_INVALID_ARGUMENT', message);
  });
});
