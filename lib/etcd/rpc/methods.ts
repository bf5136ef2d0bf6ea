/** The methods of etcd's API: where each is, what goes in and out, and how it may be treated. */

import { MAX_DEPTH } from './codec.js';
import type { MessageName } from './schema.js';
import { METHOD_ROWS } from './services.js';

/** One method of etcd's API. */
export interface RpcMethod {
  /** Its place in `METHODS`. */
  readonly index: number;
  readonly service: (typeof METHOD_ROWS)[number][0];
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

type Treatment = Pick<RpcMethod, 'reads' | 'long'>;

const WRITES: Treatment = { reads: false, long: false };
const READS: Treatment = { reads: true, long: false };
const READS_LONG: Treatment = { reads: true, long: true };
const DEPENDS: Treatment = { reads: 'depends', long: false };

/** How each method may be treated, which the protocol does not say. */
const TREATMENTS: Readonly<Record<(typeof METHOD_ROWS)[number][1], Treatment>> = {
  range: READS,
  rangeStream: READS_LONG,
  put: WRITES,
  deleteRange: WRITES,
  txn: DEPENDS,
  compact: { reads: false, long: 'depends' },
  watch: READS,
  leaseGrant: WRITES,
  leaseRevoke: WRITES,
  leaseKeepAlive: READS,
  leaseTimeToLive: READS,
  leaseLeases: READS,
  memberAdd: WRITES,
  memberRemove: WRITES,
  memberUpdate: WRITES,
  memberList: READS,
  memberPromote: WRITES,
  alarm: DEPENDS,
  status: READS,
  defragment: { reads: false, long: true },
  hash: READS_LONG,
  hashKV: READS_LONG,
  snapshot: READS_LONG,
  moveLeader: WRITES,
  downgrade: DEPENDS,
  authEnable: WRITES,
  authDisable: WRITES,
  authStatus: READS,
  authenticate: READS,
  userAdd: WRITES,
  userGet: READS,
  userList: READS,
  userDelete: WRITES,
  userChangePassword: WRITES,
  userGrantRole: WRITES,
  userRevokeRole: WRITES,
  roleAdd: WRITES,
  roleGet: READS,
  roleList: READS,
  roleDelete: WRITES,
  roleGrantPermission: WRITES,
  roleRevokePermission: WRITES,
};

/** Every method, by index. */
export const METHODS: readonly RpcMethod[] = METHOD_ROWS.map(([service, name, request, response, kind], index) => ({
  index,
  service,
  name,
  path: `/etcdserverpb.${service}/${name.charAt(0).toUpperCase()}${name.slice(1)}`,
  request,
  response,
  kind,
  ...TREATMENTS[name],
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
