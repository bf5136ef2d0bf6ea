/** Transactions: compare, then do one thing or the other, all at once. */

import { InvalidArgumentError } from '../../errors.js';
import { type Bytes, int64, plainError, unexpected, valueBytes } from '../check.js';
import { keyMissing } from '../errors.js';
import type { CallOptions } from '../rpc/calls.js';
import { CompareResult, CompareTarget } from '../rpc/enums.js';
import type { ICompare, IRequestOp, ITxnRequest, ITxnResponse } from '../rpc/messages.js';
import type { Keyspace } from './keyspace.js';
import { Range } from './range.js';
import type { Caller, IOperation } from './request.js';

/** How a transaction can compare. */
export const comparator = {
  '==': CompareResult.Equal,
  '===': CompareResult.Equal,
  '>': CompareResult.Greater,
  '<': CompareResult.Less,
  '!=': CompareResult.NotEqual,
  '!==': CompareResult.NotEqual,
};

/** A column and the field of a compare that holds its value. */
export interface ICompareTarget {
  value: CompareTarget;
  key: keyof ICompare;
}

/** What a transaction can compare, and the field of a compare that holds it. */
export const compareTarget: { [key in keyof typeof CompareTarget]: keyof ICompare } = {
  Value: 'value',
  Version: 'version',
  Create: 'create_revision',
  Mod: 'mod_revision',
  Lease: 'lease',
};

/** A key, one of its columns, and what that has to be. */
export type Comparison = [
  key: string | Buffer | Range,
  column: keyof typeof CompareTarget,
  cmp: keyof typeof comparator,
  value: string | Buffer | number | bigint,
];

/**
 * A transaction: when every comparison holds, the operations of `then()` are done, else those of `else()`, all at one
 * revision. Nothing is sent before `commit()`; the builder can't be awaited.
 *
 * A transaction that only reads is tried again as any read. Any other is sent again only when it has surely not been
 * applied; when that can't be known it rejects, and `outcomeUnknown` of the error is true.
 */
export class ComparatorBuilder implements IOperation {
  readonly #caller: Caller;
  readonly #keyspace: Keyspace;
  readonly #compare: ICompare[] = [];
  #success: Promise<IRequestOp>[] = [];
  #failure: Promise<IRequestOp>[] = [];
  #options: CallOptions | undefined;

  /** @internal */
  constructor(caller: Caller, keyspace: Keyspace) {
    this.#caller = caller;
    this.#keyspace = keyspace;
  }

  /** Options of the commit: `timeoutMs`, `deadline`, `signal`. They take the place of earlier ones. */
  options(options: CallOptions | undefined): this {
    this.#options = options;
    return this;
  }

  /**
   * Adds a comparison; all of them have to hold. Of a key that does not exist `Version`, `Create`, `Mod` and `Lease` are
   * 0, and comparing its `Value` never holds. With a `Range` every key in it has to meet the condition.
   * A compare in etcd's own form, such as `campaign.guard()` and `lock.guard()` give it, is taken as it is: its key is a
   * whole one, of no namespace.
   *
   * @throws Error for an unknown column or comparison, InvalidArgumentError for a key or value of the wrong type.
   */
  and(guard: ICompare): this;
  and(...comparison: Comparison): this;
  and(...comparison: [ICompare] | Comparison): this {
    if (comparison.length === 1) {
      if (typeof comparison[0] !== 'object' || !('target' in comparison[0])) throw unexpectedGuard();
      this.#compare.push(comparison[0]);
      return this;
    }
    const [key, column, cmp, value] = comparison;
    const target = columnOf(column);
    const compares = Object.keys(comparator);
    if (!compares.includes(cmp)) throw unexpected(cmp, 'comparator in client.and(...)', compares);
    const keys = key instanceof Range ? this.#keyspace.range(key) : { key: this.#keyspace.key(key) };
    this.#compare.push({
      ...keys,
      result: comparator[cmp],
      target: CompareTarget[target],
      [compareTarget[target]]:
        target === 'Value'
          ? valueBytes(value as Bytes | number, 'comparison with Value')
          : int64(value as string | number | bigint, `comparison with ${target}`),
    });
    return this;
  }

  /**
   * What is done when all comparisons hold; takes the place of an earlier `then()`. Builders give their operation now.
   * Another transaction can be one of them.
   *
   * Not for `await`: given functions, as `await` gives them, it rejects, for `commit()` was forgotten.
   *
   * @throws InvalidArgumentError for what is not an operation.
   */
  // biome-ignore lint/suspicious/noThenProperty: the name that etcd3 has given it
  then(...clauses: (IRequestOp | IOperation)[]): this {
    if (clauses.some((clause) => typeof clause === 'function')) {
      const [resolve, reject] = clauses as unknown as [undefined, undefined];
      return Promise.reject(
        plainError('The transaction was awaited, but not sent: call .commit() after .then() and .else().'),
      ).then(resolve, reject) as unknown as this;
    }
    this.#success = this.mapOperations(clauses);
    return this;
  }

  /** What is done when a comparison does not hold; takes the place of an earlier `else()`. Otherwise like `then()`. */
  else(...clauses: (IRequestOp | IOperation)[]): this {
    this.#failure = this.mapOperations(clauses);
    return this;
  }

  /**
   * Sends the transaction, and resolves with etcd's answer: whether the comparisons held, and one response for each
   * operation that was done. The keys in it keep the prefix of the namespace. Rejects, unsent, when an operation can't be
   * made (its key is missing, the lease of its put was not granted) or a comparison has an empty key.
   */
  async commit(): Promise<ITxnResponse> {
    return await this.#caller.exec<ITxnResponse>('KV', 'txn', await this.#request(), this.#options);
  }

  /** The transaction as an operation of another one. Sends nothing. */
  async op(): Promise<IRequestOp> {
    return { request_txn: await this.#request() };
  }

  /** The operations as etcd takes them. Failures show when they are awaited, and are never unhandled. */
  mapOperations(ops: (IRequestOp | IOperation)[]): Promise<IRequestOp>[] {
    return ops.map((op) => {
      const request = operationOf(op);
      request.catch(() => {});
      return request;
    });
  }

  async #request(): Promise<ITxnRequest> {
    if (this.#compare.some(({ key }) => key?.length === 0)) {
      throw keyMissing('a comparison needs a key that is not empty');
    }
    return {
      compare: [...this.#compare],
      failure: await Promise.all(this.#failure),
      success: await Promise.all(this.#success),
    };
  }
}

function unexpectedGuard(): InvalidArgumentError {
  return new InvalidArgumentError(
    'comparison: expected a key, a column, a comparison and a value, or a compare of etcd',
  );
}

function operationOf(op: IRequestOp | IOperation): Promise<IRequestOp> {
  if (typeof op === 'object' && op !== null) {
    if ('op' in op && typeof op.op === 'function') return op.op();
    if (Object.keys(op).some((name) => name.startsWith('request_'))) return Promise.resolve(op as IRequestOp);
  }
  throw new InvalidArgumentError(
    'transaction: expected operations such as client.put(key).value(value), without await and without .exec()',
  );
}

function columnOf(column: string): keyof typeof compareTarget {
  if (Object.hasOwn(compareTarget, column)) return column as keyof typeof compareTarget;
  throw unexpected(column, 'comparison target in client.and(...)', Object.keys(compareTarget));
}
