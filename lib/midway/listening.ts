/** Where an application of Midway listens: the servers of its frameworks. */

import { once } from 'node:events';
import type { Server } from 'node:net';
import { type IMidwayContainer, MidwayApplicationManager } from '@midwayjs/core';
import { TimeoutError } from '../errors.js';
import { type Addressed, endpointsOf, type GrpcServer, grpcEndpoints, isSecure } from '../frameworks/endpoints.js';

/** Frameworks begin to listen and don't wait for it. It takes a moment: the port is taken, or it is not. */
const LISTEN_TIMEOUT_MS = 10_000;

/** What is needed of a framework. */
interface Framework {
  getServer?(): unknown;
  server?: unknown;
  configurationOptions?: {
    port?: unknown;
    listenOptions?: { port?: unknown };
    /** Of gRPC: those of grpc-js. */
    credentials?: { _isSecure?: () => boolean };
  };
}

/**
 * The endpoints of all servers of an application; waits for those that are about to listen.
 *
 * @throws what a server fails with, such as `EADDRINUSE`; `ERR_TIMEOUT`.
 */
export async function listeningEndpoints(container: IMidwayContainer): Promise<string[]> {
  const applications = container.get(MidwayApplicationManager).getApplications();
  const frameworks = new Set(
    applications.map((app) => (app as { getFramework?(): Framework | undefined }).getFramework?.()),
  );
  const found = await Promise.all([...frameworks].map((framework) => (framework ? endpointsOfOne(framework) : [])));
  return [...new Set(found.flat())];
}

async function endpointsOfOne(framework: Framework): Promise<string[]> {
  const server = framework.getServer?.() ?? framework.server;
  const { configurationOptions: options } = framework;
  if (typeof (server as GrpcServer | undefined)?.http2Servers === 'object') {
    return grpcEndpoints(server as GrpcServer, options?.credentials?._isSecure?.() ? 'grpcs' : 'grpc');
  }
  if (typeof (server as Addressed | undefined)?.address !== 'function') return [];
  const listener = server as Server;
  const port = options?.listenOptions?.port ?? options?.port;
  if (!listener.listening) {
    if (!Number(port)) return []; // a test, or a function: nothing is going to listen
    await listening(listener, Number(port));
  }
  return endpointsOf(listener as Addressed, isSecure(listener as Addressed) ? 'https' : 'http');
}

async function listening(server: Server, port: number): Promise<void> {
  const signal = AbortSignal.timeout(LISTEN_TIMEOUT_MS);
  try {
    await once(server, 'listening', { signal });
  } catch (error) {
    if (!signal.aborted) throw error;
    throw new TimeoutError(`the server on port ${port} did not begin to listen within ${LISTEN_TIMEOUT_MS} ms`, {
      operation: 'register',
    });
  }
}
