import { createRequire } from 'node:module';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { castGrpcError } from '../../lib/etcd/errors.js';
import { METHODS, methodOf } from '../../lib/etcd/rpc/clients.js';
import { decode, encode } from '../../lib/etcd/rpc/codec.js';
import { ETCD_VERSIONS, type EtcdCluster, startEtcd } from '../support/etcd.js';

type Answer = Record<string, unknown>;

/** What is used of grpc-js: it carries bytes, and knows nothing of messages. */
interface Grpc {
  Client: new (
    address: string,
    credentials: unknown,
  ) => {
    makeUnaryRequest(
      path: string,
      serialize: (value: unknown) => Buffer,
      deserialize: (bytes: Buffer) => object,
      params: unknown,
      options: { deadline: number },
      done: (error: Error | null, answer: Answer) => void,
    ): void;
    close(): void;
  };
  credentials: { createInsecure(): unknown };
}
const grpc = createRequire(import.meta.url)('@grpc/grpc-js') as Grpc;

describe.each(ETCD_VERSIONS)('etcd %s', (version) => {
  let etcd: EtcdCluster;
  let client: InstanceType<Grpc['Client']>;
  beforeAll(async () => {
    etcd = await startEtcd({ version });
    client = new grpc.Client(etcd.hosts[0] as string, grpc.credentials.createInsecure());
  });
  afterAll(async () => {
    client?.close();
    await etcd?.close();
  });

  function call(service: string, name: string, params: object = {}): Promise<Answer> {
    const method = methodOf(service, name);
    if (!method) throw new Error(`${service}.${name}`);
    return new Promise((resolve, reject) => {
      client.makeUnaryRequest(
        method.path,
        (value) => Buffer.from(encode(method.request, value)),
        (bytes) => decode(method.response, bytes),
        params,
        { deadline: Date.now() + 10_000 }, // a busy etcd 3.4 has left one without an answer
        (error, answer) => (error ? reject(castGrpcError(error)) : resolve(answer)),
      );
    });
  }

  it('understands our requests, and we its answers', async () => {
    const key = Buffer.from('codec/a');
    const put = await call('KV', 'put', { key, value: '1' });
    expect(put).toMatchObject({ header: { revision: expect.stringMatching(/^\d+$/) }, prev_kv: null });
    const { revision, cluster_id: cluster } = put.header as Record<string, string>;
    expect(BigInt(cluster as string)).toBeGreaterThan(0n);
    const txn = {
      compare: [{ key, target: 'Create', result: 'Equal', create_revision: BigInt(revision as string) }],
      success: [
        { request_put: { key, value: Buffer.from('2'), prev_kv: true } },
        { request_txn: { success: [{ request_range: { key: 'codec/', range_end: 'codec0', sort_order: 2 } }] } },
      ],
    };
    expect(await call('KV', 'txn', txn)).toMatchObject({
      succeeded: true,
      responses: [
        { response: 'response_put', response_put: { prev_kv: { key, value: Buffer.from('1'), version: '1' } } },
        {
          response: 'response_txn',
          response_txn: {
            responses: [{ response_range: { kvs: [{ key, value: Buffer.from('2'), lease: '0' }], count: '1' } }],
          },
        },
      ],
    });
    const range = await call('KV', 'range', {
      key: Buffer.from([0]),
      range_end: Buffer.from([0]),
      revision,
      limit: 1n,
    });
    expect(range).toMatchObject({ kvs: [{ create_revision: revision, mod_revision: revision }], more: false });
  });

  it('takes a lease id of 63 bits and gives it back', async () => {
    const ID = '9223372036854775807';
    expect(await call('Lease', 'leaseGrant', { TTL: 60n, ID })).toMatchObject({ ID, TTL: '60', error: '' });
    await call('KV', 'put', { key: 'codec/leased', value: 'x', lease: ID });
    expect(await call('Lease', 'leaseTimeToLive', { ID: BigInt(ID), keys: true })).toMatchObject({
      ID,
      grantedTTL: '60',
      keys: [Buffer.from('codec/leased')],
    });
    expect(await call('Lease', 'leaseLeases')).toMatchObject({ leases: [{ ID }] });
    await call('Lease', 'leaseRevoke', { ID });
    await expect(call('Lease', 'leaseRevoke', { ID })).rejects.toMatchObject({ name: 'EtcdLeaseInvalidError' });
  });

  it('tells how it is, with what its version has', async () => {
    const status = await call('Maintenance', 'status');
    const newer = version.startsWith('3.7');
    expect(status).toMatchObject({
      version,
      dbSize: expect.stringMatching(/^[1-9]\d*$/),
      isLearner: false,
      storageVersion: newer ? '3.7.0' : '',
      dbSizeQuota: newer ? expect.stringMatching(/^[1-9]\d*$/) : '0',
      downgradeInfo: newer ? { enabled: false, targetVersion: '' } : null,
    });
    const hash = await call('Maintenance', 'hashKV');
    expect(hash).toMatchObject({
      hash: expect.any(Number),
      hash_revision: newer ? expect.not.stringMatching(/^0$/) : '0',
    });
    const { members } = (await call('Cluster', 'memberList')) as { members: Answer[] };
    expect(members).toMatchObject([
      { ID: status.leader, peerURLs: [expect.stringContaining('http')], isLearner: false },
    ]);
    expect(await call('Maintenance', 'alarm', { action: 'Get' })).toMatchObject({ alarms: [] });
  });

  it('says how far a downgrade is, from 3.6 on', async () => {
    expect(await call('Cluster', 'memberList', { linearizable: true })).toMatchObject({
      members: [{ name: expect.any(String) }],
    });
    if (version.startsWith('3.4')) return;
    const current = expect.stringMatching(/^3\.7/);
    await expect(call('Maintenance', 'downgrade', { version: '3.4' })).rejects.toMatchObject({ grpcCode: 3 });
    expect(await call('Maintenance', 'downgrade', { action: 'Validate', version: '3.6' })).toMatchObject({
      version: current,
    });
    await call('Maintenance', 'downgrade', { action: 'Enable', version: '3.6' });
    const downgradeInfo = { enabled: true, targetVersion: '3.6.0' };
    expect(await call('Maintenance', 'status')).toMatchObject({ downgradeInfo });
    await call('Maintenance', 'downgrade', { action: 'Cancel' });
    expect(await call('Maintenance', 'status')).toMatchObject({ downgradeInfo: { enabled: false } });
  });

  it('keeps roles and users', async () => {
    await call('Auth', 'roleAdd', { name: 'codec' });
    await expect(call('Auth', 'roleAdd', { name: 'codec' })).rejects.toMatchObject({ name: 'EtcdRoleExistsError' });
    const perm = { permType: 'Readwrite', key: Buffer.from('a'), range_end: Buffer.from([0]) };
    await call('Auth', 'roleGrantPermission', { name: 'codec', perm });
    expect(await call('Auth', 'roleGet', { role: 'codec' })).toMatchObject({ perm: [perm] });
    await call('Auth', 'userAdd', { name: 'codec', password: 'pass', options: { no_password: false } });
    await call('Auth', 'userGrantRole', { user: 'codec', role: 'codec' });
    expect(await call('Auth', 'userGet', { name: 'codec' })).toMatchObject({ roles: ['codec'] });
    await expect(call('Auth', 'userGet', { name: 'nobody' })).rejects.toMatchObject({ name: 'EtcdUserNotFoundError' });
  });

  it('knows the path of every method that its version has', async () => {
    const unknown: string[] = [];
    for (const method of METHODS.filter(({ kind }) => kind === 'unary')) {
      if (['authEnable', 'authDisable', 'defragment', 'moveLeader', 'memberAdd'].includes(method.name)) continue;
      await call(method.service, method.name).catch((error: Error) => {
        if (error.name === 'GRPCNotImplementedError') unknown.push(method.name);
      });
    }
    expect(unknown).toEqual(version.startsWith('3.4') ? ['downgrade', 'authStatus'] : []);
  });
});
