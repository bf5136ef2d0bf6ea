// Every call is told to an observer, and so to OpenTelemetry.

import { Etcd3, type GRPCGenericError, openTelemetry } from 'rollcall/etcd';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type EtcdCluster, startEtcd } from '../support/etcd.js';

let etcd: EtcdCluster;
beforeAll(async () => {
  etcd = await startEtcd();
});
afterAll(() => etcd?.close());

/** What a tracer and a meter of OpenTelemetry are told. */
function recorder() {
  const spans: {
    name: string;
    kind?: number | undefined;
    attributes: object;
    status?: object;
    error?: Error;
    ended: number;
  }[] = [];
  const measured: { value: number; attributes: object }[] = [];
  return {
    spans,
    measured,
    tracer: {
      startSpan(name: string, { kind, attributes }: { kind?: number; attributes?: object } = {}) {
        const span: (typeof spans)[number] = { name, kind, attributes: { ...attributes }, ended: 0 };
        spans.push(span);
        return {
          setAttribute: (key: string, value: unknown) => Object.assign(span.attributes, { [key]: value }),
          setStatus: (status: object) => {
            span.status = status;
          },
          recordException: (error: Error) => {
            span.error = error;
          },
          end: () => {
            span.ended++;
          },
        };
      },
    },
    meter: {
      createHistogram: () => ({
        record: (value: number, attributes: object = {}) => void measured.push({ value, attributes }),
      }),
    },
  };
}

test('calls that succeed and calls that fail: a span each, ended once, and a measurement', async () => {
  const { spans, measured, tracer, meter } = recorder();
  const client = new Etcd3({ hosts: etcd.hosts as string[], observe: openTelemetry({ tracer, meter }) });
  await client.put('observed').value('1');
  expect(await client.get('observed').string()).toBe('1');
  const failure = await client
    .get('observed')
    .revision(1_000_000)
    .string()
    .catch((error: GRPCGenericError) => error);
  await client.close();

  expect(spans.map(({ name, ended }) => [name, ended])).toEqual([
    ['etcdserverpb.KV/put', 1],
    ['etcdserverpb.KV/range', 1],
    ['etcdserverpb.KV/range', 1],
  ]);
  const rpc = { 'rpc.system': 'grpc', 'rpc.service': 'etcdserverpb.KV', 'rpc.method': 'put' };
  expect(spans[0]).toMatchObject({ kind: 2, attributes: { ...rpc, 'rpc.grpc.status_code': 0 } });
  expect(spans[0]?.status).toBeUndefined();
  expect(spans[2]).toMatchObject({ status: { code: 2 }, attributes: { 'rpc.grpc.status_code': 11 } });
  expect(spans[2]?.error).toBe(failure);
  expect(measured.map(({ attributes }) => attributes)).toEqual(spans.map(({ attributes }) => attributes));
  expect(measured.every(({ value }) => value > 0)).toBe(true);
  expect(JSON.stringify([spans, measured])).not.toContain('"observed"');
});

test('an observer that throws or rejects costs no call, and is logged once', async () => {
  const boom = () => {
    throw new Error('boom');
  };
  const reject = () => Promise.reject(new Error('boom'));
  for (const begin of [boom, () => boom, reject, () => reject] as never[]) {
    const logged: string[] = [];
    const logger = { error: (text: string) => void logged.push(text) };
    const client = new Etcd3({ hosts: etcd.hosts as string[], observe: { begin }, logger });
    await client.put('observed').value('1');
    expect(await client.get('observed').string()).toBe('1');
    await expect(client.get('observed').revision(1_000_000).string()).rejects.toMatchObject({ grpcCode: 11 });
    await client.close();
    expect(logged).toEqual([expect.stringContaining('the observer of the etcd client failed')]);
  }
});

test('what is no observer is refused by name', () => {
  for (const observe of [1, 'x', {}, { begin: 1 }]) {
    expect(() => new Etcd3({ hosts: 'a:1', observe: observe as never })).toThrow(/options\.observe: expected/);
  }
});
