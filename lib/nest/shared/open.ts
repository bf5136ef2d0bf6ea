/** From the options of a module to a client, with failures that say what to change. */

import { RollcallError } from '../../errors.js';
import type { RegistryOptions } from '../../registry/backends/index.js';
import { named } from '../../registry/call.js';
import { connect } from '../../registry/connect.js';
import type { Registry } from '../../registry/registry.js';
import { invalid, record } from '../../registry/shape.js';
import { parseUrl } from '../../registry/url.js';
import type { NestLogger } from './logger.js';

const VARIABLE = 'ROLLCALL_REGISTRY';

/** What is needed of the options of a `RegistryModule`. */
export interface OpenOptions {
  registry?: string | URL | RegistryOptions | undefined;
  lazy?: boolean | undefined;
}

/** Connects to the registry of a module; `where` is how messages call the module. */
export async function openRegistry(where: string, options: OpenOptions, log: NestLogger): Promise<Registry> {
  try {
    const { origin, given } = chosen(options, log);
    try {
      // What the program gave counts before what the module would.
      const lazy = options.lazy === undefined ? {} : { lazy: options.lazy };
      return await connect({ logger: log, ...given, ...lazy } as RegistryOptions);
    } catch (error) {
      throw origin === '' ? error : prefixed(error, '', ` (from ${origin})`);
    }
  } catch (error) {
    throw explained(where, named(error, 'connect'));
  }
}

function chosen(options: OpenOptions, log: NestLogger): { origin: string; given: object } {
  const { registry } = options;
  const variable = process.env[VARIABLE] || undefined;
  if (registry === undefined || registry === '') {
    if (variable !== undefined) {
      try {
        return { origin: VARIABLE, given: parseUrl(variable) };
      } catch (error) {
        throw prefixed(error, '', ` (from ${VARIABLE})`);
      }
    }
    if ('registry' in options) {
      // Written down, and yet nothing: the setting that it comes from is missing.
      throw invalid('registry', `expected a URL such as "etcd://10.0.0.1:2379" or options, got ${registry ?? '""'}`);
    }
    log.warn(`no registry given, neither as an option nor by ${VARIABLE}: using memory://default`);
    return { origin: '', given: { backend: 'memory' } };
  }
  if (typeof registry === 'string') return { origin: '', given: parseUrl(registry) };
  if (Object.prototype.toString.call(registry) === '[object URL]') {
    return { origin: '', given: parseUrl((registry as URL).href) };
  }
  return { origin: '', given: record('registry', registry, 'a URL or options') };
}

/** A failure of the start in one line: where, what, and what to do about it. */
export function explained(where: string, error: unknown): unknown {
  return prefixed(error, `${where}: `, hint(error));
}

function hint(error: unknown): string {
  if (!(error instanceof RollcallError)) return '';
  switch (error.code) {
    case 'ERR_TIMEOUT':
    case 'ERR_UNAVAILABLE':
      return '; check its hosts, or give lazy: true to start without it';
    case 'ERR_UNAUTHENTICATED':
      return '; check the user and the password';
    default:
      return '';
  }
}

function prefixed(error: unknown, before: string, after: string): unknown {
  if (!(error instanceof Error)) return error;
  const message = `${before}${error.message}${after}`;
  // The stack of V8 holds the message as it was.
  const stack = error.stack?.replace(error.message, () => message);
  Object.defineProperty(error, 'message', { value: message, configurable: true, writable: true });
  if (stack !== undefined) Object.defineProperty(error, 'stack', { value: stack, configurable: true, writable: true });
  return error;
}
