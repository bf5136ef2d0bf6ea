/** The registration of a program that has its servers by itself: plain Node.js, Express, Fastify, Koa. */

import type { Application, RegisterSelfOptions, SelfServer } from './frameworks/application.js';
import type { Registry } from './registry/registry.js';

export type { Application, RegisterSelfOptions, SelfServer };

/**
 * Registers this program where its server listens, and takes it out in time when it ends.
 *
 * `server` is what listens: a server of `node:http`, `https` or `http2`, what Express's and Koa's `app.listen()` gives, or an
 * application of Fastify. One that does not listen yet is waited for, up to `listenTimeoutMs`. Its wildcard address becomes
 * `advertiseHost` of the registry; `options.endpoints` replaces it.
 *
 * Resolves when others see the program. `leave()` of what it gives is the way out: out of the registry, the drain, then the
 * server, then the registry. With `signals: ['SIGTERM']` the signal does that.
 *
 * @throws as `Registry.register()`; `ERR_INVALID_ARGUMENT` for a server that can't listen; `ERR_TIMEOUT` when it does not
 *   listen in time; what the server failed with.
 */
export function registerSelf(
  server: SelfServer,
  registry: Registry,
  options: RegisterSelfOptions,
): Promise<Application> {
  // Loaded at use: importing the package should cost next to nothing.
  const { Application: Made } = require('./frameworks/application.js') as typeof import('./frameworks/application.js');
  return Made.register(server, registry, options);
}
