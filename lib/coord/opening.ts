/** From options, a URL or the environment to a client of coord. */

import { invalid, isRecord, kindOf, onlyKnown } from '../common/shape.js';
import { InvalidArgumentError } from '../errors.js';
import type { RegistryOptions } from '../registry/backends/index.js';
import { connect, type UrlOptions } from '../registry/connect.js';
import { urlOfVariable } from '../registry/environment.js';
import type { Registry } from '../registry/registry.js';
import { isUrl } from '../registry/url.js';
import { Coord } from './coord.js';
import { identityOf, OWN } from './options.js';

/** The environment variable that holds the URL of the store. */
const VARIABLE = 'ROLLCALL_COORD';

/** See `connectCoord()`. */
export async function opened(target: unknown): Promise<Coord> {
  const options = optionsOf(target);
  const identity = identityOf(options);
  const rest: Bag = Object.fromEntries(Object.entries(options).filter(([name]) => !OWN.some((own) => own === name)));
  if (rest.registry !== undefined) return Coord.of(registryOf(rest), identity, false);
  // Who has files starts without the store.
  if (identity.cacheDir !== undefined) rest.lazy ??= true;
  return Coord.of(await connected(rest), identity, true);
}

type Bag = Record<string, unknown>;

function optionsOf(target: unknown): Bag {
  if (target === undefined) return {};
  if (typeof target === 'string' || isUrl(target)) return { url: target };
  if (isRecord(target)) return target;
  throw invalid('target', `expected a URL or an object of options, got ${kindOf(target)}`);
}

/** A registry client by its shape: it may be of another copy of the package. */
function registryOf({ registry, ...rest }: Bag): Registry {
  onlyKnown('options', rest, [], () => 'given together with options.registry, which has its own: leave it out');
  const { inside } = (registry ?? {}) as Partial<Registry>;
  if (typeof inside === 'function') return registry as Registry;
  throw invalid('options.registry', `expected a client that connect() has made, got ${kindOf(registry)}`);
}

async function connected({ etcd, ...rest }: Bag): Promise<Registry> {
  if (etcd !== undefined) return await connect({ ...rest, client: etcd } as RegistryOptions);
  if (rest.url !== undefined || rest.backend !== undefined || rest.client !== undefined) {
    return await connect(rest as unknown as RegistryOptions);
  }
  const url = process.env[VARIABLE];
  if (url) {
    try {
      return await connect({ ...rest, url } as UrlOptions);
    } catch (error) {
      if (!(error instanceof InvalidArgumentError)) throw error;
      throw new InvalidArgumentError(`${error.message} (from ${VARIABLE})`, {
        operation: 'connectCoord',
        cause: error.cause,
      });
    }
  }
  if (Object.keys(rest).length === 0) return await connect();
  return await connect({ ...rest, url: urlOfVariable() ?? 'memory://' } as UrlOptions);
}
