// Kubernetes: a namespace for each scope. A client has one registration, that of its pod: each has a pod of its own, and where a
// test has a client hold several, each of them is made by a client of its own.
import { createHash } from 'node:crypto';
import type { InstanceInput, Registration, Registry, RegistryOptions } from 'rollcall';
import { type Kubernetes, kratosPatch, type Namespace, startKubernetes } from '../../support/kubernetes.js';
import { startTcpProxy, type TcpProxy } from '../../support/tcp.js';
import type { Scenario, Step } from '../kit.js';
import { type Common, Linked, type Row, usual } from '../scope.js';

/** The pods of the options that a test takes, one after another; those of clients are made with them. */
const OWN = ['own-0', 'own-1', 'own-2', 'own-3'] as const;

type Given = Parameters<Registry['register']>;

/** A client, and what it has registered. */
interface Member {
  readonly registry: Registry;
  held?: Registration | 'coming' | undefined;
}

const isFree = ({ held }: Member): boolean =>
  held === undefined || (held !== 'coming' && ['deregistered', 'replaced'].includes(held.state));

/** A client that has another one register where its own registration stands, and closes all with itself. */
function severalOf(first: Member, another: () => Promise<Member>): Registry {
  const members = [first];

  /** At once: `given` may be changed afterwards. */
  const registerIn = async (member: Member, given: Given[0], how: Given[1]): Promise<Registration> => {
    member.held = 'coming';
    try {
      const held = await member.registry.register(given, how);
      member.held = held;
      return held;
    } catch (error) {
      member.held = undefined;
      throw error;
    }
  };
  const registerInAnother = async (given: Given[0], how: Given[1]): Promise<Registration> => {
    const copy = structuredClone(given);
    const more = await another();
    if (first.registry.closed) await more.registry.close();
    members.push(more);
    return registerIn(more, copy, how);
  };
  const close: Registry['close'] = async (how) => {
    const outcomes = await Promise.allSettled(members.map(({ registry }) => registry.close(how)));
    const failed = outcomes.find((one) => one.status === 'rejected');
    if (failed) throw failed.reason;
  };
  const own = {
    register(...[given, how]: Given) {
      const free = members.find(isFree);
      return free ? registerIn(free, given, how) : registerInAnother(given, how);
    },
    close,
    [Symbol.asyncDispose]: () => close(),
  };
  return new Proxy(first.registry, {
    get(target, key) {
      if (key in own) return own[key as keyof typeof own];
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

class KubernetesScope extends Linked {
  readonly ttlMs = 3000;
  private pods = 0;
  private taken = 0;
  /** The pods of others. */
  private readonly others = new Set<string>();

  constructor(
    private readonly kubernetes: Kubernetes,
    private readonly namespace: Namespace,
    link: TcpProxy,
  ) {
    super(link);
  }

  private at(host: string, namespace: Namespace, more?: Common): RegistryOptions {
    return {
      ...{ backend: 'kubernetes', server: `https://${host}`, caFile: this.kubernetes.certificates.ca.certFile },
      ...{ namespace: namespace.name, token: namespace.token(), ttlMs: this.ttlMs, logger: false },
      ...more,
    };
  }

  private own(): string {
    return OWN[this.taken++ % OWN.length] as string;
  }

  options(more?: Common): RegistryOptions {
    return this.at(this.link.host, this.namespace, { pod: this.own(), ...more } as Common);
  }

  url(query = ''): string {
    const caFile = encodeURIComponent(this.kubernetes.certificates.ca.certFile);
    const { name } = this.namespace;
    const token = this.namespace.token();
    return `kubernetes://${this.link.host}?namespace=${name}&pod=${this.own()}&token=${token}&caFile=${caFile}&${query}`;
  }

  protected direct(more?: Common): RegistryOptions {
    return this.at(this.kubernetes.host, this.namespace, more);
  }

  /** A pod that is up. */
  private async pod(namespace = this.namespace): Promise<Common> {
    const pod = `pod-${++this.pods}`;
    await namespace.pod(pod);
    return { pod } as Common;
  }

  override connect(more?: Common): Promise<Registry> {
    return this.clientIn(this.namespace, (how) => super.connect({ ...more, ...how }));
  }

  override observer(more?: Common): Promise<Registry> {
    return this.clientIn(this.namespace, (how) => super.observer({ ...more, ...how }));
  }

  override async neighbour(suffix: string): Promise<Registry> {
    // A namespace is a DNS label, and within none.
    const there = await this.kubernetes.namespace(`${this.namespace.name}${suffix.replace('/', '-')}`);
    return this.clientIn(there, (how) => this.open(this.at(this.kubernetes.host, there, how)));
  }

  private async clientIn(namespace: Namespace, connect: (how: Common) => Promise<Registry>): Promise<Registry> {
    const member = async (how: Common): Promise<Member> => ({
      registry: await connect({ ...how, ...(await this.pod(namespace)) }),
    });
    return severalOf(await member({}), () => member({ lazy: true }));
  }

  override async run(steps: Step[], more?: Common): Promise<Scenario> {
    return super.run(steps, { ...more, ...(await this.pod()) });
  }

  /** What befalls an instance here is that its pod ends. */
  override async mortal(name: string, id: string): Promise<{ die(): Promise<void> }> {
    const owner = await super.mortal(name, id);
    return {
      die: async () => {
        await owner.die();
        for (const { metadata } of await this.of(name, id)) await this.namespace.end(metadata.name);
      },
    };
  }

  private of(name: string, id: string) {
    return this.namespace.list(`kratos-service-app=${name},kratos-service-id=${id}`);
  }

  key(name: string, id: string): string {
    return `put-${createHash('sha1').update(`${name}/${id}`).digest('hex').slice(0, 12)}`;
  }

  /** As Kratos registers, in a pod of another program. */
  async put(name: string, id: string, value: string): Promise<void> {
    const { version, metadata, endpoints } = JSON.parse(value) as InstanceInput;
    const pod = this.key(name, id);
    const protocols = (endpoints ?? []).map((endpoint) => {
      const [, scheme, port] = /^([^:]+):.*:(\d+)/.exec(endpoint) ?? [];
      return [port, scheme];
    });
    const kept = { id, name, version, metadata, protocols: Object.fromEntries(protocols) };
    if (this.others.has(pod)) return void (await this.namespace.patch(pod, kratosPatch(kept)));
    this.others.add(pod);
    await this.namespace.pod(pod, kratosPatch(kept).metadata);
  }

  /** The labels are taken away: the pod stays. */
  async remove(name: string, id: string): Promise<boolean> {
    const pods = await this.of(name, id);
    for (const { metadata } of pods) await this.namespace.strip(metadata.name);
    return pods.length > 0;
  }

  /** There is no session: what comes nearest is a hand that takes the labels away. */
  async loseSession(name: string, id: string): Promise<void> {
    if (!(await this.remove(name, id))) throw new Error(`no record ${name}/${id}`);
  }

  /** The readiness of the pod. */
  override async setOwnSwitch(name: string, id: string, isOut: boolean): Promise<void> {
    for (const { metadata } of await this.of(name, id)) await this.namespace.setReady(metadata.name, !isOut);
  }

  async wipe(): Promise<void> {
    const pods = await this.namespace.list('kratos-service-app');
    await Promise.all(pods.map(({ metadata }) => this.namespace.strip(metadata.name)));
  }
}

export const kubernetes: Row = {
  name: 'kubernetes',
  ttlMs: 3000,
  cannot: {
    rawRead: 'Kubernetes stores labels and annotations of a pod, no bytes',
    rawPut: 'Kubernetes checks labels; see faults/kubernetes for annotations',
    transactions: 'Kubernetes changes one pod at a time',
    compaction: 'the history of the server is no part of what is read; see faults/kubernetes',
    codecs: 'Kubernetes has one form of records',
    prefixes: 'Kubernetes has no prefix',
    anyText: 'names, ids and versions are values of labels',
    foreignEndpoints: 'what others write of endpoints are ports of a pod',
    expires: 'a record ends with its pod',
    owners: 'two pods are two instances, whatever their ids',
    manyRegistrations: 'a pod is one instance',
    leases: 'Kubernetes has no leases',
    counts: 'Kubernetes counts no streams of a client',
  },
  capabilities: { ...usual, expires: false, owners: false, oneRegistration: true, ownSwitch: true },
  patience: 3, // an API server takes up to a second for a change beside other work
  async start() {
    const kubernetes = await startKubernetes();
    return {
      async scope() {
        const namespace = await kubernetes.namespace();
        for (const pod of OWN) await namespace.pod(pod);
        return new KubernetesScope(kubernetes, namespace, await startTcpProxy(kubernetes.host));
      },
      close: () => kubernetes.close(),
    };
  },
};
