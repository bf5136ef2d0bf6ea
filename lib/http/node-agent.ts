/** Agents of `node:http` and `node:https` that call services by name. */

import { errorMonitor } from 'node:events';
import { type ClientRequest, Agent as HttpAgent, type AgentOptions as HttpAgentOptions } from 'node:http';
import { Agent as HttpsAgent, type AgentOptions as HttpsAgentOptions } from 'node:https';
import type { Socket } from 'node:net';
import { invalid, optional, text } from '../common/shape.js';
import { checked } from '../registry/call.js';
import type { ServiceInstance } from '../registry/instance.js';
import type { ServiceCache } from '../service/cache.js';
import type { ServiceOptions } from '../service/options.js';
import { each } from '../service/pick/filters.js';
import type { CallResult, Picked } from '../service/ticket.js';
import { checkRegistry } from './agent.js';
import { isHostName, Names, type ServiceRegistry, serverNameOf } from './names.js';
import { httpSettings } from './options.js';
import { isCallable } from './retry.js';

/** How services are called through an agent of Node.js. */
export interface NodeAgentOptions {
  /** As `registry.service(name, options)` takes them; of each service that is called. */
  service?: ServiceOptions | undefined;
  /** The name that an instance must prove over TLS, where its metadata has no `serverName`. Default: that of its service. */
  serverName?: string | undefined;
}

/**
 * An agent for `node:http` and what is made of it: axios, got, `@nestjs/axios`. It takes the host of `http://orders/7` for the
 * name of a service, picks one of its `http://` endpoints for each request, and keeps its connections. Make it once.
 *
 * There is no second try: what makes the request decides that. The outcome of each request is told as `done()` would tell it.
 * The first list is waited for, as `ready()` does. A connection to an instance that has left the registry is closed when
 * nothing is under way on it.
 *
 * Requests fail with the errors of `ready()` and `pick()`, and with `ERR_INVALID_ARGUMENT` for a URL with a port.
 *
 * @param options those of rollcall, and all that `new http.Agent()` takes. Default: `keepAlive`
 * @throws `ERR_INVALID_ARGUMENT`
 */
export function httpAgent(registry: ServiceRegistry, options?: NodeAgentOptions & HttpAgentOptions): HttpAgent {
  const { own, rest } = split('httpAgent', registry, options);
  return callByName(new HttpAgent({ keepAlive: true, ...rest }), registry, { ...own, isSecure: false });
}

/**
 * The same for `node:https`, `https://orders/7` and `https://` endpoints. An instance has to prove the name of its service,
 * or `serverName`. The Host header is the host of the URL in any case.
 *
 * @param options those of rollcall, and all that `new https.Agent()` takes, such as `ca`. Default: `keepAlive`
 * @throws `ERR_INVALID_ARGUMENT`
 */
export function httpsAgent(registry: ServiceRegistry, options?: NodeAgentOptions & HttpsAgentOptions): HttpsAgent {
  const { own, rest } = split('httpsAgent', registry, options);
  return callByName(new HttpsAgent({ keepAlive: true, ...rest }), registry, { ...own, isSecure: true });
}

interface Settings {
  readonly service: ServiceOptions | undefined;
  readonly serverName: string | undefined;
  readonly failedStatuses: readonly number[];
}

function split(operation: string, registry: unknown, options: unknown): { own: Settings; rest: object } {
  return checked(operation, () => {
    checkRegistry(registry);
    const { service, serverName: given, ...rest } = optional('options', options);
    const serverName = text('options.serverName', given);
    if (serverName !== undefined && !isHostName(serverName)) {
      throw invalid('options.serverName', 'expected a name that a certificate can carry, such as "orders.internal"');
    }
    const { failedStatuses } = httpSettings('options.service.http', optional('options.service', service).http);
    return { own: { service: service as ServiceOptions | undefined, serverName, failedStatuses }, rest };
  });
}

/** To which instance a connection is made. */
const INSTANCE = Symbol('instance');

/** What Node.js hands to an agent with a request. */
interface Wanted {
  host?: string | undefined;
  port?: number | string | undefined;
  defaultPort?: number | undefined;
  servername?: string | undefined;
  socketPath?: string | null | undefined;
  [INSTANCE]?: ServiceInstance;
}

/** What the types of Node.js leave out, or have only in some versions. */
interface Internal {
  addRequest(request: ClientRequest, wanted: Wanted): void;
  createConnection(wanted: Wanted, made?: unknown): Socket | undefined;
  keepSocketAlive(socket: Socket): unknown;
  readonly freeSockets: NodeJS.ReadOnlyDict<Socket[]>;
}

/** One service as it is called. */
interface Kept {
  readonly service: ServiceCache;
  close(): void;
}

/** Makes an agent of Node.js pick an instance for each request. */
function callByName<A extends HttpAgent>(
  agent: A,
  registry: ServiceRegistry,
  { isSecure, ...settings }: Settings & { readonly isSecure: boolean },
): A {
  const internal = agent as unknown as Internal;
  const [addRequest, createConnection, keepSocketAlive] = [
    internal.addRequest,
    internal.createConnection,
    internal.keepSocketAlive,
  ];
  const port = isSecure ? 443 : 80;
  const filter = each(isSecure ? 'https' : 'http', ({ instance, endpoint }) => {
    if (endpoint.secure !== isSecure || !isCallable(endpoint)) return false;
    return serverNameOf(instance, settings.serverName) !== undefined;
  });
  const connected = new WeakMap<Socket, ServiceInstance>();
  const gone = new WeakSet<ServiceInstance>();
  const hasLeft = (socket: Socket) => gone.has(connected.get(socket) as ServiceInstance);
  const names = new Names<Kept>((name) => {
    const service = registry.service(name, settings.service);
    service.on('change', ({ removed }) => {
      for (const instance of removed) gone.add(instance);
      const idle = removed.length > 0 ? Object.values(internal.freeSockets).flatMap((sockets) => sockets ?? []) : [];
      for (const socket of idle) if (hasLeft(socket)) socket.destroy();
    });
    return { service, close: () => {} };
  });

  internal.addRequest = (request, wanted) => {
    const start = (service: ServiceCache) => {
      service.refresh();
      const picked = service.pick({ filter });
      tell(request, picked, settings.failedStatuses);
      const { instance, endpoint } = picked;
      const serverName = serverNameOf(instance, settings.serverName) as string;
      const to = { ...wanted, host: endpoint.host, port: endpoint.port, [INSTANCE]: instance };
      addRequest.call(agent, request, isSecure ? { ...to, servername: wanted.servername || serverName } : to);
    };
    try {
      if (wanted.socketPath)
        throw invalid('socketPath', 'a call by name goes to where an instance listens; leave it out');
      if (Number(wanted.port ?? port) !== port) {
        throw invalid('port', 'a call by name has no port in its URL: the registry knows where an instance listens');
      }
      const { service } = names.get(wanted.host ?? '');
      if (service.state !== 'loading') start(service);
      else
        service
          .ready()
          .then(start)
          .catch((error) => refuse(request, error));
    } catch (error) {
      refuse(request, error);
    }
  };
  internal.createConnection = (wanted, made) => {
    const socket = createConnection.call(agent, wanted, made);
    if (socket && wanted[INSTANCE]) connected.set(socket, wanted[INSTANCE]);
    return socket;
  };
  internal.keepSocketAlive = (socket) => !hasLeft(socket) && keepSocketAlive.call(agent, socket);
  return agent;
}

/** Fails a request that has no connection: only with this does Node.js tell of it. */
function refuse(request: ClientRequest, error: unknown): void {
  (request as unknown as { onSocket(socket: null, error: unknown): void }).onSocket(null, error);
}

/** Tells what came of a request. */
function tell(request: ClientRequest, picked: Picked, failedStatuses: readonly number[]): void {
  let isTold = false;
  const done = (result?: CallResult) => {
    if (!isTold) picked.done(result);
    isTold = true;
  };
  request.once('response', (response) => {
    done(failedStatuses.includes(response.statusCode ?? 0) ? { failed: true } : undefined);
    // Node.js throws an answer away that nobody listens for; this listener is nobody.
    if (request.listenerCount('response') === 0) response.resume();
  });
  // Heard without a listener for errors: a request that nobody listens to is to end the process as ever.
  request.once(errorMonitor, (error) => done({ error }));
  request.once('close', () => done()); // an upgrade
}
