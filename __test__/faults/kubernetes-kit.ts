// What the fault tests of Kubernetes share: a server for each file, clients, records of others.
import type { KubernetesOptions, Registry, Watcher } from 'rollcall';
import { afterAll, beforeAll } from 'vitest';
import { type Kubernetes, kratosPatch, type Namespace, startKubernetes } from '../support/kubernetes.js';
import { startWay, type Way } from '../support/kubernetes-way.js';
import { connected, type Finish } from './kit.js';

/** The server of a file, which its tests share. */
export const shared = {} as { kubernetes: Kubernetes };

/** To be called once in a file. */
export function oneServer(): void {
  beforeAll(async () => {
    shared.kubernetes = await startKubernetes();
  });
  afterAll(() => shared.kubernetes?.close());
}

export function optionsFor(namespace: Namespace, more: Partial<KubernetesOptions> = {}): KubernetesOptions {
  const { host, certificates } = shared.kubernetes;
  return {
    ...{ backend: 'kubernetes', server: `https://${host}`, caFile: certificates.ca.certFile },
    namespace: namespace.name,
    ...(more.token === undefined && more.tokenFile === undefined && { token: namespace.token() }),
    ...{ pod: 'p1', ttlMs: 3000, logger: false },
    ...more,
  };
}

export async function client(
  context: Finish,
  namespace: Namespace,
  more: Partial<KubernetesOptions> = {},
): Promise<Registry> {
  return connected(context, optionsFor(namespace, more));
}

export async function way({ onTestFinished }: Finish): Promise<Way> {
  const made = await startWay(shared.kubernetes);
  onTestFinished(() => made.close());
  return made;
}

/** A client that comes by such a way. */
export async function clientByWay(context: Finish, namespace: Namespace, more: Partial<KubernetesOptions> = {}) {
  const link = await way(context);
  return { link, registry: await client(context, namespace, { server: `https://${link.host}`, ...more }) };
}

/** Of a pod that declares what `instance` has. */
export const PORTS = [{ port: 8000 }, { port: 9000 }];

/** As Kratos registers in a pod of its own. */
export async function put(
  namespace: Namespace,
  id: string,
  more: { version?: string; name?: string } = {},
): Promise<void> {
  const pod = `kratos-${id}`;
  if (!(await namespace.read(pod))) await namespace.pod(pod, { ports: PORTS });
  await namespace.patch(pod, kratosPatch({ id, name: more.name ?? 'orders', version: more.version }));
}

export const told = (watcher: Watcher): string[] => {
  const events: string[] = [];
  watcher.on('stale', () => events.push('stale')).on('fresh', () => events.push('fresh'));
  return events;
};
