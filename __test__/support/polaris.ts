// A real Polaris for tests: standalone, on free ports of 127.0.0.1, its store a file of a folder of its own.
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { accepts, freePorts } from './ports.js';
import { temporaryFolder, waitFor } from './process.js';
import { builtProgram } from './programs.js';
import { PortTaken, ServerProgram } from './server-program.js';
import type { Certificate } from './tls.js';

export interface PolarisServerOptions {
  /** Only users may write, and read by gRPC; see `token` and `addUser()`. */
  accessControl?: boolean;
  /**
   * How far back the server looks in its store for what has changed. Its own default is 5 s, with which it goes on telling
   * of what is removed more than 5 s after it was written; here all of it by default.
   */
  diffTime?: string;
  /** gRPC by TLS alone, as this one. The server asks nobody for a certificate, whatever its configuration says. */
  tls?: Certificate;
}

/** What makes an instance the one it is: the server derives its id of this. */
export interface PolarisPlace {
  namespace: string;
  service: string;
  host: string;
  port: number;
}

/** An instance, as the HTTP API takes and tells it. What is null when it is told was never given. */
export interface PolarisInstance extends PolarisPlace {
  /** Another than the one that the server derives. */
  id?: string;
  protocol?: string | null;
  version?: string | null;
  weight?: number | null;
  healthy?: boolean | null;
  isolate?: boolean | null;
  metadata?: Record<string, string>;
  enableHealthCheck?: boolean | null;
  healthCheck?: { type: 'HEARTBEAT'; heartbeat: { ttl: number } } | null;
}

/** A user of the server's access control. */
export interface PolarisUser {
  readonly id: string;
  readonly name: string;
  readonly token: string;
}

interface Answer {
  code: number;
  info: string;
  responses?: Answer[];
  [more: string]: unknown;
}

const callTimeoutMs = 10_000;
/** As many as one call may be about. */
const page = 100;

export class PolarisServer extends ServerProgram {
  /** host:port of gRPC, for clients. */
  readonly host: string;
  /** host:port of the HTTP API, for tests. */
  readonly httpHost: string;
  /** Of the user who may do everything, `polaris`; a new one for each store. */
  token = '';

  constructor(
    private readonly folder: { path: string; remove(): void },
    private readonly ports: { http: number; grpc: number },
    private readonly options: PolarisServerOptions,
  ) {
    super('Polaris', 'server');
    this.host = `127.0.0.1:${ports.grpc}`;
    this.httpHost = `127.0.0.1:${ports.http}`;
  }

  /** Same ports, same store; waits until it serves. */
  async start(): Promise<void> {
    const file = join(this.folder.path, 'polaris.yaml');
    mkdirSync(this.folder.path, { recursive: true });
    writeFileSync(file, JSON.stringify(configuration(this.ports, this.options))); // JSON is YAML
    this.run(builtProgram('polaris'), ['start', '-c', file], process.env, this.folder.path);
    await this.until(() => this.serves(), `at ${this.host} to serve`);
  }

  private async serves(): Promise<boolean> {
    if (!(await accepts(this.ports.grpc))) return false;
    const token = await this.login('polaris', 'polaris').catch(() => '');
    if (token === '') return false;
    this.token = token;
    // It checks the health of nobody before it knows itself.
    const checkers = await this.list('Polaris', 'polaris.checker').catch(() => []);
    return checkers.length > 0;
  }

  /** Kills, deletes all data and starts. */
  async wipe(): Promise<void> {
    await this.kill();
    rmSync(join(this.folder.path, 'polaris.bolt'), { force: true });
    await this.start();
  }

  async close(): Promise<void> {
    await this.kill();
    this.folder.remove();
  }

  /** A call of the HTTP API, as the user who may do everything. Throws when it, or a part of it, is refused. */
  async call(method: 'GET' | 'POST' | 'PUT', path: string, body?: unknown): Promise<Answer> {
    const response = await fetch(`http://${this.httpHost}${path}`, {
      method,
      headers: { 'content-type': 'application/json', 'x-polaris-token': this.token },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(callTimeoutMs),
    });
    const text = await response.text();
    let answer: Answer;
    try {
      answer = JSON.parse(text) as Answer;
    } catch {
      throw new Error(`${method} ${path}: ${response.status} ${text}`);
    }
    const refused = [answer, ...(answer.responses ?? [])].filter(({ code }) => code >= 300_000).pop();
    if (refused) throw new Error(`${method} ${path}: ${refused.code} ${refused.info}`);
    return answer;
  }

  /** Writes instances, as somebody else. They are not checked for beats unless it is said. */
  async put(...instances: PolarisInstance[]): Promise<void> {
    for (let at = 0; at < instances.length; at += page) {
      await this.call('POST', '/naming/v1/instances', instances.slice(at, at + page));
    }
  }

  /** Changes instances, as an operator does by the console. */
  async change(...instances: PolarisInstance[]): Promise<void> {
    await this.call('PUT', '/naming/v1/instances', instances);
  }

  /** Deletes instances, whoever has written them; those that are not there as well. */
  async delete(...places: PolarisPlace[]): Promise<void> {
    for (let at = 0; at < places.length; at += page) {
      await this.call('POST', '/naming/v1/instances/delete', places.slice(at, at + page));
    }
  }

  /** All instances of a service in the store, in whatever state. */
  list(namespace: string, service: string): Promise<PolarisInstance[]> {
    return this.pages<PolarisInstance>(`instances?${new URLSearchParams({ namespace, service })}`, 'instances');
  }

  /** What clients are told of a service: what it was up to a second ago. */
  async discover(namespace: string, service: string): Promise<PolarisInstance[]> {
    const question = { type: 'INSTANCE', service: { namespace, name: service } };
    const answer = await this.call('POST', '/v1/Discover', question);
    return (answer.instances as PolarisInstance[] | null) ?? [];
  }

  /** The names of the services of a namespace, also of those without instances. */
  async services(namespace: string): Promise<string[]> {
    const all = await this.pages<{ name: string }>(`services?${new URLSearchParams({ namespace })}`, 'services');
    return all.map(({ name }) => name);
  }

  private async pages<T>(query: string, of: 'instances' | 'services'): Promise<T[]> {
    const all: T[] = [];
    for (;;) {
      const answer = await this.call('GET', `/naming/v1/${query}&offset=${all.length}&limit=${page}`);
      const some = answer[of] as T[];
      all.push(...some);
      if (some.length < page) return all;
    }
  }

  async login(name: string, password: string): Promise<string> {
    const answer = await this.call('POST', '/core/v1/user/login', { name, password });
    return (answer.loginResponse as { token: string }).token;
  }

  /** A user who may read everything, and make and change services of their own. */
  async addUser(name: string): Promise<PolarisUser> {
    const user = { name, password: 'password', source: 'Polaris' };
    const { responses = [] } = await this.call('POST', '/core/v1/users', [user]);
    const { id } = (responses[0] as Answer).user as { id: string };
    return { id, name, token: await this.tokenOf(id) };
  }

  /** Makes a new token for a user, and ends the old one. */
  async renewToken({ id, token }: PolarisUser): Promise<string> {
    await this.call('PUT', '/core/v1/user/token/refresh', { id });
    return this.tokenOf(id, token);
  }

  /** The server tells of users what it read from its store within the last second. */
  private tokenOf(id: string, before?: string): Promise<string> {
    const look = async () => {
      const { user } = await this.call('GET', `/core/v1/user/token?id=${id}`);
      const { auth_token: token } = user as { auth_token: string };
      return token !== before && token;
    };
    return waitFor(look, { what: `the token of user ${id}` });
  }

  /** Whether a user's token counts. */
  async setTokenEnabled({ id }: PolarisUser, isEnabled: boolean): Promise<void> {
    await this.call('PUT', '/core/v1/user/token/status', { id, token_enable: isEnabled });
  }
}

const configuration = (
  ports: { http: number; grpc: number },
  { accessControl = false, diffTime = '87600h', tls }: PolarisServerOptions,
): object => {
  const listen = (listenPort: number) => ({ listenIP: '127.0.0.1', listenPort, connLimit: { openConnLimit: false } });
  const clients = { enable: true, include: ['discover', 'register', 'healthcheck'] };
  const batch = { open: true, queueSize: 10_240, waitTime: '32ms', concurrency: 8 };
  const guarded = {
    consoleOpen: accessControl,
    consoleStrict: accessControl,
    clientOpen: accessControl,
    clientStrict: accessControl,
  };
  return {
    bootstrap: {
      logger: { default: { rotateOutputPath: 'log/polaris.log', errorRotateOutputPath: 'log/error.log' } },
      startInOrder: { open: true, key: 'sz' },
      polaris_service: {
        enable_register: true,
        self_address: '127.0.0.1',
        services: [{ name: 'polaris.checker', protocols: ['service-grpc'] }],
      },
    },
    apiservers: [
      {
        name: 'api-http',
        option: listen(ports.http),
        api: {
          admin: { enable: true },
          console: { enable: true, include: ['default', 'service'] },
          client: clients,
        },
      },
      {
        name: 'service-grpc',
        option: { ...listen(ports.grpc), enableCacheProto: true, sizeCacheProto: 128, ...(tls && { tls }) },
        api: { client: clients },
      },
    ],
    auth: {
      user: { name: 'defaultUser', option: { salt: 'polarismesh@2021' } },
      strategy: { name: 'defaultStrategy', option: guarded },
    },
    namespace: { autoCreate: true },
    naming: {
      autoCreate: true,
      batch: {
        register: { ...batch, maxBatchCount: 128, dropExpireTask: true, taskLife: '30s' },
        deregister: { ...batch, maxBatchCount: 128 },
      },
    },
    healthcheck: {
      open: true,
      service: 'polaris.checker',
      slotNum: 30,
      minCheckInterval: '1s',
      maxCheckInterval: '30s',
      clientReportInterval: '120s',
      batch: { heartbeat: { ...batch, maxBatchCount: 32 } },
      checkers: [{ name: 'heartbeatMemory' }],
    },
    // Without it the HTTP server crashes at the start.
    config: { open: true, contentMaxLength: 20_000 },
    cache: { diffTime },
    store: { name: 'boltdbStore', option: { path: './polaris.bolt' } },
    plugin: {
      crypto: { entries: [{ name: 'AES' }] },
      cmdb: { name: 'memory', option: { url: '', interval: '60s' } },
      history: { entries: [{ name: 'HistoryLogger' }] },
      discoverEvent: { entries: [{ name: 'discoverEventLocal' }] },
      statis: { entries: [{ name: 'local', option: { interval: 60 } }] },
      ratelimit: { name: 'token-bucket', option: { enable: false } },
    },
  };
};

/** Starts a server and waits until it serves. */
export async function startPolaris(options: PolarisServerOptions = {}): Promise<PolarisServer> {
  for (let attempt = 1; ; attempt++) {
    const [http, grpc] = (await freePorts(2)) as [number, number];
    const server = new PolarisServer(temporaryFolder('rollcall-polaris-'), { http, grpc }, options);
    try {
      await server.start();
      return server;
    } catch (error) {
      await server.close();
      if (attempt < 3 && error instanceof PortTaken) continue;
      throw error;
    }
  }
}
