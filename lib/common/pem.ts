/** Checking PEM. */

import { invalid } from './shape.js';

const CERTIFICATE = /-----BEGIN [A-Z0-9 ]*CERTIFICATE-----[^-]*-----END [A-Z0-9 ]*CERTIFICATE-----/g;

/**
 * PEM that holds what it should: certificates, or a key. Not its content, which may be secret, but its path is in the
 * error.
 *
 * @internal
 */
export function checkedPem(name: 'ca' | 'cert' | 'key', path: string, bytes: Buffer): Buffer {
  if (!bytes.includes('-----BEGIN ')) throw invalid(path, 'expected PEM, which holds a line "-----BEGIN …"');
  // Loaded here: most programs use no TLS, and importing the package should cost next to nothing.
  const { createPrivateKey, X509Certificate } = require('node:crypto') as typeof import('node:crypto');
  try {
    if (name === 'key') {
      createPrivateKey(bytes);
      return bytes;
    }
    const certificates = bytes.toString('latin1').match(CERTIFICATE) ?? [];
    for (const certificate of certificates) new X509Certificate(certificate);
    if (certificates.length > 0) return bytes;
  } catch {
    // OpenSSL's own words name its routines, and may hold pieces of the key.
  }
  throw invalid(path, `expected the PEM of ${name === 'key' ? 'a private key' : 'a certificate'}; it can't be read`);
}
