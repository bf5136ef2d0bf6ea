/** What the messages of all services have in common. `messages.ts` says what holds for all. */

/** A 64-bit number in a request: a decimal string, a number up to 2^53 - 1 or a bigint. Anything else is refused. */
export type Int64 = string | number | bigint;

/** With every answer: who answered, and when. */
export interface IResponseHeader {
  /** Unsigned. */
  cluster_id: string;
  /** The member that answered. Unsigned. */
  member_id: string;
  /** The revision of the store when the request was applied. Not the revision of what was found. */
  revision: string;
  /** Unsigned. */
  raft_term: string;
}
