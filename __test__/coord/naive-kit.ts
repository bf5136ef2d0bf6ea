// What the toys stand on: an etcd, its own client, and a client of coord beside that.
import { Etcd3, type WatchBuilder } from 'rollcall/etcd';
import { afterAll } from 'vitest';
import { type EtcdCluster, startEtcd, under } from '../support/etcd.js';
import { startTcpProxy } from '../support/tcp.js';
import { client, type Finish } from './kit.js';

let started: Promise<EtcdCluster> | undefined;
afterAll(async () => (await started)?.close());

/** That of all tests of a file that neither stop it nor set it back. Each finds it empty. */
async function shared({ onTestFinished }: Finish) {
  started ??= startEtcd();
  const server = await started;
  onTestFinished(() => server.call('/v3/kv/deleterange', under('')));
  return server;
}

async function clients(finish: Finish, host: string, more?: Parameters<typeof client>[2]) {
  const etcd = new Etcd3({ hosts: [host] });
  finish.onTestFinished(() => etcd.close());
  return { etcd, coord: await client(finish, `etcd://${host}`, { settleMs: 0, ...more }) };
}

export async function begin(finish: Finish) {
  const server = await shared(finish);
  return { server, ...(await clients(finish, server.hosts[0] as string)) };
}

/** Both clients by a link that can be cut, and held. */
export async function linked(finish: Finish) {
  const server = await shared(finish);
  const link = await startTcpProxy(server.hosts[0] as string);
  finish.onTestFinished(() => link.close());
  return { server, link, ...(await clients(finish, link.host)) };
}

/** An etcd of its own, which can be stopped and set back. */
export async function alone(finish: Finish, cacheDir: string | false = false) {
  const server = await startEtcd();
  finish.onTestFinished(() => server.close());
  return { server, ...(await clients(finish, server.hosts[0] as string, { cacheDir })) };
}

/** The values that a watch tells, from the moment at which it stands; after what is known. */
export async function followed(watch: WatchBuilder, told: string[] = []): Promise<string[]> {
  const watcher = await watch.create();
  watcher.on('put', ({ value }) => told.push(value.toString()));
  return told;
}
