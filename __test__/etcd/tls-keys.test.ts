// Keys and authorities as openssl makes them: what etcd3 and Node take, rollcall takes, on etcd and on Consul.
import { readFileSync } from 'node:fs';
import { connect } from 'rollcall';
import { describe, expect, it } from 'vitest';
import { startConsul } from '../support/consul.js';
import { startEtcd } from '../support/etcd.js';
import { uniqueName } from '../support/process.js';
import { type CertificateOptions, type Certificates, makeCertificates } from '../support/tls.js';
import { connectBoth } from './both.js';

const KINDS: [string, CertificateOptions][] = [
  ['a client key on P-521', { clientKey: 'P-521' }],
  ['an authority on P-521', { caKey: 'P-521' }],
  ['an RSA client key of 8192 bits', { clientKey: 'RSA-8192' }],
  ["a server's own certificate as ca", { selfSigned: true }],
];

const files = ({ ca, client }: Certificates) => ({
  caFile: ca.certFile,
  certFile: client.certFile,
  keyFile: client.keyFile,
});

describe.each(KINDS)('%s', (_kind, certificates) => {
  it('is taken for etcd, by the registry and as by etcd3', async ({ onTestFinished }) => {
    const etcd = await startEtcd({ tls: 'mutual', certificates });
    onTestFinished(() => etcd.close());
    const made = etcd.certificates as Certificates;
    const both = connectBoth(etcd.hosts, {
      credentials: {
        rootCertificate: readFileSync(made.ca.certFile),
        privateKey: readFileSync(made.client.keyFile),
        certChain: readFileSync(made.client.certFile),
      },
    });
    onTestFinished(() => both.close());
    const key = uniqueName();
    await both.theirs.put(key).value('v');
    expect(await both.ours.get(key).string()).toBe('v');

    const registry = await connect({ backend: 'etcd', hosts: etcd.hosts, tls: files(made), logger: false });
    onTestFinished(() => registry.close());
    await registry.register({ name: 'orders', id: 'a' });
    expect(await registry.getService('orders')).toHaveLength(1);
  });

  it('is taken for Consul', async ({ onTestFinished }) => {
    const consul = await startConsul({ tls: 'mutual', certificates });
    onTestFinished(() => consul.close());
    const tls = files(consul.certificates as Certificates);
    const registry = await connect({ backend: 'consul', hosts: consul.hosts, tls, healthCheck: false, logger: false });
    onTestFinished(() => registry.close());
    await registry.register({ name: 'orders', id: 'a' });
    expect(await registry.getService('orders')).toHaveLength(1);
  });
});

it("a server's own certificate as ca is believed for its name alone", async ({ onTestFinished }) => {
  const etcd = await startEtcd({ tls: true, certificates: { selfSigned: true } });
  onTestFinished(() => etcd.close());
  const { ca, stranger } = etcd.certificates as Certificates;
  for (const tls of [{ caFile: ca.certFile, serverName: 'elsewhere' }, { caFile: stranger.certFile }]) {
    const refused = connect({ backend: 'etcd', hosts: etcd.hosts, tls, connectTimeoutMs: 1500, logger: false });
    await expect(refused).rejects.toThrow(/not trusted/);
  }
});

it('a key that is not of the certificate is refused by name, before any connection', async ({ onTestFinished }) => {
  const { ca, client, stranger, remove } = await makeCertificates();
  onTestFinished(remove);
  const tls = { caFile: ca.certFile, certFile: client.certFile, keyFile: stranger.keyFile };
  for (const backend of ['etcd', 'consul'] as const) {
    const refused = connect({ backend, hosts: '127.0.0.1:1', tls, logger: false });
    await expect(refused).rejects.toThrow(/^options\.tls\.key: it is not the key of the certificate/);
  }
});
