// The API server that the tests start, and what they make in it.
import { expect, test } from 'vitest';
import { kratosPatch, NOBODY, startKubernetes } from './kubernetes.js';
import { waitFor } from './process.js';

test('a kube-apiserver: pods, slices, rights, tokens that expire, kill, freeze, and an etcd that is emptied', {
  timeout: 120_000,
}, async ({ onTestFinished }) => {
  const kubernetes = await startKubernetes();
  onTestFinished(() => kubernetes.close());
  const { server } = kubernetes;
  const namespace = await kubernetes.namespace();
  const status = async (token: string) =>
    (await namespace.server.ask('GET', namespace.pods, undefined, { token })).status;

  const pod = await namespace.pod('p1', { ports: [{ port: 9000, name: 'grpc' }] });
  expect(pod.status).toMatchObject({ phase: 'Running', podIP: '10.1.2.3' });
  await namespace.patch('p1', kratosPatch({ id: 'a', name: 'orders' }));
  expect((await namespace.list('kratos-service-app=orders')).map(({ metadata }) => metadata.name)).toEqual(['p1']);
  await namespace.strip('p1');
  expect((await namespace.read('p1'))?.metadata).not.toHaveProperty('labels');
  await namespace.pod('ending', { node: 'n1' });
  await namespace.delete('ending');
  expect((await namespace.read('ending'))?.metadata.deletionTimestamp).toBeDefined();
  await namespace.end('ending');
  expect(await namespace.read('ending')).toBeUndefined();
  await namespace.service('orders');
  for (const address of ['10.0.0.1', '10.0.0.2']) {
    await namespace.slice('orders', 'orders-1', { endpoints: [{ addresses: [address] }] });
  }
  await namespace.endSlice('orders-1');

  const short = namespace.token(-55);
  expect([await status(namespace.token()), await status(short), await status(NOBODY)]).toEqual([200, 200, 403]);
  await waitFor(async () => (await status(short)) === 401, { timeoutMs: 40_000, intervalMs: 500, what: 'its end' });
  await namespace.allow([]);
  await waitFor(async () => (await status(namespace.token())) === 403, { what: 'the right to go' });

  server.freeze();
  server.thaw();
  await server.kill();
  await server.start();
  expect(await namespace.read('p1')).toBeDefined();
  await kubernetes.empty();
  expect(await (await kubernetes.namespace(namespace.name)).list()).toEqual([]);
});
