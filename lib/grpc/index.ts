/** rollcall/grpc: clients of `@grpc/grpc-js` that call a service by its name. Enter at `registerResolver()`. */

export { type GrpcClientClass, type GrpcClientOptions, grpcClient } from './client.js';
export type { GrpcModule } from './compat.js';
export type { GrpcOptions, GrpcPolicy, ResolverOptions } from './options.js';
export { type ResolverRegistration, registerResolver } from './resolver.js';
