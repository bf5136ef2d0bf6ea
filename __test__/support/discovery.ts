// Real nodes of bilibili's discovery for tests, on free ports of 127.0.0.1. They keep everything in memory.
import { writeFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { join } from 'node:path';
import { freePorts } from './ports.js';
import { temporaryFolder } from './process.js';
import { builtProgram } from './programs.js';
import { ServerProgram } from './server-program.js';

/** Clocks of the server, as Go writes durations: else they are as in its source. */
export interface DiscoveryClocks {
  /** When a record that is not renewed goes: 90 s. */
  EVICT_AFTER?: string;
  /** … while the server protects itself: 3600 s. */
  EVICT_PROTECTED_AFTER?: string;
  /** How often it looks: every minute. */
  EVICT_EVERY?: string;
  /** The share of renewals below which it protects itself: 0.85. */
  PROTECT_BELOW?: string;
  /** How long a poll is held: 30 s. */
  POLL_WAIT?: string;
}

export interface DiscoveryOptions {
  /** 1 by default. Two are one zone. */
  nodes?: 1 | 2;
  /** A server whose clocks can be set, in place of the usual one. */
  clocks?: DiscoveryClocks;
}

/** What a node tells of an instance. */
export interface DiscoveryInstance {
  region: string;
  zone: string;
  env: string;
  appid: string;
  hostname: string;
  addrs: string[] | null;
  version: string;
  metadata: Record<string, string> | null;
  status: number;
}

/** Where the nodes are. */
export const ZONE = 'sh001';
export const ENV = 'dev';

const callTimeoutMs = 10_000;

export class DiscoveryNode extends ServerProgram {
  /** host:port */
  readonly host: string;
  private readonly pool = new Agent({ keepAlive: true, maxSockets: 20 });

  constructor(
    name: string,
    port: number,
    private readonly folder: string,
    private readonly nodes: readonly string[],
    private readonly clocks: DiscoveryClocks | undefined,
  ) {
    super('discovery', name);
    this.host = `127.0.0.1:${port}`;
  }

  /** Same port, and nothing of what it had; waits until it serves. */
  async start(): Promise<void> {
    if (this.child) throw new Error(`${this.name} runs already`);
    const file = join(this.folder, `${this.name}.toml`);
    writeFileSync(
      file,
      [
        `nodes = ${JSON.stringify(this.nodes)}`,
        '[env]',
        `region = "sh"\nzone = "${ZONE}"\nhost = "${this.name}"\nDeployEnv = "${ENV}"`,
        `[httpServer]\naddr = "${this.host}"`,
        '[httpClient]\ndial = "1s"\nkeepAlive = "120s"',
      ].join('\n'),
    );
    this.run(
      builtProgram(this.clocks ? 'discovery-clocked' : 'discovery'),
      ['-conf', file, '-scheduler', '', '-logtostderr', '-stderrthreshold', 'FATAL'],
      { ...process.env, ...this.clocks },
    );
    await this.until(async () => (await this.ask('GET', 'nodes', {})).code === 0, `at ${this.host} to serve`);
  }

  /** A call of its API. */
  ask<T>(
    method: 'GET' | 'POST',
    path: string,
    parameters: Record<string, string | readonly string[]>,
  ): Promise<{ code: number; data: T }> {
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(parameters)) for (const one of [value].flat()) query.append(name, one);
    return new Promise((resolve, reject) => {
      const call = request(
        `http://${this.host}/discovery/${path}${method === 'GET' ? `?${query}` : ''}`,
        {
          method,
          agent: this.pool,
          timeout: callTimeoutMs,
          ...(method === 'POST' && { headers: { 'content-type': 'application/x-www-form-urlencoded' } }),
        },
        (answer) => {
          let text = '';
          answer.setEncoding('utf8').on('data', (chunk: string) => {
            text += chunk;
          });
          answer.on('error', reject);
          answer.on('end', () => {
            try {
              resolve(JSON.parse(text) as { code: number; data: T });
            } catch {
              reject(new Error(`${path}: ${answer.statusCode} ${text}`));
            }
          });
        },
      );
      call.on('timeout', () => call.destroy(new Error(`${path}: no answer within ${callTimeoutMs} ms`)));
      call.on('error', reject);
      call.end(method === 'POST' ? query.toString() : undefined);
    });
  }

  /** As Kratos registers, under the host name `id`. */
  async register(env: string, name: string, id: string, more: Partial<DiscoveryInstance> = {}): Promise<void> {
    const { code } = await this.ask('POST', 'register', {
      ...{ appid: name, env, hostname: id, zone: more.zone ?? ZONE, region: more.region ?? 'sh' },
      ...{ addrs: more.addrs ?? [], version: more.version ?? '', status: String(more.status ?? 1) },
      metadata: JSON.stringify({ ...more.metadata, 'kratos.v2.serviceinstance.id': id }),
    });
    if (code !== 0) throw new Error(`register ${name}/${id}: ${code}`);
  }

  /** Whether there was one. */
  async cancel(env: string, name: string, id: string, zone = ZONE): Promise<boolean> {
    const { code } = await this.ask('POST', 'cancel', { appid: name, env, hostname: id, zone });
    if (code !== 0 && code !== -404) throw new Error(`cancel ${name}/${id}: ${code}`);
    return code === 0;
  }

  /** Everything of an environment. */
  async all(env: string): Promise<DiscoveryInstance[]> {
    const { data } = await this.ask<Record<string, DiscoveryInstance[]>>('GET', 'fetch/all', {});
    return Object.values(data)
      .flat()
      .filter((one) => one.env === env);
  }

  destroyPool(): void {
    this.pool.destroy();
  }
}

export interface Discovery {
  readonly nodes: readonly DiscoveryNode[];
  readonly node: DiscoveryNode;
  readonly hosts: readonly string[];
  close(): Promise<void>;
}

/** Starts nodes. */
export async function startDiscovery({ nodes: count = 1, clocks }: DiscoveryOptions = {}): Promise<Discovery> {
  const { path: folder, remove } = temporaryFolder('rollcall-discovery-');
  const ports = await freePorts(count);
  const hosts = ports.map((port) => `127.0.0.1:${port}`);
  const nodes = ports.map((port, i) => new DiscoveryNode(`node-${i}`, port, folder, hosts, clocks));
  const close = async (): Promise<void> => {
    await Promise.all(nodes.map((node) => node.kill()));
    for (const node of nodes) node.destroyPool();
    remove();
  };
  try {
    // One after the other: a node takes from its peers what they have, when it starts.
    for (const node of nodes) await node.start();
  } catch (error) {
    await close();
    throw error;
  }
  return { nodes, node: nodes[0] as DiscoveryNode, hosts, close };
}
