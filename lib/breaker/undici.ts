/** Breakers before the requests of a dispatcher of undici 6, 7 or 8: `agent.compose(breakers.undici())`. */

import { invalid, kindOf } from '../common/shape.js';
import { Relay, tellFailure } from '../http/relay.js';
import type { Breaker, Permit } from './breaker.js';

/** What `compose()` of a dispatcher takes. */
// biome-ignore lint/suspicious/noExplicitAny: each undici has types of its own
export type UndiciInterceptor = (dispatch: any) => (options: any, handler: any) => boolean;

/** How a request is named. Default: `http:<host>`. */
export type UndiciName = (origin: URL, options: { readonly path?: string; readonly method?: string }) => string;

/** @param breakerOf the breaker of a name. */
export function undiciInterceptor(
  breakerOf: (name: string) => Breaker,
  name: UndiciName | undefined,
): UndiciInterceptor {
  if (name !== undefined && typeof name !== 'function') {
    throw invalid('name', `expected a function, got ${kindOf(name)}`);
  }
  const nameOf: UndiciName = name ?? (({ host }) => `http:${host}`);
  return (dispatch) => (options, handler) => {
    if (options.origin === undefined) {
      throw invalid('origin', 'expected that of the request: a Pool and a Client leave it out, compose an Agent');
    }
    const breaker = breakerOf(nameOf(new URL(String(options.origin)), options));
    let permit: Permit;
    try {
      permit = breaker.acquire();
    } catch (error) {
      tellFailure(handler, error);
      return true;
    }
    const relay = new Relay(handler, {
      refusal: () => undefined,
      head(status) {
        // An answer has begun. What becomes of its body is the reader's.
        permit.done({ error: status >= 500 ? Object.assign(new Error(`HTTP ${status}`), { status }) : undefined });
      },
      failed(error, { isAborted }) {
        permit.done({ error, aborted: isAborted });
        return false;
      },
    });
    try {
      return dispatch(options, relay);
    } catch (error) {
      permit.done({ aborted: true }); // nobody was called
      throw error;
    }
  };
}
