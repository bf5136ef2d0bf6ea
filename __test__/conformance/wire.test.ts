// What is stored, byte for byte: the form of Kratos, and that of the codec 'metadata'.
import type { InstanceInput, RegistryOptions } from 'rollcall';
import { connect } from 'rollcall';
import { expect } from 'vitest';
import { forEveryBackend } from './backends.js';
import { nextList, refused, unstamped } from './kit.js';

// Captured from Go Kratos.
const captures: [title: string, instance: InstanceInput & { id: string }, bytes: string][] = [
  [
    'metadata with & < > and é, two endpoints in the order of the owner',
    {
      id: '5f8d-1',
      name: 'helloworld',
      version: 'v1.0.0',
      metadata: { zone: 'sh001', weight: '10', q: 'a&b<c>é' },
      endpoints: ['http://127.0.0.1:8000', 'grpc://127.0.0.1:9000'],
    },
    '{"id":"5f8d-1","name":"helloworld","version":"v1.0.0","metadata":{"q":"a\\u0026b\\u003cc\\u003eé","weight":"10","zone":"sh001"},"endpoints":["http://127.0.0.1:8000","grpc://127.0.0.1:9000"]}',
  ],
  [
    'no metadata and no endpoints',
    { id: 'x', name: 'helloworld-admin' },
    '{"id":"x","name":"helloworld-admin","version":"","metadata":null,"endpoints":null}',
  ],
];

// By the rules of Go's encoding/json, 1.22 and later.
const rules: [title: string, instance: InstanceInput & { id: string }, bytes: string][] = [
  [
    'empty metadata and endpoints are null like missing ones',
    { id: 'e', name: 'n', metadata: {}, endpoints: [] },
    '{"id":"e","name":"n","version":"","metadata":null,"endpoints":null}',
  ],
  [
    'control characters, quotes, line separators',
    { id: 'c', name: 'n', metadata: { k: '\b\f\n\r\t\u0000\u001f"\\/\u2028\u2029\u007f' } },
    '{"id":"c","name":"n","version":"","metadata":{"k":"\\b\\f\\n\\r\\t\\u0000\\u001f\\"\\\\/\\u2028\\u2029\u007f"},"endpoints":null}',
  ],
  [
    'keys sorted by bytes, not by UTF-16 units',
    { id: 's', name: 'n', metadata: { '\u{1f600}': '4', '\uffee': '3', b: '2', B: '1', '10': '0' } },
    '{"id":"s","name":"n","version":"","metadata":{"10":"0","B":"1","b":"2","\uffee":"3","\u{1f600}":"4"},"endpoints":null}',
  ],
  [
    'text outside ASCII stays as it is',
    { id: 'ü', name: 'späti', version: '版', endpoints: ['grpc://10.0.0.1:1?a=1&b=<2>'] },
    '{"id":"ü","name":"späti","version":"版","metadata":null,"endpoints":["grpc://10.0.0.1:1?a=1\\u0026b=\\u003c2\\u003e"]}',
  ],
];

forEveryBackend('what is stored', (it) => {
  for (const [title, instance, bytes] of [...captures, ...rules]) {
    it(
      `Kratos's bytes: ${title}`,
      async (scope) => {
        const registry = await scope.connect();
        await registry.register(instance);
        expect((await scope.stored(instance.name, instance.id))?.value).toBe(bytes);
      },
      { needs: ['rawRead'] },
    );

    it(
      `reads them back: ${title}`,
      async (scope) => {
        const registry = await scope.connect();
        await scope.put(instance.name, instance.id, bytes);
        expect(unstamped(await registry.getService(instance.name))).toEqual([
          { version: '', ...instance, metadata: instance.metadata ?? {}, endpoints: instance.endpoints ?? [] },
        ]);
      },
      { needs: ['rawPut'] },
    );
  }

  it(
    'text that is no Unicode (a lone surrogate) is refused, where Go would write something else than was given',
    async (scope) => {
      const registry = await scope.connect();
      await expect(registry.register({ name: 'orders', id: 'a', metadata: { k: 'a\ud800b' } })).rejects.toMatchObject({
        code: 'ERR_INVALID_ARGUMENT',
        message: expect.stringContaining('instance.metadata.k'),
      });
      expect(await scope.stored('orders', 'a')).toBeFalsy();
    },
    { needs: ['rawRead'] },
  );

  it(
    'the record hangs on a lease and the key is {prefix}/{name}/{id}',
    async (scope) => {
      const registry = await scope.connect();
      await registry.register({ name: 'orders', id: 'a' });
      const record = await scope.stored('orders', 'a');
      expect(record?.lease).not.toBe('0');
      expect(scope.key('orders', 'a')).toMatch(/^\/suite-[0-9a-f]+\/orders\/a$/);
    },
    { needs: ['rawRead', 'leases'] },
  );

  it(
    "codec 'metadata': the bare metadata as JSON; version and endpoints do not travel",
    async (scope) => {
      const registry = await connect({ ...scope.options(), codec: 'metadata' } as RegistryOptions);
      try {
        await registry.register({
          name: 'orders',
          id: 'a',
          version: '1',
          metadata: { b: '2', a: '1&' },
          endpoints: ['grpc://10.0.0.1:1'],
        });
        await registry.register({ name: 'orders', id: 'b' });
        expect((await scope.stored('orders', 'a'))?.value).toMatch(/^\{"a":"1(&|\\u0026)","b":"2"\}$/);
        expect((await scope.stored('orders', 'b'))?.value).toBe('{}');
        await scope.put('orders', 'c', '{"host":"10.0.0.1"}');
        const bad: string[] = [];
        registry.on('badRecord', ({ key }) => bad.push(key));
        await scope.put('orders', 'd', '{"port":8080}');
        expect(unstamped(await nextList(registry.watch('orders')))).toEqual([
          { id: 'a', name: 'orders', version: '', metadata: { a: '1&', b: '2' }, endpoints: [] },
          { id: 'b', name: 'orders', version: '', metadata: {}, endpoints: [] },
          { id: 'c', name: 'orders', version: '', metadata: { host: '10.0.0.1' }, endpoints: [] },
        ]);
        expect(bad).toEqual([scope.key('orders', 'd')]);
      } finally {
        await registry.close();
      }
    },
    { needs: ['codecs', 'rawRead'] },
  );

  it(
    'a prefix may have any depth, and only its own part is seen',
    async (scope) => {
      const options = scope.options() as { prefix: string };
      const deep = await connect({ ...scope.options(), prefix: `${options.prefix}/a/b` } as RegistryOptions);
      try {
        await deep.register({ name: 'orders', id: '1' });
        expect((await scope.stored('a/b/orders', '1'))?.key).toBeDefined();
        expect(await deep.services()).toEqual(['orders']);
        expect(await (await scope.connect()).getService('orders')).toEqual([]);
      } finally {
        await deep.close();
      }
    },
    { needs: ['prefixes', 'rawRead'] },
  );

  it(
    'an unknown codec is refused',
    async (scope) => {
      await refused(
        connect({ ...scope.options(), codec: 'metdata' } as never),
        'ERR_INVALID_ARGUMENT',
        /options\.codec.*did you mean "metadata"/s,
      );
    },
    { needs: ['codecs'] },
  );
});
