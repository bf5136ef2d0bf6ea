/** The one way in: from options, a URL or the environment to a registry client. */

import { fromNative } from '../common/failure.js';
import { logOf } from '../common/logger.js';
import { invalid, isRecord, kindOf } from '../common/shape.js';
import { InvalidArgumentError } from '../errors.js';
import { native } from '../native.js';
import type { RegistryOptions } from './backends/index.js';
import { named } from './call.js';
import type { CommonOptions } from './common-options.js';
import { NONE_GIVEN, urlOfVariable, VARIABLE } from './environment.js';
import { type Settings, settle } from './options.js';
import { Registry } from './registry.js';
import { isUrl, parseUrl } from './url.js';

/** A registry by its URL, with what no URL can say beside it, such as `logger` and `observe`. */
export interface UrlOptions extends CommonOptions {
  /** Such as `etcd://10.0.0.1:2379`. What stands beside it counts before what it says. */
  url: string | URL;
}

let defaultTold = false;

/**
 * Connects to a registry: given by options, by a URL (`etcd://user:password@host:2379?prefix=/x`; the query names the same
 * options, values percent-encoded), by both (`{ url, observe }`), or without an argument by the environment variable
 * `ROLLCALL_REGISTRY`, which holds a URL, else the memory of this process. `{ client }` with an `Etcd3` of `rollcall/etcd` makes it
 * work on the connection of that client.
 *
 * Resolves after the first contact, in which credentials are proved; with `lazy: true` at once and without one. It tries
 * until `connectTimeoutMs` have passed, except when the server refuses.
 *
 * @throws `ERR_INVALID_ARGUMENT`, `ERR_TIMEOUT`, `ERR_UNAVAILABLE`, `ERR_UNAUTHENTICATED`, `ERR_PERMISSION_DENIED`; for a
 * `client` that is closed `ERR_CLOSED`, and for a mocked one `ERR_UNSUPPORTED`.
 */
export async function connect(options?: string | URL | UrlOptions | RegistryOptions): Promise<Registry> {
  let settings: Settings;
  const variable = options === undefined ? urlOfVariable() : undefined;
  try {
    settings = await settle(given(options === undefined ? variable : options));
  } catch (error) {
    throw explained(error, variable !== undefined);
  }
  if (options === undefined && variable === undefined && !defaultTold) {
    defaultTold = true;
    // Nobody can have given a logger: this one line goes to the console although it is no warning.
    logOf('options.logger', console).write('info', NONE_GIVEN);
  }
  let registry: Registry;
  try {
    registry = Registry.open(settings, (wake) =>
      settings.lender
        ? settings.lender.openRegistry(settings.native, wake)
        : native().ClientHandle.open(settings.native, wake),
    );
  } catch (error) {
    throw fromNative(error, 'connect');
  }
  if (!settings.lazy) await registry.contact();
  return registry;
}

function given(options: unknown): unknown {
  if (options === undefined) return { backend: 'memory' };
  if (typeof options === 'string') return parseUrl(options);
  if (isUrl(options)) return parseUrl(String(options.href));
  if (!isRecord(options) || 'backend' in options || !('url' in options)) return options;
  const { url, ...beside } = options;
  if (typeof url === 'string' || isUrl(url)) return { ...parseUrl(String(url)), ...beside };
  throw invalid('options.url', `expected a URL such as "etcd://10.0.0.1:2379", got ${kindOf(url)}`);
}

/** A wrong option, with the operation, and with where it comes from. */
function explained(error: unknown, fromVariable: boolean): unknown {
  if (!(error instanceof InvalidArgumentError) || !fromVariable) return named(error, 'connect');
  return new InvalidArgumentError(`${error.message} (from ${VARIABLE})`, { operation: 'connect', cause: error.cause });
}
