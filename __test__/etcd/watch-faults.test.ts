/** Watches through everything that may happen to a connection, a member, a token or a store. */

import { once } from 'node:events';
import { Etcd3, EtcdError, type IKeyValue, type IWatchResponse, type Watcher } from 'rollcall/etcd';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ETCD_VERSIONS, type EtcdCluster, startEtcd } from '../support/etcd.js';
import { uniqueName, waitFor, within } from '../support/process.js';
import { startTcpProxy, type TcpProxy } from '../support/tcp.js';

/** Counts what is told of the connection, and keeps the values of puts. */
function follow(watcher: Watcher) {
  const told = { connected: 0, disconnected: 0, errors: [] as Error[], ended: 0, puts: [] as string[] };
  watcher.on('connected', () => told.connected++);
  watcher.on('disconnected', () => told.disconnected++);
  watcher.on('error', (error) => told.errors.push(error));
  watcher.on('end', () => told.ended++);
  watcher.on('put', (kv) => told.puts.push(kv.value.toString()));
  return told;
}

describe.each(ETCD_VERSIONS)('etcd %s', (version) => {
  let etcd: EtcdCluster;
  let proxy: TcpProxy;
  let client: Etcd3;
  beforeAll(async () => {
    etcd = await startEtcd({ version });
    proxy = await startTcpProxy(etcd.hosts[0] as string);
    client = new Etcd3({ hosts: proxy.host, keepAliveMs: 5000, keepAliveTimeoutMs: 500 });
  });
  afterAll(async () => {
    await client?.close();
    await proxy?.close();
    await etcd?.close();
  });

  it('a cut in the middle of catching up loses no event and repeats none', async () => {
    const prefix = `${uniqueName()}/`;
    const direct = new Etcd3({ hosts: [...etcd.hosts] });
    const first = Number((await direct.put(`${prefix}0`).value('x')).header.revision);
    for (let done = 1; done < 5001; done += 500) {
      await Promise.all(Array.from({ length: 500 }, (_, i) => direct.put(`${prefix}${done + i}`).value('x')));
    }
    await direct.close();
    const watcher = client.watch().prefix(prefix).startRevision(first).watcher();
    const told = follow(watcher);
    const revisions: number[] = [];
    watcher.on('put', (kv: IKeyValue) => revisions.push(Number(kv.mod_revision)));
    watcher.once('data', (res: IWatchResponse) => {
      expect(res.events.length).toBeLessThan(5000);
      // Where etcd3 resumed: at the store's revision.
      expect(Number(res.header.revision)).toBeGreaterThan(revisions.at(-1) as number);
      proxy.sever();
    });
    await waitFor(() => revisions.length >= 5001, { timeoutMs: 20_000, what: 'all events' });
    expect(revisions).toEqual(Array.from({ length: 5001 }, (_, i) => first + i));
    expect(told).toMatchObject({ disconnected: 1, connected: 2, errors: [] });
    await watcher.cancel();
  });

  it('an outage is told once, and what happens in it is delivered after it', async () => {
    const key = uniqueName();
    const watcher = await client.watch().key(key).create();
    const told = follow(watcher);
    proxy.setEnabled(false);
    await waitFor(() => told.disconnected > 0, { what: 'the outage is told' });
    expect(watcher.id).toBeNull();
    await etcd.put(key, '1');
    await etcd.put(key, '2');
    // Several tries to connect fail meanwhile.
    const before = proxy.accepted;
    await waitFor(() => proxy.accepted > before + 1, { what: 'more tries' });
    proxy.setEnabled(true);
    await waitFor(() => told.puts.length === 2, { timeoutMs: 15_000, what: 'both events' });
    expect(told).toEqual({ connected: 1, disconnected: 1, errors: [], ended: 0, puts: ['1', '2'] });
    await watcher.cancel();
  });

  it('cancel() settles while there is no connection, and so does a create() of a signal', async () => {
    const watcher = await client.watch().key(uniqueName()).create();
    const told = follow(watcher);
    proxy.setEnabled(false);
    try {
      await waitFor(() => told.disconnected > 0, { what: 'the outage is told' });
      const waiting = client
        .watch()
        .key('k')
        .create({ signal: AbortSignal.timeout(500) });
      await within(watcher.cancel(), 1000, 'cancel()');
      expect(told).toMatchObject({ ended: 1, errors: [] });
      await expect(within(waiting, 5000, 'create()')).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    } finally {
      proxy.setEnabled(true);
    }
  });

  it('a half-open link is noticed within the keep-alive time, and the watch goes on', async () => {
    const key = uniqueName();
    const watcher = await client.watch().key(key).create();
    const told = follow(watcher);
    proxy.dropAnswers();
    const start = Date.now();
    await waitFor(() => told.disconnected > 0, { timeoutMs: 10_000, what: 'the silence is noticed' });
    expect(Date.now() - start).toBeLessThan(7500);
    await etcd.put(key, 'meanwhile');
    proxy.dropAnswers(false);
    proxy.sever();
    await waitFor(() => told.puts.length > 0, { timeoutMs: 30_000, what: 'the event' });
    expect(told).toMatchObject({ disconnected: 1, errors: [], puts: ['meanwhile'] });
    await watcher.cancel();
  });

  it('the pauses of watchBackoff are kept', async () => {
    // As those of cockatiel: what makes backoffs, each of which makes the next.
    const backoff = (duration: number) => ({ duration, next: () => backoff(20) });
    const own = new Etcd3({ hosts: proxy.host, faultHandling: { watchBackoff: { next: () => backoff(10) } } });
    const watcher = await own.watch().key('k').create();
    proxy.setEnabled(false);
    try {
      const before = proxy.accepted;
      const start = Date.now();
      await waitFor(() => proxy.accepted >= before + 30, { what: 'many tries' });
      // By itself it would have made a handful, with pauses that grow to seconds.
      expect(Date.now() - start).toBeLessThan(8000);
    } finally {
      proxy.setEnabled(true);
      await watcher.cancel();
      await own.close();
    }
  });

  it('a start revision that is written to the request counts from the next connection on', async () => {
    const key = uniqueName();
    const first = (await client.put(key).value('1')).header.revision;
    await client.put(key).value('2');
    const watcher = await client.watch().key(key).create();
    const told = follow(watcher);
    watcher.request.start_revision = first;
    expect(watcher.request.start_revision).toBe(first);
    proxy.sever();
    await waitFor(() => told.puts.length === 2, { timeoutMs: 15_000, what: 'both events' });
    expect(told.puts).toEqual(['1', '2']);
    expect(Number(watcher.request.start_revision)).toBeGreaterThan(Number(first));
    await watcher.cancel();
  });

  it('a store that has lost its data ends a watch with an error, or is listed anew', async () => {
    const lost = await startEtcd({ version });
    const own = new Etcd3({ hosts: [...lost.hosts] });
    try {
      for (let i = 0; i < 20; i++) await own.put('k').value(i);
      const [watcher, relisting] = await Promise.all([
        own.watch().key('k').create(),
        own.watch().key('k').withRelist().create(),
      ]);
      const failed = once(watcher, 'error');
      const listed = once(relisting, 'list');
      await lost.wipe();
      await lost.put('k', 'new');
      const [error] = await within(failed, 20_000, 'the error');
      expect(error).toBeInstanceOf(EtcdError);
      expect((error as Error).message).toMatch(/another cluster|went back/);
      const [kvs] = await within(listed, 20_000, 'the list');
      // It may have been read before the key was written: then the write follows as an event.
      if ((kvs as IKeyValue[]).length === 0) await within(once(relisting, 'put'), 5000, 'the write');
      const put = once(relisting, 'put');
      await lost.put('k', 'newer');
      expect(((await within(put, 5000, 'an event')) as [IKeyValue])[0].value.toString()).toMatch(/new/);
    } finally {
      await own.close();
      await lost.close();
    }
  });
});

it.concurrent.each(ETCD_VERSIONS)(
  'a token that runs out ends no watch and keeps none from being created (etcd %s)',
  async (version) => {
    const users = [{ name: 'app', password: 'secret' }];
    const etcd = await startEtcd({ version, users, authTokenTtl: 4 });
    const proxy = await startTcpProxy(etcd.hosts[0] as string);
    const client = new Etcd3({ hosts: proxy.host, auth: { username: 'app', password: 'secret' } });
    const direct = new Etcd3({ hosts: [...etcd.hosts], auth: { username: 'app', password: 'secret' } });
    /** Until a token of the server that was got now has run out; tokens live while they are used. */
    const tokensRunOut = () => new Promise((resolve) => setTimeout(resolve, 6000));
    try {
      const watcher = await client.watch().prefix('').create();
      const told = follow(watcher);
      await tokensRunOut();
      const late = await within(client.watch().key('k').create(), 5000, 'create() with an old token');
      const lateTold = follow(late);
      await tokensRunOut();
      proxy.sever();
      await direct.put('k').value('1');
      await waitFor(() => told.puts.length > 0 && lateTold.puts.length > 0, { timeoutMs: 10_000, what: 'the event' });
      expect(told).toEqual({ connected: 1, disconnected: 1, errors: [], ended: 0, puts: ['1'] });
      expect(lateTold).toEqual(told);
    } finally {
      await client.close();
      await direct.close();
      await proxy.close();
      await etcd.close();
    }
  },
);

it.concurrent('watches leave a member that is frozen, and one that is killed', async () => {
  const etcd = await startEtcd({ members: 3 });
  const client = new Etcd3({ hosts: [...etcd.hosts], keepAliveMs: 5000, keepAliveTimeoutMs: 500 });
  const direct = new Etcd3({ hosts: [...etcd.hosts], timeoutMs: 3000 });
  try {
    const watchers = await Promise.all(Array.from({ length: 9 }, (_, i) => client.watch().key(`k${i}`).create()));
    const told = watchers.map(follow);
    /** A write that a member takes down with it is not repeated by the client; here it may be. */
    const put = (key: string, value: string) =>
      waitFor(
        () =>
          direct
            .put(key)
            .value(value)
            .exec()
            .then(
              () => true,
              () => false,
            ),
        { what: `${key} is written` },
      );
    let connected: IWatchResponse | undefined;
    for (const [round, harm] of ['freeze', 'kill'].entries()) {
      // The member that serves them, by the header of an answer.
      const data = once(watchers[0] as Watcher, 'data');
      await put('k0', `before ${round}`);
      connected = (await data)[0] as IWatchResponse;
      const { members } = await direct.cluster.memberList({});
      const name = members.find(({ ID }) => ID === connected?.header.member_id)?.name;
      const member = etcd.members.find((one) => one.name === name);
      if (harm === 'freeze') member?.freeze();
      else await member?.kill();
      await waitFor(() => told.every(({ disconnected }) => disconnected === round + 1), {
        timeoutMs: 15_000,
        what: `all know of the ${harm}`,
      });
      for (let i = 0; i < 9; i++) await put(`k${i}`, `after ${round}`);
      await waitFor(() => told.every(({ puts }) => puts.at(-1) === `after ${round}`), {
        timeoutMs: 20_000,
        what: `all events after the ${harm}`,
      });
      if (harm === 'freeze') member?.thaw();
    }
    for (const { errors, connected, disconnected } of told) {
      expect({ errors, connected, disconnected }).toEqual({ errors: [], connected: 2, disconnected: 2 });
    }
  } finally {
    await client.close();
    await direct.close();
    await etcd.close();
  }
});
