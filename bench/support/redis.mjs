// A Redis of the benchmarks' own: on a free port of 127.0.0.1, with its data in memory alone.

import { execFileSync, spawn } from 'node:child_process';
import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { freePort } from './free-port.mjs';

/** For example `7.0.15`; undefined where there is none. */
export function redisVersion() {
  try {
    return /v=(\S+)/.exec(execFileSync('redis-server', ['--version'], { encoding: 'utf8' }))?.[1];
  } catch {
    return undefined;
  }
}

/** Starts one, and waits until it takes connections. */
export async function startRedis() {
  const port = await freePort();
  const memory = ['--save', '', '--appendonly', 'no', '--dir', '/tmp'];
  const child = spawn('redis-server', ['--bind', '127.0.0.1', '--port', String(port), ...memory], { stdio: 'ignore' });
  const kill = () => child.kill('SIGKILL');
  process.on('exit', kill);
  while (!(await takes(port))) await delay(20);
  return {
    port,
    url: `redis://127.0.0.1:${port}`,
    end() {
      process.off('exit', kill);
      kill();
    },
  };
}

const takes = (port) =>
  new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
