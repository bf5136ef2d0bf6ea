// Certificates for tests, made by the openssl command.
import { copyFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
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
  /** Makes all of them anew, in the same files, under an authority that is another one. */
  renew(): Promise<void>;
  remove(): void;
}

/** A key. The one of 8192 bits is kept in a file: to make one takes half a minute. */
export type Key = 'P-256' | 'P-521' | 'RSA-8192';

export interface CertificateOptions {
  readonly clientName?: string;
  /** Of the authority; P-256 by default, as all of them. */
  readonly caKey?: Key;
  readonly clientKey?: Key;
  /** Of the server, in the place of localhost and 127.0.0.1. */
  readonly serverNames?: readonly string[];
  /** The server's certificate is one that it signed itself, as an authority: `ca` is the same. */
  readonly selfSigned?: boolean;
}

const RSA_8192 = fileURLToPath(new URL('./rsa-8192.key', import.meta.url));

/** What makes `keyFile`, as arguments of `openssl req`. */
function keyArguments(keyFile: string, key: Key = 'P-256'): string[] {
  if (key === 'RSA-8192') {
    copyFileSync(RSA_8192, keyFile);
    return ['-new', '-key', keyFile];
  }
  return ['-newkey', 'ec', '-pkeyopt', `ec_paramgen_curve:${key}`, '-nodes', '-keyout', keyFile];
}

/** A CA, a server certificate and a client certificate, valid for two days. */
export async function makeCertificates({
  clientName = 'rollcall-client',
  caKey,
  clientKey,
  serverNames,
  selfSigned = false,
}: CertificateOptions = {}): Promise<Certificates> {
  const { path: folder, remove } = temporaryFolder('rollcall-tls-');
  const at = (name: string): string => join(folder, name);

  const authority = async (name: string, key?: Key): Promise<Certificate> => {
    const made = { certFile: at(`${name}.pem`), keyFile: at(`${name}.key`) };
    await output('openssl', [
      ...['req', '-x509', '-config', at('openssl.cnf'), '-extensions', selfSigned ? 'both' : 'authority'],
      ...[...keyArguments(made.keyFile, key), '-days', '2'],
      ...['-subj', `/CN=rollcall test ${name}`, '-out', made.certFile],
    ]);
    return made;
  };
  const signed = async (name: string, commonName: string, signer: Certificate, key?: Key): Promise<Certificate> => {
    const made = { certFile: at(`${name}.pem`), keyFile: at(`${name}.key`) };
    await output('openssl', [
      ...['req', '-config', at('openssl.cnf'), ...keyArguments(made.keyFile, key), '-subj', `/CN=${commonName}`],
      ...['-out', at(`${name}.csr`)],
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
[both]
basicConstraints = critical, CA:true
subjectAltName = DNS:localhost, IP:127.0.0.1
[server]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
# An etcd that asks for client certificates also calls itself.
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = ${serverNames?.map((name) => `DNS:${name}`).join(', ') ?? 'DNS:localhost, IP:127.0.0.1'}
[client]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectAltName = DNS:${clientName}
`,
  );
  const make = async () => {
    const [ca, stranger] = await Promise.all([authority('ca', caKey), authority('stranger')]);
    const [server, client] = await Promise.all([
      selfSigned ? ca : signed('server', 'localhost', ca),
      signed('client', clientName, ca, clientKey),
    ]);
    return { ca, server, client, stranger };
  };
  const renew = async () => void (await make());
  return { folder, ...(await make()), renew, remove };
}
