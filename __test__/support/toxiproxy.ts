// Toxiproxy between a client and a server: latency, black holes, resets.
import { freePorts } from './ports.js';
import { spawnGuarded, waitFor, within } from './process.js';
import { builtProgram } from './programs.js';

export interface Toxic {
  name?: string;
  type: 'latency' | 'bandwidth' | 'slow_close' | 'timeout' | 'reset_peer' | 'slicer' | 'limit_data';
  /** `downstream`, from the server to the client, by default. */
  stream?: 'upstream' | 'downstream';
  toxicity?: number;
  attributes?: Record<string, number>;
}

export interface Proxy {
  readonly name: string;
  /** host:port, for the client */
  readonly host: string;
  readonly upstream: string;
  /** Off: connections are cut and new ones refused. */
  setEnabled(enabled: boolean): Promise<void>;
  addToxic(toxic: Toxic): Promise<string>;
  removeToxic(name: string): Promise<void>;
  /** Delays each direction by this. */
  latency(ms: number, jitterMs?: number): Promise<void>;
  /** Black hole: connections stand and are accepted, nothing passes in either direction. `clear` cuts them. */
  timeout(): Promise<void>;
  /** Only answers vanish. */
  loseAnswers(): Promise<void>;
  /** Cuts with a reset, at once or after a time; new connections as well. */
  resetPeer(afterMs?: number): Promise<void>;
  /** Kilobytes a second in each direction. */
  bandwidth(rate: number): Promise<void>;
  /** Removes all toxics and enables. */
  clear(): Promise<void>;
  remove(): Promise<void>;
}

export interface Toxiproxy {
  readonly pid: number;
  /** A proxy in front of host:port. */
  proxy(upstream: string): Promise<Proxy>;
  close(): Promise<void>;
}

class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

async function ask<T>(api: string, method: string, path: string, body?: unknown): Promise<T> {
  const answer = await fetch(`http://${api}${path}`, {
    method,
    signal: AbortSignal.timeout(5000),
    ...(body !== undefined && { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
  });
  const text = await answer.text();
  if (!answer.ok) throw new ApiError(answer.status, `toxiproxy ${method} ${path}: ${answer.status} ${text}`);
  return (text ? JSON.parse(text) : undefined) as T;
}

class ToxiproxyProxy implements Proxy {
  constructor(
    private readonly api: string,
    readonly name: string,
    readonly host: string,
    readonly upstream: string,
  ) {}

  async setEnabled(enabled: boolean): Promise<void> {
    await ask(this.api, 'POST', `/proxies/${this.name}`, { enabled });
  }

  async addToxic(toxic: Toxic): Promise<string> {
    return (await ask<{ name: string }>(this.api, 'POST', `/proxies/${this.name}/toxics`, toxic)).name;
  }

  async removeToxic(name: string): Promise<void> {
    await ask(this.api, 'DELETE', `/proxies/${this.name}/toxics/${name}`);
  }

  private async both(toxic: Toxic): Promise<void> {
    for (const stream of ['upstream', 'downstream'] as const) await this.addToxic({ ...toxic, stream });
  }

  latency(ms: number, jitterMs = 0): Promise<void> {
    return this.both({ type: 'latency', attributes: { latency: ms, jitter: jitterMs } });
  }

  timeout(): Promise<void> {
    return this.both({ type: 'timeout', attributes: { timeout: 0 } });
  }

  async loseAnswers(): Promise<void> {
    await this.addToxic({ type: 'timeout', stream: 'downstream', attributes: { timeout: 0 } });
  }

  resetPeer(afterMs = 0): Promise<void> {
    return this.both({ type: 'reset_peer', attributes: { timeout: afterMs } });
  }

  bandwidth(rate: number): Promise<void> {
    return this.both({ type: 'bandwidth', attributes: { rate } });
  }

  async clear(): Promise<void> {
    const { toxics } = await ask<{ toxics: { name: string }[] }>(this.api, 'GET', `/proxies/${this.name}`);
    for (const { name } of toxics) await this.removeToxic(name);
    await this.setEnabled(true);
  }

  async remove(): Promise<void> {
    await ask(this.api, 'DELETE', `/proxies/${this.name}`);
  }
}

/** Starts Toxiproxy and waits until it answers. */
export async function startToxiproxy(): Promise<Toxiproxy> {
  const program = builtProgram('toxiproxy');
  for (let attempt = 1; ; attempt++) {
    const [port] = await freePorts(1);
    const api = `127.0.0.1:${port}`;
    const child = spawnGuarded(program, ['-host', '127.0.0.1', '-port', String(port)], {
      env: { ...process.env, LOG_LEVEL: 'warn' },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let log = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (chunk: string) => {
        log = (log + chunk).slice(-64 * 1024);
      });
    }
    let ended = false;
    const gone = new Promise<void>((resolve) => {
      child.once('close', () => {
        ended = true;
        resolve();
      });
    });
    try {
      await waitFor(
        async () => {
          if (ended) return true;
          await fetch(`http://${api}/version`, { signal: AbortSignal.timeout(1000) });
          return true;
        },
        { what: `toxiproxy at ${api} to answer`, timeoutMs: 20_000 },
      );
    } catch (error) {
      child.kill('SIGKILL');
      throw new Error(`toxiproxy did not start:\n${log}`, { cause: error });
    }
    if (ended) {
      if (log.includes('address already in use') && attempt < 5) continue;
      throw new Error(`toxiproxy did not start:\n${log}`);
    }

    let made = 0;
    return {
      pid: child.pid ?? -1,
      async proxy(upstream) {
        for (let tries = 1; ; tries++) {
          const [listen] = await freePorts(1);
          const name = `proxy${++made}`;
          const host = `127.0.0.1:${listen}`;
          try {
            await ask(api, 'POST', '/proxies', { name, listen: host, upstream, enabled: true });
            return new ToxiproxyProxy(api, name, host, upstream);
          } catch (error) {
            if (!(error instanceof ApiError) || !error.message.includes('address already in use') || tries === 5)
              throw error;
          }
        }
      },
      async close() {
        child.kill('SIGKILL');
        await within(gone, 5000, 'the end of toxiproxy');
      },
    };
  }
}
