// Leases in ordinary times: what a program written for etcd3 finds, and what is ours.
import type { Lease as Theirs } from 'etcd3';
import { Etcd3 as TheirClient } from 'etcd3';
import { InvalidArgumentError } from 'rollcall';
import {
  ClientClosedError,
  Etcd3,
  EtcdError,
  EtcdLeaseInvalidError,
  GRPCCancelledError,
  GRPCDeadlineExceededError,
  GRPCUnavailableError,
  Lease,
  LeaseState,
} from 'rollcall/etcd';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { ETCD_VERSIONS, type EtcdCluster, startEtcd } from '../support/etcd.js';
import { uniqueName, waitFor, within } from '../support/process.js';
import { type Both, connectBoth, outcome } from './both.js';

const hex = (id: string | bigint): string => BigInt(id).toString(16);

function losses(lease: Lease): Error[] {
  const seen: Error[] = [];
  lease.on('lost', (error) => seen.push(error));
  return seen;
}

test('a ttl that is missing or below a second is refused at once, as by etcd3', () => {
  const ours = new Etcd3({ hosts: '127.0.0.1:1' });
  const theirs = new TheirClient({ hosts: '127.0.0.1:1' });
  for (const ttl of [undefined, 0, 0.5, -1, Number.NaN] as number[]) {
    let text = '';
    try {
      theirs.lease(ttl);
    } catch (error) {
      text = (error as Error).message;
    }
    let refused: unknown;
    try {
      ours.lease(ttl);
    } catch (error) {
      refused = error;
    }
    expect(refused).toBeInstanceOf(RangeError);
    expect(refused).toBeInstanceOf(InvalidArgumentError);
    expect(refused).toMatchObject({ message: text, code: 'ERR_INVALID_ARGUMENT' });
  }
  expect(() => ours.lease(5, { stallTimeoutMs: 5 })).toThrow(/options\.stallTimeoutMs/);
  expect(() => ours.lease(5, { timeoutMs: -1 })).toThrow(/options\.timeoutMs/);
  theirs.close();
});

describe.each(ETCD_VERSIONS)('etcd %s', (version) => {
  let etcd: EtcdCluster;
  let client: Etcd3;
  let key: string;

  beforeAll(async () => {
    etcd = await startEtcd({ version });
  });
  afterAll(() => etcd?.close());
  beforeEach(() => {
    client = new Etcd3({ hosts: [...etcd.hosts], logger: false });
    key = uniqueName('key');
  });
  afterEach(() => client.close());

  test('a lease is granted at once, and says how it stands', async () => {
    const lease = client.lease(1);
    expect([lease.state, lease.revoked(), lease.isValid(), lease.remainingMs]).toEqual([
      LeaseState.Pending,
      false,
      false,
      0,
    ]);
    expect(lease.expiresAt).toBeUndefined();
    const id = await lease.grant();
    expect(id).toMatch(/^\d+$/);
    expect(await lease.grant()).toBe(id);
    expect(lease.id).toBe(BigInt(id));
    expect(await etcd.leases()).toContain(hex(id));
    expect([lease.state, lease.isValid()]).toEqual([LeaseState.Alive, true]);
    expect(lease.ttl, 'etcd grants at least two seconds').toBe(2);
    expect(lease.remainingMs).toBeGreaterThan(500);
    expect(lease.remainingMs).toBeLessThanOrEqual(2000);
    expect(Math.abs((lease.expiresAt as Date).getTime() - Date.now() - lease.remainingMs)).toBeLessThan(50);
    await lease.revoke();
    expect([lease.state, lease.revoked(), lease.isValid(), lease.remainingMs]).toEqual([
      LeaseState.Revoked,
      true,
      false,
      0,
    ]);
    expect(await etcd.leases()).not.toContain(hex(id));
  });

  test('what is put under a lease goes with it, in namespaces and transactions too', async () => {
    const lease = client.namespace(`${key}/`).lease(60);
    const lost = losses(lease);
    await lease.put('a').value('1');
    expect(await etcd.leaseOf(`${key}/a`)).toBe(hex(lease.id));
    const mine = client.lease(60);
    await client.if(key, 'Create', '==', 0).then(mine.put(key).value('2')).commit();
    expect(await etcd.leaseOf(key)).toBe(hex(await mine.grant()));
    await client.put(`${key}2`).value('3').lease(mine);
    await Promise.all([lease.revoke(), mine.revoke()]);
    expect(await etcd.keys(key)).toEqual([]);
    await lease.revoke();
    expect(lost).toEqual([]);
  });

  test('options of a put under a lease apply', async () => {
    const lease = client.lease(60);
    const given = lease
      .put(key)
      .value('1')
      .options({ signal: AbortSignal.abort('enough') });
    await expect(given).rejects.toBeInstanceOf(GRPCCancelledError);
    expect(await etcd.get(key)).toBeNull();
  });

  test('a lease whose grant is given up or has no time left is lost, and leaves nothing behind', async () => {
    const before = await etcd.leases();
    for (const [options, type] of [
      [{ signal: AbortSignal.abort('enough') }, GRPCCancelledError],
      [{ deadline: Date.now() - 1 }, GRPCDeadlineExceededError],
    ] as const) {
      const lease = client.lease(600, options);
      const lost = losses(lease);
      const error = await lease.grant().catch((error) => error);
      expect(error).toBeInstanceOf(type);
      expect(lost).toEqual([error]);
      expect(lost[0]).toBe(error);
      await lease.revoke();
    }
    await waitFor(async () => (await etcd.leases()).length === before.length);
  });

  test('release() lets it expire, and neither close() nor anybody revokes it', async () => {
    const lease = client.lease(2);
    const early = client.lease(2);
    const lost = [losses(lease), losses(early)];
    early.release();
    await lease.put(key).value('1');
    lease.release();
    expect(lease.state).toBe(LeaseState.Revoked);
    expect(await early.grant()).toMatch(/^\d+$/);
    await client.close();
    expect(await etcd.leases()).toContain(hex(lease.id));
    await waitFor(async () => !(await etcd.leases()).includes(hex(lease.id)));
    expect(await etcd.get(key)).toBeNull();
    expect(lost).toEqual([[], []]);
  });

  test('a lease is renewed beyond its time, and a listener hears how', async () => {
    const lease = client.lease(2);
    const heard: string[] = [];
    const answers: unknown[] = [];
    lease.on('keepaliveEstablished', () => heard.push('established'));
    lease.once('keepaliveFired', () => heard.push('fired'));
    lease.on('keepaliveSucceeded', (answer) => answers.push(answer));
    await waitFor(() => answers.length >= 4, { what: 'four renewals' });
    expect(heard).toEqual(['established', 'fired']);
    expect(answers[0]).toEqual({
      header: {
        cluster_id: expect.stringMatching(/^\d+$/),
        member_id: expect.stringMatching(/^\d+$/),
        revision: expect.stringMatching(/^\d+$/),
        raft_term: expect.stringMatching(/^\d+$/),
      },
      ID: await lease.grant(),
      TTL: '2',
    });
    expect(lease.isValid()).toBe(true);
  });

  test('one that somebody revokes is lost once, within a third of its time', async () => {
    const lease = client.lease(3);
    const lost = losses(lease);
    let wasRevoked: boolean | undefined;
    lease.prependListener('lost', () => {
      wasRevoked = lease.revoked();
    });
    await lease.put(key).value('1');
    await etcd.revoke(hex(lease.id));
    const start = performance.now();
    await waitFor(() => lost.length > 0, { timeoutMs: 5000, intervalMs: 5, what: 'the loss' });
    expect(performance.now() - start).toBeLessThan(2500); // by our own clock it would be 3 s
    expect(lost[0]).toBeInstanceOf(EtcdLeaseInvalidError);
    expect(lost[0]).not.toBeInstanceOf(EtcdError);
    expect(wasRevoked).toBe(true);
    expect(await lease.keepaliveOnce().catch((error) => error)).toBe(lost[0]);
    expect(
      await lease
        .put(key)
        .value('2')
        .catch((error) => error),
    ).toBe(lost[0]);
    expect(await etcd.get(key)).toBeNull();
    await lease.revoke();
    expect(lost.length).toBe(1);
  });

  test('a put that finds the lease gone tells it, and rejects with the same error', async () => {
    const lease = client.lease(600);
    const lost = losses(lease);
    await lease.grant();
    await etcd.revoke(hex(lease.id));
    const error = await lease
      .put(key)
      .value('1')
      .catch((error) => error);
    expect(error).toBeInstanceOf(EtcdLeaseInvalidError);
    expect(lost).toEqual([error]);
    expect(lost[0]).toBe(error);
    expect(lease.revoked()).toBe(true);
  });

  test('keepaliveOnce() that finds the lease gone does so too', async () => {
    const lease = client.lease(600);
    const lost = losses(lease);
    await lease.grant();
    await etcd.revoke(hex(lease.id));
    const error = await lease.keepaliveOnce().catch((error) => error);
    expect(error).toBeInstanceOf(EtcdLeaseInvalidError);
    expect(lost).toEqual([error]);
    expect(lost[0]).toBe(error);
  });

  test('one that does not renew itself lives as long as it is renewed, and is lost at its deadline', async () => {
    const lease = client.lease(2, { autoKeepAlive: false });
    const lost = losses(lease);
    await lease.grant();
    for (let i = 0; i < 2; i++) {
      await waitFor(() => lease.remainingMs < 800);
      expect(await lease.keepaliveOnce()).toMatchObject({ ID: String(lease.id), TTL: '2' });
      expect(lease.remainingMs).toBeGreaterThan(1500);
    }
    const left = lease.remainingMs;
    const start = performance.now();
    await waitFor(() => lease.revoked(), { intervalMs: 2 });
    expect(performance.now() - start).toBeLessThanOrEqual(left + 30);
    await waitFor(() => lost.length === 1);
    expect(lost[0]).toBeInstanceOf(EtcdLeaseInvalidError);
  });

  test('a lease that stands already is taken over', async () => {
    const id = await etcd.grant(3);
    await etcd.put(key, 'theirs', id);
    const lease = await Lease.attach(client, BigInt(`0x${id}`));
    const lost = losses(lease);
    expect([lease.state, hex(lease.id), lease.ttl]).toEqual([LeaseState.Alive, id, 3]);
    await waitFor(() => lease.remainingMs < 2100, { intervalMs: 5 });
    await waitFor(() => lease.remainingMs > 2500, { intervalMs: 5 });
    await lease.put(`${key}2`).value('ours');
    await lease.revoke();
    expect(await etcd.keys(key)).toEqual([]);
    expect(lost).toEqual([]);
    await expect(Lease.attach(client, lease.id)).rejects.toBeInstanceOf(EtcdLeaseInvalidError);
    await expect(Lease.attach(client, 'x')).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
  });

  test('await using ends it', async () => {
    let id: string;
    {
      await using lease = client.lease(600);
      await lease.put(key).value('1');
      id = hex(lease.id);
    }
    expect(await etcd.leases()).not.toContain(id);
  });

  test('a thousand leases of one client are granted, renewed and revoked with it', async () => {
    const leases = Array.from({ length: 1000 }, () => client.lease(2));
    const lost = leases.map(losses);
    const ids = new Set(await Promise.all(leases.map((lease) => lease.grant())));
    expect(ids.size).toBe(1000);
    const start = performance.now();
    await waitFor(() => performance.now() - start > 3000, { intervalMs: 100 });
    expect(leases.filter((lease) => !lease.isValid())).toEqual([]);
    const closed = performance.now();
    await client.close();
    expect(performance.now() - closed).toBeLessThan(5000); // a thousand, on a busy machine
    expect(lost.flat()).toEqual([]);
    expect(leases.filter((lease) => !lease.revoked())).toEqual([]);
    // On a busy machine not all are revoked in that time: the rest expires, since nobody renews it any more.
    const left = async () => (await etcd.leases()).filter((id) => ids.has(BigInt(`0x${id}`).toString()));
    expect((await left()).length).toBeLessThan(900);
    await waitFor(async () => (await left()).length === 0, { timeoutMs: 6000, what: 'the leases to go' });
  });

  test('close() while a lease is being granted ends it, and its grant() settles', async () => {
    const lease = client.lease(600);
    const lost = losses(lease);
    const granted = lease.grant().catch((error) => error);
    await client.close();
    expect(lease.revoked()).toBe(true);
    const settled = await within(granted, 2000, 'the grant');
    expect(typeof settled === 'string' || settled instanceof ClientClosedError).toBe(true);
    await waitFor(async () => !(await etcd.leases()).includes(hex(lease.id)));
    expect(lost).toEqual([]);
    const late = client.lease(5);
    const lateLost = losses(late);
    await expect(late.grant()).rejects.toBeInstanceOf(ClientClosedError);
    expect(lateLost.length).toBe(1);
  });

  describe('what etcd3 does as well', () => {
    let both: Both;
    beforeAll(() => {
      both = connectBoth(etcd.hosts);
    });
    afterAll(() => both?.close());

    const programs: [string, (client: Etcd3, key: string) => unknown][] = [
      [
        'the states',
        async (client) => {
          const lease = client.lease(60);
          const states = [lease.state, lease.revoked()];
          states.push(typeof (await lease.grant()) === 'string', lease.state);
          await lease.revoke();
          return [...states, lease.state, lease.revoked()];
        },
      ],
      [
        'a put',
        async (client, key) => {
          const lease = client.lease(60);
          const answer = await lease.put(key).value('v');
          const { lease: id } = await client
            .get(key)
            .exec()
            .then(({ kvs }) => kvs[0] as { lease: string });
          const same = id === (await lease.grant());
          await lease.revoke();
          return [answer, same, await client.get(key).string()];
        },
      ],
      [
        'keepaliveOnce()',
        async (client) => {
          const lease = client.lease(60);
          const { TTL, ID, header } = await lease.keepaliveOnce();
          const seen = [TTL, ID === (await lease.grant()), Object.keys(header).sort()];
          lease.release();
          const after = await lease.keepaliveOnce();
          await lease.revoke();
          return [...seen, after.TTL, lease.state];
        },
      ],
      [
        'a loss that keepaliveOnce() finds',
        async (client) => {
          const lease = client.lease(60);
          const lost: Error[] = [];
          lease.on('lost', (error) => lost.push(error));
          await client.leaseClient.leaseRevoke({ ID: await lease.grant() });
          const error = await lease.keepaliveOnce().catch((error) => error);
          return [error.constructor.name, lost.length > 0, lease.revoked(), lease.state];
        },
      ],
      [
        'a put on a lease that is gone',
        async (client, key) => {
          const lease = client.lease(60);
          const lost: Error[] = [];
          lease.on('lost', (error) => lost.push(error));
          await client.leaseClient.leaseRevoke({ ID: await lease.grant() });
          const error = await lease
            .put(key)
            .value('v')
            .catch((error) => error);
          return [error.constructor.name, lost.length > 0, lease.revoked()];
        },
      ],
      [
        'the revocation of a lease that is gone',
        async (client) => {
          const lease = client.lease(60);
          await client.leaseClient.leaseRevoke({ ID: await lease.grant() });
          return [await lease.revoke(), await lease.revoke()];
        },
      ],
      [
        'a lease larger than etcd takes',
        async (client) => {
          const lease = client.lease(9_000_000_001);
          let lost = 0;
          lease.on('lost', () => lost++);
          const error = await lease.grant().catch((error) => error);
          return [error.constructor.name, lost, lease.revoked(), await lease.revoke()];
        },
      ],
      [
        'the order of events',
        async (client) => {
          const lease = client.lease(60);
          const heard: string[] = [];
          for (const event of [
            'keepaliveEstablished',
            'keepaliveFired',
            'keepaliveSucceeded',
            'keepaliveFailed',
            'lost',
          ]) {
            (lease as unknown as Theirs).on(event as 'lost', () => heard.push(event));
          }
          await waitFor(() => heard.includes('keepaliveSucceeded'));
          await lease.revoke();
          return heard;
        },
      ],
    ];
    // etcd3's own renewals may find the loss as well, and tell it again with another error. Ours is told once.
    test.each([
      ['keepaliveOnce()', (lease: Lease) => lease.keepaliveOnce()],
      ['a put', (lease: Lease) => lease.put(uniqueName()).value('v')],
    ])('a loss that %s finds is told once, with its error', async (_name, find) => {
      const lease = both.ours.lease(60);
      const lost: Error[] = [];
      lease.on('lost', (error) => lost.push(error));
      await both.ours.leaseClient.leaseRevoke({ ID: await lease.grant() });
      const error = await Promise.resolve(find(lease)).catch((error) => error);
      expect(error).toBeInstanceOf(EtcdLeaseInvalidError);
      await waitFor(() => lost.length > 0, { what: '"lost"' });
      expect(lost).toEqual([error]);
      expect(lost[0]).toBe(error);
      expect(await lease.keepaliveOnce().catch((error) => error)).toBeInstanceOf(Error);
      expect(lost).toHaveLength(1);
    });

    test.each(programs)('%s', async (_name, program) => {
      const theirs = await outcome(() => program(both.theirs, uniqueName('theirs')));
      expect(await outcome(() => program(both.ours, uniqueName('ours')))).toEqual(theirs);
    });
  });
});

describe('on a mocked client', () => {
  const setUp = () => {
    const client = new Etcd3({ hosts: '127.0.0.1:1', logger: false });
    const calls: unknown[][] = [];
    const answers: Record<string, () => unknown> = {
      leaseGrant: () => ({ ID: '77', TTL: '60' }),
      put: () => ({ header: {} }),
      leaseRevoke: () => ({ header: {} }),
    };
    client.mock({
      exec: async (...args: unknown[]) => {
        calls.push(args.slice(0, 3));
        return answers[args[1] as string]?.();
      },
    } as never);
    return { client, calls, answers };
  };

  test('grant, put and revoke go to exec', async () => {
    const { client, calls } = setUp();
    const lease = client.lease(60);
    expect(lease.id).toBe(0n);
    expect(await lease.grant()).toBe('77');
    await lease.put('a').value('1');
    expect([lease.state, lease.isValid(), lease.remainingMs]).toEqual([
      LeaseState.Alive,
      true,
      Number.POSITIVE_INFINITY,
    ]);
    await lease.revoke();
    expect(calls[0]).toEqual(['Lease', 'leaseGrant', { TTL: 60 }]);
    expect(calls[1]).toMatchObject(['KV', 'put', { lease: '77' }]);
    expect(calls[2]).toEqual(['Lease', 'leaseRevoke', { ID: '77' }]);
    expect(calls.length).toBe(3);
  });

  test('a grant that fails is lost once, with the same error, and a put that nobody awaits harms nobody', async () => {
    const { client, answers } = setUp();
    const failure = new GRPCUnavailableError('no');
    answers.leaseGrant = () => {
      throw failure;
    };
    const unhandled: unknown[] = [];
    const note = (error: unknown) => unhandled.push(error);
    process.on('unhandledRejection', note);
    const lease = client.lease(60);
    const lost = losses(lease);
    lease.put('a').value('1');
    expect(await lease.grant().catch((error) => error)).toBe(failure);
    await lease.revoke();
    await new Promise((resolve) => setImmediate(resolve));
    process.off('unhandledRejection', note);
    expect([lost.length, lost[0] === failure, unhandled]).toEqual([1, true, []]);
    expect(
      await lease
        .put('a')
        .value('1')
        .exec()
        .catch((error) => error),
    ).toBe(failure);
  });

  test('a put that finds the lease gone tells it', async () => {
    const { client, answers } = setUp();
    const gone = new EtcdLeaseInvalidError('77');
    answers.put = () => {
      throw gone;
    };
    const lease = client.lease(60);
    const lost = losses(lease);
    expect(
      await lease
        .put('a')
        .value('1')
        .catch((error) => error),
    ).toBe(gone);
    expect([lost.length, lost[0] === gone, lease.revoked()]).toEqual([1, true, true]);
  });
});
