// What the figures were measured on.

import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { cpus, release, totalmem, type } from 'node:os';
import { fileURLToPath } from 'node:url';
import { etcdVersion } from './etcd.mjs';

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

/** Whether the addon was built without optimization: it still holds what a debugger needs. */
export function isDebugBuild() {
  const own = readdirSync(root).find((name) => /^rollcall\..*\.node$/.test(name));
  const addon = process.env.NAPI_RS_NATIVE_LIBRARY_PATH ?? (own && fileURLToPath(new URL(own, root)));
  if (!addon) throw new Error('the addon is not built: npm run build');
  return readFileSync(addon).includes('\0.debug_info\0');
}
