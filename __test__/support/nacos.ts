// Real Nacos servers for tests: r-nacos, on free ports of 127.0.0.1, with its users in a temporary folder.
import type { ChildProcess } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { freePorts } from './ports.js';
import { spawnGuarded, temporaryFolder, untilStopped, waitFor, within } from './process.js';
import { builtProgram } from './programs.js';

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

const startTimeoutMs = 30_000;
const callTimeoutMs = 10_000;
/** Calls of one server under way: it takes a thousand at once, one by one, and the last would wait for too long. */
const callsAtOnce = 32;
const logLimit = 64 * 1024;

/** One server. */
export class NacosServer implements NacosRegistry {
  private calls = 0;
  private readonly turns: (() => void)[] = [];
  readonly host: string;
  readonly grpcHost: string;
  log = '';
  frozen = false;
  private child: ChildProcess | undefined;
  private gone: Promise<void> = Promise.resolve();
  private ended = '';

  constructor(
    private readonly folder: { path: string; remove(): void },
    readonly ports: { http: number; grpc: number },
    private readonly env: Record<string, string>,
  ) {
    this.host = `127.0.0.1:${ports.http}`;
    this.grpcHost = `127.0.0.1:${ports.grpc}`;
  }

  get running(): boolean {
    return this.child !== undefined;
  }

  get pid(): number | undefined {
    return this.child?.pid;
  }

  /** Same ports, same users; waits until it serves. */
  async start(): Promise<void> {
    if (this.child) throw new Error('r-nacos runs already');
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
    const child = spawnGuarded(builtProgram('rnacos'), ['-e', file], {
      stdio: ['ignore', 'pipe', 'pipe'],
      cwd: this.folder.path,
      env: { PATH: process.env.PATH },
    });
    this.child = child;
    this.frozen = false;
    this.ended = '';
    this.log = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (chunk: string) => {
        this.log = (this.log + chunk).slice(-logLimit);
      });
    }
    this.gone = new Promise((resolve) => {
      child.once('close', (code, signal) => {
        if (this.child === child) this.child = undefined;
        this.ended = `it ended with ${signal ?? `code ${code}`}`;
        resolve();
      });
    });
    await waitFor(
      async () => {
        if (!this.child) return { ended: this.ended };
        // The user is there a moment after the ports.
        const serves = (await accepts(this.ports.grpc)) && (await this.serves());
        return serves && { ended: '' };
      },
      { timeoutMs: startTimeoutMs, what: `r-nacos at ${this.host} to serve` },
    ).then(({ ended }) => {
      if (ended !== '') throw new Error(`r-nacos did not start: ${ended}\n${this.log}`);
    });
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

  /** SIGKILL, and waits. */
  async kill(): Promise<void> {
    this.child?.kill('SIGKILL');
    await within(this.gone, 20_000, 'the end of r-nacos');
  }

  /** SIGSTOP: connections stand, nothing is answered. */
  freeze(): void {
    if (!this.child?.kill('SIGSTOP')) throw new Error('r-nacos does not run');
    this.frozen = true;
    untilStopped(this.child.pid as number);
  }

  thaw(): void {
    if (!this.child?.kill('SIGCONT')) throw new Error('r-nacos does not run');
    this.frozen = false;
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

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => resolve(true));
    socket.once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
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
      if (attempt < 3 && /in use/i.test(String(error))) continue;
      throw error;
    }
  }
}
