// An etcd of the benchmarks' own: on free ports of 127.0.0.1, with its data in a temporary folder.

import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { freePort } from './free-port.mjs';

const program = fileURLToPath(
  new URL(`../../servers/bin/etcd${process.platform === 'win32' ? '.exe' : ''}`, import.meta.url),
);

/** For example `3.7.3`; undefined when the server was not built. */
export function etcdVersion() {
  if (!existsSync(program)) return undefined;
  return /etcd Version: (\S+)/.exec(execFileSync(program, ['--version'], { encoding: 'utf8' }))?.[1];
}

/** Starts a single member and waits until it is healthy. `fsync`: whether it writes to the disk as in production. */
export async function startEtcd({ fsync = false } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'rollcall-bench-'));
  const [clientPort, peerPort] = await Promise.all([freePort(), freePort()]);
  const url = `http://127.0.0.1:${clientPort}`;
  const peerUrl = `http://127.0.0.1:${peerPort}`;
  const child = spawn(
    program,
    [
      ...['--name', 'bench', '--data-dir', join(folder, 'data')],
      ...['--listen-client-urls', url, '--advertise-client-urls', url],
      ...['--listen-peer-urls', peerUrl, '--initial-advertise-peer-urls', peerUrl],
      ...['--initial-cluster', `bench=${peerUrl}`, '--log-level', 'error', '--log-outputs', 'stderr'],
      ...(fsync ? [] : ['--unsafe-no-fsync']), // mostly the disk is not what is measured
    ],
    {
      env: Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('ETCD'))),
      stdio: ['ignore', 'ignore', 'inherit'],
    },
  );
  const remove = () => {
    child.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  };
  process.on('exit', remove);
  for (const deadline = Date.now() + 20_000; ; await delay(50)) {
    if (child.exitCode !== null) throw new Error(`etcd ended with code ${child.exitCode}`);
    const answer = await fetch(`${url}/health`).then(
      (page) => page.json(),
      () => undefined,
    );
    if (answer?.health === 'true') break;
    if (Date.now() > deadline) throw new Error('etcd did not become healthy within 20 s');
  }
  return { host: `127.0.0.1:${clientPort}`, httpUrl: url, pid: child.pid, stop: remove };
}
