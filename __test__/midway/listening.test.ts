/** Where an application of Midway listens, on plain servers in the place of its frameworks. */

import { createServer, type Server } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';

const load = createRequire(import.meta.url);
const { listeningEndpoints } = load('../../dist/cjs/midway/listening.js');
const { RoundRobin } = load('../../dist/cjs/midway/discovery/round-robin.js');

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

function opened<S extends Server>(server: S, port = 0, host = '127.0.0.1'): S {
  servers.push(server);
  server.listen(port, host);
  return server;
}

/** A container with applications of these frameworks. */
const containerOf = (...frameworks: object[]) => ({
  get: () => ({ getApplications: () => frameworks.map((framework) => ({ getFramework: () => framework })) }),
});

const frameworkOf = (server: object, configurationOptions: object = { port: 1 }) => ({
  getServer: () => server,
  configurationOptions,
});

describe('the servers of an application', () => {
  it('that have only begun to listen are waited for, each once', async () => {
    const server = opened(createServer());
    expect(server.listening).toBe(false);
    const framework = frameworkOf(server);
    const endpoints = await listeningEndpoints(containerOf(framework, framework));
    expect(endpoints).toEqual([`http://127.0.0.1:${(server.address() as AddressInfo).port}`]);
  });

  it('are told with their scheme and their real address', async () => {
    const secure = opened(createSecureServer());
    const six = opened(createServer(), 0, '::1');
    const grpc = opened(createServer());
    const secureGrpc = opened(createServer());
    const both = [grpc, secureGrpc].map((server) => new Promise((resolve) => server.once('listening', resolve)));
    await Promise.all(both);
    const endpoints = await listeningEndpoints(
      containerOf(
        frameworkOf(secure),
        frameworkOf(six),
        frameworkOf({ http2Servers: new Map([[grpc, {}]]) }),
        frameworkOf({ http2Servers: new Map([[secureGrpc, {}]]) }, { credentials: { _isSecure: () => true } }),
      ),
    );
    const port = (server: Server) => (server.address() as AddressInfo).port;
    expect(endpoints).toEqual([
      `https://127.0.0.1:${port(secure)}`,
      `http://[::1]:${port(six)}`,
      `grpc://127.0.0.1:${port(grpc)}`,
      `grpcs://127.0.0.1:${port(secureGrpc)}`,
    ]);
  });

  it('whose port is taken fail the start', async () => {
    const first = opened(createServer());
    await new Promise((resolve) => first.once('listening', resolve));
    const second = opened(createServer(), (first.address() as AddressInfo).port);
    await expect(listeningEndpoints(containerOf(frameworkOf(second)))).rejects.toThrow('EADDRINUSE');
  });

  it('without a port, and frameworks without a server, are left out', async () => {
    const frameworks = [frameworkOf(createServer(), { port: null }), {}, frameworkOf({})];
    expect(await listeningEndpoints(containerOf(...frameworks))).toEqual([]);
  });
});

describe('the round robin', () => {
  const instances = (name: string, count: number) => Array.from({ length: count }, (_, i) => ({ name, id: `${i}` }));

  it('counts each service by itself, so that calls in turn reach all instances of both', () => {
    const balancer = new RoundRobin();
    const ids = { a: new Set(), b: new Set() };
    for (let i = 0; i < 4; i++) {
      for (const name of ['a', 'b'] as const) ids[name].add(balancer.select(instances(name, 2)).id);
    }
    expect([ids.a.size, ids.b.size]).toEqual([2, 2]);
  });

  it('gives an instance when the list has become shorter', () => {
    const balancer = new RoundRobin();
    for (let i = 0; i < 3; i++) balancer.select(instances('a', 4));
    expect(balancer.select(instances('a', 2))).toMatchObject({ name: 'a' });
  });
});
