import { createRequire } from 'node:module';
import { describe, expect, it } from 'vitest';
import {
  type CallContext,
  type CallOptions,
  type ICallable,
  METHODS,
  methodOf,
  readsOnly,
  Services,
  takesLong,
} from '../../lib/etcd/rpc/clients.js';
import * as enums from '../../lib/etcd/rpc/enums.js';
import { MESSAGES } from '../../lib/etcd/rpc/schema.js';

type Client = Record<string, (...args: unknown[]) => Promise<unknown>>;
type ClientClass = new (callable: unknown) => Client;

const require = createRequire(import.meta.url);
const etcd3 = require('etcd3') as Record<string, unknown> & { Services: Record<string, ClientClass> };
const loader = require('@grpc/proto-loader') as {
  loadSync(
    file: string,
  ): Record<string, Record<string, { path: string; requestStream: boolean; responseStream: boolean }>>;
};
const protocol = loader.loadSync(require.resolve('etcd3/package.json').replace('package.json', 'proto/rpc.proto'));
/** Methods of etcd 3.7 that etcd3 has not. */
const NEWER = [{ path: '/etcdserverpb.KV/RangeStream', kind: 'answers' }];
const services = Object.keys(Services) as (keyof typeof Services)[];

describe('the enums', () => {
  it.each(Object.entries(enums))('%s is that of etcd3, at run time too', (name, members) => {
    expect(members).toEqual(etcd3[name]);
  });
});

describe('the table of methods', () => {
  it('has every method of the protocol, with its path and its kind', () => {
    const known = services.flatMap((service) =>
      Object.values(protocol[`etcdserverpb.${service}`] ?? {}).map(({ path, requestStream, responseStream }) => ({
        path,
        kind: requestStream ? 'both' : responseStream ? 'answers' : 'unary',
      })),
    );
    const byPath = (a: { path: string }, b: { path: string }) => (a.path < b.path ? -1 : 1);
    expect(METHODS.map(({ path, kind }) => ({ path, kind })).sort(byPath)).toEqual([...known, ...NEWER].sort(byPath));
    expect(METHODS).toHaveLength(42);
    METHODS.forEach((method, index) => {
      expect(method.index).toBe(index);
      expect(methodOf(method.service, method.name)).toBe(method);
      expect(MESSAGES).toHaveProperty(method.request);
      expect(MESSAGES).toHaveProperty(method.response);
    });
    expect(methodOf('KV', 'toString')).toBeUndefined();
    expect(methodOf('constructor', 'range')).toBeUndefined();
  });

  it('has no method that the native side does not know', () => {
    const { etcdMethods } = require('../../index.js') as { etcdMethods(): string[] };
    const known = new Set(etcdMethods());
    expect(METHODS.map(({ path }) => path).filter((path) => !known.has(path))).toEqual([]);
  });

  it('knows what only reads', () => {
    const reads = (service: string, name: string, params: unknown = {}) => {
      const method = methodOf(service, name);
      if (!method) throw new Error(name);
      return readsOnly(method, params);
    };
    expect(reads('KV', 'range')).toBe(true);
    expect(reads('KV', 'put')).toBe(false);
    expect(reads('Lease', 'leaseGrant')).toBe(false);
    expect(reads('KV', 'txn', {})).toBe(true);
    expect(reads('KV', 'txn', { success: [{ request_range: {} }], failure: null })).toBe(true);
    expect(reads('KV', 'txn', { failure: [{ request_range: {} }, { request_put: {} }] })).toBe(false);
    expect(reads('KV', 'txn', { success: [{ request_txn: { failure: [{ request_delete_range: {} }] } }] })).toBe(false);
    expect(reads('KV', 'txn', { success: [{ request_txn: { success: [{ request_range: {} }] } }] })).toBe(true);
    const endless: { success: unknown[] } = { success: [] };
    endless.success.push({ request_txn: endless });
    expect(reads('KV', 'txn', endless)).toBe(false);
    expect(reads('Maintenance', 'alarm', { action: 'Get' })).toBe(true);
    expect(reads('Maintenance', 'alarm', { action: 2 })).toBe(false);
    expect(reads('Maintenance', 'downgrade', { action: 'Enable' })).toBe(false);
  });

  it('knows what takes long', () => {
    expect(METHODS.filter((method) => takesLong(method, { physical: true })).map(({ name }) => name)).toEqual([
      'rangeStream',
      'compact',
      'defragment',
      'hash',
      'hashKV',
      'snapshot',
    ]);
    expect(METHODS.filter((method) => takesLong(method, {})).map(({ name }) => name)).not.toContain('compact');
  });
});

/** What a client asks its connection for. */
function recorded() {
  const calls: unknown[] = [];
  const failed: unknown[] = [];
  const stream = { on: (event: string, fn: (error: Error) => void) => listeners.push([event, fn]) };
  const listeners: [string, (error: Error) => void][] = [];
  const open =
    (method: string) =>
    (...args: unknown[]) => {
      calls.push(['open', method, ...args]);
      return stream;
    };
  const callable = {
    callOptionsFactory: undefined as ((context: CallContext) => CallOptions) | undefined,
    async exec(...args: unknown[]) {
      calls.push(args);
      return 'answer';
    },
    async withConnection(service: string, fn: (args: unknown) => unknown) {
      calls.push(['withConnection', service]);
      const client = {
        watch: open('watch'),
        leaseKeepAlive: open('leaseKeepAlive'),
        snapshot: open('snapshot'),
        rangeStream: open('rangeStream'),
      };
      return fn({ resource: 'host', client, metadata: 'metadata' });
    },
    markFailed: (...args: unknown[]) => failed.push(args),
  };
  return { callable: callable as unknown as ICallable<unknown> & typeof callable, calls, failed, stream, listeners };
}

describe('the clients', () => {
  it.each(services)('%s has the methods of etcd3, which call the same', async (service) => {
    const Ours = Services[service] as unknown as ClientClass;
    const Theirs = etcd3.Services[service] as ClientClass;
    expect(Ours.name).toBe(Theirs.name);
    const methods = (type: ClientClass) => Object.getOwnPropertyNames(type.prototype).sort();
    const newer = NEWER.map(({ path }) => /\.(\w+)\/(\w)(\w+)$/.exec(path) ?? [])
      .filter(([, of]) => of === service)
      .map(([, , first, rest]) => `${first?.toLowerCase()}${rest}`);
    expect(methods(Ours)).toEqual([...methods(Theirs), ...newer].sort());
    for (const { name } of METHODS.filter((method) => method.service === service && method.kind === 'unary')) {
      const [mine, known] = [recorded(), recorded()];
      const params = [{ some: 'request' }, { deadline: 5 }];
      const given = (Ours.prototype[name] as () => void).length === 2 ? params : params.slice(1);
      await expect(new Ours(mine.callable)[name]?.(...given)).resolves.toBe('answer');
      await new Theirs(known.callable)[name]?.(...given);
      expect(mine.calls).toEqual(known.calls);
    }
  });

  it.each([
    ['Watch', 'watch', ['metadata', { deadline: 5, timeoutMs: 1 }]],
    ['Lease', 'leaseKeepAlive', ['metadata', { deadline: 5, timeoutMs: 1 }]],
    ['Maintenance', 'snapshot', [{}, 'metadata', { deadline: 5, timeoutMs: 1 }]],
  ] as const)('%s.%s opens a stream with the metadata and the options', async (service, method, expected) => {
    const { callable, calls, failed, stream, listeners } = recorded();
    const contexts: CallContext[] = [];
    callable.callOptionsFactory = (context) => {
      contexts.push(context);
      return { deadline: 1, timeoutMs: 1 };
    };
    const client = new (Services[service] as unknown as ClientClass)(callable);
    await expect(client[method]?.({ deadline: 5 })).resolves.toBe(stream);
    expect(calls).toEqual([
      ['withConnection', service],
      ['open', method, ...expected],
    ]);
    expect(contexts).toEqual([{ service, method, isStream: true }]);
    const error = new Error('cut');
    for (const [event, fn] of listeners) if (event === 'error') fn(error);
    expect(failed).toEqual([['host', error]]);
  });
});
