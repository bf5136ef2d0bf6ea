/** Checks of what a program hands to the builders: what is wrong is said at once, by name. */

import { InvalidArgumentError } from '../errors.js';

/** What a key or a prefix may be. A `Uint8Array` that is no Buffer is taken as well. */
export type Bytes = string | Buffer;

/**
 * An error where etcd3 has a plain `Error`: the same class and text, with our code.
 *
 * @internal
 */
export function plainError(text: string): Error {
  return Object.assign(new Error(text), { code: 'ERR_INVALID_ARGUMENT' as const });
}

/** How a wrong value is named in a message; never its content, which may be a secret. */
function kindOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'an array';
  if (typeof value === 'number' || typeof value === 'bigint') return String(value);
  return typeof value === 'object' ? `an object (${value.constructor?.name ?? 'without a class'})` : typeof value;
}

/**
 * A key or prefix as bytes. A Buffer is not copied.
 *
 * @internal
 */
export function bytes(value: Bytes, what: string): Buffer {
  if (typeof value === 'string') return Buffer.from(value);
  if (Buffer.isBuffer(value)) return value;
  if ((value as unknown) instanceof Uint8Array) {
    const { buffer, byteOffset, byteLength } = value as Uint8Array;
    return Buffer.from(buffer, byteOffset, byteLength);
  }
  throw new InvalidArgumentError(`${what}: expected a string or a Buffer, got ${kindOf(value)}`);
}

/**
 * A value as bytes; a number becomes its decimal text.
 *
 * @internal
 */
export function valueBytes(value: Bytes | number, what: string): Buffer {
  if (typeof value === 'number') return Buffer.from(String(value));
  if (typeof value === 'string' || (value as unknown) instanceof Uint8Array) return bytes(value, what);
  throw new InvalidArgumentError(
    `${what}: expected a string, a Buffer or a number, got ${kindOf(value)}; use JSON.stringify() for anything else`,
  );
}

const MIN_INT64 = -(2n ** 63n);
const MAX_INT64 = 2n ** 63n - 1n;

/**
 * A 64-bit number as it goes into a request: a safe number stays one, everything else is its decimal digits.
 *
 * @internal
 */
export function int64(value: string | number | bigint, what: string): string | number {
  if (typeof value === 'number') {
    if (Number.isSafeInteger(value)) return value;
    throw new InvalidArgumentError(
      `${what}: expected a whole number up to 2^53 - 1, got ${value}; pass a larger one as a string or a bigint`,
    );
  }
  if (typeof value === 'string' && !/^-?\d{1,19}$/.test(value)) {
    throw new InvalidArgumentError(`${what}: expected decimal digits, got ${JSON.stringify(value)}`);
  }
  if (typeof value !== 'string' && typeof value !== 'bigint') {
    throw new InvalidArgumentError(`${what}: expected a string, a number or a bigint, got ${kindOf(value)}`);
  }
  const exact = BigInt(value);
  if (exact < MIN_INT64 || exact > MAX_INT64) {
    throw new InvalidArgumentError(`${what}: expected a number of 64 bits, got ${value}`);
  }
  return String(value);
}

/**
 * The error for a name that is not among the known ones, with etcd3's text.
 *
 * @internal
 */
export function unexpected(value: unknown, thing: string, names: readonly string[]): Error {
  return plainError(`Unexpected "${String(value)}" in ${thing}. Possible values are: "${names.join('" "')}"`);
}

/**
 * A member of an enum by its name. JavaScript programs may pass the number as well.
 *
 * @internal
 */
export function memberOf(members: Readonly<Record<string, string | number>>, value: unknown, thing: string): number {
  const names = Object.keys(members).filter((name) => typeof members[name] === 'number');
  if (typeof value === 'string' && names.includes(value)) return members[value] as number;
  if (typeof value === 'number' && Object.values(members).includes(value)) return value;
  throw unexpected(value, thing, names);
}
