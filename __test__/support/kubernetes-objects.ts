// What tests make in a namespace: accounts and rights, pods, services, EndpointSlices.

export interface Answer {
  readonly status: number;
  readonly body: string;
}

export interface Call {
  /** The one of the administrator unless given. */
  readonly token?: string;
  /** Of the body; of a PATCH `application/strategic-merge-patch+json` unless given. */
  readonly type?: string;
}

/** A claim of a service account, as tokens have it. */
export interface Account {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
}

/** What the server is asked by. */
export interface Api {
  /** A request as it is; never rejects for a status. */
  ask(method: string, path: string, body?: unknown, how?: Call): Promise<Answer>;
  /** A request that is to succeed; gives the object. */
  call<T = Record<string, unknown>>(method: string, path: string, body?: unknown, how?: Call): Promise<T>;
  token(account: Account, expiresInS?: number): string;
}

export interface PodPort {
  readonly port: number;
  readonly name?: string;
  readonly protocol?: 'TCP' | 'UDP' | 'SCTP';
}

export interface PodShape {
  readonly labels?: Record<string, string>;
  readonly annotations?: Record<string, string>;
  /** The first one is the pod's; the second of dual stack. `10.1.2.3` unless given; none: the kubelet has told nothing yet. */
  readonly ips?: readonly string[];
  readonly ports?: readonly PodPort[];
  /** Is told by a kubelet: a pod that is deleted stays, terminating, until `end()`. */
  readonly node?: string;
  /** True unless given. */
  readonly ready?: boolean;
  /** `Running` unless given. */
  readonly phase?: string;
}

/** What is read of a pod. */
export interface Pod {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly resourceVersion: string;
    readonly labels?: Record<string, string>;
    readonly annotations?: Record<string, string>;
    readonly deletionTimestamp?: string;
  };
  readonly spec: { readonly containers: readonly { readonly ports?: readonly { containerPort: number }[] }[] };
  readonly status: { readonly phase?: string; readonly podIP?: string };
}

/** An instance as Kratos writes it to its pod. */
export interface KratosRecord {
  readonly id: string;
  readonly name: string;
  readonly version?: string;
  readonly metadata?: Record<string, string> | null;
  /** By port. */
  readonly protocols?: Record<string, string>;
}

export const LABELS = ['kratos-service-id', 'kratos-service-app', 'kratos-service-version'] as const;
export const ANNOTATIONS = ['kratos-service-metadata', 'kratos-service-protocols'] as const;

/** The strategic merge patch by which Kratos registers. */
export const kratosPatch = ({ id, name, version = '', metadata = null, protocols = {} }: KratosRecord) => ({
  metadata: {
    creationTimestamp: null,
    labels: { 'kratos-service-id': id, 'kratos-service-app': name, 'kratos-service-version': version },
    annotations: {
      'kratos-service-metadata': JSON.stringify(metadata),
      'kratos-service-protocols': JSON.stringify(protocols),
    },
  },
});

export interface SliceEndpoint {
  readonly addresses: readonly string[];
  readonly conditions?: { readonly ready?: boolean; readonly serving?: boolean; readonly terminating?: boolean };
  readonly targetRef?: {
    readonly kind: string;
    readonly name: string;
    readonly uid: string;
    readonly namespace?: string;
  };
  readonly nodeName?: string;
  readonly zone?: string;
}

export interface SlicePort {
  readonly name?: string;
  readonly port?: number | null;
  readonly protocol?: string;
  readonly appProtocol?: string;
}

export interface SliceShape {
  /** `IPv4` unless given. */
  readonly addressType?: 'IPv4' | 'IPv6' | 'FQDN';
  readonly endpoints: readonly SliceEndpoint[];
  readonly ports?: readonly SlicePort[];
  readonly labels?: Record<string, string>;
}

/** A right, as a Role has it. */
export interface Rule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
}

/** What a program needs that registers and reads. */
export const RULES: readonly Rule[] = [
  { apiGroups: [''], resources: ['pods'], verbs: ['get', 'list', 'watch', 'patch'] },
  { apiGroups: ['discovery.k8s.io'], resources: ['endpointslices'], verbs: ['list', 'watch'] },
];

const RBAC = '/apis/rbac.authorization.k8s.io/v1/namespaces';

export class Namespace {
  /** Its pods. */
  readonly pods: string;
  private readonly slices: string;

  private constructor(
    readonly server: Api,
    readonly name: string,
    /** `app`, with the rights of `RULES`. */
    readonly account: Account,
  ) {
    this.pods = `/api/v1/namespaces/${name}/pods`;
    this.slices = `/apis/discovery.k8s.io/v1/namespaces/${name}/endpointslices`;
  }

  static async make(server: Api, name: string): Promise<Namespace> {
    await server.call('POST', '/api/v1/namespaces', { metadata: { name } });
    const { metadata } = await server.call<{ metadata: { uid: string } }>(
      'POST',
      `/api/v1/namespaces/${name}/serviceaccounts`,
      { metadata: { name: 'app' } },
    );
    const made = new Namespace(server, name, { namespace: name, name: 'app', uid: metadata.uid });
    await server.call('POST', `${RBAC}/${name}/roles`, { metadata: { name: 'app' }, rules: RULES });
    await server.call('POST', `${RBAC}/${name}/rolebindings`, {
      metadata: { name: 'app' },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'app' },
      subjects: [{ kind: 'ServiceAccount', name: 'app', namespace: name }],
    });
    return made;
  }

  /** Of its account. */
  token(expiresInS?: number): string {
    return this.server.token(this.account, expiresInS);
  }

  /** What its account may do from now on. */
  async allow(rules: readonly Rule[]): Promise<void> {
    await this.server.call(
      'PATCH',
      `${RBAC}/${this.name}/roles/app`,
      { rules },
      { type: 'application/merge-patch+json' },
    );
  }

  /** A pod as a kubelet has it run. */
  async pod(name: string, shape: PodShape = {}): Promise<Pod> {
    const { labels, annotations, node, ports = [] } = shape;
    await this.server.call('POST', this.pods, {
      metadata: { name, labels, annotations },
      spec: {
        nodeName: node,
        containers: [
          {
            name: 'main',
            image: 'x',
            ports: ports.map(({ port, name: called, protocol }) => ({ containerPort: port, name: called, protocol })),
          },
        ],
      },
    });
    return this.tell(name, shape);
  }

  /** What a kubelet says of a pod. */
  tell(name: string, { ips = ['10.1.2.3'], ready = true, phase = 'Running' }: PodShape): Promise<Pod> {
    return this.server.call('PATCH', `${this.pods}/${name}/status`, {
      status: {
        phase,
        ...(ips.length > 0 && { podIP: ips[0], podIPs: ips.map((ip) => ({ ip })) }),
        conditions: [{ type: 'Ready', status: ready ? 'True' : 'False' }],
      },
    });
  }

  /** Readiness alone. */
  async setReady(name: string, ready: boolean): Promise<void> {
    await this.server.call('PATCH', `${this.pods}/${name}/status`, {
      status: { conditions: [{ type: 'Ready', status: ready ? 'True' : 'False' }] },
    });
  }

  patch(pod: string, patch: object): Promise<Pod> {
    return this.server.call('PATCH', `${this.pods}/${pod}`, patch);
  }

  /** Everything of an instance is taken off its pod by hand; false when there is no such pod. */
  async strip(pod: string, more: readonly string[] = []): Promise<boolean> {
    const none = (keys: readonly string[]) => Object.fromEntries(keys.map((key) => [key, null]));
    const { status, body } = await this.server.ask('PATCH', `${this.pods}/${pod}`, {
      metadata: { labels: none(LABELS), annotations: none([...ANNOTATIONS, ...more]) },
    });
    if (status !== 200 && status !== 404) throw new Error(`strip ${pod}: ${status} ${body}`);
    return status === 200;
  }

  async read(pod: string): Promise<Pod | undefined> {
    const { status, body } = await this.server.ask('GET', `${this.pods}/${pod}`);
    if (status === 404) return undefined;
    if (status !== 200) throw new Error(`pod ${pod}: ${status} ${body}`);
    return JSON.parse(body) as Pod;
  }

  /** All, or those that a selector of labels takes. */
  async list(selector = ''): Promise<readonly Pod[]> {
    const query = `labelSelector=${encodeURIComponent(selector)}`;
    return (await this.server.call<{ items: Pod[] }>('GET', `${this.pods}?${query}`)).items;
  }

  /** A pod with a node goes on as terminating; one without is gone. */
  async delete(pod: string): Promise<void> {
    await this.server.call('DELETE', `${this.pods}/${pod}`);
  }

  /** It is gone, whatever it was. */
  async end(pod: string): Promise<void> {
    const { status, body } = await this.server.ask('DELETE', `${this.pods}/${pod}?gracePeriodSeconds=0`);
    if (status !== 200 && status !== 404) throw new Error(`end of ${pod}: ${status} ${body}`);
  }

  /** A headless service; nobody makes its slices. */
  async service(name: string): Promise<void> {
    await this.server.call('POST', `/api/v1/namespaces/${this.name}/services`, {
      metadata: { name },
      spec: { clusterIP: 'None', selector: { app: name }, ports: [{ port: 80 }] },
    });
  }

  /** A slice of a service: a new one, or all that it says from now on. */
  async slice(service: string, name: string, shape: SliceShape): Promise<void> {
    const { addressType = 'IPv4', endpoints, ports = [{ name: '', port: 8000 }], labels } = shape;
    const object = {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: { name, labels: { 'kubernetes.io/service-name': service, ...labels } },
      ...{ addressType, endpoints, ports },
    };
    const { status, body } = await this.server.ask('POST', this.slices, object);
    if (status === 201) return;
    if (status !== 409) throw new Error(`slice ${name}: ${status} ${body}`);
    await this.server.call('PUT', `${this.slices}/${name}`, object);
  }

  async endSlice(name: string): Promise<void> {
    await this.server.call('DELETE', `${this.slices}/${name}`);
  }
}
