// An r-nacos of the benchmarks' own, on free ports of 127.0.0.1, with its data in a temporary folder. Instances are written by
// gRPC, a batch of each service, as rollcall writes them.

import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { credentials, loadPackageDefinition } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { freePort } from './free-port.mjs';

const PROGRAM = fileURLToPath(new URL('../../servers/bin/rnacos', import.meta.url));
const PROTO = fileURLToPath(new URL('../../__test__/support/fixtures/nacos.proto', import.meta.url));

/** For example `r-nacos 0.8.8`; undefined when it is not built. */
export function nacosVersion() {
  if (!existsSync(PROGRAM)) return undefined;
  const { stdout } = spawnSync(PROGRAM, ['--version'], { encoding: 'utf8' });
  return `r-nacos ${/\d+\.\d+\.\d+/.exec(stdout)?.[0] ?? 'of an unknown version'}`;
}

/** Starts a single server and waits until it takes instances. */
export async function startNacos() {
  const folder = mkdtempSync(join(tmpdir(), 'rollcall-bench-nacos-'));
  const [http, grpc] = [await freePort(), await freePort()];
  const settings = {
    RNACOS_HTTP_PORT: http,
    RNACOS_GRPC_PORT: grpc,
    RNACOS_HTTP_CONSOLE_PORT: 0,
    RNACOS_SDK_HOST: '127.0.0.1',
    RNACOS_DATA_DIR: join(folder, 'data'),
    RNACOS_NAMING_INSTANCE_METADATA_PERSISTENCE_ENABLE: false,
  };
  const lines = Object.entries(settings).map(([name, value]) => `${name}=${value}\n`);
  writeFileSync(join(folder, 'rnacos.env'), lines.join(''));
  const child = spawn(PROGRAM, ['-e', join(folder, 'rnacos.env')], {
    stdio: ['ignore', 'ignore', 'ignore'],
    cwd: folder,
    env: { PATH: process.env.PATH },
  });
  let writer;
  const stop = () => {
    writer?.close();
    child.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  };
  process.on('exit', stop);
  for (const deadline = Date.now() + 60_000; ; await delay(50)) {
    if (child.exitCode !== null) throw new Error(`r-nacos ended with code ${child.exitCode}`);
    const served = await fetch(`http://127.0.0.1:${http}/nacos/v1/ns/service/list?pageNo=1&pageSize=1`).catch(() => {});
    if (served?.ok) break;
    if (Date.now() > deadline) throw new Error('r-nacos did not serve within 60 s');
  }
  writer = await Writer.open(grpc);

  return {
    host: `127.0.0.1:${http}`,
    options: { backend: 'nacos', hosts: `127.0.0.1:${http}`, grpcPort: grpc },
    pid: child.pid,
    stop,
    write: (instances) => writer.write(instances),
    paceMs: 5,
  };
}

/** A connection that holds what it has written: it says that it is there every 5 s. */
class Writer {
  #request;
  #stream;
  #beat;
  #writing = 0;

  static async open(port) {
    const writer = new Writer();
    const { Request, BiRequestStream } = loadPackageDefinition(loadSync(PROTO, { keepCase: true }));
    const to = [`127.0.0.1:${port}`, credentials.createInsecure()];
    writer.#request = new Request(...to);
    // The server knows a client by its connection, so both go by one.
    writer.#stream = new BiRequestStream(...to, { channelOverride: writer.#request.getChannel() }).requestBiStream();
    writer.#stream.on('data', () => {}).on('error', () => {});
    await writer.ask('ServerCheckRequest', {});
    const labels = { source: 'sdk', module: 'naming' };
    writer.#stream.write(payload('ConnectionSetupRequest', { tenant: 'public', labels, abilityTable: {} }));
    const setUp = () => writer.ask('HealthCheckRequest', {});
    for (let tries = 0; (await setUp()).resultCode !== 200; tries++) {
      if (tries === 100) throw new Error('r-nacos did not set the connection up');
      await delay(50);
    }
    writer.#beat = setInterval(() => void setUp().catch(() => {}), 5000);
    return writer;
  }

  ask(type, body) {
    return new Promise((resolve, reject) => {
      this.#request.request(payload(type, body), (error, answer) =>
        error ? reject(error) : resolve(JSON.parse(answer.body.value.toString())),
      );
    });
  }

  async write(instances) {
    this.#writing += 1;
    const services = new Map();
    for (const { id, name, version, metadata, endpoints } of instances) {
      endpoints.forEach((endpoint, at) => {
        const { protocol, hostname, port } = new URL(endpoint);
        const kind = protocol.slice(0, -1);
        const part = `${at + 1}/${endpoints.length}/${this.#writing}`;
        const own = { kind, version, 'rollcall.id': id, 'rollcall.n': part };
        const host = { ip: hostname, port: Number(port), weight: 100, healthy: true, enabled: true, ephemeral: true };
        const service = `${name}.${kind}`;
        if (!services.has(service)) services.set(service, []);
        services.get(service).push({ ...host, clusterName: 'DEFAULT', metadata: { ...metadata, ...own } });
      });
    }
    const asked = [...services].map(([serviceName, hosts]) =>
      this.ask('BatchInstanceRequest', {
        ...{ namespace: 'public', groupName: 'DEFAULT_GROUP', serviceName, module: 'naming' },
        ...{ type: 'batchRegisterInstance', instances: hosts },
      }),
    );
    for (const { resultCode, message } of await Promise.all(asked)) {
      if (resultCode !== 200) throw new Error(`r-nacos refused a batch: ${resultCode} ${message}`);
    }
  }

  close() {
    clearInterval(this.#beat);
    this.#request?.close();
  }
}

const payload = (type, body) => ({
  metadata: { type, headers: {} },
  body: { type_url: '', value: Buffer.from(JSON.stringify(body)) },
});
