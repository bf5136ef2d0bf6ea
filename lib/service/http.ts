/** What calls over HTTP take. They are made by lib/http, which is loaded with the first `fetch()`. */

/** How the calls of one user of a service are tried; each call may say otherwise. */
export interface HttpOptions {
  /** Tries after the first one, each on another instance where there is one. Default 2. */
  retries?: number | undefined;
  /** From the call to the head of its answer, all tries and redirects together, in milliseconds; 0: for ever. Default 30,000. */
  timeoutMs?: number | undefined;
  /** For one try, to the head of its answer, in milliseconds; 0, the default: as long as the call may take. */
  perTryTimeoutMs?: number | undefined;
  /** Statuses that speak against an instance, as a broken connection does. Default: 502, 503 and 504. */
  failedStatuses?: readonly number[] | undefined;
}

/** What `fetch()` of a service takes: what any `fetch()` takes but a `dispatcher`, and how the call is tried. */
export interface ServiceRequestInit extends Omit<RequestInit, 'dispatcher' | 'signal'> {
  /** Ends the call with `ERR_ABORTED`, and the reading of its answer as it ends that of any `fetch()`. */
  signal?: AbortSignal | null | undefined;
  /** For `consistentHash()`: the same key goes to the same instance. */
  key?: string | undefined;
  /** As in the options of the service. */
  timeoutMs?: number | undefined;
  /** As in the options of the service. */
  perTryTimeoutMs?: number | undefined;
  /** As in the options of the service. */
  retries?: number | undefined;
  /**
   * The request may be sent again although an instance may have acted on it. Default: for GET, HEAD and OPTIONS, and with a
   * header `Idempotency-Key`. A stream is never sent again once a part of it was read. Any other body is kept until the head
   * of the answer: do not change its bytes meanwhile.
   */
  idempotent?: boolean | undefined;
}

/** `fetch()` of a service, as lib/http has it. */
export type FetchOfService = (
  service: unknown,
  path: unknown,
  init: unknown,
  settings: unknown,
  ways?: { tally?: { attempts: number } | undefined },
) => Promise<Response>;
