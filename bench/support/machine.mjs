// What the figures were measured on.

import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { cpus, loadavg, release, totalmem, type } from 'node:os';
import { fileURLToPath } from 'node:url';
import { etcdVersion } from './etcd.mjs';
import { HOW } from './steady.mjs';

const require = createRequire(import.meta.url);
const root = new URL('../../', import.meta.url);

export function describe() {
  const [cpu] = cpus();
  return {
    machine: `${cpu?.model.trim() ?? 'unknown processor'}, ${cpus().length} cores, ${Math.round(totalmem() / 2 ** 30)} GiB`,
    system: `${type()} ${release()}, ${process.arch}`,
    node: process.version,
    rollcall: `${require('../../package.json').version}, ${isDebugBuild() ? 'DEBUG build' : 'release build'}`,
    etcd: etcdVersion() ?? 'not built',
    etcd3: JSON.parse(readFileSync(new URL('node_modules/etcd3/package.json', root), 'utf8')).version,
  };
}

/** Under what figures came about, for their page; `began` is the load when they began to. */
export const circumstances = (about, began) => ({
  ...about,
  date: new Date().toISOString().slice(0, 10),
  'warming up': HOW,
  load: `${began.toFixed(1)} when it began, ${loadavg()[0].toFixed(1)} at the end (this benchmark itself makes about 2)`,
});

/** As they stand there. */
export const listed = (about) =>
  Object.entries(about)
    .map(([what, text]) => `- ${what}: ${text}`)
    .join('\n');

/** Whether the addon was built without optimization: it still holds what a debugger needs. */
export function isDebugBuild() {
  const own = readdirSync(root).find((name) => /^rollcall\..*\.node$/.test(name));
  const addon = process.env.NAPI_RS_NATIVE_LIBRARY_PATH ?? (own && fileURLToPath(new URL(own, root)));
  if (!addon) throw new Error('the addon is not built: npm run build');
  return readFileSync(addon).includes('\0.debug_info\0');
}
