/** `fetch` for URLs whose host is the name of a service. */

import { invalid, isRecord, optional } from '../common/shape.js';
import { ClosedError } from '../errors.js';
import { checked } from '../registry/call.js';
import type { ServiceCache } from '../service/cache.js';
import type { ServiceRequestInit } from '../service/http.js';
import { each } from '../service/pick/filters.js';
import { agentSettings, checkRegistry, type ServiceAgentOptions } from './agent.js';
import { noteUnsent } from './failure.js';
import { fetchOfService } from './fetch.js';
import { Names, namedUrl, type ServiceRegistry } from './names.js';
import { Pools } from './pools.js';
import { Relay } from './relay.js';
import { isCallable, originOf } from './retry.js';
import { addresses, type Sender } from './sender.js';
import { UNDICI_RANGE, type UndiciModule, undiciOf } from './undici.js';

/** How services are called. */
export interface CreateFetchOptions extends Omit<ServiceAgentOptions, 'undici'> {
  /**
   * As of a `ServiceAgent`. `false`: the built-in `fetch` alone, as for a program that has no undici. Then the Host header and the
   * name that a certificate must carry are those of an instance's address, and of `serverName`, `tls`, `connectTimeoutMs` and
   * `drainTimeoutMs` none can be given.
   */
  undici?: UndiciModule | false | undefined;
}

/** A `fetch` that takes the host of a URL for the name of a service. */
export interface ServiceFetch {
  (input: string | URL | Request, init?: ServiceRequestInit): Promise<Response>;
  /** Lets its services go, and resolves when the calls under way have ended, `drainTimeoutMs` at the latest. */
  close(): Promise<void>;
}

/** One service as it is called. */
interface Kept {
  readonly service: ServiceCache;
  sender(secure: boolean): Sender;
  close(): void;
  closed(): Promise<void>;
}

/**
 * A `fetch` for URLs such as `http://orders/7`, to be handed to what takes a `fetch`. It is `registry.service('orders').fetch('/7')`:
 * tries, deadlines, the budget, redirects and errors are the same. Its answers are those of the built-in `fetch`.
 *
 * Where the program has undici, connections are made by it: one pool for each instance, the Host header is the name of the
 * service, an `https://` endpoint has to prove that name, and an instance that has left gets no further request. undici is loaded
 * with the first call, never before. `https://orders/` calls `https://` endpoints alone, `http://orders/` both.
 *
 * @throws `ERR_INVALID_ARGUMENT`. The calls also reject with it for a URL with a port or a user in it, or with a name that a URL
 *   changes: call `registry.service(name).fetch(path)` there; and with `ERR_UNSUPPORTED` for an undici that does not fit.
 */
export function createFetch(registry: ServiceRegistry, options?: CreateFetchOptions): ServiceFetch {
  const { settings, given } = checked('createFetch', () => {
    checkRegistry(registry);
    const { undici, ...rest } = optional('options', options) as CreateFetchOptions;
    if (undici === false) refuseWithout(rest);
    return { settings: agentSettings(rest), given: undici };
  });
  let undici: UndiciModule | undefined;
  let isLoaded = given === false;
  const names = new Names<Kept>((name) => {
    if (!isLoaded) {
      undici = undiciOf('options.undici', given);
      if (!undici) refuseWithout(options ?? {});
      isLoaded = true;
    }
    const service = registry.service(name, settings.service);
    return undici ? pooled(new Pools(service, { ...settings, undici })) : plain(service);
  });

  const call = async (input: string | URL | Request, init?: ServiceRequestInit): Promise<Response> => {
    const { kept, path, secure, how } = checked('fetch', () => {
      if (names.closed) throw new ClosedError('fetch: it was closed', { operation: 'fetch' });
      const { name, path, secure } = namedUrl('input', urlOf(input));
      return { path, secure, how: isRequest(input) ? ofRequest(input, init) : init, kept: names.get(name) };
    });
    return await fetchOfService(kept.service, path, how, settings.http, { sender: kept.sender(secure) });
  };
  const close = async () => {
    await Promise.all(names.close().map((kept) => kept.closed()));
  };
  return Object.assign(call, { close });
}

/** What needs undici is refused where there is none: the name that a certificate must carry would be another one. */
function refuseWithout(options: object): void {
  for (const key of ['serverName', 'tls', 'connectTimeoutMs', 'drainTimeoutMs']) {
    if ((options as Record<string, unknown>)[key] === undefined) continue;
    throw invalid(`options.${key}`, `it needs undici, and there is none: install ${UNDICI_RANGE}`);
  }
}

const isRequest = (input: unknown): input is Request =>
  typeof input === 'object' && input !== null && typeof (input as Partial<Request>).url === 'string';

const urlOf = (input: string | URL | Request): unknown => (isRequest(input) ? input.url : input);

/** What a `Request` says, as far as `init` does not say otherwise. */
function ofRequest(request: Request, init: unknown): unknown {
  const { method, headers, body, signal, redirect, integrity, keepalive } = request;
  const own = { method, headers, body: body ?? undefined, signal, redirect, integrity, keepalive, duplex: 'half' };
  return init === undefined || isRecord(init) ? { ...own, ...init } : init;
}

/** By the built-in `fetch`, at the address of an instance. */
function plain(service: ServiceCache): Kept {
  const filter = each('https', ({ endpoint }) => endpoint.secure && isCallable(endpoint));
  const secured: Sender = { ...addresses, filter };
  return { service, sender: (secure) => (secure ? secured : addresses), close: () => {}, closed: async () => {} };
}

/** By the built-in `fetch`, over pools of undici. */
function pooled(pools: Pools): Kept {
  const sender = (filter: Sender['filter']): Sender => ({
    filter,
    origins: (picked) => [pools.originOf(picked), originOf(picked.endpoint)],
    send: (picked, path, init, limit) => {
      const origin = pools.originOf(picked);
      // It knows no URL but this one: the pool leads to the instance.
      const dispatch = (options: object, handler: object) => {
        limit.tie(handler);
        const relay = new Relay(handler, {
          refusal: () => pools.refusal(picked),
          head: () => {},
          failed: unsentIfNotStarted,
        });
        try {
          pools.service.refresh();
          (options as { allowH2?: boolean }).allowH2 = false; // what `fetch` made for this one request
          return pools.at(picked).dispatch(options, relay);
        } catch (error) {
          relay.onError(error);
          return true;
        }
      };
      init.dispatcher = { dispatch };
      return fetch(`${origin}${path}`, init as RequestInit);
    },
  });
  const [any, secure] = [sender(pools.any), sender(pools.secure)];
  return {
    service: pools.service,
    sender: (isSecure) => (isSecure ? secure : any),
    close: () => pools.close(),
    closed: () => pools.closed(),
  };
}

function unsentIfNotStarted(error: unknown, { sent, isAborted }: { sent: boolean; isAborted: boolean }): boolean {
  if (!sent && !isAborted) noteUnsent(error);
  return false;
}
