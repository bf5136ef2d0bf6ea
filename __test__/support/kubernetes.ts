// A real kube-apiserver on a real etcd, on free ports of 127.0.0.1. There is no kubelet, no scheduler and no controller: tests make
// pods, say of them what a kubelet would say, and write the EndpointSlices.
import { createSign, generateKeyPairSync } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { join } from 'node:path';
import { type EtcdCluster, startEtcd } from './etcd.js';
import { type Account, type Answer, type Api, type Call, Namespace } from './kubernetes-objects.js';
import { freePorts } from './ports.js';
import { temporaryFolder, uniqueName, waitFor, within } from './process.js';
import { builtProgram } from './programs.js';
import { PortTaken, ServerProgram } from './server-program.js';
import { type Certificates, makeCertificates } from './tls.js';

export * from './kubernetes-objects.js';

/** May do anything, whatever the rules are. */
export const ADMIN = 'admintoken';
/** Of a user who has no right. */
export const NOBODY = 'usertoken';

const ISSUER = 'https://kubernetes.default.svc';
const callTimeoutMs = 10_000;

export class Apiserver extends ServerProgram {
  /** host:port */
  readonly host: string;
  private readonly key: string;
  private readonly agents: Agent[] = [];
  private readonly admin: Api;

  constructor(
    private readonly port: number,
    private readonly etcd: EtcdCluster,
    private readonly folder: string,
    private readonly certificates: Certificates,
  ) {
    super('kube-apiserver', `of ${etcd.hosts[0]}`);
    this.host = `127.0.0.1:${port}`;
    const { privateKey } = generateKeyPairSync('rsa', {
      modulusLength: 2048,
      publicKeyEncoding: { type: 'spki', format: 'pem' },
      privateKeyEncoding: { type: 'pkcs1', format: 'pem' },
    });
    this.key = privateKey;
    this.admin = this.api();
    writeFileSync(join(folder, 'sa.key'), privateKey);
    writeFileSync(
      join(folder, 'tokens.csv'),
      `${ADMIN},admin,uid-admin,"system:masters"\n${NOBODY},nobody,uid-nobody\n`,
    );
  }

  /** Same port; what etcd has is what it has. Waits until it is ready. */
  async start(): Promise<void> {
    for (const deadline = Date.now() + 60_000; ; ) {
      this.launch();
      try {
        await this.until(
          async () => (await this.admin.ask('GET', '/readyz')).body === 'ok',
          `at ${this.host} to be ready`,
          {
            timeoutMs: 90_000,
            intervalMs: 100,
          },
        );
        return;
      } catch (error) {
        if (!(error instanceof PortTaken) || Date.now() > deadline) throw error;
        await within(this.gone, 5000, 'the end of kube-apiserver');
      }
    }
  }

  private launch(): void {
    const { folder, certificates } = this;
    const keys = join(folder, 'sa.key');
    this.run(builtProgram('kube-apiserver'), [
      `--etcd-servers=${this.etcd.httpUrl}`,
      ...['--bind-address=127.0.0.1', '--advertise-address=127.0.0.1', `--secure-port=${this.port}`],
      ...[`--tls-cert-file=${certificates.server.certFile}`, `--tls-private-key-file=${certificates.server.keyFile}`],
      ...[`--client-ca-file=${certificates.ca.certFile}`, `--cert-dir=${folder}`],
      ...['--service-cluster-ip-range=10.0.0.0/24', '--endpoint-reconciler-type=none'],
      ...[`--token-auth-file=${join(folder, 'tokens.csv')}`, '--authorization-mode=RBAC'],
      ...[`--service-account-issuer=${ISSUER}`, `--service-account-key-file=${keys}`],
      ...[
        `--service-account-signing-key-file=${keys}`,
        '--disable-admission-plugins=ServiceAccount,DefaultTolerationSeconds',
      ],
    ]);
  }

  /** Asks by connections of its own: who asks for much makes nobody else wait. */
  api(): Api {
    const agent = new Agent({ keepAlive: true, maxSockets: 8, ca: readFileSync(this.certificates.ca.certFile) });
    this.agents.push(agent);
    const ask: Api['ask'] = (...given) => this.asking(agent, ...given);
    return {
      ask,
      async call<T>(method: string, path: string, body?: unknown, how?: Call): Promise<T> {
        const answer = await ask(method, path, body, how);
        if (answer.status < 200 || answer.status > 299) {
          throw new Error(`${method} ${path}: ${answer.status} ${answer.body}`);
        }
        return JSON.parse(answer.body) as T;
      },
      token: (account, expiresInS) => this.token(account, expiresInS),
    };
  }

  private asking(
    agent: Agent,
    method: string,
    path: string,
    body?: unknown,
    { token = ADMIN, type }: Call = {},
  ): Promise<Answer> {
    const usual = method === 'PATCH' ? 'application/strategic-merge-patch+json' : 'application/json';
    return new Promise((resolve, reject) => {
      const call = request(
        `https://${this.host}${path}`,
        {
          method,
          agent,
          timeout: callTimeoutMs,
          headers: { authorization: `Bearer ${token}`, ...(body !== undefined && { 'content-type': type ?? usual }) },
        },
        (answer) => {
          let text = '';
          answer.setEncoding('utf8').on('data', (chunk: string) => {
            text += chunk;
          });
          answer.on('error', reject);
          answer.on('end', () => resolve({ status: answer.statusCode ?? 0, body: text }));
        },
      );
      call.on('timeout', () => call.destroy(new Error(`${method} ${path}: no answer within ${callTimeoutMs} ms`)));
      call.on('error', reject);
      call.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  /**
   * A token of a service account that ends so many seconds from now, or has ended: the server allows for a minute, and keeps
   * a success for 10 s.
   */
  private token({ namespace, name, uid }: Account, expiresInS = 3600): string {
    const encoded = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
    const now = Math.floor(Date.now() / 1000);
    const claims = {
      iss: ISSUER,
      aud: [ISSUER],
      sub: `system:serviceaccount:${namespace}:${name}`,
      iat: now - 3600,
      nbf: now - 3600,
      exp: now + expiresInS,
      'kubernetes.io': { namespace, serviceaccount: { name, uid } },
    };
    const signed = `${encoded({ alg: 'RS256' })}.${encoded(claims)}`;
    return `${signed}.${createSign('RSA-SHA256').update(signed).sign(this.key, 'base64url')}`;
  }

  destroyPools(): void {
    for (const agent of this.agents) agent.destroy();
  }
}

export interface Kubernetes {
  readonly etcd: EtcdCluster;
  readonly server: Apiserver;
  /** host:port */
  readonly host: string;
  readonly certificates: Certificates;
  /** For files of a test's own. */
  readonly folder: string;
  /** A new one, with a service account `app` that has the rights which the README asks for. */
  namespace(name?: string): Promise<Namespace>;
  /** Both stop, etcd loses everything, both start. */
  empty(): Promise<void>;
  close(): Promise<void>;
}

/** Starts both and waits until they are ready: about 3 s. */
export async function startKubernetes(): Promise<Kubernetes> {
  const { path: folder, remove } = temporaryFolder('rollcall-kubernetes-');
  const [certificates, etcd, [port]] = await Promise.all([makeCertificates(), startEtcd(), freePorts(1)]);
  const server = new Apiserver(port as number, etcd, folder, certificates);
  const close = async (): Promise<void> => {
    await Promise.all([server.kill(), etcd.close()]);
    server.destroyPools();
    certificates.remove();
    remove();
  };
  try {
    await server.start();
  } catch (error) {
    await close();
    throw error;
  }
  return {
    ...{ etcd, server, host: server.host, certificates, folder, close },
    async namespace(name = uniqueName('ns')) {
      const made = await Namespace.make(server.api(), name);
      // The rules are told to the part of the server that decides a moment later.
      await waitFor(
        async () => (await made.server.ask('GET', made.pods, undefined, { token: made.token() })).status === 200,
        {
          what: `the rights of ${name}`,
        },
      );
      return made;
    },
    async empty() {
      await server.kill();
      await etcd.wipe();
      await server.start();
    },
  };
}
