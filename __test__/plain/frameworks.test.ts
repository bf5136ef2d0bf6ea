// registerSelf() with real applications of Express and Fastify, from the packed tarball: under load nobody who finds them by
// name is refused while they leave traffic, come back and end.
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { connect, type Registry } from 'rollcall';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { installedWithPackage } from '../packaging/tools.js';
import { type EtcdCluster, startEtcd } from '../support/etcd.js';
import { runProgram, type Script, uniqueName, waitFor } from '../support/process.js';

let folder: string;
const FRAMEWORKS = ['express4', 'express5', 'fastify4', 'fastify5'] as const;
const PACKAGES = FRAMEWORKS.map((name) => `${name}@npm:${name.slice(0, -1)}@${name.slice(-1)}`);

let etcd: EtcdCluster;
let registry: Registry;

beforeAll(async () => {
  etcd = await startEtcd();
  registry = await connect({ backend: 'etcd', hosts: etcd.hosts });
  folder = await installedWithPackage('plain', PACKAGES);
  cpSync(fileURLToPath(new URL('fixtures/framework.mjs', import.meta.url)), join(folder, 'framework.mjs'));
}, 300_000);
afterAll(async () => {
  await registry?.close();
  await etcd?.close();
});

type App = Script & { url: string };

async function started(FRAMEWORK: string, SERVICE: string): Promise<App> {
  const env = { REGISTRY: `${etcd.url}?ttlMs=3000`, SERVICE, FRAMEWORK, NODE_OPTIONS: '' };
  const app = runProgram(process.execPath, [join(folder, 'framework.mjs')], env);
  const { registered } = (await app.line((line) => 'registered' in line, { what: FRAMEWORK })) as {
    registered: { endpoints: string[] };
  };
  return Object.assign(app, { url: registered.endpoints[0] as string });
}

const asked = async (url: string) => (await fetch(url)).json() as Promise<{ state: string }>;

it.each(FRAMEWORKS)('%s leaves traffic, comes back and ends without a failed request', async (framework) => {
  const name = uniqueName('orders');
  const apps = [await started(framework, name), await started(framework, name)];
  const cache = await registry.service(name, { allowLocal: true }).ready({ min: 2 });
  const answered = new Map<number, number>();
  const failures: string[] = [];
  let over = false;
  // Eight callers who try nothing twice.
  const callers = Array.from({ length: 8 }, async () => {
    while (!over) {
      try {
        const response = await cache.fetch('/', { retries: 0, timeoutMs: 5000 });
        const { pid } = (await response.json()) as { pid: number };
        answered.set(pid, (answered.get(pid) ?? 0) + 1);
        if (response.status !== 200) failures.push(`status ${response.status}`);
      } catch (error) {
        failures.push(String(error));
      }
    }
  });
  const countOf = ({ pid }: App) => answered.get(pid) ?? 0;
  const called = async (app: App) => {
    const before = countOf(app);
    await waitFor(() => countOf(app) > before + 20, { what: `calls of ${app.pid}` });
  };
  try {
    const [first, second] = apps as [App, App];
    for (let round = 0; round < 3; round++) {
      await Promise.all([called(first), called(second)]);
      expect(await asked(`${first.url}/out`)).toEqual({ state: 'out' });
      await waitFor(() => cache.instances.length === 1, { what: 'the caller to hear of it' });
      await called(second);
      const before = countOf(first);
      await called(second);
      expect(countOf(first)).toBe(before); // it gets none, and answered what it had
      expect(await asked(`${first.url}/in`)).toEqual({ state: 'registered' });
    }
    await called(first);
    first.kill('SIGTERM');
    expect(await first.exit).toMatchObject({ signal: 'SIGTERM' });
    await called(second);
  } finally {
    over = true;
    await Promise.all(callers);
    for (const app of apps) app.kill('SIGTERM');
    await Promise.all(apps.map((app) => app.exit));
    cache.release();
  }
  expect(failures).toEqual([]);
});
