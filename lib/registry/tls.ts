/** TLS, as every backend that has it takes it. */

import { checkedPem } from '../common/pem.js';
import { invalid, isRecord, kindOf, onlyKnown, text } from '../common/shape.js';
import type { NativeTlsOptions } from '../native.js';
import type { OptionKind } from './backend.js';

/**
 * Certificates, as PEM or as the files that hold it. Files are read by `connect()`, and again for every later connection:
 * with files that can't be used, the ones before stay, and a warning is logged for each change.
 */
export interface TlsOptions {
  /** Who may sign the server's certificate, or that certificate itself. Default: the usual public authorities. */
  ca?: string | Uint8Array | undefined;
  /** The client's certificate. Needs a key. */
  cert?: string | Uint8Array | undefined;
  /** The client's key. Needs a certificate. */
  key?: string | Uint8Array | undefined;
  /** The file of `ca`. */
  caFile?: string | undefined;
  /** The file of `cert`. */
  certFile?: string | undefined;
  /** The file of `key`. */
  keyFile?: string | undefined;
  /** The name that the server's certificate must carry. Default: the host. */
  serverName?: string | undefined;
}

/**
 * Kinds of the options in `tls`.
 *
 * @internal
 */
export const TLS = {
  ca: 'text',
  cert: 'text',
  key: 'text',
  caFile: 'text',
  certFile: 'text',
  keyFile: 'text',
  serverName: 'text',
} as const satisfies Record<keyof TlsOptions, OptionKind>;

/**
 * Checks and completes `tls`, and reads its files. `secure` is what the hosts say: `https://` or `http://`, if either.
 *
 * @internal
 */
export async function settleTls(value: unknown, secure: boolean | undefined): Promise<NativeTlsOptions | null> {
  if (value !== undefined && typeof value !== 'boolean' && !isRecord(value)) {
    throw invalid('options.tls', `expected true, false or an object, got ${kindOf(value)}`);
  }
  const on = value === undefined ? secure === true : value !== false;
  if (secure !== undefined && secure !== on) {
    throw invalid('options.tls', `contradicts the ${secure ? 'https' : 'http'}:// of options.hosts`);
  }
  if (!on) return null;
  const tls = isRecord(value) ? value : {};
  onlyKnown('options.tls', tls, Object.keys(TLS));
  const has = (name: 'cert' | 'key') => tls[name] !== undefined || tls[`${name}File`] !== undefined;
  if (has('cert') && !has('key')) throw invalid('options.tls.key', 'expected with a client certificate');
  if (has('key') && !has('cert')) throw invalid('options.tls.cert', 'expected with a client key');
  const [ca, cert, key] = await Promise.all([pem(tls, 'ca'), pem(tls, 'cert'), pem(tls, 'key')]);
  const file = (name: 'ca' | 'cert' | 'key') => {
    const given = tls[`${name}File`] as string | undefined;
    // Absolute: the program may change its folder.
    return given === undefined ? null : (require('node:path') as typeof import('node:path')).resolve(given);
  };
  return {
    ca,
    cert,
    key,
    serverName: text('options.tls.serverName', tls.serverName) ?? null,
    caFile: file('ca'),
    certFile: file('cert'),
    keyFile: file('key'),
  };
}

/** The PEM of `ca`, `cert` or `key`: given as it is, or in a file. */
async function pem(tls: Record<string, unknown>, name: 'ca' | 'cert' | 'key'): Promise<Buffer | null> {
  const path = `options.tls.${name}`;
  const value = tls[name];
  const file = text(`${path}File`, tls[`${name}File`]);
  if (value !== undefined && file !== undefined) throw invalid(path, `given together with ${path}File`);
  if (file !== undefined) {
    const { readFile } = require('node:fs/promises') as typeof import('node:fs/promises');
    const bytes = await readFile(file).catch((cause: NodeJS.ErrnoException) => {
      throw invalid(`${path}File`, `can't read the file: ${cause.message}`, cause);
    });
    return checkedPem(name, `${path}File`, bytes);
  }
  if (value === undefined) return null;
  if (typeof value === 'string') return checkedPem(name, path, Buffer.from(value));
  if (ArrayBuffer.isView(value)) {
    return checkedPem(name, path, Buffer.from(value.buffer as ArrayBuffer, value.byteOffset, value.byteLength));
  }
  throw invalid(path, `expected a PEM string or Buffer, got ${kindOf(value)}`);
}
