/** Checks of what a program hands to the builders: what is wrong is said at once, by name. */

import { shown } from '../common/shape.js';
import { asInvalidArgument, InvalidArgumentError } from '../errors.js';
import { exactOf } from './int64.js';

/** What a key or a prefix may be. A `Uint8Array` that is no Buffer is taken as well. */
export type Bytes = string | Buffer;

/**
 * An error where etcd3 has a plain `Error`: with its class, name and text, and an `InvalidArgumentError` all the same.
 *
 * @internal
 */
export function plainError(text: string): InvalidArgumentError {
  return asInvalidArgument(new Error(text));
}

/**
 * A time to live in seconds, refused in the words of etcd3. It may be a fraction; etcd is asked for the next whole second.
 *
 * @internal
 */
export function leaseTtl(seconds: number): number {
  if (seconds >= 1 && Number.isFinite(seconds)) return seconds;
  const text = `The TTL in an etcd lease must be at least 1 second. Got: ${String(seconds)}`;
  throw asInvalidArgument(new RangeError(text)); // as there
}

/**
 * The time to live of options, in seconds: `ttlSeconds`, or `ttl` as it was called before.
 *
 * @internal
 */
export function secondsOf(
  { ttlSeconds, ttl }: { ttlSeconds?: number | undefined; ttl?: number | undefined },
  what: string,
  fallback: number,
): number {
  if (ttlSeconds !== undefined && ttl !== undefined) {
    throw new InvalidArgumentError(`${what}({ ttl }): given together with ttlSeconds, which it is another name of`);
  }
  return leaseTtl(ttlSeconds ?? ttl ?? fallback);
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
  throw new InvalidArgumentError(`${what}: expected a string or a Buffer, got ${shown(value)}`);
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
    `${what}: expected a string, a Buffer or a number, got ${shown(value)}; use JSON.stringify() for anything else`,
  );
}

/**
 * A 64-bit number as it goes into a request: a number stays one, everything else is its decimal digits.
 *
 * @internal
 */
export function int64(value: string | number | bigint, what: string): string | number {
  exactOf(value, true, (problem) => new InvalidArgumentError(`${what}: ${problem}`));
  return typeof value === 'number' ? value : String(value);
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
