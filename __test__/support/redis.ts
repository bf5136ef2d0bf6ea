// Real Redis servers for tests, on free ports of 127.0.0.1, and clients of them. They keep everything in memory.
import { connect } from 'node:net';
import { Redis } from 'ioredis';
import { createClient } from 'redis';
import { freePorts } from './ports.js';
import { temporaryFolder } from './process.js';
import { installedProgram } from './programs.js';
import { PortTaken, ServerProgram } from './server-program.js';

export class RedisServer extends ServerProgram {
  readonly url: string;

  constructor(
    readonly port: number,
    private readonly folder: string,
    private readonly options: readonly string[],
  ) {
    super('Redis', `redis-${port}`);
    this.url = `redis://127.0.0.1:${port}`;
  }

  /** Same port, and nothing of what it had; waits until it serves. */
  async start(): Promise<void> {
    this.run(installedProgram('/usr/bin/redis-server', 'redis-server'), [
      ...['--bind', '127.0.0.1', '--port', String(this.port), '--dir', this.folder],
      ...['--save', '', '--appendonly', 'no', ...this.options],
    ]);
    await this.until(async () => (await this.ask('PING')) === '+PONG', `at ${this.url} to serve`);
  }

  /** A command without a library; the first line of the answer. */
  ask(command: string): Promise<string> {
    return new Promise((resolve, reject) => {
      const socket = connect(this.port, '127.0.0.1');
      socket.setEncoding('utf8').once('error', reject);
      socket.once('data', (answer: string) => {
        socket.destroy();
        resolve(answer.split('\r\n')[0] as string);
      });
      socket.write(`${command}\r\n`);
    });
  }

  async wipe(): Promise<void> {
    const answer = await this.ask('FLUSHALL');
    if (answer !== '+OK') throw new Error(`FLUSHALL: ${answer}`);
  }
}

/** Starts one. `options` are those of its command line, such as `['--maxmemory', '10mb']`. */
export async function startRedis(options: readonly string[] = []): Promise<RedisServer & AsyncDisposable> {
  const folder = temporaryFolder('rollcall-redis-');
  for (let tries = 0; ; tries++) {
    const [port] = await freePorts(1);
    const server = new RedisServer(port as number, folder.path, options);
    try {
      await server.start();
      return Object.assign(server, {
        [Symbol.asyncDispose]: async () => {
          await server.kill();
          folder.remove();
        },
      });
    } catch (error) {
      await server.kill();
      if (!(error instanceof PortTaken) || tries === 4) throw error;
    }
  }
}

/** The clients that programs have. */
const CLIENTS = {
  async ioredis(url: string) {
    const client = new Redis(url, { retryStrategy: () => 50 });
    client.on('error', () => {});
    return { client, close: () => client.disconnect() };
  },
  async 'node-redis'(url: string) {
    const client = createClient({ url, socket: { reconnectStrategy: 50 } });
    client.on('error', () => {});
    await client.connect();
    return { client, close: () => client.destroy() };
  },
} as const;

export type RedisLibrary = keyof typeof CLIENTS;
export const REDIS_LIBRARIES = Object.keys(CLIENTS) as RedisLibrary[];

type ClientOf<L extends RedisLibrary> = Awaited<ReturnType<(typeof CLIENTS)[L]>>['client'];

/** A client that is closed with its test. It waits for its server for ever, as both do by default. */
export async function redisClient<L extends RedisLibrary>(
  { onTestFinished }: { onTestFinished(fn: () => unknown): void },
  library: L,
  url: string,
): Promise<ClientOf<L>> {
  const { client, close } = await CLIENTS[library](url);
  onTestFinished(close);
  return client as ClientOf<L>;
}
