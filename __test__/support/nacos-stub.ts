// A Nacos that keeps its word as the original does, where r-nacos does otherwise: one publication of each connection and
// service, which a second one replaces; a batch is whole, an empty one clears; a deregistration takes the whole publication;
// one address of two connections is listed twice; lists and pushes come late; the set-up is acknowledged.
// The original can't be had here. What this does was read in its source and its issues, not seen.
import { fileURLToPath } from 'node:url';
import {
  type GrpcObject,
  loadPackageDefinition,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServiceClientConstructor,
  type sendUnaryData,
} from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import type { NacosHost, NacosPlace, NacosRegistry } from './nacos.js';
import { freePorts } from './ports.js';

interface Payload {
  metadata: { type: string; headers: Record<string, string> };
  body: { type_url: string; value: Buffer };
}

type Body = Record<string, unknown>;
type Stream = ServerDuplexStream<Payload, Payload>;

/** How late lists and pushes are: the original's `pushTaskDelay`, which is 500 unless it is set. */
const LATE_MS = 100;
/** How much metadata of one address is taken. */
const MOST_METADATA = 1024;

class Connection {
  readonly publications = new Map<string, NacosHost[]>();
  readonly subscriptions = new Set<string>();
  constructor(readonly stream: Stream | undefined) {}

  send(type: string, body: Body): void {
    if (this.stream?.writable) this.stream.write(payload(type, body));
  }
}

const payload = (type: string, body: Body): Payload => ({
  metadata: { type, headers: {} },
  body: { type_url: '', value: Buffer.from(JSON.stringify(body)) },
});
const read = ({ body }: Payload): Body => JSON.parse(body?.value.toString() || '{}') as Body;
const keyOf = (namespace: unknown, service: unknown): string => `${namespace}\n${service}`;

export class NacosStub implements NacosRegistry {
  readonly host: string;
  readonly grpcHost: string;
  /** What was asked, by type. */
  readonly asked = new Map<string, number>();
  private readonly connections = new Map<string, Connection>();
  /** What others have written, each by a connection of its own. */
  private readonly others = new Map<string, Connection>();
  /** What is told. */
  private readonly told = new Map<string, NacosHost[]>();
  private readonly due = new Map<string, NodeJS.Timeout>();
  private readonly server = new Server();
  private requests = 0;

  constructor(readonly port: number) {
    this.host = `127.0.0.1:${port}`;
    this.grpcHost = this.host;
    const definition = loadSync(fileURLToPath(new URL('./fixtures/nacos.proto', import.meta.url)), { keepCase: true });
    const { Request, BiRequestStream } = loadPackageDefinition(definition) as GrpcObject & {
      Request: ServiceClientConstructor;
      BiRequestStream: ServiceClientConstructor;
    };
    this.server.addService(Request.service, {
      request: (call: ServerUnaryCall<Payload, Payload>, done: sendUnaryData<Payload>) => {
        const type = call.request.metadata.type;
        this.asked.set(type, (this.asked.get(type) ?? 0) + 1);
        const [answer, body] = this.answer(call.getPeer(), type, read(call.request));
        done(null, payload(answer, { resultCode: 200, errorCode: 0, success: true, ...body }));
      },
    });
    this.server.addService(BiRequestStream.service, { requestBiStream: (stream: Stream) => this.open(stream) });
  }

  start(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.server.bindAsync(this.host, ServerCredentials.createInsecure(), (error) =>
        error ? reject(error) : resolve(),
      );
    });
  }

  async close(): Promise<void> {
    for (const timer of this.due.values()) clearTimeout(timer);
    this.server.forceShutdown();
  }

  private open(stream: Stream): void {
    const peer = stream.getPeer();
    const over = (): void => {
      const connection = this.connections.get(peer);
      if (connection?.stream !== stream) return;
      this.connections.delete(peer);
      for (const key of connection.publications.keys()) this.changed(key);
    };
    stream.on('data', (sent: Payload) => {
      if (sent.metadata.type !== 'ConnectionSetupRequest') return;
      const labels = read(sent).labels as { module?: string } | undefined;
      // Without the label the original would keep what is registered when the connection ends.
      if (labels?.module !== 'naming') return;
      const connection = new Connection(stream);
      this.connections.set(peer, connection);
      connection.send('SetupAckRequest', { requestId: 'ack', abilityTable: {} });
    });
    stream.on('end', () => {
      over();
      stream.end();
    });
    for (const event of ['cancelled', 'close', 'error']) stream.on(event, over);
  }

  private answer(peer: string, type: string, body: Body): [string, Body] {
    if (type === 'ServerCheckRequest') {
      return ['ServerCheckResponse', { connectionId: peer, supportAbilityNegotiation: true }];
    }
    const refused = (code: number, message: string): [string, Body] => [
      'ErrorResponse',
      { resultCode: 500, errorCode: code, message, success: false },
    ];
    const connection = this.connections.get(peer);
    if (!connection) return refused(301, 'Connection is unregistered.');
    const { namespace, serviceName, groupName } = body;
    const key = keyOf(namespace, serviceName);
    if (/^@|@@|[\u4e00-\u9fa5\s]/.test(String(serviceName ?? '')))
      return refused(400, "Param 'serviceName' is illegal");
    switch (type) {
      case 'HealthCheckRequest':
        return ['HealthCheckResponse', {}];
      case 'BatchInstanceRequest': {
        const hosts = body.instances as NacosHost[];
        if (!hosts.every(isSmall)) return refused(400, "Param 'metadata' is illegal");
        this.publish(connection, key, hosts);
        return ['BatchInstanceResponse', {}];
      }
      case 'InstanceRequest': {
        const host = body.instance as NacosHost;
        if (!isSmall(host)) return refused(400, "Param 'metadata' is illegal");
        this.publish(connection, key, body.type === 'registerInstance' ? [host] : []);
        return ['InstanceResponse', {}];
      }
      case 'ServiceQueryRequest':
        return ['QueryServiceResponse', { serviceInfo: this.info(namespace, serviceName, groupName) }];
      case 'SubscribeServiceRequest':
        if (body.subscribe) connection.subscriptions.add(key);
        else connection.subscriptions.delete(key);
        return ['SubscribeServiceResponse', { serviceInfo: this.info(namespace, serviceName, groupName) }];
      case 'ServiceListRequest': {
        const [page, size] = [Number(body.pageNo), Number(body.pageSize)];
        const names = this.namesOf(String(namespace));
        const serviceNames = names.slice((page - 1) * size, page * size).map((name) => `${groupName}@@${name}`);
        return ['ServiceListResponse', { count: names.length, serviceNames }];
      }
      default:
        return refused(302, `No request handler for ${type}`);
    }
  }

  private publish(connection: Connection, key: string, hosts: NacosHost[]): void {
    if (hosts.length > 0) connection.publications.set(key, hosts);
    else connection.publications.delete(key);
    this.changed(key);
  }

  private changed(key: string): void {
    if (this.due.has(key)) return;
    this.due.set(
      key,
      setTimeout(() => this.tell(key), LATE_MS),
    );
  }

  private tell(key: string): void {
    clearTimeout(this.due.get(key));
    this.due.delete(key);
    const all = [...this.connections.values(), ...this.others.values()];
    this.told.set(
      key,
      all.flatMap(({ publications }) => publications.get(key) ?? []),
    );
    const [namespace, service] = key.split('\n');
    for (const connection of this.connections.values()) {
      if (!connection.subscriptions.has(key)) continue;
      this.requests += 1;
      const serviceInfo = this.info(namespace, service, 'DEFAULT_GROUP');
      connection.send('NotifySubscriberRequest', { requestId: String(this.requests), namespace, serviceInfo });
    }
  }

  private info(namespace: unknown, name: unknown, groupName: unknown): Body {
    const hosts = (this.told.get(keyOf(namespace, name)) ?? []).filter(({ enabled }) => enabled !== false);
    return {
      name,
      groupName,
      clusters: '',
      hosts: hosts.map((host) => ({ ...host, serviceName: `${groupName}@@${name}` })),
    };
  }

  private namesOf(namespace: string): string[] {
    const keys = [...this.told.keys()].map((key) => key.split('\n') as [string, string]);
    return keys.filter(([of]) => of === namespace).map(([, name]) => name);
  }

  // What tests do around the product, which is seen at once.

  async services(namespace: string): Promise<string[]> {
    return this.namesOf(namespace);
  }

  async list(namespace: string, service: string): Promise<NacosHost[]> {
    const key = keyOf(namespace, service);
    return [...this.connections.values(), ...this.others.values()].flatMap(
      ({ publications }) => publications.get(key) ?? [],
    );
  }

  async put(place: NacosPlace, metadata: Record<string, string>, weight: number): Promise<void> {
    const { namespace, service, ip, port } = place;
    const key = keyOf(namespace, service);
    const connection = new Connection(undefined);
    this.others.set(`${key}\n${ip}\n${port}`, connection);
    const host = { ip, port, weight, healthy: true, enabled: true, clusterName: 'DEFAULT', metadata };
    this.publish(connection, key, [host]);
    this.tell(key);
  }

  async delete({ namespace, service, ip, port }: NacosPlace): Promise<void> {
    const key = keyOf(namespace, service);
    for (const connection of [...this.connections.values(), ...this.others.values()]) {
      const hosts = connection.publications.get(key) ?? [];
      const rest = hosts.filter((host) => host.ip !== ip || host.port !== port);
      if (rest.length < hosts.length) this.publish(connection, key, rest);
    }
    this.others.delete(`${key}\n${ip}\n${port}`);
    this.tell(key);
  }
}

const isSmall = ({ metadata }: NacosHost): boolean =>
  Object.entries(metadata ?? {}).reduce((sum, [key, value]) => sum + key.length + value.length, 0) <= MOST_METADATA;

/** Starts a stub. Its host is that of gRPC: it has no HTTP. */
export async function startNacosStub(): Promise<NacosStub> {
  const [port] = (await freePorts(1)) as [number];
  const stub = new NacosStub(port);
  await stub.start();
  return stub;
}
