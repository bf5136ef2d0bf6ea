// A Consul agent of the benchmarks' own: on free ports of 127.0.0.1, with its data in memory and the limits of its defaults.
// With `tls` clients come by TLS, and so by HTTP/2; what the benchmark writes and asks goes in plain text.

import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { freePort } from './free-port.mjs';

const program = fileURLToPath(
  new URL(`../../servers/bin/consul${process.platform === 'win32' ? '.exe' : ''}`, import.meta.url),
);
/** The most operations of one transaction that Consul takes. */
const TRANSACTION = 128;

/** For example `1.22.0`; undefined when it was not built. */
export function consulVersion() {
  if (!existsSync(program)) return undefined;
  return /^Consul v(\S+)/.exec(execFileSync(program, ['version'], { encoding: 'utf8' }))?.[1];
}

/** Starts a dev agent, which is a server of its own, and waits until it leads. */
export async function startConsul({ tls = false } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'rollcall-bench-consul-'));
  const [http, server, serf, secure] = await Promise.all([freePort(), freePort(), freePort(), freePort()]);
  const certificate = tls ? certify(folder) : undefined;
  const file = join(folder, 'agent.json');
  writeFileSync(
    file,
    JSON.stringify({
      node_name: 'bench',
      bind_addr: '127.0.0.1',
      client_addr: '127.0.0.1',
      ports: { http, https: tls ? secure : -1, grpc: -1, grpc_tls: -1, dns: -1, serf_wan: -1, server, serf_lan: serf },
      disable_update_check: true,
      log_level: 'error',
      connect: { enabled: false },
      peering: { enabled: false },
      ...(certificate && { tls: { https: { cert_file: certificate.cert, key_file: certificate.key } } }),
    }),
  );
  const child = spawn(program, ['agent', '-dev', `-config-file=${file}`], {
    // CONSUL_* of the environment would be read as options.
    env: Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('CONSUL'))),
    stdio: ['ignore', 'ignore', 'ignore'],
  });
  const pool = new Agent({ keepAlive: true, maxSockets: 4 });
  const stop = () => {
    child.kill('SIGKILL');
    pool.destroy();
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  };
  process.on('exit', stop);

  const ask = (method, path, body) =>
    new Promise((resolve, reject) => {
      const call = request({ host: '127.0.0.1', port: http, method, path, agent: pool, timeout: 20_000 }, (answer) => {
        let text = '';
        answer.setEncoding('utf8').on('data', (chunk) => {
          text += chunk;
        });
        answer.on('error', reject);
        answer.on('end', () => {
          if (answer.statusCode === 200) resolve(JSON.parse(text));
          else reject(new Error(`${method} ${path}: ${answer.statusCode} ${text}`));
        });
      });
      call.on('timeout', () => call.destroy(new Error(`${method} ${path}: no answer within 20 s`)));
      call.on('error', reject);
      call.end(body === undefined ? undefined : JSON.stringify(body));
    });

  for (const deadline = Date.now() + 20_000; ; await delay(50)) {
    if (child.exitCode !== null) throw new Error(`Consul ended with code ${child.exitCode}`);
    const nodes = await ask('GET', '/v1/health/node/bench').catch(() => []);
    if (nodes.length > 0) break;
    if (Date.now() > deadline) throw new Error('Consul did not become healthy within 20 s');
  }

  const host = `127.0.0.1:${tls ? secure : http}`;
  return {
    host,
    options: {
      ...{ backend: 'consul', hosts: host, healthCheck: false },
      ...(certificate && { tls: { caFile: certificate.ca } }),
    },
    pid: child.pid,
    stop,
    /** Writes instances into the catalog as of other machines, which is what an agent would do in the end. */
    async write(instances) {
      const writes = instances.map((instance) => ({ Service: { Verb: 'set', ...recordOf(instance) } }));
      for (let at = 0; at < writes.length; at += TRANSACTION)
        await ask('PUT', '/v1/txn', writes.slice(at, at + TRANSACTION));
    },
    /** Makes the machines that instances are on. */
    async prepare(perName) {
      const nodes = Array.from({ length: perName }, (_, n) => ({ Node: nodeOf(n), Address: `10.1.0.${n}` }));
      await ask(
        'PUT',
        '/v1/txn',
        nodes.map((Node) => ({ Node: { Verb: 'set', Node } })),
      );
    },
    /** How many connections it has where clients come, from anybody; undefined where the system does not tell. */
    connections() {
      const port = (tls ? secure : http).toString(16).toUpperCase().padStart(4, '0');
      try {
        const lines = ['/proc/net/tcp', '/proc/net/tcp6'].flatMap((path) => readFileSync(path, 'utf8').split('\n'));
        return lines.filter((line) => {
          const [, local, , state] = line.trim().split(/\s+/);
          return state === '01' && local.endsWith(`:${port}`); // established
        }).length;
      } catch {
        return undefined;
      }
    },
    // A name asks at most twenty times a second in the long run.
    paceMs: 60,
  };
}

/** An authority and a certificate for 127.0.0.1, as Consul itself makes them. */
function certify(folder) {
  const make = (...what) => execFileSync(program, ['tls', ...what], { cwd: folder, stdio: 'ignore' });
  make('ca', 'create');
  make('cert', 'create', '-server', '-dc', 'dc1');
  const file = (name) => join(folder, name);
  return {
    ca: file('consul-agent-ca.pem'),
    cert: file('dc1-server-consul-0.pem'),
    key: file('dc1-server-consul-0-key.pem'),
  };
}

const nodeOf = (n) => `machine-${n}`;

/** As Kratos writes it: the n-th instance of each service on the n-th machine. */
function recordOf({ id, name, version, metadata, endpoints }) {
  const addresses = endpoints.map((endpoint) => {
    const { protocol, hostname, port } = new URL(endpoint);
    return [protocol.slice(0, -1), { Address: endpoint, Port: Number(port) }, hostname];
  });
  return {
    Node: nodeOf(Number(id.slice(-4))),
    Service: {
      ID: id,
      Service: name,
      Tags: [`version=${version}`],
      Meta: metadata,
      TaggedAddresses: Object.fromEntries(addresses),
      Address: addresses[0][2],
      Port: addresses[0][1].Port,
    },
  };
}
