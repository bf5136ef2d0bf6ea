// The TCP connections of a process, as the kernel counts them. Linux alone.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

const ESTABLISHED = '01';

/** How many connections a process has open to `127.0.0.1:port`. */
export function connectionsOf(pid: number | 'self', host: string): number {
  const port = Number(host.split(':').at(-1)).toString(16).toUpperCase().padStart(4, '0');
  const own = new Set(
    readdirSync(`/proc/${pid}/fd`).map((fd) => {
      try {
        return /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1];
      } catch {
        return undefined; // closed meanwhile
      }
    }),
  );
  const lines = readFileSync(`/proc/${pid}/net/tcp`, 'utf8').split('\n').slice(1);
  return lines.filter((line) => {
    const [, , remote = '', state, , , , , , inode] = line.trim().split(/\s+/);
    return remote.endsWith(`:${port}`) && state === ESTABLISHED && own.has(inode);
  }).length;
}
