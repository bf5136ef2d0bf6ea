/** rollcall/breaker: circuit breakers whose policies can change while they run. Enter at `createBreakers()`. */

export type { Breaker, BreakerState, BreakerStats, CallContext, DoOptions, Permit } from './breaker.js';
export type { Breakers, BreakersEvents, BreakersOptions, StoredPolicies } from './breakers.js';
export { createBreakers } from './create.js';
export { type BreakerOpenDetails, BreakerOpenError } from './errors.js';
export type { GrpcInterceptor, GrpcName } from './grpc.js';
export type { InstanceBreakers, PickedFrom } from './instances.js';
export type { PoliciesRef } from './policies.js';
export type { Policy, WindowPolicy } from './policy.js';
export type { UndiciInterceptor, UndiciName } from './undici.js';
