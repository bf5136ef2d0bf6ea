/** An application without a framework that would tell when it starts and stops. */

import type { EventEmitter } from 'node:events';
import { after } from '../common/clock.js';
import { integer, invalid, isRecord, kindOf, record } from '../common/shape.js';
import { TimeoutError } from '../errors.js';
import { signalNames } from '../registry/options.js';
import type { Registration, TrafficOptions } from '../registry/registration.js';
import type { Registry } from '../registry/registry.js';
import { type Addressed, endpointsOf, isSecure } from './endpoints.js';
import type { AppLogger } from './logger.js';
import { checkedSelf, type SelfOptions, SelfRegistration } from './self-registration.js';

/** What is needed of a server of Node.js. */
interface NodeServer extends EventEmitter, Addressed {
  readonly listening?: boolean;
  close(done?: (error?: Error) => void): unknown;
  closeIdleConnections?(): void;
  closeAllConnections?(): void;
}

/** What listens: a server of Node.js, or what has one as `server` and closes it by itself, as an application of Fastify. */
export type SelfServer = NodeServer | { readonly server: NodeServer; close(): unknown };

/** Options of `registerSelf()`. */
export interface RegisterSelfOptions extends Omit<SelfOptions, 'when'> {
  /** On these signals `leave()` is called; then the signal goes through. Default none. */
  signals?: readonly `SIG${string}`[] | undefined;
  /** How long a server that does not listen yet is waited for, in milliseconds. Default 10000. */
  listenTimeoutMs?: number | undefined;
  /** How long `leave()` waits for requests under way, in milliseconds; then their connections are cut. Default 10000. */
  closeTimeoutMs?: number | undefined;
}

/** A program in the registry, as `registerSelf()` gives it. */
export class Application {
  readonly #server: NodeServer;
  /** Fastify's own way to close, which runs its hooks. */
  readonly #closeWhole: (() => unknown) | undefined;
  readonly #registry: Registry;
  readonly #self: SelfRegistration;
  readonly #closeTimeoutMs: number;
  readonly #log: AppLogger;
  #leaving: Promise<void> | undefined;

  private constructor(server: SelfServer, registry: Registry, self: SelfRegistration, log: AppLogger, closeMs: number) {
    this.#server = serverOf(server);
    this.#closeWhole = 'server' in server ? () => server.close() : undefined;
    this.#registry = registry;
    this.#self = self;
    this.#log = log;
    this.#closeTimeoutMs = closeMs;
  }

  /** @internal */
  static async register(server: SelfServer, registry: Registry, options: RegisterSelfOptions): Promise<Application> {
    const { signals, listenTimeoutMs, closeTimeoutMs, ...rest } = record('options', options);
    const node = serverOf(server);
    const names = signalNames(signals);
    const listenMs = integer('options.listenTimeoutMs', listenTimeoutMs, 10_000, { min: 1 });
    const closeMs = integer('options.closeTimeoutMs', closeTimeoutMs, 10_000, { min: 0 });
    if ('when' in rest)
      throw invalid('options.when', 'not an option here: the program is registered when its server listens');
    const own = checkedSelf(rest, 'options');
    const write = (level: 'info' | 'warn' | 'error') => (text: string) => registry.write(level, text);
    const log: AppLogger = { log: write('info'), warn: write('warn'), error: write('error') };
    await listening(node, listenMs);
    const self = new SelfRegistration({
      registry,
      options: own,
      background: false,
      signalHint: "give registerSelf() signals: ['SIGTERM']",
      isSignalHeard: names.length > 0,
      log,
    });
    await self.listening(endpointsOf(node, isSecure(node) ? 'https' : 'http'));
    await self.started(true);
    if (!self.registration) {
      throw invalid('options.endpoints', 'expected, since the server listens at no port (a pipe or a socket of Unix)');
    }
    const application = new Application(server, registry, self, log, closeMs);
    registry.leaveBy(() => application.leave(), names);
    return application;
  }

  /** Its registration. */
  get registration(): Registration {
    return this.#self.registration as Registration;
  }

  /** Takes it out of traffic and leaves it registered, as `Registration.withdraw()`: it goes on answering. */
  withdraw(reason?: 'withdrawn' | 'unhealthy', options?: TrafficOptions): Promise<void> {
    return this.#self.withdraw(reason, options);
  }

  /** Takes a reason of `withdraw()` back; the last one brings it back, as `Registration.restore()`. */
  restore(reason?: 'withdrawn' | 'unhealthy', options?: TrafficOptions): Promise<void> {
    return this.#self.restore(reason, options);
  }

  /**
   * The end: out of the registry; `drainMs` in which it goes on answering, and asks keep-alive connections to close; then the
   * server is closed, for at most `closeTimeoutMs`, and the registry. May be called again. Never rejects: what could not be
   * done is logged.
   */
  leave(): Promise<void> {
    this.#leaving ??= this.#leave();
    return this.#leaving;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.leave();
  }

  async #leave(): Promise<void> {
    this.#server.prependListener('request', askToClose);
    await this.#self.leave();
    await this.#close();
    await this.#registry.close().catch((error: Error) => {
      this.#log.warn(`the registry was not closed in order: ${error.message}`);
    });
  }

  async #close(): Promise<void> {
    const server = this.#server;
    const closed = this.#end();
    server.closeIdleConnections?.();
    const giveUp = after(this.#closeTimeoutMs, () => {
      this.#log.warn(`requests were under way ${this.#closeTimeoutMs} ms after the drain: their connections are cut`);
      server.closeAllConnections?.();
    });
    let forget = () => {};
    const late = new Promise<void>((resolve) => {
      forget = after(this.#closeTimeoutMs + 1000, resolve);
    });
    await Promise.race([closed, late]);
    giveUp();
    forget();
  }

  /** Never rejects. */
  async #end(): Promise<void> {
    try {
      if (this.#closeWhole) await this.#closeWhole();
      else await new Promise<void>((resolve) => void this.#server.close(() => resolve())); // an error: it does not listen
    } catch (error) {
      this.#log.warn(`the server was not closed in order: ${(error as Error).message}`);
    }
  }
}

/** So that a client with a connection that it keeps opens the next one elsewhere. */
function askToClose(
  _request: unknown,
  response: { headersSent: boolean; setHeader(name: string, value: string): void },
) {
  if (!response.headersSent) response.setHeader('Connection', 'close');
}

function serverOf(given: unknown): NodeServer {
  const server = isRecord(given) && isRecord(given.server) ? given.server : given;
  const { address, close, on } = Object(server) as Partial<NodeServer>;
  if (typeof address === 'function' && typeof close === 'function' && typeof on === 'function') {
    return server as unknown as NodeServer;
  }
  const hint = typeof given === 'function' ? ': give what its listen() returns' : '';
  throw invalid('server', `expected a server of Node.js or an application of Fastify, got ${kindOf(given)}${hint}`);
}

/** Resolves once it listens. */
function listening(server: NodeServer, timeoutMs: number): Promise<void> {
  if (server.listening ?? server.address?.()) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const done = (settle: () => void) => {
      for (const [event, heard] of heards) server.off(event, heard);
      stop();
      settle();
    };
    const heards = [
      ['listening', () => done(resolve)],
      ['error', (error: unknown) => done(() => reject(error))],
    ] as const;
    for (const [event, heard] of heards) server.on(event, heard as () => void);
    const stop = after(timeoutMs, () => {
      const text = `server: it does not listen after ${timeoutMs} ms: call registerSelf() when listen() was called`;
      done(() => reject(new TimeoutError(text, { operation: 'registerSelf' })));
    });
  });
}
