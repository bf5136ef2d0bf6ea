// What can't be right of Kubernetes: typed errors in time that say what to do, and nothing half registered.
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { KubernetesOptions, Registry } from 'rollcall';
import { connect } from 'rollcall';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { inProcess, refused, timed } from '../conformance/kit.js';
import { connected, type Finish } from '../faults/kit.js';
import { type Kubernetes, type Namespace, NOBODY, RULES, startKubernetes } from '../support/kubernetes.js';
import { inTime, uniqueName } from '../support/process.js';

let kubernetes: Kubernetes;
let shared: Namespace;
beforeAll(async () => {
  kubernetes = await startKubernetes();
  shared = await kubernetes.namespace();
  await shared.pod('p1');
});
afterAll(() => kubernetes?.close());

const optionsFor = (more: Partial<KubernetesOptions> = {}): KubernetesOptions => ({
  ...{ backend: 'kubernetes', server: `https://${kubernetes.host}`, caFile: kubernetes.certificates.ca.certFile },
  ...{ namespace: shared.name, token: shared.token(), pod: 'p1', logger: false, connectTimeoutMs: 3000 },
  ...more,
});

async function client(context: Finish, more: Partial<KubernetesOptions> = {}): Promise<Registry> {
  return connected(context, optionsFor(more));
}

const instance = { name: 'orders', id: 'a' };

/** A file of the test's own. */
function file(text: string, mode = 0o600): string {
  const path = join(kubernetes.folder, uniqueName('file'));
  writeFileSync(path, text);
  chmodSync(path, mode);
  return path;
}

const kubeconfig = (user: object, more: object = {}): string => {
  const authority = readFileSync(kubernetes.certificates.ca.certFile).toString('base64');
  const cluster = { server: `https://${kubernetes.host}`, 'certificate-authority-data': authority };
  // JSON is YAML.
  return file(
    JSON.stringify({
      ...{ apiVersion: 'v1', kind: 'Config', 'current-context': 'here' },
      clusters: [{ name: 'one', cluster }],
      contexts: [{ name: 'here', context: { cluster: 'one', user: 'me', namespace: shared.name } }],
      users: [{ name: 'me', user }],
      ...more,
    }),
  );
};

const by = (path: string, more: Partial<KubernetesOptions> = {}): KubernetesOptions => ({
  ...{ backend: 'kubernetes', kubeconfig: path, pod: 'p1', logger: false, connectTimeoutMs: 5000, ...more },
});

const exec = (script: string): object => ({
  exec: {
    ...{ apiVersion: 'client.authentication.k8s.io/v1', interactiveMode: 'Never' },
    ...{ command: file(`#!/bin/sh\n${script}\n`, 0o700), args: ['s3cret-argument'] },
  },
});

describe('a kubeconfig', () => {
  test('with a token is taken, and so is the namespace of its context', async ({ onTestFinished }) => {
    const registry = await connect(by(kubeconfig({ token: shared.token() })));
    onTestFinished(() => registry.close());
    expect(await registry.getService('orders')).toEqual([]);
  });

  test('with a client certificate is taken', async ({ onTestFinished }) => {
    const { certFile, keyFile } = kubernetes.certificates.client;
    // Of a user without rights: that the server says so by name shows that it has read the certificate.
    const path = kubeconfig({ 'client-certificate': certFile, 'client-key': keyFile });
    const error = await refused(connect(by(path)), 'ERR_PERMISSION_DENIED');
    expect(error.message).toMatch(/rollcall-client|grant/);
    onTestFinished(() => undefined);
  });

  test('with an exec plug-in is taken', async ({ onTestFinished }) => {
    const credential = { apiVersion: 'client.authentication.k8s.io/v1', kind: 'ExecCredential' };
    const said = JSON.stringify({ ...credential, status: { token: shared.token() } });
    const registry = await connect(by(kubeconfig(exec(`echo '${said}'`))));
    onTestFinished(() => registry.close());
    expect(await registry.getService('orders')).toEqual([]);
  });

  test('whose exec plug-in fails: an error that says which, and nothing of what it wrote to its output', async () => {
    const path = kubeconfig(exec('echo s3cret-output; echo no such profile >&2; exit 3'));
    const error = await refused(connect(by(path)), 'ERR_UNAUTHENTICATED', /exec|plug-?in/i);
    expect(`${error.message} ${error.stack} ${JSON.stringify(error)}`).not.toMatch(/s3cret/);
    expect(error.message).toMatch(/no such profile|3/);
  });

  test('whose exec plug-in hangs: the call ends in time', async () => {
    const { ms, error } = await timed(connect(by(kubeconfig(exec('sleep 600')), { connectTimeoutMs: 2000 })));
    await refused(Promise.reject(error), ['ERR_TIMEOUT', 'ERR_UNAUTHENTICATED', 'ERR_UNAVAILABLE']);
    expect(ms).toBeLessThan(inTime(4000));
  });

  test.each<[string, () => KubernetesOptions, RegExp]>([
    ['that is no YAML', () => by(file('{[')), /kubeconfig/],
    ['that is another document', () => by(file('- a\n- b\n')), /kubeconfig/],
    ['that is not there', () => by(join(kubernetes.folder, 'absent')), /kubeconfig.*absent/s],
    ['without the context', () => by(kubeconfig({ token: 'x' }), { context: 'elsewhere' }), /context.*elsewhere/s],
    ['without the cluster of its context', () => by(kubeconfig({ token: 'x' }, { clusters: [] })), /cluster|one/],
  ])('%s is refused by its name', async (_, options, message) => {
    await refused(connect(options()), 'ERR_INVALID_ARGUMENT', message);
  });
});

describe('credentials and rights', () => {
  test('a wrong token', async (context) => {
    const error = await refused(client(context, { token: 'wr0ng-token' }), 'ERR_UNAUTHENTICATED');
    expect(error.message).not.toContain('wr0ng-token');
  });

  test('a token file that is not there, and one that is no token', async (context) => {
    const absent = { token: undefined, tokenFile: join(kubernetes.folder, 'absent') };
    await refused(client(context, absent), ['ERR_INVALID_ARGUMENT', 'ERR_UNAUTHENTICATED'], /tokenFile|absent/);
    const broken = { token: undefined, tokenFile: file('two\nlines\n') };
    await refused(client(context, broken), ['ERR_INVALID_ARGUMENT', 'ERR_UNAUTHENTICATED']);
  });

  test('no right to read: what to grant', async (context) => {
    await refused(client(context, { token: NOBODY }), 'ERR_PERMISSION_DENIED', /list|watch/);
  });

  test('no right to patch the pod: what to grant, and nothing half registered', async (context) => {
    const namespace = await kubernetes.namespace();
    await namespace.pod('p1');
    await namespace.allow([
      { apiGroups: [''], resources: ['pods'], verbs: ['get', 'list', 'watch'] },
      ...RULES.filter(({ resources }) => resources.includes('endpointslices')),
    ]);
    const registry = await client(context, { namespace: namespace.name, token: namespace.token() });
    const register = () => registry.register(instance, { timeoutMs: 3000 });
    await refused(register(), 'ERR_PERMISSION_DENIED', /patch.*pods|pods.*patch/s);
    expect((await namespace.read('p1'))?.metadata.labels).toBeUndefined();
    await namespace.allow(RULES);
    expect((await register()).state).toBe('registered');
  });

  test('an authority that has not signed the certificate', async (context) => {
    const { stranger } = kubernetes.certificates;
    const error = await refused(client(context, { caFile: stranger.certFile, connectTimeoutMs: 2000 }), [
      'ERR_UNAVAILABLE',
      'ERR_TIMEOUT',
      'ERR_INVALID_ARGUMENT',
    ]);
    expect(error.message).toMatch(/certificate|issuer|tls/i);
  });

  test('a file of authorities that is none', async (context) => {
    await refused(client(context, { caFile: file('no PEM') }), 'ERR_INVALID_ARGUMENT', /caFile/);
  });
});

describe('the pod and the namespace', () => {
  test('no HOSTNAME and no POD_NAME', async (context) => {
    const options = { ...optionsFor(), pod: undefined };
    const owner = inProcess(options, [['register', instance]], { HOSTNAME: '', POD_NAME: '' });
    context.onTestFinished(() => owner.stop());
    const failed = await owner.until('failed');
    expect(failed).toMatchObject({ code: 'ERR_INVALID_ARGUMENT', message: expect.stringMatching(/pod.*POD_NAME/s) });
  });

  test('a pod that does not exist', async (context) => {
    const registry = await client(context, { pod: 'nowhere' });
    // It may come yet.
    await refused(registry.register(instance, { timeoutMs: 3000 }), 'ERR_TIMEOUT', /nowhere.*options\.pod/s);
  });

  test('a namespace that does not exist, or is none', async (context) => {
    for (const namespace of ['absent', 'Not_A_Namespace', 'a/b', '..']) {
      const attempt = client(context, { namespace }).then((registry) =>
        registry.register(instance, { timeoutMs: 3000 }),
      );
      const error = await refused(attempt, ['ERR_INVALID_ARGUMENT', 'ERR_PERMISSION_DENIED']);
      expect(error.message).toContain(namespace);
    }
  });

  test('a selector that is none', async (context) => {
    const attempt = client(context, { selector: 'a in (' }).then((registry) => registry.getService('orders'));
    await refused(attempt, 'ERR_INVALID_ARGUMENT', /selector/);
  });

  test('names, ids and versions that no label takes are refused before anything is sent', async (context) => {
    const registry = await client(context);
    for (const text of ['-a', 'a-', 'a b', 'é', 'a+b', 'l'.repeat(64)]) {
      await refused(registry.register({ ...instance, name: text }), 'ERR_INVALID_ARGUMENT', /instance\.name/);
      await refused(registry.register({ ...instance, id: text }), 'ERR_INVALID_ARGUMENT', /instance\.id/);
      await refused(registry.register({ ...instance, version: text }), 'ERR_INVALID_ARGUMENT', /instance\.version/);
    }
    const large = { metadata: { k: 'x'.repeat(300_000) } };
    await refused(registry.register({ ...instance, ...large }), 'ERR_INVALID_ARGUMENT', /metadata/);
    expect((await shared.read('p1'))?.metadata.labels).toBeUndefined();
  });
});
