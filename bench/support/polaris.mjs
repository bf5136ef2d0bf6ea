// A Polaris of the benchmarks' own: standalone on free ports of 127.0.0.1, its store a file in a temporary folder.

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { freePort } from './free-port.mjs';

const program = fileURLToPath(
  new URL(`../../servers/bin/polaris${process.platform === 'win32' ? '.exe' : ''}`, import.meta.url),
);
/** The most instances that one call may be about. */
const CALL = 100;

/** For example `1.18.1`, of the module that it was built of; undefined when it was not built. */
export function polarisVersion() {
  if (!existsSync(program)) return undefined;
  const module = fileURLToPath(new URL('../../servers/polaris/go.mod', import.meta.url));
  return /github\.com\/polarismesh\/polaris v(\S+)/.exec(readFileSync(module, 'utf8'))?.[1];
}

/** Starts a server and waits until it serves. */
export async function startPolaris() {
  const folder = mkdtempSync(join(tmpdir(), 'rollcall-bench-polaris-'));
  const [http, grpc] = [await freePort(), await freePort()];
  const file = join(folder, 'polaris.yaml');
  writeFileSync(file, JSON.stringify(configuration(http, grpc))); // JSON is YAML
  const child = spawn(program, ['start', '-c', file], { cwd: folder, stdio: ['ignore', 'ignore', 'ignore'] });
  const stop = () => {
    child.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  };
  process.on('exit', stop);

  const ask = async (path, body) => {
    const answer = await fetch(`http://127.0.0.1:${http}${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(60_000),
    });
    const told = JSON.parse(await answer.text());
    if (told.code !== 200_000) throw new Error(`${path}: ${told.code} ${told.info}`);
  };
  const user = { name: 'polaris', password: 'polaris' };
  for (const deadline = Date.now() + 20_000; ; await delay(50)) {
    if (child.exitCode !== null) throw new Error(`Polaris ended with code ${child.exitCode}`);
    const refused = await ask('/core/v1/user/login', user).catch((error) => error);
    if (!refused) break;
    if (Date.now() > deadline) throw new Error('Polaris did not serve within 20 s');
  }

  return {
    host: `127.0.0.1:${grpc}`,
    options: { backend: 'polaris', hosts: `127.0.0.1:${grpc}` },
    pid: child.pid,
    stop,
    /** Writes instances as Kratos does, and nobody waits for their beats. */
    async write(instances) {
      const records = instances.flatMap(recordsOf);
      for (let at = 0; at < records.length; at += CALL) await ask('/naming/v1/instances', records.slice(at, at + CALL));
    },
    // It tells of what changed once a second.
    paceMs: 250,
  };
}

/** One for each endpoint. */
function recordsOf({ id, name, version, metadata, endpoints }) {
  return endpoints.map((endpoint, at) => {
    const { protocol, hostname, port } = new URL(endpoint);
    return {
      ...{ namespace: 'default', service: name, host: hostname, port: Number(port) },
      ...{ protocol: protocol.slice(0, -1), version, weight: Number(metadata.weight) },
      metadata: { ...metadata, merge: id, 'rollcall.id': id, 'rollcall.n': `${at + 1}/${endpoints.length}/1` },
    };
  });
}

function configuration(http, grpc) {
  const listen = (listenPort) => ({ listenIP: '127.0.0.1', listenPort, connLimit: { openConnLimit: false } });
  const clients = { enable: true, include: ['discover', 'register', 'healthcheck'] };
  const batch = { open: true, queueSize: 10_240, waitTime: '32ms', maxBatchCount: 128, concurrency: 8 };
  const plugins = { crypto: 'AES', history: 'HistoryLogger', discoverEvent: 'discoverEventLocal' };
  return {
    bootstrap: {
      logger: { default: { rotateOutputPath: 'log/polaris.log', errorRotateOutputPath: 'log/error.log' } },
      startInOrder: { open: true, key: 'sz' },
      polaris_service: {
        ...{ enable_register: true, self_address: '127.0.0.1' },
        services: [{ name: 'polaris.checker', protocols: ['service-grpc'] }],
      },
    },
    apiservers: [
      {
        ...{ name: 'api-http', option: listen(http) },
        api: { console: { enable: true, include: ['default', 'service'] }, client: clients },
      },
      {
        ...{ name: 'service-grpc', option: { ...listen(grpc), enableCacheProto: true, sizeCacheProto: 128 } },
        api: { client: clients },
      },
    ],
    auth: {
      user: { name: 'defaultUser', option: { salt: 'polarismesh@2021' } },
      strategy: { name: 'defaultStrategy', option: { consoleOpen: false, clientOpen: false } },
    },
    namespace: { autoCreate: true },
    naming: {
      autoCreate: true,
      batch: { register: { ...batch, dropExpireTask: true, taskLife: '30s' }, deregister: batch },
    },
    healthcheck: {
      ...{ open: true, service: 'polaris.checker', slotNum: 30, minCheckInterval: '1s', maxCheckInterval: '30s' },
      ...{ clientReportInterval: '120s', batch: { heartbeat: batch }, checkers: [{ name: 'heartbeatMemory' }] },
    },
    config: { open: true, contentMaxLength: 20_000 },
    store: { name: 'boltdbStore', option: { path: './polaris.bolt' } },
    plugin: {
      ...Object.fromEntries(Object.entries(plugins).map(([of, name]) => [of, { entries: [{ name }] }])),
      cmdb: { name: 'memory', option: { url: '', interval: '60s' } },
      statis: { entries: [{ name: 'local', option: { interval: 60 } }] },
      ratelimit: { name: 'token-bucket', option: { enable: false } },
    },
  };
}
