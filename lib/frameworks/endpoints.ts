/** Where a server listens, as endpoints. */

/** What is needed of a server of Node.js. */
export interface Addressed {
  address?: () => { address: string; port: number } | string | null;
  close?: () => unknown;
  /** TLS servers have it. */
  setSecureContext?: unknown;
}

/** What is needed of a server of grpc-js. */
export interface GrpcServer {
  http2Servers?: { keys?: () => Iterable<Addressed> };
}

/** Whether a server speaks TLS. */
export const isSecure = (server: Addressed | undefined): boolean => typeof server?.setSecureContext === 'function';

/** Empty where it listens on a pipe or a socket of Unix, or not at all. */
export function endpointsOf(server: Addressed | undefined, scheme: string): string[] {
  const address = server?.address?.();
  if (typeof address !== 'object' || !address?.port) return [];
  const host = address.address.includes(':') ? `[${address.address}]` : address.address;
  return [`${scheme}://${host}:${address.port}`];
}

/** The ports that were really bound; grpc-js doesn't tell them, but keeps its servers in a map. */
export function grpcEndpoints(server: GrpcServer | undefined, scheme: string): string[] {
  const bound = [...(server?.http2Servers?.keys?.() ?? [])].flatMap((each) => endpointsOf(each, scheme));
  return [...new Set(bound)];
}
