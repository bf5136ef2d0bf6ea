// Leases under faults: what keeps them, when they are lost, and that nothing is left behind.
import { type EventEmitter, once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import {
  Etcd3,
  EtcdLeaseInvalidError,
  GRPCDeadlineExceededError,
  GRPCUnavailableError,
  type IOptions,
  type IRestored,
  LastingLease,
  type Lease,
} from 'rollcall/etcd';
import { afterAll, beforeAll, describe, expect, type TestContext, test } from 'vitest';
import { ETCD_VERSIONS, type EtcdCluster, type EtcdOptions, startEtcd } from '../support/etcd.js';
import { freePorts } from '../support/ports.js';
import { inTime, uniqueName, waitFor, within } from '../support/process.js';
import { startTcpProxy } from '../support/tcp.js';
import { type Proxy as Link, startToxiproxy, type Toxiproxy } from '../support/toxiproxy.js';
import { connectBoth } from './both.js';
import { clientProgram } from './child.js';

type Finish = Pick<TestContext, 'onTestFinished'>;

const hex = (id: string | bigint): string => BigInt(id).toString(16);

function losses(lease: Lease): { error: Error; at: number; revoked: boolean }[] {
  const seen: { error: Error; at: number; revoked: boolean }[] = [];
  lease.on('lost', (error) => seen.push({ error, at: performance.now(), revoked: lease.revoked() }));
  return seen;
}

function connect({ onTestFinished }: Finish, hosts: readonly string[], options: Partial<IOptions> = {}): Etcd3 {
  const client = new Etcd3({ hosts: [...hosts], logger: false, ...options });
  onTestFinished(() => client.close());
  return client;
}

async function own({ onTestFinished }: Finish, options: EtcdOptions): Promise<EtcdCluster> {
  const etcd = await startEtcd(options);
  onTestFinished(() => etcd.close());
  return etcd;
}

/** It stays valid for so long, and nothing is told of a loss. */
async function lives(lease: Lease, ms: number): Promise<void> {
  const lost = losses(lease);
  for (const end = performance.now() + ms; performance.now() < end; await delay(25)) {
    expect([lease.revoked(), lost]).toEqual([false, []]);
  }
}

let toxiproxy: Toxiproxy;
beforeAll(async () => {
  toxiproxy = await startToxiproxy();
});
afterAll(() => toxiproxy?.close());

describe.concurrent.each(ETCD_VERSIONS)('etcd %s', (version) => {
  let etcd: EtcdCluster;
  beforeAll(async () => {
    etcd = await startEtcd({ version });
  });
  afterAll(() => etcd?.close());

  async function way({ onTestFinished }: Finish): Promise<Link> {
    const link = await toxiproxy.proxy(etcd.hosts[0] as string);
    onTestFinished(() => link.remove());
    return link;
  }

  test('a thread that is blocked for more than two times to live keeps its lease', async (context) => {
    const key = uniqueName('key');
    const program = clientProgram(
      etcd.hosts,
      `
      const lease = client.lease(2);
      const lost = [];
      lease.on('lost', (error) => lost.push(String(error)));
      block(5000); // at once: not even the answer to the grant has been seen
      const before = lease.revoked();
      await lease.put(${JSON.stringify(key)}).value('1');
      say({ before });
      block(5000);
      say({ revoked: lease.revoked(), remainingMs: lease.remainingMs, value: await client.get(${JSON.stringify(key)}).string(), lost });
      await client.close();
      `,
    );
    context.onTestFinished(() => program.kill());
    const line = await program.line((line) => 'revoked' in line);
    expect(line).toMatchObject({ revoked: false, value: '1', lost: [] });
    expect(line.remainingMs).toBeGreaterThan(0);
    expect((await program.exit).code).toBe(0);
    expect(await etcd.get(key)).toBeNull();
  });

  test('a blocked thread loses it where that is asked for, and revoked() says so before the event', async (context) => {
    const key = uniqueName('key');
    const program = clientProgram(
      etcd.hosts,
      `
      const lease = client.lease(60, { stallTimeoutMs: 1000 });
      lease.on('lost', (error) => say({ lost: error instanceof EtcdLeaseInvalidError, cause: error.cause }));
      await lease.put(${JSON.stringify(key)}).value('1');
      say({ put: true });
      block(3000);
      say({ revoked: lease.revoked(), told: false });
      await delay(200);
      await client.close();
      `,
    );
    context.onTestFinished(() => program.kill());
    const put = await program.line((line) => 'put' in line);
    await waitFor(async () => (await etcd.get(key)) === null, { timeoutMs: 2900, what: 'the key to go meanwhile' });
    const told = await program.line((line) => 'lost' in line);
    expect(told).toMatchObject({ lost: true, cause: expect.stringContaining('blocked') });
    expect(told.at - put.at).toBeGreaterThan(2900);
    await program.exit;
    expect(program.seen.map(({ at, ...line }) => line).slice(1)).toEqual([
      { revoked: true, told: false },
      expect.objectContaining({ lost: true }),
    ]);
  });

  test('a process that was stopped past the deadline says so before anything else', async (context) => {
    const program = clientProgram(
      etcd.hosts,
      `
      const lease = client.lease(2);
      await lease.grant();
      lease.on('lost', () => say({ event: true, revoked: lease.revoked() }));
      let last = performance.now();
      setInterval(() => {
        const now = performance.now();
        // The first thing that runs after it.
        if (now - last > 1000) say({ woke: true, revoked: lease.revoked(), valid: lease.isValid(), left: lease.remainingMs });
        last = now;
      }, 20);
      say({ ready: true });
      `,
    );
    context.onTestFinished(() => program.kill());
    await program.line((line) => 'ready' in line);
    program.child.kill('SIGSTOP');
    await delay(4000); // it is the time that has to pass
    program.child.kill('SIGCONT');
    const woke = await program.line((line) => 'woke' in line || 'event' in line);
    expect(woke.revoked, 'whatever came first').toBe(true);
    expect(await program.line((line) => 'event' in line)).toMatchObject({ revoked: true });
    if ('valid' in woke) expect(woke).toMatchObject({ valid: false, left: 0 });
    await delay(300);
    expect(program.seen.filter((line) => 'event' in line).length).toBe(1);
  });

  test('behind a black hole a lease is lost at its deadline, and not one time to live later', async (context) => {
    const link = await way(context);
    const client = connect(context, [link.host]);
    const lease = client.lease(6);
    const lost = losses(lease);
    let heard = performance.now();
    lease.on('keepaliveSucceeded', () => {
      heard = performance.now();
    });
    const failures: Error[] = [];
    lease.on('keepaliveFailed', (error) => failures.push(error));
    await lease.put(uniqueName('key')).value('1');
    await waitFor(() => lease.remainingMs < 5500, { intervalMs: 5 });
    await link.timeout();
    const left = lease.remainingMs;
    const start = performance.now();
    await waitFor(() => lease.revoked(), { timeoutMs: 12_000, intervalMs: 2, what: 'the deadline' });
    // A busy machine looks late; one time to live too late would be 6 s.
    expect(performance.now() - start).toBeLessThan(left + 2000);
    await waitFor(() => lost.length > 0, { intervalMs: 2 });
    const [loss] = lost as [{ error: Error; at: number; revoked: boolean }];
    expect(loss.at - heard).toBeLessThan(8000);
    expect(loss.revoked).toBe(true);
    expect(loss.error).toBeInstanceOf(EtcdLeaseInvalidError);
    expect(failures.length).toBeGreaterThan(1);
    expect(failures.at(-1)).toBe(loss.error);
    expect(failures[0]).toBeInstanceOf(GRPCUnavailableError);
    await link.clear();
    await delay(500);
    expect(lost.length).toBe(1);
  });

  test('a link that goes black for a moment costs no lease', async (context) => {
    const link = await way(context);
    const client = connect(context, [link.host]);
    const lease = client.lease(6);
    await lease.grant();
    await link.timeout();
    await delay(3000);
    await link.clear(); // which cuts
    await lives(lease, 5000);
    expect(await etcd.leases()).toContain(hex(lease.id));
  });

  test('a lasting lease puts its keys again when it was lost, but those of others', async (context) => {
    const link = await way(context);
    const client = connect(context, [link.host]);
    const key = uniqueName('key');
    const lasting = new LastingLease(client, 2);
    const lost: Error[] = [];
    const restored: IRestored[] = [];
    lasting.on('lost', (error) => lost.push(error));
    lasting.on('restored', (report) => restored.push(report));
    for (const name of ['kept', 'taken', 'deleted']) await lasting.put(`${key}/${name}`, name);
    await lasting.delete(`${key}/deleted`);
    const first = lasting.lease;
    await link.setEnabled(false);
    await waitFor(async () => lost.length === 1 && (await etcd.keys(key)).length === 0);
    expect([first.revoked(), lasting.isValid(), lasting.lease === first]).toEqual([true, false, false]);
    await etcd.put(`${key}/taken`, 'by another');
    await link.setEnabled(true);
    await waitFor(() => restored.length === 1);
    expect(restored[0]).toMatchObject({ restored: [`${key}/kept`], taken: [`${key}/taken`], refused: [] });
    expect(restored[0]?.lease).toBe(lasting.lease);
    expect(await etcd.get(`${key}/taken`)).toBe('by another');
    expect(await etcd.leaseOf(`${key}/kept`)).toBe(hex(lasting.lease.id));
    // Revoked by hand, it comes back within a third of its time.
    await etcd.revoke(hex(lasting.lease.id));
    await waitFor(async () => restored.length === 2 && (await etcd.get(`${key}/kept`)) === 'kept');
    expect(lost.length).toBe(2);
    await lasting.revoke();
    expect(await etcd.keys(key)).toEqual([`${key}/taken`]);
    await delay(300);
    expect([lost.length, restored.length]).toEqual([2, 2]);
  });

  test('a lasting lease puts its keys again although the connection is cut twice meanwhile', async (context) => {
    const proxy = await startTcpProxy(etcd.hosts[0] as string);
    context.onTestFinished(() => proxy.close());
    const client = connect(context, [proxy.host]);
    const key = uniqueName('key');
    const lasting = new LastingLease(client, 60);
    await lasting.put(key, 'up');
    const restored = once(lasting as unknown as EventEmitter, 'restored');
    let failed = 0;
    lasting.on('lost', () => {
      const { lease } = lasting;
      const renew = lease.keepaliveOnce.bind(lease);
      lease.keepaliveOnce = async () => {
        const renewal = renew({ timeoutMs: 500 });
        renewal.catch(() => failed++);
        return await renewal;
      };
      // Before anything of the restoration can be answered.
      void lease.grant().then(() => proxy.setEnabled(false));
    });
    await etcd.revoke(hex(lasting.lease.id));
    await lasting.lease.keepaliveOnce().catch(() => {}); // by which it hears of it
    await waitFor(() => failed >= 2, { what: 'two renewals that fail' });
    proxy.setEnabled(true);
    expect(await within(restored, 20_000, '"restored"')).toMatchObject([{ restored: [key], refused: [] }]);
    expect(await etcd.leaseOf(key)).toBe(hex(lasting.lease.id));
  });

  test('a lease that was lost by the clock alone says so in the words of etcd3', async (context) => {
    const proxy = await startTcpProxy(etcd.hosts[0] as string);
    const both = connectBoth([proxy.host]);
    context.onTestFinished(() => both.close());
    const leases = [both.ours, both.theirs].map((client) => client.lease(1));
    await Promise.all(leases.map((lease) => lease.grant()));
    const lost = leases.map((lease) => once(lease as unknown as EventEmitter, 'lost'));
    await proxy.close();
    for (const [error] of await within(Promise.all(lost), 20_000, '"lost"')) {
      expect(error.constructor.name).toBe('EtcdLeaseInvalidError');
      expect(error.message).toContain('our lease has expired');
    }
  });

  test('a server that is killed and started again keeps the leases', async (context) => {
    const etcd = await own(context, { version });
    const client = connect(context, etcd.hosts);
    const leases = Array.from({ length: 20 }, () => client.lease(5));
    await Promise.all(leases.map((lease) => lease.grant()));
    await etcd.kill();
    const once = leases[0]?.keepaliveOnce();
    await etcd.start();
    expect(await once).toMatchObject({ TTL: '5' });
    await Promise.all(leases.map((lease) => lives(lease, 6000)));
  });

  test('a frozen leader costs no lease', async (context) => {
    const etcd = await own(context, { version, members: 3 });
    const client = connect(context, etcd.hosts);
    const lease = client.lease(6);
    await lease.grant();
    const leader = await etcd.leader();
    leader.freeze();
    await lives(lease, 9000);
    leader.thaw();
  });

  test('a token that runs out costs no lease', async (context) => {
    const etcd = await own(context, { version, authTokenTtl: 2, users: [] });
    const client = connect(context, etcd.hosts, { auth: { username: 'root', password: 'root' } });
    const key = uniqueName('key');
    const lease = client.lease(2);
    await lease.put(key).value('1');
    await lives(lease, 7000);
    expect(await lease.keepaliveOnce()).toMatchObject({ TTL: '2' });
    await lease.put(key).value('2');
    await lease.revoke();
    expect(await etcd.get(key)).toBeNull();
  });

  test('close() revokes, and the process ends within a second, awaited or not', async (context) => {
    for (const close of ['await client.close(); say({ closed: true });', 'client.close(); say({ closed: true });']) {
      const key = uniqueName('key');
      const program = clientProgram(
        etcd.hosts,
        `
        const leases = Array.from({ length: 10 }, () => client.lease(600));
        leases.forEach((lease) => lease.on('lost', () => say({ lost: true })));
        await Promise.all(leases.map((lease, i) => lease.put(${JSON.stringify(key)} + i).value('1')));
        const kept = client.lease(600);
        await kept.put(${JSON.stringify(key)} + 'kept').value('1');
        kept.release();
        client.lease(600); // not yet granted
        await delay(300);
        say({ alive: true });
        ${close}
        `,
      );
      context.onTestFinished(() => program.kill());
      await program.line((line) => 'alive' in line);
      const start = performance.now();
      const end = await within(program.exit, 5000, 'the end of the process');
      expect(performance.now() - start).toBeLessThan(inTime(3000)); // the leases are for 600 s
      expect([end.code, end.stderr]).toEqual([0, '']);
      expect(program.seen.map(({ at, ...line }) => line)).toEqual([{ alive: true }, { closed: true }]);
      expect(await etcd.keys(key)).toEqual([`${key}kept`]);
    }
  });

  test('close() does not wait for a server that does not answer, and the process ends', async (context) => {
    const link = await way(context);
    const program = clientProgram(
      [link.host],
      `
      const lease = client.lease(600);
      await lease.grant();
      say({ alive: true });
      process.stdin.once('data', async () => { await client.close(); say({ revoked: lease.revoked() }); process.stdin.destroy(); });
      `,
    );
    context.onTestFinished(() => program.kill());
    await program.line((line) => 'alive' in line);
    await link.timeout();
    const start = performance.now();
    program.send({});
    expect((await within(program.exit, 5000, 'the end of the process')).code).toBe(0);
    expect(performance.now() - start).toBeLessThan(inTime(3000)); // a call would wait for longer
    expect(program.seen.at(-1)).toMatchObject({ revoked: true });
  });

  test('a process with a live lease stays, unless its client was told unref()', async (context) => {
    const program = clientProgram(
      etcd.hosts,
      `
      client.unref();
      const hold = setInterval(() => {}, 1000); // a call of such a client holds no process either
      await client.lease(60).grant();
      clearInterval(hold);
      say({ granted: true });
      `,
    );
    context.onTestFinished(() => program.kill());
    expect((await within(program.exit, 5000, 'the end of the process')).code).toBe(0);
    expect(program.seen.at(-1)).toMatchObject({ granted: true });
    const other = clientProgram(etcd.hosts, 'await client.lease(60).grant(); say({});');
    context.onTestFinished(() => other.kill());
    await other.line(() => true);
    expect(await Promise.race([other.exit, delay(1000, 'stays')])).toBe('stays');
  });

  test('keepaliveOnce() settles whatever becomes of its stream', async (context) => {
    const link = await way(context);
    const client = connect(context, [link.host]);
    const lease = client.lease(60);
    await lease.keepaliveOnce();
    await link.setEnabled(false);
    const late = await lease.keepaliveOnce({ timeoutMs: 700 }).catch((error) => error);
    expect(late).toBeInstanceOf(GRPCDeadlineExceededError);
    const signal = AbortSignal.timeout(300);
    const aborted = await lease.keepaliveOnce({ signal }).catch((error) => error);
    expect(aborted).toMatchObject({ code: 'ERR_ABORTED', cause: signal.reason });
    const pending = lease.keepaliveOnce();
    await link.setEnabled(true);
    expect(await within(pending, 8000, 'the renewal')).toMatchObject({ TTL: '60' });
  });

  test('a grant whose answer is lost on the way leaves no lease behind', async (context) => {
    const link = await way(context);
    const client = connect(context, [link.host]);
    await client.get('warm').string();
    await link.loseAnswers();
    const lease = client.lease(600, { timeoutMs: 1500 });
    const lost = losses(lease);
    const granted = lease.grant().catch((error) => error);
    await waitFor(async () => (await etcd.leases()).includes(hex(lease.id)), { what: 'the grant to arrive' });
    const error = await granted;
    expect(error).toBeInstanceOf(GRPCDeadlineExceededError);
    expect(lost.map((loss) => loss.error === error)).toEqual([true]);
    await link.clear();
    await waitFor(async () => !(await etcd.leases()).includes(hex(lease.id)), { what: 'the lease to go' });
  });

  test('a grant whose first answer is lost and that is asked for again is one lease', async (context) => {
    const link = await way(context);
    const client = connect(context, [link.host]);
    await client.get('warm').string();
    await link.loseAnswers();
    const lease = client.lease(600, { timeoutMs: 12_000 });
    await waitFor(async () => (await etcd.leases()).includes(hex(lease.id)), { what: 'the grant to arrive' });
    await link.clear();
    expect(await lease.grant()).toBe(String(lease.id));
    expect(lease.isValid()).toBe(true);
    await lease.revoke();
    expect(await etcd.leases()).not.toContain(hex(lease.id));
  });
});

test('a grant that fails is one loss, and nobody has to listen', async (context) => {
  const [port] = await freePorts(1);
  const program = clientProgram(
    [`127.0.0.1:${port}`],
    `
    process.on('unhandledRejection', (error) => say({ unhandled: String(error) }));
    const quiet = client.lease(5, { timeoutMs: 500 });
    quiet.put('a').value('1'); // never sent
    const lease = client.lease(5, { timeoutMs: 500 });
    const lost = [];
    lease.on('lost', (error) => lost.push([error, lease.revoked()]));
    const put = await lease.put('a').value('1').exec().catch((error) => error);
    const grant = await lease.grant().catch((error) => error);
    const once = await lease.keepaliveOnce().catch((error) => error);
    await lease.revoke();
    await delay(300);
    say({
      lost: lost.length, same: lost[0][0] === grant && put === grant && once === grant, revoked: lost[0][1],
      name: grant.name, quiet: quiet.revoked(), state: lease.state,
    });
    await client.close();
    `,
  );
  context.onTestFinished(() => program.kill());
  const end = await within(program.exit, 15_000, 'the end of the process');
  expect(program.seen.map(({ at, ...line }) => line)).toEqual([
    { lost: 1, same: true, revoked: true, name: 'GRPCUnavailableError', quiet: true, state: 2 },
  ]);
  expect([end.code, end.stderr]).toEqual([0, '']);
});
