/** `grpcClient()`: a client of a service in one line. */

import { invalid, kindOf, optional, text } from '../common/shape.js';
import { checked } from '../registry/call.js';
import type { Registry } from '../registry/registry.js';
import type { Grpc, GrpcModule } from './compat.js';
import { copies } from './modules.js';
import { type GrpcOptions, grpcSettings, registryOf } from './options.js';
import { DIRECTORY_OPTION, Directory, tableOf } from './resolver.js';

/** A class of clients as `@grpc/proto-loader`, `grpc-tools` or `ts-proto` make it. */
export type GrpcClientClass<C> = new (address: string, credentials: never, options?: never) => C;

/** Options of `grpcClient()`. */
export interface GrpcClientOptions extends GrpcOptions {
  /** Those of the channel, such as `credentials.createSsl(ca)`. Default: without TLS. */
  credentials?: object | undefined;
  /** Of `@grpc/grpc-js`, such as `grpc.max_receive_message_length`. */
  channelOptions?: Readonly<Record<string, unknown>> | undefined;
  /** The name that certificates must carry. Default: that of the service. The metadata `serverName` of an instance is over it. */
  serverName?: string | undefined;
  /** The copy of `@grpc/grpc-js` that the class was made with. Default: looked for, as `registerResolver()` does it. */
  grpc?: GrpcModule | undefined;
}

/** Those of a registry without options: channels that have the same share connections. */
const plain = new WeakMap<Registry, Directory>();

/**
 * A client of a service: `grpcClient(registry, OrdersClient, 'orders')`. With credentials of TLS it takes endpoints `grpcs://`,
 * else `grpc://`. It needs no `registerResolver()`. Close it as any client: `client.close()`; the registry is yours to close.
 *
 * @throws `ERR_INVALID_ARGUMENT`
 */
export function grpcClient<C>(
  registry: Registry,
  Client: GrpcClientClass<C>,
  name: string,
  options?: GrpcClientOptions,
): C {
  return checked('grpcClient', () => {
    const given = optional('options', options);
    const settings = grpcSettings(given, ['credentials', 'channelOptions', 'serverName', 'grpc']);
    const asked = registryOf(registry);
    if (typeof Client !== 'function') throw invalid('Client', `expected a class of clients, got ${kindOf(Client)}`);
    const service = text('name', name);
    if (service === undefined) throw invalid('name', 'expected a string, got undefined');
    const grpc = copyOf(Client, given.grpc);
    const credentials = given.credentials ?? insecure(grpc);
    const isSecure = (credentials as { _isSecure?: unknown })._isSecure;
    if (typeof isSecure !== 'function') {
      throw invalid('options.credentials', `expected credentials of a channel, got ${kindOf(credentials)}`);
    }
    const tls = isSecure.call(credentials) === true;
    const serverName = text('options.serverName', given.serverName);
    const channelOptions = optional('options.channelOptions', given.channelOptions);
    tableOf(grpc); // which makes the schemes known
    const Made = Client as unknown as new (address: string, credentials: object, options: object) => C;
    return new Made(`discovery${tls ? '+tls' : ''}:///${service}`, credentials, {
      ...channelOptions,
      ...(serverName !== undefined && { 'grpc.ssl_target_name_override': serverName }),
      [DIRECTORY_OPTION]: directoryOf(asked, given, settings),
    });
  });
}

function directoryOf(registry: Registry, given: Record<string, unknown>, settings: Directory['settings']): Directory {
  const channel = ['credentials', 'channelOptions', 'serverName', 'grpc'];
  const isPlain = Object.keys(given).every((key) => channel.includes(key) || given[key] === undefined);
  const known = isPlain ? plain.get(registry) : undefined;
  if (known) return known;
  const directory = new Directory(registry, settings);
  if (isPlain) plain.set(registry, directory);
  return directory;
}

/** The copy that a class was made with. */
function copyOf(Client: GrpcClientClass<unknown>, given: unknown): Grpc {
  const known = copies(given);
  const own = known.find(({ module }) => Client.prototype instanceof module.Client);
  if (own) return own;
  throw invalid(
    'options.grpc',
    'the class was made with another copy of @grpc/grpc-js, or with none: hand in the module that it was made with',
  );
}

function insecure({ module }: Grpc): object {
  return (module.credentials as { createInsecure(): object }).createInsecure();
}
