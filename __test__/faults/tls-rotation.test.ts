// Certificates that are replaced in their files: they are read again for a later connection.
import { copyFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { RegistryOptions } from 'rollcall';
import { expect, test } from 'vitest';
import { ids, listsUntil, waitFor } from '../conformance/kit.js';
import { startConsul } from '../support/consul.js';
import { startEtcd } from '../support/etcd.js';
import { temporaryFolder } from '../support/process.js';
import type { Certificates } from '../support/tls.js';
import { startZookeeper } from '../support/zookeeper.js';
import { connected } from './kit.js';

/** A server of any kind, which keeps what it holds over a restart. */
async function server(backend: 'etcd' | 'consul' | 'zookeeper') {
  if (backend !== 'consul') {
    const cluster = await (backend === 'etcd' ? startEtcd : startZookeeper)({ tls: 'mutual' });
    const certificates = cluster.certificates as Certificates;
    return { hosts: cluster.hosts, certificates, agent: cluster, close: () => cluster.close() };
  }
  const consul = await startConsul({ tls: 'mutual' });
  const certificates = consul.certificates as Certificates;
  return { hosts: consul.hosts, certificates, agent: consul.server, close: () => consul.close() };
}

test.for(['etcd', 'consul', 'zookeeper'] as const)(
  '%s: a new authority in the same files',
  async (backend, context) => {
    const { hosts, certificates, agent, close } = await server(backend);
    context.onTestFinished(close);
    const { path: folder, remove } = temporaryFolder('rollcall-rotation-');
    context.onTestFinished(remove);
    const own = { caFile: join(folder, 'ca'), certFile: join(folder, 'cert'), keyFile: join(folder, 'key') };
    const copy = () => {
      copyFileSync(certificates.ca.certFile, own.caFile);
      copyFileSync(certificates.client.certFile, own.certFile);
      copyFileSync(certificates.client.keyFile, own.keyFile);
    };
    copy();
    const warnings: string[] = [];
    const warn = (line: unknown) => void warnings.push(String(line));
    const told = () => warnings.filter((line) => line.includes('options.tls'));
    const registry = await connected(context, {
      ...{ backend, hosts, ttlMs: 3000, connectTimeoutMs: 1000, tls: own },
      ...(backend === 'consul' && { healthCheck: false }),
      ...(backend === 'zookeeper' && { connectTimeoutMs: 10_000 }), // its Java takes a second or two for a first handshake
      logger: { debug() {}, info() {}, warn, error() {} },
    } as RegistryOptions);
    await registry.register({ name: 'orders', id: 'a' });
    const watcher = registry.watch('orders');
    await listsUntil(watcher, ['a']);
    /** What is there and what the watch says, both by a connection that was made after the restart. */
    const goesOn = async (id: string) => {
      await waitFor(
        () =>
          registry
            .getService('orders')
            .then((list) => list.length > 0)
            .catch(() => false),
        {
          ...{ timeoutMs: 20_000, what: 'the registration' },
        },
      );
      await registry.register({ name: 'orders', id });
      await waitFor(() => !watcher.stale && ids(watcher.current ?? []).includes(id), {
        ...{ timeoutMs: 20_000, what: 'the watch' },
      });
    };

    // Bad files: the good ones stay, and each change is told once.
    writeFileSync(own.keyFile, 'half a f');
    await agent.kill();
    await agent.start();
    await goesOn('b');
    expect(told()).toHaveLength(1);
    expect(told()[0]).toMatch(/options\.tls\.key: expected PEM .*; going on/);
    rmSync(own.caFile);
    await agent.kill();
    await agent.start();
    await goesOn('c');
    expect(told()).toHaveLength(2);
    expect(told()[1]).toMatch(/options\.tls\.caFile: can't read .*; going on/);

    await agent.kill();
    await certificates.renew();
    copy(); // a connection in the middle of it may read files that don't fit, and say so
    await agent.start();
    await goesOn('d');
    await waitFor(() => ids(watcher.current ?? []).join() === 'a,b,c,d', { timeoutMs: 20_000, what: 'all of them' });
  },
);
