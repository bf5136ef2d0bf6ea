// Free ports for servers that are stopped and started again in the same place.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { removeAtEnd } from './process.js';

// Below the range that the system takes for outgoing connections: while a server is down, nobody else can come to sit
// on its port, and a client that keeps trying a dead local port cannot happen to connect to itself.
const lowest = 15_000;

function highest(): number {
  try {
    const start = Number(readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').split(/\s+/)[0]);
    if (start > lowest + 5000) return start;
  } catch {}
  return 32_768;
}

// Test files run in processes of their own: one file per port says whose it is.
const claims = join(tmpdir(), 'rollcall-test-ports');

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

function claim(port: number): boolean {
  const file = join(claims, String(port));
  mkdirSync(claims, { recursive: true, mode: 0o777 });
  for (let attempt = 0; attempt < 2; attempt++) {
    try {
      writeFileSync(file, String(process.pid), { flag: 'wx' });
      removeAtEnd(file);
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') return false;
    }
    try {
      if (alive(Number(readFileSync(file, 'utf8')))) return false;
      rmSync(file, { force: true });
    } catch {
      return false;
    }
  }
  return false;
}

const bindable = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => server.close(() => resolve(true)));
  });

/** Ports of 127.0.0.1 that are free, and kept from the other test processes until this one ends. */
export async function freePorts(count: number): Promise<number[]> {
  const found: number[] = [];
  const range = highest() - lowest;
  for (let attempt = 0; attempt < 10_000 && found.length < count; attempt++) {
    const port = lowest + Math.floor(Math.random() * range);
    if (claim(port) && (await bindable(port))) found.push(port);
  }
  if (found.length < count) throw new Error(`no free port between ${lowest} and ${highest()}`);
  return found;
}

/** Whether somebody takes connections there. */
export function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
