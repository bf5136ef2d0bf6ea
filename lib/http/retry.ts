/** The tries of one request: on which instance, and whether there is another one. */

import { NoInstanceError } from '../errors.js';
import type { RetryBudget } from '../service/budget.js';
import type { Endpoint } from '../service/endpoint.js';
import type { Filter } from '../service/pick/types.js';
import type { Picked } from '../service/ticket.js';
import type { PickOptions } from '../service/view.js';

/** What is needed of a service: a `ServiceCache` is one. */
export interface CalledService {
  readonly name: string;
  readonly state: string;
  readonly instances: { readonly length: number };
  readonly budget: RetryBudget;
  pick(options: PickOptions): Picked;
  ready(options: { timeoutMs?: number | undefined; signal?: AbortSignal | undefined }): Promise<unknown>;
  /** Looks whether there is a newer list that this thread has not heard of. */
  refresh(): void;
  /** A call is tried again. */
  noteRetry(): void;
}

/** How a try failed. */
export interface Failure {
  /** Something may have been sent: the instance may have acted on it. */
  readonly sent: boolean;
  /** The request may be sent again though it was sent, and its body can be. */
  readonly repeatable: boolean;
  /** There was no answer in time, rather than that a connection broke: the same instance is not tried again. */
  readonly late: boolean;
}

/** Methods that change nothing, of those that `fetch` takes: RFC 9110, 9.2.1. */
const SAFE = new Set(['GET', 'HEAD', 'OPTIONS']);

/** Whether a request may be sent twice, by what it says of itself. */
export function isRepeatable(method: string, idempotent: boolean | undefined, headers?: Headers): boolean {
  return idempotent ?? (SAFE.has(method.toUpperCase()) || (headers?.has('idempotency-key') ?? false));
}

/** Whether the first list has yet to come. The state is asked of the native side: not where there is a list. */
export function isLoading(service: Pick<CalledService, 'instances' | 'state'>): boolean {
  return service.instances.length === 0 && service.state === 'loading';
}

/** What stands before the path. */
export function originOf({ secure, host, port }: Endpoint): string {
  return `${secure ? 'https' : 'http'}://${host.includes(':') ? `[${host}]` : host}:${port}`;
}

/** Whether it can be called over HTTP. Unix sockets are not. */
export function isCallable(endpoint: Endpoint): boolean {
  if (endpoint.scheme !== 'http' && endpoint.scheme !== 'https') return false;
  try {
    // A host such as `a\b` would be another one to `fetch`.
    return new URL(originOf(endpoint)).port !== '' || endpoint.port === (endpoint.secure ? 443 : 80);
  } catch {
    return false;
  }
}

/** Of a pick that comes to nothing: it counts for nothing. */
export const NOT_CALLED = Object.freeze({ error: Object.freeze({ name: 'AbortError' }) });

/**
 * Chooses an instance for each try. What was not sent may go to another instance, whatever it is; what may have been sent
 * only when it is repeatable. Each try after the first is asked of the service's budget, so that an outage, in which every
 * call fails, is not made worse.
 */
export class Tries {
  readonly #service: CalledService;
  readonly #key: string | undefined;
  readonly #filter: Filter;
  #tried: Set<string> | undefined;
  #left: number;

  constructor(
    service: CalledService,
    { key, retries, filter }: { key: string | undefined; retries: number; filter: Filter },
  ) {
    this.#service = service;
    this.#key = key;
    this.#filter = filter;
    this.#left = retries;
  }

  /** For the first try. @throws as `pick()` */
  first(): Picked {
    this.#service.refresh();
    const picked = this.#service.pick({ key: this.#key, filter: this.#filter });
    this.#service.budget.deposit();
    return picked;
  }

  /** For the next one, after `picked` failed; `undefined`: it is to be left at that. */
  next({ instance }: Picked, { sent, repeatable, late }: Failure): Picked | undefined {
    if (this.#left === 0 || (sent && !repeatable)) return undefined;
    this.#tried ??= new Set();
    this.#tried.add(instance.id);
    this.#service.refresh();
    // A connection that was kept may have been closed meanwhile: another one to the only instance may do.
    const picked = this.#another(this.#tried) ?? (sent && !late ? this.#another(undefined) : undefined);
    if (!picked) return undefined;
    if (!this.#service.budget.withdraw()) {
      picked.done(NOT_CALLED);
      return undefined;
    }
    this.#left--;
    this.#service.noteRetry();
    return picked;
  }

  #another(exclude: ReadonlySet<string> | undefined): Picked | undefined {
    try {
      return this.#service.pick({ key: this.#key, filter: this.#filter, exclude });
    } catch (error) {
      if (error instanceof NoInstanceError) return undefined;
      throw error;
    }
  }
}
