// Certificates for tests, made by the openssl command.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { output, temporaryFolder } from './process.js';

export interface Certificate {
  readonly certFile: string;
  readonly keyFile: string;
}

export interface Certificates {
  readonly folder: string;
  /** Signs the two others. */
  readonly ca: Certificate;
  /** For localhost and 127.0.0.1. */
  readonly server: Certificate;
  /** With the common name `rollcall-client`, which is the etcd user it stands for, or the one asked for. */
  readonly client: Certificate;
  /** Another authority, which has signed nothing. */
  readonly stranger: Certificate;
  remove(): void;
}

/** A CA, a server certificate and a client certificate, P-256, valid for two days. */
export async function makeCertificates({ clientName = 'rollcall-client' } = {}): Promise<Certificates> {
  const { path: folder, remove } = temporaryFolder('rollcall-tls-');
  const at = (name: string): string => join(folder, name);
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];

  const authority = async (name: string): Promise<Certificate> => {
    const made = { certFile: at(`${name}.pem`), keyFile: at(`${name}.key`) };
    await output('openssl', [
      ...['req', '-x509', '-config', at('openssl.cnf'), '-extensions', 'authority', ...newKey, '-days', '2'],
      ...['-subj', `/CN=rollcall test ${name}`, '-keyout', made.keyFile, '-out', made.certFile],
    ]);
    return made;
  };
  const signed = async (name: string, commonName: string, signer: Certificate): Promise<Certificate> => {
    const made = { certFile: at(`${name}.pem`), keyFile: at(`${name}.key`) };
    await output('openssl', [
      ...['req', '-config', at('openssl.cnf'), ...newKey, '-subj', `/CN=${commonName}`],
      ...['-keyout', made.keyFile, '-out', at(`${name}.csr`)],
    ]);
    await output('openssl', [
      ...['x509', '-req', '-in', at(`${name}.csr`), '-CA', signer.certFile, '-CAkey', signer.keyFile],
      ...['-set_serial', `0x${Buffer.from(name).toString('hex')}`, '-days', '2'],
      ...['-extfile', at('openssl.cnf'), '-extensions', name, '-out', made.certFile],
    ]);
    return made;
  };

  writeFileSync(
    at('openssl.cnf'),
    `[req]
distinguished_name = subject
prompt = no
[subject]
[authority]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
# An etcd that asks for client certificates also calls itself.
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = DNS:localhost, IP:127.0.0.1
[client]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectAltName = DNS:${clientName}
`,
  );
  const [ca, stranger] = await Promise.all([authority('ca'), authority('stranger')]);
  const [server, client] = await Promise.all([signed('server', 'localhost', ca), signed('client', clientName, ca)]);
  return { folder, ca, server, client, stranger, remove };
}
