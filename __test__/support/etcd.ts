// Real etcd servers for tests: on free ports of 127.0.0.1, with their data in a temporary folder.
import { readFileSync, rmSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { join } from 'node:path';
import type { EtcdCluster, EtcdMember, EtcdOptions, EtcdRole, EtcdUser, EtcdVersion } from './etcd-types.js';
import { freePorts } from './ports.js';
import { output, temporaryFolder, uniqueName, waitFor, within } from './process.js';
import { builtProgram, installedProgram } from './programs.js';
import { PortTaken, ServerProgram } from './server-program.js';
import type { Certificates } from './tls.js';
import { makeCertificates } from './tls.js';

export * from './etcd-types.js';

const startTimeoutMs = 30_000;
const callTimeoutMs = 5000;

const base64 = (text: string): string => Buffer.from(text).toString('base64');
const fromBase64 = (text: string | undefined): string => Buffer.from(text ?? '', 'base64').toString('utf8');
const hexadecimal = (id: string | number): string => BigInt(id).toString(16);
const decimal = (id: string): string => BigInt(`0x${id}`).toString();

/** The range of keys that begin with a prefix, as the JSON gateway takes it. */
export function under(prefix: string): { key: string; range_end: string } {
  const end = Buffer.from(prefix);
  const last = end.length - 1;
  if (last < 0) return { key: 'AA==', range_end: 'AA==' };
  if (end[last] === 0xff) throw new Error('a prefix ends in UTF-8');
  end.writeUInt8(end.readUInt8(last) + 1, last);
  return { key: base64(prefix), range_end: end.toString('base64') };
}

/** The server refused the call: there is no use in asking another member. */
class Refused extends Error {
  constructor(
    path: string,
    readonly status: number,
    readonly answer: string,
  ) {
    super(`${path}: ${status} ${answer}`);
  }
}

interface Shape {
  readonly program: string;
  readonly version: EtcdVersion;
  readonly token: string;
  readonly folder: string;
  readonly certificates: Certificates | undefined;
  readonly mutual: boolean;
  readonly args: readonly string[];
}

class Member extends ServerProgram implements EtcdMember {
  readonly host: string;
  readonly hosts: readonly string[];
  readonly httpUrl: string;
  readonly peerUrl: string;
  private readonly data: string;

  constructor(
    name: string,
    private readonly shape: Shape,
    clientPort: number,
    peerPort: number,
  ) {
    super(`etcd ${shape.version}`, name);
    this.host = `127.0.0.1:${clientPort}`;
    this.hosts = [this.host];
    this.httpUrl = `${shape.certificates ? 'https' : 'http'}://${this.host}`;
    this.peerUrl = `http://127.0.0.1:${peerPort}`;
    this.data = join(shape.folder, name);
  }

  /** Starts the process, without a wait. */
  launch(everyone: readonly Member[]): void {
    const { shape } = this;
    this.run(
      shape.program,
      [
        ...['--name', this.name, '--data-dir', this.data, '--initial-cluster-token', shape.token],
        ...['--listen-client-urls', this.httpUrl, '--advertise-client-urls', this.httpUrl],
        ...['--listen-peer-urls', this.peerUrl, '--initial-advertise-peer-urls', this.peerUrl],
        ...['--initial-cluster', everyone.map((one) => `${one.name}=${one.peerUrl}`).join(',')],
        ...['--initial-cluster-state', 'new', '--heartbeat-interval', '100', '--election-timeout', '1000'],
        ...['--logger', 'zap', '--log-outputs', 'stderr', '--log-level', 'warn'],
        // Data need not outlive the machine; it does outlive a SIGKILL.
        ...(shape.version.startsWith('3.4.') ? [] : ['--unsafe-no-fsync']),
        ...(shape.certificates
          ? ['--cert-file', shape.certificates.server.certFile, '--key-file', shape.certificates.server.keyFile]
          : []),
        ...(shape.certificates && shape.mutual
          ? ['--client-cert-auth', '--trusted-ca-file', shape.certificates.ca.certFile]
          : []),
        ...shape.args,
      ],
      // ETCD_* of the environment would be read as options.
      Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('ETCD'))),
    );
  }

  healthy(): Promise<void> {
    return this.until(async () => {
      const { body } = await this.ask('GET', '/health');
      // 3.4 writes {"health":"true"}, newer ones add a reason.
      return (JSON.parse(body) as { health: unknown }).health === 'true';
    }, `at ${this.httpUrl} to be healthy`);
  }

  /** What the member is started with again. */
  everyone: readonly Member[] = [];

  async start(): Promise<void> {
    for (const deadline = Date.now() + startTimeoutMs; ; ) {
      this.launch(this.everyone);
      try {
        return await this.healthy();
      } catch (error) {
        // The connections of the process before may still hold the port for a moment.
        if (!(error instanceof PortTaken) || Date.now() > deadline) throw error;
        await within(this.gone, 5000, 'the end of etcd');
      }
    }
  }

  wipe(): void {
    rmSync(this.data, { recursive: true, force: true, maxRetries: 5 });
  }

  /** Makes its data anew from a snapshot; it must not run. */
  async restore(snapshot: string): Promise<void> {
    this.wipe();
    const old = this.shape.version.startsWith('3.4.');
    await output(
      old ? installedProgram('/usr/bin/etcdctl', 'etcd-client') : builtProgram('etcdutl'),
      [
        ...['snapshot', 'restore', snapshot, '--name', this.name, '--data-dir', this.data],
        ...['--initial-cluster-token', this.shape.token, '--initial-advertise-peer-urls', this.peerUrl],
        ...['--initial-cluster', this.everyone.map((one) => `${one.name}=${one.peerUrl}`).join(',')],
      ],
      old ? { ETCDCTL_API: '3' } : {},
    );
  }

  async isLeader(): Promise<boolean> {
    if (!this.child || this.frozen) return false;
    const { status, body } = await this.ask('POST', '/v3/maintenance/status', '{}', await this.authorize());
    if (status !== 200) throw new Refused('/v3/maintenance/status', status, body);
    const { header, leader } = JSON.parse(body) as { header: { member_id: string }; leader?: string };
    return leader !== undefined && leader !== '0' && leader === header.member_id;
  }

  /** The token of the administrator, from the cluster; 3.7 wants one for the status. */
  authorize: () => Promise<string | undefined> = async () => undefined;

  ask(method: 'GET' | 'POST', path: string, body?: string, token?: string): Promise<{ status: number; body: string }> {
    const { certificates, mutual } = this.shape;
    return new Promise((resolve, reject) => {
      const request = (certificates ? httpsRequest : httpRequest)(
        this.httpUrl + path,
        {
          method,
          agent: false,
          timeout: callTimeoutMs,
          headers: {
            ...(body === undefined ? {} : { 'content-type': 'application/json' }),
            ...(token ? { authorization: token } : {}),
          },
          ...(certificates && { ca: readFileSync(certificates.ca.certFile) }),
          ...(certificates &&
            mutual && {
              cert: readFileSync(certificates.client.certFile),
              key: readFileSync(certificates.client.keyFile),
            }),
        },
        (answer) => {
          let text = '';
          answer.setEncoding('utf8').on('data', (chunk: string) => {
            text += chunk;
          });
          answer.on('end', () => resolve({ status: answer.statusCode ?? 0, body: text }));
          answer.on('error', reject);
        },
      );
      request.on('timeout', () => request.destroy(new Error(`${path}: no answer within ${callTimeoutMs} ms`)));
      request.on('error', reject);
      request.end(body);
    });
  }
}

class Cluster implements EtcdCluster {
  readonly version: EtcdVersion;
  readonly url: string;
  readonly httpUrl: string;
  readonly hosts: readonly string[];
  readonly certificates: Certificates | undefined;
  private root: EtcdUser | undefined;
  private token: string | undefined;

  constructor(
    readonly members: readonly Member[],
    private readonly shape: Shape,
    private readonly users: readonly EtcdUser[],
    private readonly removeFolder: () => void,
  ) {
    this.version = shape.version;
    this.hosts = members.map(({ host }) => host);
    this.url = `${shape.certificates ? 'etcds' : 'etcd'}://${this.hosts.join(',')}`;
    this.httpUrl = members[0]?.httpUrl ?? '';
    this.certificates = shape.certificates;
    for (const member of members) {
      member.everyone = members;
      member.authorize = () => this.authorize(member);
    }
  }

  async launch(): Promise<void> {
    for (const member of this.members) if (!member.running) member.launch(this.members);
    const results = await Promise.allSettled(this.members.map((member) => member.healthy()));
    const failures = results.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []));
    if (failures.length > 0) throw failures.find((failure) => failure instanceof PortTaken) ?? failures[0];
    if (this.users.length > 0 && !this.root) await this.enableAuth(this.users);
  }

  leader(): Promise<EtcdMember> {
    return waitFor(
      async () => {
        const answers = await Promise.all(this.members.map((member) => member.isLeader().catch(() => false)));
        return this.members[answers.indexOf(true)];
      },
      { what: 'a leader' },
    );
  }

  private async each(what: (member: Member) => Promise<void>): Promise<void> {
    await Promise.all(this.members.map(what));
  }

  stop(): Promise<void> {
    return this.each((member) => member.stop());
  }

  kill(): Promise<void> {
    return this.each((member) => member.kill());
  }

  start(): Promise<void> {
    return this.each(async (member) => {
      if (!member.running) await member.start();
    });
  }

  freeze(): void {
    for (const member of this.members) if (member.running) member.freeze();
  }

  thaw(): void {
    for (const member of this.members) if (member.frozen) member.thaw();
  }

  async wipe(): Promise<void> {
    await this.kill();
    for (const member of this.members) member.wipe();
    this.root = undefined;
    this.token = undefined;
    await this.start();
    if (this.users.length > 0) await this.enableAuth(this.users);
  }

  async backup(): Promise<() => Promise<void>> {
    const snapshot = join(this.shape.folder, uniqueName('snapshot'));
    await this.ctl('snapshot', 'save', snapshot);
    return async () => {
      await this.kill();
      await this.each((member) => member.restore(snapshot));
      await this.start();
    };
  }

  async close(): Promise<void> {
    await this.kill();
    this.removeFolder();
    this.certificates?.remove();
  }

  async calls(method: string): Promise<number> {
    let sum = 0;
    for (const member of this.members) {
      const text = await (await fetch(`${member.httpUrl}/metrics`)).text();
      for (const line of text.split('\n')) {
        if (line.startsWith('grpc_server_started_total') && line.includes(`grpc_method="${method}"`)) {
          sum += Number(line.split(' ').at(-1));
        }
      }
    }
    return sum;
  }

  ctl(...args: string[]): Promise<string> {
    const old = this.version.startsWith('3.4.');
    const { certificates } = this.shape;
    const running = this.members.filter((member) => member.running && !member.frozen).map(({ httpUrl }) => httpUrl);
    return output(
      old ? installedProgram('/usr/bin/etcdctl', 'etcd-client') : builtProgram('etcdctl'),
      [
        ...['--endpoints', running.join(','), '--command-timeout', '10s'],
        ...(certificates ? ['--cacert', certificates.ca.certFile] : []),
        ...(certificates && this.shape.mutual
          ? ['--cert', certificates.client.certFile, '--key', certificates.client.keyFile]
          : []),
        ...(this.root ? ['--user', `${this.root.name}:${this.root.password}`] : []),
        ...args,
      ],
      old ? { ETCDCTL_API: '3' } : {},
    );
  }

  private async authorize(member: Member): Promise<string | undefined> {
    if (!this.root) return undefined;
    if (this.token === undefined) {
      const { status, body } = await member.ask('POST', '/v3/auth/authenticate', JSON.stringify(this.root));
      if (status !== 200) throw new Refused('/v3/auth/authenticate', status, body);
      this.token = (JSON.parse(body) as { token: string }).token;
    }
    return this.token;
  }

  async call<T = Record<string, unknown>>(path: string, body: unknown): Promise<T> {
    let last: unknown = new Error(`${path}: no member runs`);
    for (const member of this.members) {
      if (!member.running || member.frozen) continue;
      // A token of before a restart, or an expired one, is replaced once.
      for (let attempt = 0; attempt < 2; attempt++) {
        try {
          const answer = await member.ask('POST', path, JSON.stringify(body), await this.authorize(member));
          if (answer.status === 200) return JSON.parse(answer.body) as T;
          last = new Refused(path, answer.status, answer.body);
          if (!answer.body.includes('invalid auth token') && !answer.body.includes('revision of auth store is old'))
            break;
          this.token = undefined;
        } catch (error) {
          last = error;
          break;
        }
      }
      // Not available (503) or too late (504) here may be available at the next member.
      if (last instanceof Refused && last.status !== 503 && last.status !== 504) break;
    }
    throw last;
  }

  private async range(body: object): Promise<{ key: string; value: string; lease: string | null }[]> {
    const { kvs = [] } = await this.call<{ kvs?: { key: string; value?: string; lease?: string }[] }>(
      '/v3/kv/range',
      body,
    );
    return kvs.map(({ key, value, lease }) => ({
      key: fromBase64(key),
      value: fromBase64(value),
      lease: lease === undefined || lease === '0' ? null : hexadecimal(lease),
    }));
  }

  async get(key: string): Promise<string | null> {
    return (await this.range({ key: base64(key) }))[0]?.value ?? null;
  }

  async leaseOf(key: string): Promise<string | null> {
    return (await this.range({ key: base64(key) }))[0]?.lease ?? null;
  }

  async put(key: string, value: string, lease?: string): Promise<void> {
    await this.call('/v3/kv/put', { key: base64(key), value: base64(value), ...(lease && { lease: decimal(lease) }) });
  }

  async del(key: string): Promise<boolean> {
    const { deleted } = await this.call<{ deleted?: string }>('/v3/kv/deleterange', { key: base64(key) });
    return Number(deleted ?? 0) > 0;
  }

  async keys(prefix: string): Promise<string[]> {
    return (await this.range({ ...under(prefix), keys_only: true })).map(({ key }) => key);
  }

  async leases(): Promise<string[]> {
    const { leases = [] } = await this.call<{ leases?: { ID: string }[] }>('/v3/lease/leases', {});
    return leases.map(({ ID }) => hexadecimal(ID)).sort();
  }

  async grant(ttlSeconds: number): Promise<string> {
    return hexadecimal((await this.call<{ ID: string }>('/v3/lease/grant', { TTL: ttlSeconds })).ID);
  }

  async revoke(lease: string): Promise<void> {
    await this.call('/v3/lease/revoke', { ID: decimal(lease) });
  }

  async revision(): Promise<number> {
    const { header } = await this.call<{ header: { revision: string } }>('/v3/kv/range', { key: base64('\0') });
    return Number(header.revision);
  }

  async compact(): Promise<void> {
    await this.call('/v3/kv/compaction', { revision: await this.revision(), physical: true });
  }

  async enableAuth(users: readonly EtcdUser[]): Promise<void> {
    const root = users.find(({ name }) => name === 'root') ?? { name: 'root', password: 'root' };
    const everything: EtcdRole = { prefix: '', permission: 'readwrite' };
    await this.call('/v3/auth/role/add', { name: 'root' });
    for (const { name, password, roles = name === 'root' ? [] : [everything] } of new Set([root, ...users])) {
      await this.call('/v3/auth/user/add', { name, password });
      const own = name === 'root' ? (['root', ...roles] as const) : roles;
      for (const [index, role] of [...new Set(own)].entries()) {
        const roleName = role === 'root' ? 'root' : `${name}-${index}`;
        if (role !== 'root') {
          await this.call('/v3/auth/role/add', { name: roleName });
          await this.call('/v3/auth/role/grant', {
            name: roleName,
            perm: { permType: (role.permission ?? 'readwrite').toUpperCase(), ...under(role.prefix) },
          });
        }
        await this.call('/v3/auth/user/grant', { user: name, role: roleName });
      }
    }
    await this.call('/v3/auth/enable', {});
    this.root = { name: root.name, password: root.password };
    this.token = undefined;
  }

  async disableAuth(): Promise<void> {
    await this.call('/v3/auth/disable', {});
    this.root = undefined;
    this.token = undefined;
  }
}

const checked = new Set<string>();

async function programOf(version: EtcdVersion): Promise<string> {
  if (!version.startsWith('3.4.')) return builtProgram('etcd');
  const program = process.env.ETCD_34 || installedProgram('/usr/bin/etcd', 'etcd-server');
  if (!checked.has(program)) {
    const told = await output(program, ['--version']);
    if (!/^etcd Version: 3\.4\./.test(told)) throw new Error(`${program} is not an etcd 3.4 but: ${told}`);
    checked.add(program);
  }
  return program;
}

/** Starts an etcd and waits until it is healthy. */
export async function startEtcd({
  version = '3.7.3',
  members: count = 1,
  users = [],
  tls = false,
  certificates: kind,
  authTokenTtl,
  args = [],
}: EtcdOptions = {}): Promise<EtcdCluster> {
  const program = await programOf(version);
  const certificates = tls ? await makeCertificates(kind) : undefined;
  for (let attempt = 1; ; attempt++) {
    const folder = temporaryFolder('rollcall-etcd-');
    const ports = await freePorts(2 * count);
    const shape: Shape = {
      program,
      version,
      token: uniqueName('cluster'),
      folder: folder.path,
      certificates,
      mutual: tls === 'mutual',
      args: [...(authTokenTtl === undefined ? [] : ['--auth-token-ttl', String(authTokenTtl)]), ...args],
    };
    const members = Array.from(
      { length: count },
      (_, index) => new Member(`member${index + 1}`, shape, ports[2 * index] as number, ports[2 * index + 1] as number),
    );
    const cluster = new Cluster(members, shape, users, folder.remove);
    try {
      await cluster.launch();
      return cluster;
    } catch (error) {
      await Promise.all(members.map((member) => member.kill()));
      folder.remove();
      if (error instanceof PortTaken && attempt < 5) continue;
      certificates?.remove();
      throw error;
    }
  }
}
