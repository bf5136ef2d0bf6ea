/** The methods of etcd's API: where each is, what goes in and out, and how it may be treated. */

import { MAX_DEPTH } from './codec.js';
import type { MessageName } from './schema.js';
import { METHOD_ROWS, type Requests } from './services.js';

/** One method of etcd's API. */
export interface RpcMethod {
  /** Its place in `METHODS`. */
  readonly index: number;
  readonly service: keyof Requests;
  /** As the clients call it: `deleteRange`. */
  readonly name: string;
  /** On the wire: `/etcdserverpb.KV/DeleteRange`. */
  readonly path: string;
  readonly request: MessageName;
  readonly response: MessageName;
  /** `unary`: one request, one answer. `answers`: one request, many answers. `both`: many of each. */
  readonly kind: 'unary' | 'answers' | 'both';
  /**
   * Whether it changes nothing, so that it may be sent again after any failure. `depends`: on the request; ask
   * `readsOnly`.
   */
  readonly reads: boolean | 'depends';
  /** Whether it may take minutes on a large store, so that no default time limit holds. `depends`: ask `takesLong`. */
  readonly long: boolean | 'depends';
}

/** Every method, by index. */
export const METHODS: readonly RpcMethod[] = METHOD_ROWS.map(([service, name, request, response, traits], index) => ({
  index,
  service,
  name,
  path: `/etcdserverpb.${service}/${name.charAt(0).toUpperCase()}${name.slice(1)}`,
  request,
  response,
  kind: traits?.kind ?? 'unary',
  reads: traits?.reads ?? false,
  long: traits?.long ?? false,
}));

const BY_NAME = new Map<string, Map<string, RpcMethod>>();
for (const method of METHODS) {
  const ofService = BY_NAME.get(method.service) ?? new Map<string, RpcMethod>();
  BY_NAME.set(method.service, ofService.set(method.name, method));
}

/** The method that a client calls so; `undefined` when there is none. */
export function methodOf(service: string, name: string): RpcMethod | undefined {
  return BY_NAME.get(service)?.get(name);
}

type Loose = Readonly<Record<string, unknown>> | null | undefined;

/** Whether this very call changes nothing, so that it may be sent again after any failure. */
export function readsOnly(method: RpcMethod, params: unknown): boolean {
  if (method.reads !== 'depends') return method.reads;
  const request = params as Loose;
  switch (method.name) {
    case 'txn':
      return onlyRanges(request, 0);
    case 'alarm':
      return [undefined, null, 0, 'Get'].includes(request?.action as never);
    case 'downgrade':
      return [undefined, null, 0, 'Validate'].includes(request?.action as never);
    default:
      return false;
  }
}

/** Whether this very call may take minutes. */
export function takesLong(method: RpcMethod, params: unknown): boolean {
  if (method.long !== 'depends') return method.long;
  return (params as Loose)?.physical === true; // a compaction that waits for the store to be cleaned
}

function onlyRanges(txn: Loose, depth: number): boolean {
  if (depth > MAX_DEPTH) return false; // the codec refuses it anyway
  return [txn?.success, txn?.failure].every(
    (operations) =>
      operations == null ||
      (Array.isArray(operations) &&
        operations.every((operation: Loose) => {
          if (operation?.request_put != null || operation?.request_delete_range != null) return false;
          return operation?.request_txn == null || onlyRanges(operation.request_txn as Loose, depth + 1);
        })),
  );
}
