/** Nest 11: see suite.ts; and what does not depend on the version. */

import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { connect } from 'rollcall';
import { Etcd3 } from 'rollcall/etcd';
import { describe, expect, it } from 'vitest';
import { startEtcd } from '../support/etcd.js';
import { uniqueName, waitFor, within } from '../support/process.js';
import { compileBySwc, typeCheck } from './kit.js';
import { type Ground, suite } from './suite.js';

suite(11, { kind: 'cjs', adapter: 'express', more });

function more(ground: () => Ground): void {
  it('calls by name: ServiceModule.forFeature(), and the HttpModule of @nestjs/axios', async () => {
    expect(await ground().apps.run('calls.cjs')).toBe('calls');
  });

  describe('a start that can not succeed', () => {
    it.each([
      ['noHosts', {}, 'EtcdModule: options.hosts: expected the members, such as "10.0.0.1:2379", got undefined'],
      ['emptyHosts', {}, 'EtcdModule: Cannot construct an etcd client with no hosts specified'],
      [
        'noRegistry',
        {},
        'RegistryModule: registry: expected a URL such as "etcd://10.0.0.1:2379" or options, got undefined',
      ],
      ['unknownBackend', {}, /^RegistryModule: options: expected a URL such as .*"etcd:\/\/host:port"/],
      ['noName', {}, 'RegistryModule: register.name: expected a string that is not empty'],
      ['slashInName', {}, /^RegistryModule: instance\.name: /],
      ['badMetadata', {}, 'RegistryModule: register.metadata.weight: expected a string, got number; write String(1)'],
      ['etcdServiceByHand', {}, byHand('EtcdService', 'EtcdModule')],
      ['registryServiceByHand', {}, byHand('RegistryService', 'RegistryModule')],
      [
        'etcdAway',
        { HOSTS: '127.0.0.1:1' },
        /^EtcdModule: .+; check its hosts, or give lazy: true to start without it$/,
      ],
      [
        'registryAway',
        { REGISTRY: 'etcd://127.0.0.1:1' },
        /^RegistryModule: .+; check its hosts, or give lazy: true to start without it$/,
      ],
    ])('says why in one line: %s', async (CASE, env, message) => {
      const { failed } = await failing(CASE, env);
      if (typeof message === 'string') expect(failed).toBe(message);
      else expect(failed).toMatch(message);
    });

    it('says that the password is wrong', async () => {
      const users = [{ name: 'root', password: 'right' }];
      const etcd = await startEtcd({ users });
      try {
        for (const CASE of ['etcdPassword', 'registryPassword']) {
          const { failed } = await failing(CASE, { HOSTS: etcd.hosts.join(',') });
          expect(failed).toMatch(/Module: .+; check the user and the password$/);
        }
      } finally {
        await etcd.stop();
      }
    });

    it('half way leaves nothing in the registry', async () => {
      const SERVICE = uniqueName('orders');
      const { failed } = await failing('halfway', { REGISTRY: ground().url, SERVICE });
      expect(failed).toBe('the database is away');
      expect(await ground().count(SERVICE)).toBe(0);
    });

    it('does not, where nothing is there to listen: a script is warned, and ends by itself', async () => {
      const app = ground().apps.start('cjs', 'broken', { CASE: 'noListener' });
      const { code, stdout, stderr } = await app.exit;
      expect(code, stderr).toBe(0);
      expect(stdout + stderr).toContain('orders is not registered: it has no HTTP server and no microservice');
      expect(stdout).toContain('{"registered":false}');
    });

    it.each([
      'portTaken',
      'portTakenOfFollower',
      'portTakenOfMicroservice',
      'portTakenOfSettings',
      'portTakenOfService',
    ])('fails with its port: %s', async (CASE) => {
      const server = createServer();
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      const { port } = server.address() as AddressInfo;
      const { failed } = await failing(CASE, { PORT: String(port), HOSTS: ground().etcd.hosts.join(',') });
      expect(failed).toContain('EADDRINUSE');
      server.close();
    });

    async function failing(CASE: string, env: object): Promise<{ failed: string }> {
      const app = ground().apps.start('cjs', 'broken', { CASE, ...env });
      const line = await ground().told<{ failed: string }>(app, 'failed');
      expect(line.failed).not.toContain('\n');
      // Nothing is left that keeps the process alive.
      expect(await within(app.exit, 20_000, 'the end of the process')).toMatchObject({ code: 1 });
      return line;
    }
  });

  describe('an outage of etcd', () => {
    it('at the start of a lazy application delays its registration, and nothing else', async () => {
      const { apps, told } = ground();
      const etcd = await startEtcd();
      const [member] = etcd.members;
      await member?.stop();
      const SERVICE = uniqueName('orders');
      const app = apps.start('cjs', 'broken', { CASE: 'lazy', REGISTRY: etcd.url, SERVICE });
      try {
        await told(app, 'listening');
        await member?.start();
        const { registered } = await told(app, 'registered');
        expect(registered).toMatchObject({ name: SERVICE });
      } finally {
        app.kill('SIGTERM');
        await app.exit;
        await etcd.stop();
      }
    });

    it('is survived: registered again after it, up in the health check, callers go on', async () => {
      const { apps, told } = ground();
      const etcd = await startEtcd();
      const [member] = etcd.members;
      const REGISTRY = `${etcd.url}?ttlMs=1000`;
      const env = { REGISTRY, SERVICE: uniqueName('orders'), HOSTS: etcd.hosts.join(',') };
      const app = apps.start('cjs', 'health', env);
      try {
        const { listening, byHand } = await told<{ listening: number; byHand: object[] }>(app, 'listening');
        expect(byHand).toMatchObject([{ registry: { status: 'up' } }, { etcd: { status: 'up' } }]);
        const health = async () => {
          const response = await fetch(`http://127.0.0.1:${listening}/health`);
          return { code: response.status, ...((await response.json()) as { details: Record<string, object> }) };
        };
        expect(await health()).toMatchObject({
          code: 200,
          details: { registry: { status: 'up', registration: 'registered' }, etcd: { status: 'up' } },
        });
        await member?.stop();
        await waitFor(async () => {
          const { code, details } = await health();
          return code === 503 && 'stale' in (details.registry as object) && JSON.stringify(details).includes('"lost"');
        });
        await member?.start();
        await waitFor(async () => (await health()).code === 200, { timeoutMs: 30_000, what: 'all to be up again' });
        const registry = await connect({ backend: 'etcd', hosts: etcd.hosts });
        expect(await registry.getService(env.SERVICE)).toHaveLength(1);
        await registry.close();
        // What can not be called says so at the start.
        const out = await stdoutOf(app);
        expect(out).toContain('@OnServiceChange on Asked.payments(): without effect, since Asked, or something');
        expect(out).toContain('@Config on Asked.limit: without effect, since Asked, or something');
      } finally {
        app.kill('SIGTERM');
        await app.exit;
        await etcd.stop();
      }
    });
  });

  it('a service of EtcdService whose key or lease is lost is put back, once, with what it said', async () => {
    const { apps, etcd, told } = ground();
    const SERVICE = uniqueName('orders');
    const app = apps.start('cjs', 'etcd', { HOSTS: etcd.hosts.join(','), SERVICE });
    const client = new Etcd3({ hosts: [...etcd.hosts] });
    try {
      await told(app, 'ready');
      const keys = () => client.getAll().prefix(`/services/${SERVICE}/`).strings();
      const before = await keys();
      expect(Object.keys(before)).toHaveLength(2);
      await client.delete().key(`/services/${SERVICE}/a`);
      await waitFor(async () => Object.keys(await keys()).length === 2, { what: 'the deleted key' });
      const lease = (await client.get(`/services/${SERVICE}/a`).exec()).kvs[0]?.lease as string;
      await client.leaseClient.leaseRevoke({ ID: lease });
      await waitFor(async () => Object.keys(await keys()).length === 2, { what: 'the key of the revoked lease' });
      expect(await keys()).toEqual(before);
      app.kill('SIGTERM');
      await app.exit;
      expect(await keys()).toEqual({});
    } finally {
      app.kill('SIGKILL');
      await client.close();
    }
  });

  it('an application compiled by SWC has everything injected', async () => {
    const { apps, url, told } = ground();
    await compileBySwc(apps);
    const app = apps.start('swc', 'orders', { REGISTRY: url, SERVICE: uniqueName('orders') });
    expect(await told(app, 'registered')).toMatchObject({ state: 'registered' });
    app.kill();
    expect(await app.exit).toMatchObject({ signal: 'SIGTERM' });
  });

  it.each([
    ['a bundler', 'ESNext', 'Bundler'],
    ['Node 16', 'Node16', 'Node16'],
  ])('the types work for %s, without skipLibCheck', async (_, module, moduleResolution) => {
    await typeCheck(ground().apps, { module, moduleResolution, skipLibCheck: false });
  });

  it('workers of one cluster on one port have a record each, and no id twice', async () => {
    const { apps, url, registry, told, count } = ground();
    const SERVICE = uniqueName('orders');
    const app = apps.start('cjs', 'cluster', { REGISTRY: url, SERVICE, ID: 'node-1', PORT: '0' });
    await told(app, 'workers');
    const list = await registry.getService(SERVICE);
    expect(list.map(({ id }) => id)).toEqual(['node-1-1', 'node-1-2']);
    expect(new Set(list.flatMap(({ endpoints }) => endpoints)).size).toBe(1);
    app.kill('SIGTERM');
    await app.exit;
    expect(await count(SERVICE)).toBe(0);
  });

  it('a handler of SIGTERM that forgets close() is covered by the option signals', async () => {
    const { apps, url, told, count } = ground();
    const SERVICE = uniqueName('orders');
    const env = { REGISTRY: `${url}&signals=SIGTERM`, SERVICE, FORGETFUL: '1' };
    const app = apps.start('cjs', 'orders', env);
    await told(app, 'registered');
    expect(await count(SERVICE)).toBe(1);
    app.kill('SIGTERM');
    await waitFor(async () => (await count(SERVICE)) === 0);
    expect(await app.exit).toMatchObject({ code: 0 });
  });

  it('warns when nothing listens to SIGTERM', async () => {
    const { apps, url, told } = ground();
    const app = apps.start('cjs', 'orders', { REGISTRY: url, SERVICE: uniqueName('orders'), HOOKLESS: '1' });
    await told(app, 'registered');
    expect((await app.line(() => true)) && app.stderr + (await stdoutOf(app))).toContain(
      'call app.enableShutdownHooks()',
    );
  });
}

function byHand(service: string, module: string): string {
  return `providers: ${service} is given by ${module}: take it out of providers, and import ${module}.forRoot(…) or forRootAsync(…) in the root module, once is enough for all`;
}

async function stdoutOf(app: { kill(): void; exit: Promise<{ stdout: string }> }): Promise<string> {
  app.kill();
  return (await app.exit).stdout;
}
