/** From candidates of a service to what a channel connects to. */

import type { Endpoint } from '../service/endpoint.js';
import { each } from '../service/pick/filters.js';
import type { Candidate, Filter } from '../service/pick/types.js';
import type { Address, GrpcEndpoint } from './compat.js';

/** Endpoints of gRPC that fit the credentials of a channel, which are the same for all of its connections. */
export function callable(tls: boolean): Filter {
  return each('scheme', ({ endpoint: { scheme, secure } }) => {
    if (scheme === 'grpc' || scheme === 'grpcs') return secure === tls;
    return scheme === 'unix' && !tls;
  });
}

/** The same for the same connection. */
export function placeOf({ scheme, host, port, path }: Endpoint): string {
  return scheme === 'unix' ? `unix:${path}` : `${host}:${port}`;
}

/** One for each address, in the order of the candidates. */
export function endpointsOf(candidates: readonly Candidate[], tls: boolean): GrpcEndpoint[] {
  const places = new Map<string, GrpcEndpoint>();
  for (const { endpoint, instance } of candidates) {
    const place = placeOf(endpoint);
    if (places.has(place)) continue;
    const serverName = tls ? instance.metadata.serverName || undefined : undefined;
    places.set(place, { addresses: [addressOf(endpoint)], serverName });
  }
  return [...places.values()];
}

function addressOf({ scheme, host, port, path }: Endpoint): Address {
  return scheme === 'unix' ? { path: path as string } : { host, port };
}

/** As `placeOf()`, of what comes back from the channel. */
export function placeOfEndpoint({ addresses: [address] }: GrpcEndpoint): string {
  if (!address) return '';
  return 'path' in address ? `unix:${address.path}` : `${address.host}:${address.port}`;
}
