/** What sends a request to one instance. */

import { each } from '../service/pick/filters.js';
import type { Filter } from '../service/pick/types.js';
import type { Picked } from '../service/ticket.js';
import type { Limit } from './limit.js';
import { isCallable, originOf } from './retry.js';

/** For one try: the sender says what it is dispatched by. */
export type TryInit = Omit<RequestInit, 'dispatcher'> & { dispatcher?: object };

/** Sends a request to the instance that was picked. */
export interface Sender {
  /** Which it can call. */
  readonly filter: Filter;
  /** What a redirect of an instance may name in the place of the service: first what the request was sent to. */
  origins(picked: Picked): readonly string[];
  /** One try, which ends with its limit. Rejects as the built-in `fetch` does. */
  send(picked: Picked, path: string, init: TryInit, limit: Limit): Promise<Response>;
}

/** The built-in `fetch` with the address of the instance in the place of the name. */
export const addresses: Sender = {
  filter: each('http', ({ endpoint }) => isCallable(endpoint)),
  origins: ({ endpoint }) => [originOf(endpoint)],
  send: ({ endpoint }, path, init, limit) => {
    init.dispatcher = limit;
    return fetch(`${originOf(endpoint)}${path}`, init as RequestInit);
  },
};
