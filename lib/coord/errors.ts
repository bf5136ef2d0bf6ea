/** The errors that only `rollcall/coord` has. */

import { brand, type ErrorDetails, RollcallError } from '../errors.js';
import type { Entry } from './config/entry.js';

/** What a `ConflictError` tells. */
export interface ConflictDetails extends ErrorDetails {
  /** What stands at the key. */
  current: Entry | null;
}

/** What was to be changed was changed by somebody else before. Nothing was written. */
export class ConflictError extends RollcallError {
  declare readonly code: 'ERR_CONFLICT';
  /** What stands at `key` now; `null`: nothing. Decide anew by it, and write with its revision. */
  readonly current: Entry | null;

  constructor(message: string, { current, ...details }: ConflictDetails) {
    super('ERR_CONFLICT', message, details);
    this.current = current;
  }
}

/** There is no such version of a key, or it was not kept. */
export class NotFoundError extends RollcallError {
  declare readonly code: 'ERR_NOT_FOUND';
  constructor(message: string, details?: ErrorDetails) {
    super('ERR_NOT_FOUND', message, details);
  }
}

/** One thing that is wrong with a value. */
export interface ConfigIssue {
  /** What is wrong: the words of the schema, or ours. */
  readonly message: string;
  /** Where, such as `db.hosts[0]`; empty for the whole. */
  readonly path: string;
  /** Of a record: which of its entries was refused, by its name. */
  readonly entry?: string;
}

/** What an `InvalidConfigError` tells. */
export interface InvalidConfigDetails extends ErrorDetails {
  /** What is wrong; at least one thing. */
  issues: readonly ConfigIssue[];
}

/**
 * A configuration was refused: its text can't be read, or its schema doesn't accept it. `key` says which, `revision` at which
 * revision of the store.
 */
export class InvalidConfigError extends RollcallError {
  declare readonly code: 'ERR_INVALID_CONFIG';
  /** What is wrong; at least one thing. */
  readonly issues: readonly ConfigIssue[];

  constructor(message: string, { issues, ...details }: InvalidConfigDetails) {
    super('ERR_INVALID_CONFIG', message, details);
    this.issues = issues;
  }
}

brand(ConflictError, 'ConflictError');
brand(InvalidConfigError, 'InvalidConfigError');
brand(NotFoundError, 'NotFoundError');
