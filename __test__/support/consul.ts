// Real Consul agents for tests: on free ports of 127.0.0.1, with their data in memory or in a temporary folder.
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Agent as HttpAgent, request as httpRequest } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { join } from 'node:path';
import { freePorts } from './ports.js';
import { temporaryFolder, uniqueName, waitFor } from './process.js';
import { builtProgram } from './programs.js';
import { ServerProgram } from './server-program.js';
import type { CertificateOptions, Certificates } from './tls.js';
import { makeCertificates } from './tls.js';

export interface ConsulOptions {
  /** 1 by default. Three keep their data in files, one only if `persistent`. */
  servers?: 1 | 3;
  /** A client agent beside the servers, which is what programs talk to as a rule. */
  client?: boolean;
  /** The data outlive a restart. */
  persistent?: boolean;
  /** ACLs are on and deny what no token allows; the token of the administrator is `management`. */
  acl?: boolean;
  /** Clients come by TLS, with a certificate of their own if `mutual`. */
  tls?: boolean | 'mutual';
  /** What its certificates are like. */
  certificates?: CertificateOptions;
  /** Listens on a unix socket beside the port. */
  socket?: string;
  /** Answers DNS questions, at `ports.dns`. */
  dns?: boolean;
  /** More of the configuration file. */
  config?: Record<string, unknown>;
}

/** What `/v1/health/service` gives, as far as tests look at it. */
export interface ConsulEntry {
  Node: { Node: string };
  Service: {
    ID: string;
    Service: string;
    Tags: string[];
    Meta: Record<string, string>;
    Address: string;
    Port: number;
    TaggedAddresses?: Record<string, { Address: string; Port: number }>;
    Weights: { Passing: number; Warning: number };
  };
  Checks: { CheckID: string; Status: string; Notes: string; Type: string; ServiceID: string }[];
}

const startTimeoutMs = 30_000;
const callTimeoutMs = 10_000;

interface Shape {
  readonly certificates: Certificates | undefined;
  readonly mutual: boolean;
}

/** One agent. */
export class ConsulAgent extends ServerProgram {
  /** host:port of the HTTP API. */
  readonly host: string;
  readonly url: string;
  private pool: HttpAgent;

  constructor(
    name: string,
    private readonly shape: Shape,
    private readonly folder: string,
    readonly ports: { http: number; server: number; serf: number; dns: number },
    private readonly persistent: boolean,
    private readonly config: Record<string, unknown>,
  ) {
    super('Consul', name);
    this.host = `127.0.0.1:${ports.http}`;
    this.url = `${shape.certificates ? 'https' : 'http'}://${this.host}`;
    this.pool = this.newPool();
  }

  private newPool(): HttpAgent {
    const { shape } = this;
    // An agent takes 200 connections from one address: the tests leave room for what they test.
    const pooled = { keepAlive: true, maxSockets: 20 };
    return shape.certificates
      ? new HttpsAgent({
          ...pooled,
          ca: readFileSync(shape.certificates.ca.certFile),
          cert: readFileSync(shape.certificates.client.certFile),
          key: readFileSync(shape.certificates.client.keyFile),
        })
      : new HttpAgent(pooled);
  }

  launch(): void {
    if (this.child) throw new Error(`${this.name} runs already`);
    // The certificates may have been renewed meanwhile.
    this.pool.destroy();
    this.pool = this.newPool();
    const { certificates, mutual } = this.shape;
    const folder = join(this.folder, this.name);
    mkdirSync(folder, { recursive: true });
    const file = join(folder, 'agent.json');
    writeFileSync(
      file,
      JSON.stringify({
        node_name: this.name,
        bind_addr: '127.0.0.1',
        client_addr: '127.0.0.1',
        ports: {
          [certificates ? 'http' : 'https']: -1,
          [certificates ? 'https' : 'http']: this.ports.http,
          ...{ grpc: -1, grpc_tls: -1, serf_wan: -1, dns: this.ports.dns },
          ...{ server: this.ports.server, serf_lan: this.ports.serf },
        },
        disable_update_check: true,
        log_level: 'warn',
        leave_on_terminate: false,
        skip_leave_on_interrupt: true,
        performance: { raft_multiplier: 1 },
        connect: { enabled: false },
        peering: { enabled: false },
        ...(this.persistent && { data_dir: join(folder, 'data') }),
        ...(certificates && {
          tls: {
            defaults: {
              ca_file: certificates.ca.certFile,
              cert_file: certificates.server.certFile,
              key_file: certificates.server.keyFile,
              verify_incoming: false,
            },
            https: { verify_incoming: mutual },
          },
        }),
        ...this.config,
      }),
    );
    this.run(
      builtProgram('consul'),
      ['agent', ...(this.persistent ? [] : ['-dev']), `-config-file=${file}`],
      // CONSUL_* of the environment would be read as options.
      Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('CONSUL'))),
    );
  }

  /** Waits until there is a leader and the agent itself is in the catalog. */
  healthy(): Promise<void> {
    return this.until(
      async () => (await this.get<unknown[]>(`/v1/health/node/${this.name}`, 'management')).length > 0,
      `at ${this.url} to be healthy`,
    );
  }

  /** Same ports, same data if it keeps any; waits until it is healthy. */
  async start(): Promise<void> {
    this.launch();
    await this.healthy();
  }

  /** Copies what it keeps in files, and gives the way back to that; it must not run either time. */
  backup(): () => void {
    const [data, copy] = ['data', 'backup'].map((name) => join(this.folder, this.name, name)) as [string, string];
    cpSync(data, copy, { recursive: true });
    return () => {
      this.wipe();
      cpSync(copy, data, { recursive: true });
    };
  }

  /** Deletes what it keeps in files; it must not run. */
  wipe(): void {
    rmSync(join(this.folder, this.name, 'data'), { recursive: true, force: true, maxRetries: 5 });
  }

  /** A call of the HTTP API, as JSON; anything but 200 is an error. */
  async call<T>(method: 'GET' | 'PUT', path: string, body?: unknown, token?: string): Promise<T> {
    const { status, text } = await this.ask(method, path, body, token);
    if (status !== 200) throw new Error(`${method} ${path}: ${status} ${text}`);
    return (text === '' ? undefined : JSON.parse(text)) as T;
  }

  get<T>(path: string, token?: string): Promise<T> {
    return this.call('GET', path, undefined, token);
  }

  ask(method: 'GET' | 'PUT', path: string, body?: unknown, token?: string): Promise<{ status: number; text: string }> {
    return new Promise((resolve, reject) => {
      const request = (this.shape.certificates ? httpsRequest : httpRequest)(
        this.url + path,
        {
          method,
          agent: this.pool,
          timeout: callTimeoutMs,
          headers: token === undefined ? {} : { 'x-consul-token': token },
        },
        (answer) => {
          let text = '';
          answer.setEncoding('utf8').on('data', (chunk: string) => {
            text += chunk;
          });
          answer.on('end', () => resolve({ status: answer.statusCode ?? 0, text }));
          answer.on('error', reject);
        },
      );
      request.on('timeout', () => request.destroy(new Error(`${path}: no answer within ${callTimeoutMs} ms`)));
      request.on('error', reject);
      request.end(body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body));
    });
  }

  /** Registers a service of this agent, with fields as in its API. */
  async register(service: Record<string, unknown>, token?: string): Promise<void> {
    await this.call('PUT', '/v1/agent/service/register?replace-existing-checks=true', service, token);
  }

  /** Whether there was one. */
  async deregister(id: string, token?: string): Promise<boolean> {
    const { status, text } = await this.ask(
      'PUT',
      `/v1/agent/service/deregister/${encodeURIComponent(id)}`,
      undefined,
      token,
    );
    if (status !== 200 && status !== 404) throw new Error(`deregister ${id}: ${status} ${text}`);
    return status === 200;
  }

  /** Ids of the services of this agent. */
  async services(token?: string): Promise<string[]> {
    return Object.keys(await this.get<Record<string, unknown>>('/v1/agent/services', token));
  }

  entries(name: string, token?: string): Promise<ConsulEntry[]> {
    return this.get(`/v1/health/service/${encodeURIComponent(name)}`, token);
  }

  /** Makes the TTL check of a service fail. */
  async fail(id: string, token?: string): Promise<void> {
    await this.call('PUT', `/v1/agent/check/fail/service:${encodeURIComponent(id)}`, undefined, token);
  }

  /** Deregisters every service of this agent, and waits until the catalog has none of them. */
  async forget(token?: string): Promise<void> {
    for (const id of await this.services(token)) await this.deregister(id, token);
    await waitFor(
      async () => {
        const names = await this.get<Record<string, unknown>>('/v1/catalog/services', token);
        return Object.keys(names).every((name) => name === 'consul');
      },
      { what: 'the catalog to be empty' },
    );
  }

  /** Makes a token that may do what the rules say; gives its secret. `revoke` ends it, `remake` makes it again, as it was. */
  async token(
    rules: string,
  ): Promise<{ secret: string; policy: string; revoke(): Promise<void>; remake(): Promise<void> }> {
    const name = uniqueName('policy');
    const policy = await this.call<{ ID: string }>('PUT', '/v1/acl/policy', { Name: name, Rules: rules }, 'management');
    const make = (more: object) =>
      this.call<{ SecretID: string; AccessorID: string }>(
        'PUT',
        '/v1/acl/token',
        { Policies: [{ ID: policy.ID }], ...more },
        'management',
      );
    const { SecretID, AccessorID } = await make({});
    return {
      secret: SecretID,
      policy: policy.ID,
      revoke: async () => {
        await this.ask('DELETE' as 'PUT', `/v1/acl/token/${AccessorID}`, undefined, 'management');
      },
      remake: async () => void (await make({ SecretID, AccessorID })),
    };
  }

  /** What a policy allows from now on. */
  async allow(policy: string, rules: string): Promise<void> {
    const { Name } = await this.get<{ Name: string }>(`/v1/acl/policy/${policy}`, 'management');
    await this.call('PUT', `/v1/acl/policy/${policy}`, { ID: policy, Name, Rules: rules }, 'management');
  }

  destroyPool(): void {
    this.pool.destroy();
  }
}

export interface Consul {
  readonly agents: readonly ConsulAgent[];
  /** The first server. */
  readonly server: ConsulAgent;
  /** The client agent, if there is one. */
  readonly client: ConsulAgent | undefined;
  readonly hosts: readonly string[];
  readonly certificates: Certificates | undefined;
  leader(): Promise<ConsulAgent>;
  close(): Promise<void>;
}

/** Starts agents. */
export async function startConsul({
  servers = 1,
  client = false,
  persistent = servers === 3,
  acl = false,
  tls = false,
  certificates: kind,
  socket,
  dns = false,
  config = {},
}: ConsulOptions = {}): Promise<Consul> {
  const { path: folder, remove } = temporaryFolder('rollcall-consul-');
  const certificates = tls ? await makeCertificates(kind) : undefined;
  const count = servers + (client ? 1 : 0);
  const ports = await freePorts(count * 4);
  const shape: Shape = { certificates, mutual: tls === 'mutual' };
  const prefix = uniqueName('node');
  const serfs = Array.from({ length: servers }, (_, i) => `127.0.0.1:${ports[i * 4 + 2]}`);
  const agents = Array.from({ length: count }, (_, i) => {
    const isServer = i < servers;
    return new ConsulAgent(
      isServer ? `${prefix}-${i}` : `${prefix}-client`,
      shape,
      folder,
      {
        ...{ http: ports[i * 4] as number, server: ports[i * 4 + 1] as number, serf: ports[i * 4 + 2] as number },
        dns: dns ? (ports[i * 4 + 3] as number) : -1,
      },
      persistent || !isServer,
      {
        ...(isServer && persistent && { server: true, bootstrap_expect: servers }),
        ...(count > 1 && { retry_join: serfs, retry_interval: '1s' }),
        ...(acl && {
          acl: {
            enabled: true,
            default_policy: 'deny',
            tokens: { initial_management: 'management', agent: 'management' },
            token_ttl: '0s',
            policy_ttl: '0s',
          },
        }),
        ...(socket !== undefined && { addresses: { http: `127.0.0.1 unix://${socket}` } }),
        ...config,
      },
    );
  });
  const close = async (): Promise<void> => {
    await Promise.all(agents.map((agent) => agent.kill()));
    for (const agent of agents) agent.destroyPool();
    certificates?.remove();
    remove();
  };
  try {
    for (const agent of agents) agent.launch();
    await Promise.all(agents.map((agent) => agent.healthy()));
  } catch (error) {
    await close();
    throw error;
  }
  return {
    agents,
    server: agents[0] as ConsulAgent,
    client: agents[servers],
    hosts: agents.map(({ host }) => host),
    certificates,
    async leader() {
      const address = await waitFor(
        async () => {
          const asked = agents.find((agent) => agent.running && !agent.frozen);
          return asked?.get<string>('/v1/status/leader', acl ? 'management' : undefined);
        },
        { timeoutMs: startTimeoutMs, what: 'a leader' },
      );
      const found = agents.find((agent) => address.endsWith(`:${agent.ports.server}`));
      if (!found) throw new Error(`no agent of ours leads, but ${address}`);
      return found;
    },
    close,
  };
}
