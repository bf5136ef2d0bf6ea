/** From the options of a module to a client, with failures that say what to change. */

import type { SharedClient } from '../common/lending.js';
import { integer, invalid, kindOf, record, text } from '../common/shape.js';
import { RollcallError } from '../errors.js';
import { Etcd3 } from '../etcd/client.js';
import type { IOptions } from '../etcd/transport/options.js';
import type { SharedEtcdOptions } from '../registry/backends/etcd.js';
import type { RegistryOptions } from '../registry/backends/index.js';
import { named } from '../registry/call.js';
import { connect, type UrlOptions } from '../registry/connect.js';
import { NONE_GIVEN, urlOfVariable, VARIABLE } from '../registry/environment.js';
import type { Registry } from '../registry/registry.js';
import { isUrl, parseUrl } from '../registry/url.js';
import type { AppLogger } from './logger.js';

/** A registry on the connection of an etcd client of the application, by the name of the client. */
export interface RegistryOnEtcd extends Omit<SharedEtcdOptions, 'client'> {
  /** The name of the client; `default` is the default one. */
  etcd: string;
}

/** What is needed of the options of a `RegistryModule`. */
export interface OpenOptions {
  registry?: string | URL | UrlOptions | RegistryOptions | RegistryOnEtcd | undefined;
  lazy?: boolean | undefined;
}

/** Finds the etcd client of a name, or says why there is none. */
export type FindEtcd = (name: string) => SharedClient | Promise<SharedClient>;

/** Connects to the registry of a module; `where` is how messages call the module. */
export async function openRegistry(
  where: string,
  options: OpenOptions,
  log: AppLogger,
  findEtcd: FindEtcd,
): Promise<Registry> {
  try {
    const { origin, given } = chosen(options, log);
    try {
      // What the program gave counts before what the module would.
      const lazy = options.lazy === undefined ? {} : { lazy: options.lazy };
      const whole = { logger: log, ...(await onEtcd(given, findEtcd)), ...lazy };
      return await connect(whole as RegistryOptions);
    } catch (error) {
      throw origin === '' ? error : prefixed(error, '', ` (from ${origin})`);
    }
  } catch (error) {
    throw explained(where, named(error, 'connect'));
  }
}

/** The name of the etcd client whose connection a registry is to share; `undefined` where it has its own. */
export function etcdOf({ registry }: OpenOptions): string | undefined {
  if (typeof registry !== 'object' || registry === null || !('etcd' in registry)) return undefined;
  const name = text('registry.etcd', registry.etcd);
  if (name === undefined) throw invalid('registry.etcd', 'expected the name of an etcd client, got undefined');
  return name;
}

/** With the client in the place of its name. */
async function onEtcd(given: object, findEtcd: FindEtcd): Promise<object> {
  const name = etcdOf({ registry: given as RegistryOnEtcd });
  if (name === undefined) return given;
  const { etcd: _, ...rest } = given as RegistryOnEtcd;
  const twice = ['client', 'hosts'].find((other) => other in rest);
  if (twice) throw invalid('registry.etcd', `given together with registry.${twice}`);
  return { ...rest, client: await findEtcd(name) };
}

/** What is needed of the options of an `EtcdModule`, besides those of the client. */
export interface EtcdOpenOptions extends IOptions {
  connectTimeoutMs?: number | undefined;
  lazy?: boolean | undefined;
  onClientCreated?: ((client: Etcd3) => void) | undefined;
  closeOnShutdown?: boolean | undefined;
}

/** Makes the etcd client of a module, and makes contact unless it is lazy. */
export async function openEtcd(where: string, options: EtcdOpenOptions, log: AppLogger): Promise<Etcd3> {
  try {
    const { connectTimeoutMs, lazy, onClientCreated, closeOnShutdown: _, ...given } = record('options', options);
    const timeoutMs = integer('options.connectTimeoutMs', connectTimeoutMs, 10_000, { min: 1 });
    const { hosts } = given;
    if (hosts === undefined || hosts === null || hosts === '') {
      // Not the server on this machine, as of a client without options: the setting that they come from is missing.
      const got = hosts === '' ? 'an empty string' : kindOf(hosts);
      throw invalid('options.hosts', `expected the members, such as "10.0.0.1:2379", got ${got}`);
    }
    const client = new Etcd3({ logger: log, ...given } as unknown as IOptions);
    try {
      (onClientCreated as EtcdOpenOptions['onClientCreated'])?.(client);
      if (!lazy) await client.ready({ timeoutMs });
    } catch (error) {
      await client.close();
      throw error;
    }
    return client;
  } catch (error) {
    throw explained(where, error);
  }
}

function chosen(options: OpenOptions, log: AppLogger): { origin: string; given: object } {
  const { registry } = options;
  const variable = urlOfVariable();
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
      throw invalid(
        'registry',
        `expected a URL such as "etcd://10.0.0.1:2379" or options, got ${registry === '' ? 'an empty string' : 'undefined'}`,
      );
    }
    log.warn(NONE_GIVEN);
    return { origin: '', given: { backend: 'memory' } };
  }
  if (typeof registry === 'string') return { origin: '', given: parseUrl(registry) };
  if (isUrl(registry)) return { origin: '', given: parseUrl(registry.href) };
  return { origin: '', given: record('registry', registry, 'a URL or options') };
}

/** A failure of the start in one line: where, what, and what to do about it. */
export function explained(where: string, error: unknown): unknown {
  const advice = hint(error);
  return prefixed(error, `${where}: `, error instanceof Error && error.message.includes(advice) ? '' : advice);
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
