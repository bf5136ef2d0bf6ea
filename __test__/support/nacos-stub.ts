// Starts the stub of fixtures/nacos-stub.mjs, a Nacos that behaves as the original does, in a thread of its own.
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import type { NacosHost, NacosPlace, NacosRegistry } from './nacos.js';
import { freePorts } from './ports.js';
import { within } from './process.js';

export interface NacosStubOptions {
  /** Requests must be signed by this key; with a region, by one that is derived from it. */
  access?: { accessKey: string; secretKey: string; regionId?: string };
  /** PEM. */
  tls?: { cert: string; key: string };
}

export class NacosStub implements NacosRegistry {
  readonly host: string;
  readonly grpcHost: string;
  private readonly worker: Worker;
  private readonly waiting = new Map<number, (result: unknown) => void>();
  private readonly ready: Promise<unknown>;
  private asking = 0;
  private closing: Promise<void> | undefined;

  constructor(
    readonly port: number,
    options: NacosStubOptions,
  ) {
    this.host = `127.0.0.1:${port}`;
    this.grpcHost = this.host;
    this.worker = new Worker(fileURLToPath(new URL('./fixtures/nacos-stub.mjs', import.meta.url)), {
      workerData: { host: this.host, ...options },
      env: { ...process.env, NODE_OPTIONS: '' },
      execArgv: [],
    });
    this.ready = new Promise((resolve, reject) => {
      this.waiting.set(0, resolve);
      this.worker.once('error', reject);
    });
    this.worker.on('message', ({ id, result }: { id: number; result: unknown }) => {
      this.waiting.get(id)?.(result);
      this.waiting.delete(id);
    });
  }

  async start(): Promise<void> {
    await within(this.ready, 20_000, 'the start of the stub');
  }

  private ask<T>(method: string, ...given: unknown[]): Promise<T> {
    this.asking += 1;
    const id = this.asking;
    return new Promise((resolve) => {
      this.waiting.set(id, resolve as (result: unknown) => void);
      this.worker.postMessage({ id, method, given });
    });
  }

  /** How often a type of request was asked. */
  count(type: string): Promise<number> {
    return this.ask('count', type);
  }

  /** How many clients are connected. */
  clients(): Promise<number> {
    return this.ask('clients');
  }

  /** The next requests of a type are answered with these codes; 0 is silence. */
  fail(type: string, codes: number[]): Promise<void> {
    return this.ask('fail', type, codes);
  }

  /** Ends every connection. */
  hangUp(): Promise<void> {
    return this.ask('hangUp');
  }

  /** Forgets who has subscribed to a service, without a word; whether anybody had. */
  forget(namespace: string, service: string): Promise<boolean> {
    return this.ask('forget', namespace, service);
  }

  /** Who subscribes to a service next is pushed a list of before, an empty one, ahead of the answer. */
  overtake(namespace: string, service: string): Promise<void> {
    return this.ask('overtake', namespace, service);
  }

  /** Asks every client to go elsewhere. */
  reset(serverIp: string, serverPort: string): Promise<void> {
    return this.ask('reset', serverIp, serverPort);
  }

  // What tests do around the product, which is seen at once.

  services(namespace: string): Promise<string[]> {
    return this.ask('services', namespace);
  }

  list(namespace: string, service: string): Promise<NacosHost[]> {
    return this.ask('list', namespace, service);
  }

  put(place: NacosPlace, metadata: Record<string, string>, weight: number): Promise<void> {
    return this.ask('put', place, metadata, weight);
  }

  delete(place: NacosPlace): Promise<void> {
    return this.ask('delete', place);
  }

  /** Hangs up on all, for good. */
  close(): Promise<void> {
    this.closing ??= this.ask('stop').then(async () => void (await this.worker.terminate()));
    return this.closing;
  }
}

/** Starts a stub. Its host is that of gRPC: it has no HTTP. */
export async function startNacosStub(options: NacosStubOptions = {}): Promise<NacosStub> {
  const [port] = (await freePorts(1)) as [number];
  const stub = new NacosStub(port, options);
  await stub.start();
  return stub;
}
