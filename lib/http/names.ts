/** Names of services in URLs: `http://orders/7`. */

import { isIP } from 'node:net';
import { invalid, kindOf } from '../common/shape.js';
import type { ServiceInstance } from '../registry/instance.js';
import type { ServiceCache } from '../service/cache.js';
import type { ServiceOptions } from '../service/options.js';

/** What is needed of a registry: a `Registry` is one, and the `RegistryService` of Midway. */
export interface ServiceRegistry {
  service(name: string, options?: ServiceOptions): ServiceCache;
}

/** A URL that was taken apart. */
export interface NamedUrl {
  readonly name: string;
  /** `https:` was asked for. */
  readonly secure: boolean;
  /** From its slash on, with the query. */
  readonly path: string;
}

const EXAMPLE = 'expected a URL such as "http://orders/7", whose host is the name of a service';

/**
 * Takes a URL apart.
 *
 * @throws `ERR_INVALID_ARGUMENT` that names the part: a user, a port, a name that the URL has changed.
 */
export function namedUrl(path: string, given: unknown): NamedUrl {
  if (typeof given !== 'string' && !isUrl(given)) throw invalid(path, `${EXAMPLE}, got ${kindOf(given)}`);
  const text = typeof given === 'string' ? given : given.href;
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw invalid(path, `${EXAMPLE}, got a string that is no URL`);
  }
  const { protocol, hostname, pathname, search } = url;
  if (protocol !== 'http:' && protocol !== 'https:') throw invalid(path, `${EXAMPLE}, got one of ${protocol}`);
  if (url.username || url.password)
    throw invalid(`${path}.username`, 'a call by name has no user in its URL; send a header');
  const [, authority = ''] = /^\s*[a-z]+:[/\\]{2}([^/\\?#]*)/i.exec(text) ?? [];
  if (url.port || /:\d*$/.test(authority)) {
    throw invalid(
      `${path}.port`,
      'a call by name has no port in its URL: the registry knows where an instance listens',
    );
  }
  const instead = (name: string) => `call registry.service('${name}').fetch('/path')`;
  if (authority !== hostname) {
    throw invalid(path, `a URL turns the name "${authority}" into "${hostname}": ${instead(authority)}`);
  }
  if (isIP(hostname.replace(/^\[|\]$/g, ''))) {
    throw invalid(path, `${hostname} is an address: of a service that is called so ${instead(hostname)}`);
  }
  return { name: hostname, secure: protocol === 'https:', path: `${pathname}${search}` };
}

function isUrl(value: unknown): value is URL {
  return typeof value === 'object' && value !== null && typeof (value as Partial<URL>).href === 'string';
}

/** Whether text is a name that a certificate can carry and that a URL keeps, but for upper case. */
export function isHostName(text: string): boolean {
  if (!/^[a-z0-9_]([a-z0-9._-]{0,251}[a-z0-9_])?$/i.test(text) || isIP(text)) return false;
  try {
    return new URL(`http://${text}`).hostname === text.toLowerCase();
  } catch {
    return false;
  }
}

/** The name that an instance must prove, and under which it is called; `undefined`: there is none that could be. */
export function serverNameOf({ name, metadata }: ServiceInstance, option: string | undefined): string | undefined {
  const wanted = metadata.serverName || option || name;
  return isHostName(wanted) ? wanted.toLowerCase() : undefined;
}

/** Names that are kept; over it the one that was used least lately is let go. */
const KEPT = 256;

/** The services that were called by name. `Kept` is what is known of each. */
export class Names<Kept extends { readonly service: ServiceCache; close(): void }> {
  readonly #open: (name: string) => Kept;
  readonly #kept = new Map<string, Kept>();
  #closed = false;

  constructor(open: (name: string) => Kept) {
    this.#open = open;
  }

  get(name: string): Kept {
    let kept = this.#kept.get(name);
    if (kept) {
      if (this.#kept.size < 2) return kept;
      this.#kept.delete(name); // to the end of the line
    } else kept = this.#open(name);
    this.#kept.set(name, kept);
    if (this.#kept.size > KEPT) this.#drop(this.#kept.keys().next().value as string);
    return kept;
  }

  /** Closes all that was opened; gives it. */
  close(): Kept[] {
    this.#closed = true;
    const all = [...this.#kept.values()];
    for (const name of [...this.#kept.keys()]) this.#drop(name);
    return all;
  }

  get closed(): boolean {
    return this.#closed;
  }

  #drop(name: string): void {
    const kept = this.#kept.get(name);
    this.#kept.delete(name);
    kept?.close();
    kept?.service.release();
  }
}
