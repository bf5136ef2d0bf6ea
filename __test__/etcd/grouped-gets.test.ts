/** `groupGets`: the reads of one moment as one transaction, and how little of that can be noticed. */

import { Etcd3, EtcdPermissionDeniedError, GRPCCancelledError } from 'rollcall/etcd';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { ETCD_VERSIONS, type EtcdCluster, startEtcd } from '../support/etcd.js';
import { uniqueName } from '../support/process.js';

describe.each(ETCD_VERSIONS)('on etcd %s', (version) => {
  let etcd: EtcdCluster;
  const clients: Etcd3[] = [];
  const connect = (options: object = {}) => {
    const client = new Etcd3({ hosts: [...etcd.hosts], groupGets: true, ...options });
    clients.push(client);
    return client;
  };

  beforeAll(async () => {
    const users = [{ name: 'half', password: 'half', roles: [{ prefix: 'open/' }] }];
    etcd = await startEtcd({ version, users, args: ['--max-txn-ops', '32'] });
  });
  afterEach(async () => {
    await Promise.all(clients.splice(0).map((client) => client.close()));
  });
  afterAll(() => etcd?.close());

  const root = { auth: { username: 'root', password: 'root' } };

  it('gets of one tick share a transaction, and one alone stays plain', async () => {
    const client = connect(root);
    const key = uniqueName();
    await client.put(key).value('x');
    await client.get(key);
    expect(client.metrics()).toMatchObject({ groups: 0, groupedGets: 0 });
    const got = await Promise.all([
      client.get(key).string(),
      client.get(`${key} no`).string(),
      client.get(key).buffer(),
    ]);
    expect(got).toEqual(['x', null, Buffer.from('x')]);
    expect(client.metrics()).toMatchObject({ groups: 1, groupedGets: 3 });
  });

  it('is off unless asked for', async () => {
    const client = connect({ ...root, groupGets: undefined });
    await Promise.all([client.get('a'), client.get('b')]);
    expect(client.metrics().groups).toBe(0);
  });

  it.each([true, false])(
    '10,000 gets in one tick are all answered, each with its own value; groupGets: %s',
    async (groupGets) => {
      // Answered at the rate of a busy machine, and not given up and asked again.
      const client = connect({ ...root, groupGets, timeoutMs: 60_000 });
      const ns = client.namespace(`${uniqueName()}/`);
      const keys = Array.from({ length: 100 }, (_, n) => `k${n}`);
      await Promise.all(keys.map((key) => ns.put(key).value(`value of ${key}`)));
      const asked = Array.from({ length: 10_000 }, (_, n) => `k${n % 101}`); // k100 is none
      const got = await Promise.all(asked.map((key) => ns.get(key)));
      expect(got).toEqual(asked.map((key) => (key === 'k100' ? null : `value of ${key}`)));
    },
  );

  it('a key that may not be read is denied alone', async () => {
    await connect(root).put('open/a').value('1');
    const client = connect({ auth: { username: 'half', password: 'half' } });
    const [mine, other, missing] = await Promise.allSettled([
      client.get('open/a').string(),
      client.get('closed').string(),
      client.get('open/no').string(),
    ]);
    expect(mine).toEqual({ status: 'fulfilled', value: '1' });
    expect(missing).toEqual({ status: 'fulfilled', value: null });
    expect(other).toMatchObject({ status: 'rejected', reason: expect.any(EtcdPermissionDeniedError) });
    expect(client.metrics().groups).toBeGreaterThan(0);
  });

  it('a signal settles its own get alone', async () => {
    const client = connect(root);
    const key = uniqueName();
    await client.put(key).value('x');
    const stop = new AbortController();
    const gets = [
      client.get(key).string(),
      client.get(key).options({ signal: stop.signal }).string(),
      client.get(key).string(),
    ];
    stop.abort();
    const [first, aborted, last] = await Promise.allSettled(gets);
    expect([first, last]).toEqual(Array(2).fill({ status: 'fulfilled', value: 'x' }));
    expect(aborted).toMatchObject({ status: 'rejected', reason: expect.any(GRPCCancelledError) });
  });
});
