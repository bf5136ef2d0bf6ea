/** Where an application of Nest listens: its HTTP server, and the servers of its microservices. */

import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { type Addressed, endpointsOf, type GrpcServer, grpcEndpoints, isSecure } from '../../frameworks/endpoints.js';

/** What is needed of an HTTP adapter of Nest. */
export interface HttpAdapter {
  listen(...args: unknown[]): unknown;
  getHttpServer(): unknown;
}

/** What is needed of the server of a microservice. */
export interface MicroserviceServer {
  listen(callback: (error?: unknown, info?: unknown) => void): unknown;
  close?(): unknown;
}

/** Who follows a server. */
export interface Follower {
  /** It is asked to listen, which may fail; not every server tells. */
  begins?(): void;
  /** It listens. The program's `listen()` waits for this, and fails with it. */
  listens?(endpoints: string[]): Promise<void>;
  /** It listens, and all who follow it have heard that. */
  heard?(): void;
}

/** The servers whose `listen()` is followed. */
const FOLLOWED = new WeakMap<object, Set<Follower>>();

/** Tells `follower` of the server of the adapter, before the program's own `listen()` resolves. */
export function followHttp(adapter: HttpAdapter, follower: Follower): void {
  const all = followed(adapter, follower);
  if (!all) return;
  const announce = () => {
    const server = adapter.getHttpServer() as Addressed;
    return tell(all, endpointsOf(server, isSecure(server) ? 'https' : 'http'));
  };
  const listen = adapter.listen;
  adapter.listen = function (this: HttpAdapter, ...args: unknown[]): unknown {
    const done = args.at(-1);
    // Nest itself always gives a callback.
    if (typeof done !== 'function') return listen.apply(this, args);
    for (const each of all) each.begins?.();
    const heard = (...results: unknown[]) => {
      if (results[0] instanceof Error) return done(...results);
      announce().then(
        () => done(...results),
        (error: unknown) => {
          // The start has failed: nothing is to be left of it.
          (adapter.getHttpServer() as Addressed).close?.();
          done(error);
        },
      );
    };
    return listen.apply(this, [...args.slice(0, -1), heard]);
  };
}

/** The same for the server of a microservice. Transports by way of a broker listen nowhere: they have no endpoints. */
export function followMicroservice(server: MicroserviceServer, follower: Follower): void {
  const all = followed(server, follower);
  if (!all) return;
  const announce = () => tell(all, microserviceEndpoints(server));
  const listen = server.listen;
  server.listen = function (this: MicroserviceServer, callback): unknown {
    for (const each of all) each.begins?.();
    return listen.call(this, (error, info) => {
      if (error) return callback(error, info);
      announce().then(
        () => callback(error, info),
        (failure: unknown) => {
          server.close?.();
          callback(failure);
        },
      );
    });
  };
}

/** Adds one to those who follow a server; for the first of them gives the list. */
function followed(server: object, follower: Follower): Set<Follower> | undefined {
  const before = FOLLOWED.get(server);
  if (before) {
    before.add(follower);
    return undefined;
  }
  const all = new Set([follower]);
  FOLLOWED.set(server, all);
  return all;
}

async function tell(all: Iterable<Follower>, endpoints: string[]): Promise<void> {
  await Promise.all([...all].map((each) => each.listens?.(endpoints)));
  for (const each of all) each.heard?.();
}

/** What is needed of the servers that Nest has for its transports, in all its versions. */
interface AnyServer {
  transportId?: unknown;
  /** Of the TCP transport. */
  server?: Addressed;
  /** Of gRPC: a server of grpc-js. */
  grpcClient?: GrpcServer;
  /** Of gRPC. */
  url?: unknown;
  options?: { url?: unknown; credentials?: { _isSecure?: () => boolean } };
}

/** The numbers of Nest's enum `Transport`. */
const TCP = 0;
const GRPC = 4;

function microserviceEndpoints(subject: MicroserviceServer): string[] {
  const server = subject as AnyServer;
  if (server.transportId === TCP) {
    return endpointsOf(server.server, isSecure(server.server) ? 'tcps' : 'tcp');
  }
  if (server.transportId !== GRPC) return [];
  const scheme = server.options?.credentials?._isSecure?.() ? 'grpcs' : 'grpc';
  const bound = grpcEndpoints(server.grpcClient, scheme);
  if (bound.length > 0) return bound;
  const url = String(server.url ?? server.options?.url ?? '');
  return /^[^/]+:[1-9]\d*$/.test(url) ? [`${scheme}://${url}`] : [];
}

/** What is needed of Nest's container of modules. */
export interface Modules {
  /** Of Nest 11 and later: tells every server of a microservice, those of the past too. */
  getRpcTargetRegistry?(): { subscribe(next: (server: unknown) => void): unknown };
}

/** Calls `found` with the server of every microservice of an application, before it listens. */
export function microservicesOf(modules: Modules, found: (server: MicroserviceServer) => void): void {
  if (typeof modules.getRpcTargetRegistry === 'function') {
    modules.getRpcTargetRegistry().subscribe((server) => found(server as MicroserviceServer));
    return;
  }
  const seekers = SEEKERS.get(modules) ?? new Set();
  SEEKERS.set(modules, seekers.add(found));
  for (const prototype of nest10Microservices()) watchNest10(prototype);
}

const SEEKERS = new WeakMap<object, Set<(server: MicroserviceServer) => void>>();
const WATCHED = new WeakSet<Nest10Microservice>();

interface Nest10Microservice {
  container: { getModules(): object };
  server: MicroserviceServer;
  registerListeners(this: Nest10Microservice): unknown;
}

/**
 * The package is optional, of Nest 10 it is CommonJS, and an installation may have it more than once: the one that counts
 * is that of the `@nestjs/core` of the program, which makes the microservices.
 */
function* nest10Microservices(): Generator<Nest10Microservice> {
  const loads = [__filename, resolve(process.argv[1] ?? 'program')].map((file) => createRequire(file));
  for (const load of [...loads]) {
    const core = attempt(() => load.resolve('@nestjs/core'));
    if (core) loads.push(createRequire(core));
  }
  const packages = [
    attempt(() => require('@nestjs/microservices')), // in this form bundlers see it
    ...loads.map((load) => attempt(() => load('@nestjs/microservices'))),
  ];
  for (const each of packages) {
    const prototype: Nest10Microservice | undefined = each?.NestMicroservice?.prototype;
    if (typeof prototype?.registerListeners === 'function') yield prototype;
  }
}

/** `undefined` where a package is not installed. */
function attempt<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch {
    return undefined;
  }
}

/** Nest 10 tells nobody of its microservices. They pass through here once, before they listen. */
function watchNest10(prototype: Nest10Microservice): void {
  if (WATCHED.has(prototype)) return;
  WATCHED.add(prototype);
  const registerListeners = prototype.registerListeners;
  prototype.registerListeners = function () {
    for (const found of SEEKERS.get(this.container.getModules()) ?? []) found(this.server);
    return registerListeners.call(this);
  };
}
