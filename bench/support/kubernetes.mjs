// A kube-apiserver of the benchmarks' own, on an etcd of its own: on free ports of 127.0.0.1, with a token of an administrator.
// Instances are endpoints of EndpointSlices, as a Service has them; one that registers has a pod.

import { execFileSync, spawn } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { startEtcd } from './etcd.mjs';
import { freePort } from './free-port.mjs';

const program = fileURLToPath(new URL('../../servers/bin/kube-apiserver', import.meta.url));
const MODULE = new URL('../../servers/kubernetes/go.mod', import.meta.url);
const TOKEN = 'bench';
const NAMESPACE = 'bench';
const POD = 'bench';

/** For example `1.34.1`; undefined when it was not built. A program that was built of a module does not know it. */
export function kubernetesVersion() {
  if (!existsSync(program)) return undefined;
  return /k8s\.io\/kubernetes v(\S+)/.exec(readFileSync(MODULE, 'utf8'))?.[1];
}

/** Starts both and waits until they are ready. */
export async function startKubernetes() {
  const folder = mkdtempSync(join(tmpdir(), 'rollcall-bench-kubernetes-'));
  const file = (name) => join(folder, name);
  const [etcd, port] = await Promise.all([startEtcd(), freePort()]);
  const { privateKey } = generateKeyPairSync('rsa', {
    modulusLength: 2048,
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs1', format: 'pem' },
  });
  writeFileSync(file('sa.key'), privateKey);
  writeFileSync(file('tokens.csv'), `${TOKEN},bench,uid-bench,"system:masters"\n`);
  const ca = certify(file);
  const child = spawn(
    program,
    [
      ...[`--etcd-servers=${etcd.httpUrl}`, `--secure-port=${port}`, `--cert-dir=${folder}`],
      ...['--bind-address=127.0.0.1', '--advertise-address=127.0.0.1', '--endpoint-reconciler-type=none'],
      ...[`--tls-cert-file=${ca}`, `--tls-private-key-file=${file('tls.key')}`],
      ...[
        `--token-auth-file=${file('tokens.csv')}`,
        '--authorization-mode=RBAC',
        '--service-cluster-ip-range=10.0.0.0/24',
      ],
      ...['--service-account-issuer=https://kubernetes.default.svc', `--service-account-key-file=${file('sa.key')}`],
      `--service-account-signing-key-file=${file('sa.key')}`,
      '--disable-admission-plugins=ServiceAccount,DefaultTolerationSeconds',
    ],
    { stdio: ['ignore', 'ignore', 'ignore'] },
  );
  const pool = new Agent({ keepAlive: true, maxSockets: 8, ca: readFileSync(ca) });
  const stop = () => {
    child.kill('SIGKILL');
    pool.destroy();
    etcd.stop();
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  };
  process.on('exit', stop);

  const ask = (method, path, body) =>
    new Promise((resolve, reject) => {
      const type = method === 'PATCH' ? 'application/strategic-merge-patch+json' : 'application/json';
      const headers = { authorization: `Bearer ${TOKEN}`, ...(body !== undefined && { 'content-type': type }) };
      const where = { host: '127.0.0.1', port, method, path, agent: pool, headers, timeout: 20_000 };
      const call = request(where, (answer) => {
        let text = '';
        answer.setEncoding('utf8').on('data', (chunk) => {
          text += chunk;
        });
        answer.on('error', reject);
        answer.on('end', () => {
          if (answer.statusCode < 300) resolve(text);
          else reject(new Error(`${method} ${path}: ${answer.statusCode} ${text}`));
        });
      });
      call.on('timeout', () => call.destroy(new Error(`${method} ${path}: no answer within 20 s`)));
      call.on('error', reject);
      call.end(body === undefined ? undefined : JSON.stringify(body));
    });

  for (const deadline = Date.now() + 60_000; ; await delay(100)) {
    if (child.exitCode !== null) throw new Error(`kube-apiserver ended with code ${child.exitCode}`);
    if ((await ask('GET', '/readyz').catch(() => '')) === 'ok') break;
    if (Date.now() > deadline) throw new Error('kube-apiserver was not ready within 60 s');
  }
  const pods = `/api/v1/namespaces/${NAMESPACE}/pods`;
  await ask('POST', '/api/v1/namespaces', { metadata: { name: NAMESPACE } });
  await ask('POST', pods, { metadata: { name: POD }, spec: { containers: [{ name: 'main', image: 'x' }] } });
  await ask('PATCH', `${pods}/${POD}/status`, {
    status: { phase: 'Running', podIP: '10.0.0.1', conditions: [{ type: 'Ready', status: 'True' }] },
  });

  /** What each slice has, by its name, which is that of its service. */
  const slices = new Map();
  const all = `/apis/discovery.k8s.io/v1/namespaces/${NAMESPACE}/endpointslices`;
  const options = {
    ...{ backend: 'kubernetes', server: `https://127.0.0.1:${port}`, caFile: ca, token: TOKEN },
    ...{ namespace: NAMESPACE, pod: POD },
  };
  return {
    options,
    /** Of those that watch Services. */
    watching: { ...options, source: 'endpointslices' },
    pid: child.pid,
    stop,
    /** Writes the slice of a service anew, as its controller does. */
    async write(instances) {
      const [{ name }] = instances;
      const isNew = !slices.has(name);
      const endpoints = slices.get(name) ?? new Map();
      slices.set(name, endpoints);
      for (const instance of instances) endpoints.set(instance.id, endpointOf(instance));
      const slice = {
        ...{ apiVersion: 'discovery.k8s.io/v1', kind: 'EndpointSlice', addressType: 'IPv4' },
        metadata: { name, labels: { 'kubernetes.io/service-name': name } },
        endpoints: [...endpoints.values()],
        ports: [
          { name: 'grpc', port: 9000 },
          { name: 'http', port: 8000 },
        ],
      };
      await (isNew ? ask('POST', all, slice) : ask('PUT', `${all}/${name}`, slice));
    },
    paceMs: 10,
  };
}

/** A certificate for 127.0.0.1 that signs itself; gives its file. */
function certify(file) {
  execFileSync(
    'openssl',
    [
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'],
      ...['-subj', '/CN=rollcall bench', '-addext', 'subjectAltName=IP:127.0.0.1'],
      ...['-keyout', file('tls.key'), '-out', file('tls.pem')],
    ],
    { stdio: 'ignore' },
  );
  return file('tls.pem');
}

/** An endpoint has no version: the number of a change is told as its node. */
function endpointOf({ id, version, metadata, endpoints }) {
  return {
    addresses: [new URL(endpoints[0]).hostname],
    conditions: { ready: true, serving: true, terminating: false },
    targetRef: { kind: 'Pod', namespace: NAMESPACE, name: id, uid: id },
    zone: metadata.zone,
    nodeName: version,
  };
}
