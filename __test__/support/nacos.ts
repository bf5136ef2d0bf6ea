// Real Nacos servers for tests: r-nacos, on free ports of 127.0.0.1, with its users in a temporary folder.
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { accepts, freePorts } from './ports.js';
import { temporaryFolder } from './process.js';
import { builtProgram } from './programs.js';
import { PortTaken, ServerProgram } from './server-program.js';

export interface NacosServerOptions {
  /** Only users may read and write; there is one, `nacos` with the password `nacos`, whose token lives so many seconds. */
  tokenSeconds?: number;
  /** More of the environment. */
  env?: Record<string, string>;
}

/** An address of a service, as the HTTP API tells it. */
export interface NacosHost {
  ip: string;
  port: number;
  weight: number;
  healthy: boolean;
  enabled: boolean;
  clusterName: string;
  metadata: Record<string, string>;
}

/** Where an address is. */
export interface NacosPlace {
  namespace: string;
  service: string;
  ip: string;
  port: number;
}

/** What tests do around the product, on a server or on a stub of one. All services are of the group `DEFAULT_GROUP`. */
export interface NacosRegistry {
  /** host:port of HTTP, where there is any. */
  readonly host: string;
  /** host:port of gRPC. */
  readonly grpcHost: string;
  /** The services of a namespace. */
  services(namespace: string): Promise<string[]>;
  /** All addresses of a service that are in traffic. */
  list(namespace: string, service: string): Promise<NacosHost[]>;
  /** Writes an address, as somebody else. */
  put(place: NacosPlace, metadata: Record<string, string>, weight: number): Promise<void>;
  /** Deletes an address, whoever has written it. */
  delete(place: NacosPlace): Promise<void>;
  close(): Promise<void>;
}

const callTimeoutMs = 10_000;
/** Calls of one server under way: it takes a thousand at once, one by one, and the last would wait for too long. */
const callsAtOnce = 32;

/** One server. */
export class NacosServer extends ServerProgram implements NacosRegistry {
  private calls = 0;
  private readonly turns: (() => void)[] = [];
  readonly host: string;
  readonly grpcHost: string;

  constructor(
    private readonly folder: { path: string; remove(): void },
    readonly ports: { http: number; grpc: number },
    private readonly env: Record<string, string>,
  ) {
    super('Nacos', 'r-nacos');
    this.host = `127.0.0.1:${ports.http}`;
    this.grpcHost = `127.0.0.1:${ports.grpc}`;
  }

  /** Same ports, same users; waits until it serves. */
  async start(): Promise<void> {
    mkdirSync(this.folder.path, { recursive: true });
    const settings = {
      RNACOS_HTTP_PORT: this.ports.http,
      RNACOS_GRPC_PORT: this.ports.grpc,
      RNACOS_HTTP_CONSOLE_PORT: 0,
      RNACOS_SDK_HOST: '127.0.0.1',
      RNACOS_DATA_DIR: join(this.folder.path, 'data'),
      RNACOS_HTTP_WORKERS: 2,
      RNACOS_INIT_ADMIN_USERNAME: 'nacos',
      RNACOS_INIT_ADMIN_PASSWORD: 'nacos',
      // Else it would keep the first metadata of an address for ever.
      RNACOS_NAMING_INSTANCE_METADATA_PERSISTENCE_ENABLE: false,
      // What tests write by HTTP stays, without beats.
      RNACOS_NAMING_HEALTH_TIMEOUT_SECOND: 3600,
      RNACOS_NAMING_INSTANCE_TIMEOUT_SECOND: 7200,
      ...this.env,
    };
    const file = join(this.folder.path, 'rnacos.env');
    writeFileSync(
      file,
      Object.entries(settings)
        .map(([name, value]) => `${name}=${value}\n`)
        .join(''),
    );
    this.run(builtProgram('rnacos'), ['-e', file], { PATH: process.env.PATH }, this.folder.path);
    // The user is there a moment after the ports.
    await this.until(async () => (await accepts(this.ports.grpc)) && (await this.serves()), `at ${this.host} to serve`);
  }

  private async serves(): Promise<boolean> {
    const form = new URLSearchParams({ username: 'nacos', password: 'nacos' });
    const answer = await fetch(`http://${this.host}/nacos/v1/auth/login`, {
      method: 'POST',
      body: form,
      signal: AbortSignal.timeout(callTimeoutMs),
    }).catch(() => undefined);
    return answer?.ok ?? false;
  }

  /** Kills, deletes all data and starts. */
  async wipe(): Promise<void> {
    await this.kill();
    rmSync(join(this.folder.path, 'data'), { recursive: true, force: true });
    await this.start();
  }

  async close(): Promise<void> {
    await this.kill();
    this.folder.remove();
  }

  /** A call of the HTTP API, version 1: around the product. */
  async call(method: string, path: string, parameters: Record<string, string | number | boolean>): Promise<string> {
    if (this.calls >= callsAtOnce) await new Promise<void>((resolve) => this.turns.push(resolve));
    else this.calls += 1;
    return this.callNow(method, path, parameters).finally(() => {
      const next = this.turns.shift();
      if (next) next();
      else this.calls -= 1;
    });
  }

  private async callNow(
    method: string,
    path: string,
    parameters: Record<string, string | number | boolean>,
  ): Promise<string> {
    const form = new URLSearchParams(
      Object.entries(parameters).map(([name, value]): [string, string] => [name, String(value)]),
    );
    const inBody = method === 'POST' || method === 'PUT';
    const answer = await fetch(`http://${this.host}/nacos/v1/ns/${path}${inBody ? '' : `?${form}`}`, {
      method,
      ...(inBody && { body: form }),
      signal: AbortSignal.timeout(callTimeoutMs),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    return text;
  }

  async services(namespace: string): Promise<string[]> {
    const answer = await this.call('GET', 'service/list', {
      ...{ namespaceId: namespace, groupName: 'DEFAULT_GROUP', pageNo: 1, pageSize: 10_000 },
    });
    return (JSON.parse(answer) as { doms?: string[] }).doms ?? [];
  }

  async list(namespace: string, service: string): Promise<NacosHost[]> {
    const answer = await this.call('GET', 'instance/list', {
      namespaceId: namespace,
      groupName: 'DEFAULT_GROUP',
      serviceName: service,
      healthyOnly: false,
    });
    return (JSON.parse(answer) as { hosts?: NacosHost[] }).hosts ?? [];
  }

  async put(place: NacosPlace, metadata: Record<string, string>, weight: number): Promise<void> {
    await this.call('POST', 'instance', { ...parametersOf(place), metadata: JSON.stringify(metadata), weight });
  }

  /** Changes an address, as an operator does by the console. */
  async change(place: NacosPlace, more: Record<string, string | number | boolean>): Promise<void> {
    await this.call('PUT', 'instance', { ...parametersOf(place), ...more });
  }

  async delete(place: NacosPlace): Promise<void> {
    await this.call('DELETE', 'instance', parametersOf(place));
  }
}

function parametersOf({ namespace, service, ip, port }: NacosPlace): Record<string, string | number | boolean> {
  return {
    ...{ namespaceId: namespace, groupName: 'DEFAULT_GROUP', serviceName: service },
    ...{ ip, port, clusterName: 'DEFAULT', ephemeral: true },
  };
}

/** Starts a server and waits until it serves. */
export async function startNacos({ tokenSeconds, env = {} }: NacosServerOptions = {}): Promise<NacosServer> {
  for (let attempt = 1; ; attempt++) {
    const [http, grpc] = (await freePorts(2)) as [number, number];
    const access = tokenSeconds !== undefined && {
      RNACOS_ENABLE_OPEN_API_AUTH: 'true',
      RNACOS_API_LOGIN_TIMEOUT: String(tokenSeconds),
      // As often as tests log in.
      RNACOS_API_LOGIN_ONE_MINUTE_LIMIT: '100000',
    };
    const server = new NacosServer(temporaryFolder('rollcall-nacos-'), { http, grpc }, { ...access, ...env });
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
