// A node of bilibili's discovery for the benchmarks, on a free port of 127.0.0.1. It keeps everything in memory. What the benchmark
// writes is renewed by nobody: the node takes that for a fault of the network, protects itself, and keeps all of it for an hour.

import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { freePort } from './free-port.mjs';

const PROGRAM = fileURLToPath(new URL('../../servers/bin/discovery', import.meta.url));
const [ZONE, ENV, REGION] = ['sh001', 'dev', 'sh'];

/** For example `v1.0.1`, which the program does not say itself; undefined when it is not built. */
export function discoveryVersion() {
  if (!existsSync(PROGRAM)) return undefined;
  const { stdout } = spawnSync('go', ['version', '-m', PROGRAM], { encoding: 'utf8' });
  return /\sgithub\.com\/bilibili\/discovery\s+(v\S+)/.exec(stdout ?? '')?.[1] ?? 'of an unknown version';
}

/** Starts a single node and waits until it serves. */
export async function startDiscovery() {
  const folder = mkdtempSync(join(tmpdir(), 'rollcall-bench-discovery-'));
  const host = `127.0.0.1:${await freePort()}`;
  const file = join(folder, 'node.toml');
  writeFileSync(
    file,
    [
      `nodes = ["${host}"]`,
      `[env]\nregion = "${REGION}"\nzone = "${ZONE}"\nhost = "bench"\nDeployEnv = "${ENV}"`,
      `[httpServer]\naddr = "${host}"`,
      '[httpClient]\ndial = "1s"\nkeepAlive = "120s"',
    ].join('\n'),
  );
  const child = spawn(PROGRAM, ['-conf', file, '-scheduler', '', '-logtostderr', '-stderrthreshold', 'FATAL'], {
    stdio: 'ignore',
  });
  const agent = new Agent({ keepAlive: true, maxSockets: 8 });
  const stop = () => {
    child.kill('SIGKILL');
    agent.destroy();
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  };
  process.on('exit', stop);
  const ask = (method, path, form) => call(agent, `http://${host}/discovery/${path}`, method, form);
  for (const deadline = Date.now() + 30_000; ; await delay(50)) {
    if (child.exitCode !== null) throw new Error(`discovery ended with code ${child.exitCode}`);
    if ((await ask('GET', 'nodes').catch(() => undefined))?.code === 0) break;
    if (Date.now() > deadline) throw new Error('discovery did not serve within 30 s');
  }

  return {
    host,
    options: { backend: 'bilibili', hosts: host, zone: ZONE, env: ENV, region: REGION },
    pid: child.pid,
    stop,
    /** An instance is a request. */
    async write(instances) {
      const left = [...instances];
      const writer = async () => {
        for (let instance = left.pop(); instance; instance = left.pop()) {
          const { code } = await ask('POST', 'register', formOf(instance));
          if (code !== 0) throw new Error(`discovery refused ${instance.id}: ${code}`);
        }
      };
      await Promise.all(Array.from({ length: 4 }, writer));
    },
    paceMs: 5,
  };
}

/** As Kratos registers, under the id for a host name. */
function formOf({ id, name, version, metadata, endpoints }) {
  const form = new URLSearchParams({
    appid: name,
    env: ENV,
    zone: ZONE,
    region: REGION,
    hostname: id,
    version,
    status: '1',
  });
  form.set('metadata', JSON.stringify({ ...metadata, 'kratos.v2.serviceinstance.id': id }));
  for (const endpoint of endpoints) form.append('addrs', endpoint);
  return form.toString();
}

function call(agent, url, method, form) {
  return new Promise((resolve, reject) => {
    const headers = form === undefined ? {} : { 'content-type': 'application/x-www-form-urlencoded' };
    const asked = request(url, { method, agent, headers, timeout: 10_000 }, (answer) => {
      let text = '';
      answer.setEncoding('utf8').on('data', (chunk) => {
        text += chunk;
      });
      answer.on('error', reject).on('end', () => {
        try {
          resolve(JSON.parse(text));
        } catch {
          reject(new Error(`discovery: ${answer.statusCode} ${text.slice(0, 200)}`));
        }
      });
    });
    asked.on('timeout', () => asked.destroy(new Error(`no answer of ${url} within 10 s`))).on('error', reject);
    asked.end(form);
  });
}
