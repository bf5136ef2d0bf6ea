// Whom a call by name believes: certificates, local endpoints, redirects.

import { readFileSync } from 'node:fs';
import { createServer, get, type RequestOptions } from 'node:https';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { connect, NoInstanceError, type Registry } from 'rollcall';
import { createFetch, httpsAgent, ServiceAgent, type UndiciModule } from 'rollcall/http';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { uniqueName } from '../support/process.js';
import { type Certificates, makeCertificates } from '../support/tls.js';
import { type Finish, httpServer } from './kit.js';
import { clients } from './project.js';

let undici: UndiciModule;
let certificates: Certificates;
beforeAll(async () => {
  undici = createRequire(`${await clients()}/`)('undici7');
  certificates = await makeCertificates({ serverNames: ['orders', 'gold.orders.internal'] });
});
afterAll(() => certificates.remove());

interface Told {
  host: string | undefined;
  servername: unknown;
}

async function secureServer({ onTestFinished }: Finish) {
  const { certFile, keyFile } = certificates.server;
  const arrivals: Told[] = [];
  const server = createServer({ cert: readFileSync(certFile), key: readFileSync(keyFile) }, (request, response) => {
    arrivals.push({
      host: request.headers.host,
      servername: (request.socket as TLSSocket & { servername: unknown }).servername,
    });
    response.end('ok');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`, arrivals };
}

async function memory({ onTestFinished }: Finish): Promise<Registry> {
  const registry = await connect(`memory://${uniqueName()}?logger=0`);
  onTestFinished(() => registry.close());
  return registry;
}

interface How {
  serverName?: string;
  ca?: Buffer;
}

/** What a call of `https://{name}/` comes to: the answer, or codes of the error and its causes. */
const subjects: [string, (registry: Registry, how: How) => (url: string) => Promise<string>][] = [
  [
    'createFetch()',
    (registry, { serverName, ca }) => {
      const fetch = createFetch(registry, { undici, serverName, tls: ca && { ca }, connectTimeoutMs: 10_000 });
      return (url) => fetch(url).then((response) => response.text(), codesOf);
    },
  ],
  [
    'a ServiceAgent',
    (registry, { serverName, ca }) => {
      const dispatcher = new ServiceAgent(registry, {
        undici,
        serverName,
        tls: ca && { ca },
        connectTimeoutMs: 10_000,
      }) as never;
      return (url) => fetch(url, { dispatcher }).then((response) => response.text(), codesOf);
    },
  ],
  [
    'httpsAgent()',
    (registry, how) => {
      const agent = httpsAgent(registry, how);
      return (url) =>
        new Promise<string>((resolve) => {
          const options: RequestOptions = { agent };
          get(url, options, (response) => response.resume().on('end', () => resolve('ok'))).on('error', (error) =>
            resolve(codesOf(error)),
          );
        });
    },
  ],
];

function codesOf(error: unknown): string {
  const codes: unknown[] = [];
  for (
    let one = error as { code?: unknown; name?: string; cause?: unknown } | undefined;
    one;
    one = one.cause as never
  ) {
    codes.push(one.code ?? one.name);
  }
  return codes.join(' ');
}

describe.each(subjects)('%s', (subject, make) => {
  const ca = () => readFileSync(certificates.ca.certFile);

  it('has the name of the service proved to it, which is the Host header, wherever the instance is', async (context) => {
    const [registry, server] = [await memory(context), await secureServer(context)];
    await registry.register({ name: 'orders', endpoints: [server.url] });
    expect(await make(registry, { ca: ca() })('https://orders/7?a=b')).toBe('ok');
    expect(server.arrivals).toEqual([{ host: 'orders', servername: 'orders' }]);
  });

  it('goes by metadata `serverName` first, then by the option', async (context) => {
    const [registry, server] = [await memory(context), await secureServer(context)];
    const metadata = { serverName: 'gold.orders.internal' };
    await registry.register({ name: 'payments', endpoints: [server.url], metadata });
    await registry.register({ name: 'invoices', endpoints: [server.url] });
    const call = make(registry, { ca: ca(), serverName: 'orders' });
    expect(await call('https://payments/')).toBe('ok');
    expect(await call('https://invoices/')).toBe('ok');
    expect(server.arrivals.map(({ servername }) => servername)).toEqual(['gold.orders.internal', 'orders']);
    // An agent of Node.js comes too late for the Host header.
    const hosts = subject === 'httpsAgent()' ? ['payments', 'invoices'] : ['gold.orders.internal', 'orders'];
    expect(server.arrivals.map(({ host }) => host)).toEqual(hosts);
  });

  it('refuses the certificate of another, and of an authority that it does not know', async (context) => {
    const [registry, server] = [await memory(context), await secureServer(context)];
    await registry.register({ name: 'payments', endpoints: [server.url] });
    await registry.register({ name: 'orders', endpoints: [server.url] });
    expect(await make(registry, { ca: ca() })('https://payments/')).toMatch(/ERR_TLS_CERT_ALTNAME_INVALID$/);
    const stranger = readFileSync(certificates.stranger.certFile);
    expect(await make(registry, { ca: stranger })('https://orders/')).toMatch(
      /(UNABLE_TO_VERIFY_LEAF_SIGNATURE|CERT_SIGNATURE_FAILURE)$/,
    );
    expect(server.arrivals).toEqual([]);
  });

  it('calls `https://` endpoints alone by https, and none whose `serverName` is no name', async (context) => {
    const [registry, server] = [await memory(context), await secureServer(context)];
    const call = make(registry, { ca: ca() });
    await registry.register({ name: 'orders', id: 'plain', endpoints: ['http://127.0.0.1:9'] });
    expect(await call('https://orders/')).toMatch(/ERR_UNAVAILABLE$/);
    for (const [n, serverName] of ['a/b', 'orders:443', 'user@orders', '10.0.0.1', 'örders', ' '].entries()) {
      await registry.register({ name: 'payments', id: `${n}`, endpoints: [server.url], metadata: { serverName } });
    }
    expect(await call('https://payments/')).toMatch(/ERR_UNAVAILABLE$/);
    expect(server.arrivals).toEqual([]);
  });

  it('leaves loopback and link-local endpoints of others out, unless `allowLocal`', async (context) => {
    const [registry, server] = [await memory(context), await secureServer(context)];
    const endpoints = [server.url, 'https://169.254.169.254:443', 'https://[::1]:443', 'https://localhost:443'];
    for (const [n, endpoint] of endpoints.entries()) {
      await registry.register({ name: 'orders', id: `${n}`, endpoints: [endpoint] });
    }
    // As on every registry but that of the memory, all of whose users are in one process.
    const orders = registry.service('orders', { allowLocal: false });
    await orders.ready();
    const call = make(registry, { ca: ca() }); // shares what others have chosen
    expect(await call('https://orders/')).toMatch(/ERR_UNAVAILABLE$/);
    let error: unknown;
    try {
      orders.pick();
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(NoInstanceError);
    expect(error).toMatchObject({ removedBy: { local: endpoints.length } });
    expect(server.arrivals).toEqual([]);
  });
});

describe('credentials', () => {
  it('go with a redirect to the name or to the address of the instance, and to no other origin', async (context) => {
    const registry = await memory(context);
    const headers = { authorization: 'Bearer t', cookie: 's=1', 'x-other': 'o' };
    const foreign = await httpServer(context, (response) => response.end('foreign'));
    const server = await httpServer(context, (response, { url, headers: { host } }) => {
      const to: Record<string, string> = {
        '/path': '/end',
        '/whole': `http://${host}/end`,
        '/own': `http://127.0.0.1:${server.port}/end`,
        '/away': `http://127.0.0.1:${foreign.port}/end`,
      };
      const location = to[url ?? ''];
      if (location) response.writeHead(307, { location }).end();
      else response.end('end');
    });
    await registry.register({ name: 'orders', endpoints: [`http://127.0.0.1:${server.port}`] });
    const fetch = createFetch(registry, { undici });
    for (const path of ['/path', '/whole', '/own']) {
      expect(await (await fetch(`http://orders${path}`, { headers })).text()).toBe('end');
      expect(server.arrivals.at(-1)?.headers).toMatchObject({ ...headers, host: 'orders' });
    }
    expect(await (await fetch('http://orders/away', { headers })).text()).toBe('foreign');
    expect(foreign.arrivals[0]?.headers).toMatchObject({ 'x-other': 'o', host: `127.0.0.1:${foreign.port}` });
    expect(foreign.arrivals[0]?.headers).not.toHaveProperty('authorization');
    expect(foreign.arrivals[0]?.headers).not.toHaveProperty('cookie');
  });
});
