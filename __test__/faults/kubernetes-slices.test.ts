// Services of Kubernetes that nobody registers in: read by their EndpointSlices.
import type { KubernetesOptions, ServiceInstance } from 'rollcall';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ids, listsUntil, nextList, sees, waitFor } from '../conformance/kit.js';
import {
  type Kubernetes,
  kratosPatch,
  type Namespace,
  type SliceEndpoint,
  startKubernetes,
} from '../support/kubernetes.js';
import { connected, type Finish } from './kit.js';

let kubernetes: Kubernetes;
beforeAll(async () => {
  kubernetes = await startKubernetes();
});
afterAll(() => kubernetes?.close());

async function client(context: Finish, namespace: Namespace, more: Partial<KubernetesOptions> = {}) {
  return connected(context, {
    ...{ backend: 'kubernetes', server: `https://${kubernetes.host}`, caFile: kubernetes.certificates.ca.certFile },
    ...{
      namespace: namespace.name,
      token: namespace.token(),
      source: 'endpointslices' as const,
      logger: false,
      ...more,
    },
  });
}

/** The address of a pod of that number. */
const ip = (number: number): string => `10.${number >> 8}.${number & 255}.1`;

const podOf = (name: string) => ({ kind: 'Pod', name, uid: `uid-${name}` });

const endpoint = (number: number, more: Partial<SliceEndpoint> = {}): SliceEndpoint => ({
  ...{ addresses: [ip(number)], targetRef: podOf(`pod-${String(number).padStart(3, '0')}`), ...more },
});

const endpoints = (list: readonly ServiceInstance[]): string[] => list.flatMap((one) => one.endpoints).sort();

describe.concurrent('a Service', () => {
  test('is read as instances: the pod is the id, port names and appProtocol are schemes, the zone is metadata', async (context) => {
    const namespace = await kubernetes.namespace();
    await namespace.service('orders');
    const where = { zone: 'eu-1a', nodeName: 'node-7' };
    await namespace.slice('orders', 'orders-1', {
      endpoints: [endpoint(1, where), { addresses: ['10.0.0.9'] }],
      ports: [
        { name: 'grpc-main', port: 9000 },
        { name: 'web', port: 8000, appProtocol: 'http' },
        { name: 'h2', port: 9100, appProtocol: 'kubernetes.io/h2c' },
        { name: 'metrics', port: 9200 },
        { name: 'all', port: null },
      ],
    });
    const registry = await client(context, namespace);
    const list = await sees(registry, 'orders', ['10.0.0.9', 'pod-001']);
    const [bare, pod] = list as [ServiceInstance, ServiceInstance];
    expect(pod.name).toBe('orders');
    expect(pod.metadata).toMatchObject({ zone: 'eu-1a', node: 'node-7' });
    expect(bare.metadata.zone).toBeUndefined();
    expect([...pod.endpoints].sort()).toEqual([
      'grpc://10.0.1.1:9000',
      'grpc://10.0.1.1:9100',
      'http://10.0.1.1:8000',
      'tcp://10.0.1.1:9200',
    ]);
    expect(await registry.services()).toEqual(['orders']);
    const grpc = await client(context, namespace, { portName: 'grpc-main' });
    expect(endpoints(await grpc.getService('orders'))).toEqual(['grpc://10.0.0.9:9000', 'grpc://10.0.1.1:9000']);
    expect(registry.capabilities).toMatchObject({ keepsId: false });
  });

  test('ready, serving and terminating are respected', async (context) => {
    const namespace = await kubernetes.namespace();
    await namespace.slice('orders', 'orders-1', {
      endpoints: [
        endpoint(1),
        endpoint(2, { conditions: {} }),
        endpoint(3, { conditions: { ready: true, serving: true, terminating: false } }),
        endpoint(4, { conditions: { ready: false } }),
        endpoint(5, { conditions: { ready: false, serving: true, terminating: true } }),
        endpoint(6, { conditions: { ready: false, serving: false, terminating: true } }),
      ],
    });
    const up = ['pod-001', 'pod-002', 'pod-003'];
    await sees(await client(context, namespace), 'orders', up);
    await sees(await client(context, namespace, { terminating: true }), 'orders', [...up, 'pod-005']);
    const all = await client(context, namespace, { notReady: true });
    expect(ids(await all.getService('orders'))).toContain('pod-004');
  });

  test('of two families is one instance for each pod, at the address of the family that is asked for', async (context) => {
    const namespace = await kubernetes.namespace();
    const ports = [{ name: 'grpc', port: 9000 }];
    const second = (number: number) => endpoint(number, { addresses: [`fd00::${number}`] });
    await namespace.slice('orders', 'orders-4', { endpoints: [endpoint(1), endpoint(2)], ports });
    await namespace.slice('orders', 'orders-6', { addressType: 'IPv6', endpoints: [second(1), second(3)], ports });
    const four = await sees(await client(context, namespace), 'orders', ['pod-001', 'pod-002', 'pod-003']);
    expect(endpoints(four)).toEqual(['grpc://10.0.1.1:9000', 'grpc://10.0.2.1:9000', 'grpc://[fd00::3]:9000']);
    const six = await client(context, namespace, { ipFamily: 'ipv6' });
    const list = await sees(six, 'orders', ['pod-001', 'pod-002', 'pod-003']);
    expect(endpoints(list)).toEqual(['grpc://10.0.2.1:9000', 'grpc://[fd00::1]:9000', 'grpc://[fd00::3]:9000']);
  });

  test('of names in the place of addresses is listed by them', async (context) => {
    const namespace = await kubernetes.namespace();
    await namespace.slice('orders', 'orders-1', {
      addressType: 'FQDN',
      endpoints: [{ addresses: ['db.example.com'] }],
      ports: [{ name: 'https', port: 443 }],
    });
    const list = await sees(await client(context, namespace), 'orders', ['db.example.com']);
    expect(endpoints(list)).toEqual(['https://db.example.com:443']);
  });

  test('that comes, changes and goes is followed, and so are the names', async (context) => {
    const namespace = await kubernetes.namespace();
    const registry = await client(context, namespace);
    const [watcher, names] = [registry.watch('orders'), registry.watchServices()];
    expect(await nextList(watcher)).toEqual([]);
    const shows = (wanted: string) =>
      waitFor(() => names.current?.map(({ name }) => name).join() === wanted, { what: `the names "${wanted}"` });
    await namespace.slice('orders', 'orders-1', { endpoints: [endpoint(1)] });
    await listsUntil(watcher, ['pod-001']);
    await shows('orders');
    await namespace.slice('orders', 'orders-2', { endpoints: [endpoint(2)] });
    await namespace.slice('payments', 'payments-1', { endpoints: [endpoint(3)] });
    await listsUntil(watcher, ['pod-001', 'pod-002']);
    await shows('orders,payments');
    await namespace.endSlice('orders-1');
    await listsUntil(watcher, ['pod-002']);
    await namespace.slice('orders', 'orders-2', { endpoints: [] });
    await listsUntil(watcher, []);
    await shows('payments');
  });

  test('whose endpoints move between slices never lacks one that stood throughout', {
    timeout: 60_000,
  }, async (context) => {
    const namespace = await kubernetes.namespace();
    const registry = await client(context, namespace);
    const watcher = registry.watch('orders');
    const all = Array.from({ length: 300 }, (_, i) => i);
    // Of dual stack: each stands in two slices, of which one is written after the other.
    const put = async (slice: number, numbers: readonly number[]): Promise<void> => {
      const second = (number: number) => endpoint(number, { addresses: [`fd00::${(number + 1).toString(16)}`] });
      await namespace.slice('orders', `orders-${slice}`, { endpoints: numbers.map((number) => endpoint(number)) });
      const endpoints = numbers.map(second);
      await namespace.slice('orders', `orders-6-${slice}`, { addressType: 'IPv6', endpoints });
    };
    const part = (turn: number, slice: number) => all.filter((number) => (number + turn) % 3 === slice);
    for (const slice of [0, 1, 2]) await put(slice, part(0, slice));
    await waitFor(() => watcher.current?.length === 300, { what: 'all of them' });
    const sizes: number[] = [];
    void (async () => {
      for await (const list of watcher) sizes.push(list.length);
    })();
    for (let turn = 1; turn <= 10; turn++) {
      // For a while each of them is in two slices of a family.
      for (const slice of [0, 1, 2]) await put(slice, [...part(turn - 1, slice), ...part(turn, slice)]);
      for (const slice of turn % 2 ? [0, 1, 2] : [2, 1, 0]) await put(slice, part(turn, slice));
    }
    await put(0, [...part(10, 0), 300]);
    await waitFor(() => watcher.current?.length === 301, { what: 'the last change' });
    expect(Math.min(...sizes, 300)).toBe(300);
  });

  test('duplicated for a moment is one instance, and the newer slice counts', async (context) => {
    const namespace = await kubernetes.namespace();
    await namespace.slice('orders', 'orders-1', { endpoints: [endpoint(1, { conditions: { ready: false } })] });
    await namespace.slice('orders', 'orders-2', { endpoints: [endpoint(1)] });
    const registry = await client(context, namespace);
    await sees(registry, 'orders', ['pod-001']);
    await namespace.slice('orders', 'orders-1', {
      endpoints: [endpoint(1, { conditions: { ready: false }, zone: 'z' })],
    });
    await sees(registry, 'orders', []);
  });
});

describe.concurrent('source auto', () => {
  test('takes pods of Kratos where there are any, else slices, for each name as they come and go', async (context) => {
    const namespace = await kubernetes.namespace();
    await namespace.slice('orders', 'orders-1', { endpoints: [endpoint(1)] });
    await namespace.slice('payments', 'payments-1', { endpoints: [endpoint(2)] });
    const registry = await client(context, namespace, { source: 'auto' });
    const [orders, payments] = [registry.watch('orders'), registry.watch('payments')];
    await listsUntil(orders, ['pod-001']);
    await listsUntil(payments, ['pod-002']);
    await namespace.pod('kratos');
    await namespace.patch('kratos', kratosPatch({ id: 'a', name: 'orders', protocols: { '9000': 'grpc' } }));
    await listsUntil(orders, ['a']);
    await sees(registry, 'orders', ['a']);
    expect(await registry.services()).toEqual(['orders', 'payments']);
    await namespace.end('kratos');
    await listsUntil(orders, ['pod-001']);
    expect(ids(payments.current ?? [])).toEqual(['pod-002']);
  });
});
