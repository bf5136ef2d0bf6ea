/** rollcall/http: calls by name for all that takes a `fetch`, a dispatcher of undici or an agent of Node.js. */

export { type DispatchOptions, ServiceAgent, type ServiceAgentOptions, type ServiceTlsOptions } from './agent.js';
export { type CreateFetchOptions, createFetch, type ServiceFetch } from './create-fetch.js';
export type { ServiceRegistry } from './names.js';
export { httpAgent, httpsAgent, type NodeAgentOptions } from './node-agent.js';
export type { UndiciModule, UndiciPool } from './undici.js';
