/**
 * Numbers of 64 bits. A program gives them as decimal digits, as a number that is exact, or as a bigint; it gets them as
 * decimal digits. In bytes and in the words of the native side they are two halves of 32 bits.
 *
 * @internal
 */

import { kindOf } from '../common/shape.js';

const MAX_INT64 = 2n ** 63n - 1n;
const MIN_INT64 = -(2n ** 63n);
const MAX_UINT64 = 2n ** 64n - 1n;

const TWO_32 = 4_294_967_296;
/** The upper half of 2^53: from it on a number is no longer exact. */
const EXACT = 0x20_0000;

/**
 * What a program has given, as a number where that is exact, else as a bigint. `refusal` makes the error for anything else
 * of what is wrong with it, which never shows a text.
 */
export function exactOf(value: unknown, signed: boolean, refusal: (problem: string) => Error): number | bigint {
  let number = 0;
  let exact: bigint | undefined;
  if (typeof value === 'number') {
    if (!Number.isSafeInteger(value)) {
      const hint = Number.isInteger(value) ? '; pass larger ones as a string or a bigint' : '';
      throw refusal(`expected a whole number up to 2^53 - 1, got ${value}${hint}`);
    }
    number = value;
  } else if (typeof value === 'string') {
    if (!isDecimal(value)) throw refusal('expected decimal digits, got another string');
    if (value.length > 15) exact = BigInt(value);
    else number = Number(value);
  } else if (typeof value === 'bigint') {
    exact = value;
  } else {
    throw refusal(`expected a string of digits, a number or a bigint, got ${kindOf(value)}`);
  }
  if (exact === undefined) {
    if (number < 0 && !signed) throw refusal(`expected a number from 0 to 2^64 - 1, got ${number}`);
    return number;
  }
  if (signed ? exact > MAX_INT64 || exact < MIN_INT64 : exact > MAX_UINT64 || exact < 0n) {
    throw refusal(`expected a number from ${signed ? '-2^63 to 2^63 - 1' : '0 to 2^64 - 1'}, got ${exact}`);
  }
  return exact;
}

/** `-?[0-9]+`, without leading `+`, spaces or anything else that `Number` would take. */
function isDecimal(text: string): boolean {
  const from = text.charCodeAt(0) === 45 ? 1 : 0;
  if (text.length === from || text.length > 20) return false;
  for (let at = from; at < text.length; at++) {
    const digit = text.charCodeAt(at) - 48;
    if (digit < 0 || digit > 9) return false;
  }
  return true;
}

/** The digits of two halves of a signed number. Each half may come as a signed number of 32 bits or as an unsigned one. */
export function digitsOf(low: number, high: number): string {
  if (high === 0) return `${low >>> 0}`;
  if (high > 0 && high < EXACT) return `${high * TWO_32 + (low >>> 0)}`;
  return (high | 0) > 0 ? large(low >>> 0, high) : String((BigInt(high | 0) << 32n) | BigInt(low >>> 0));
}

/** The same of a number without a sign: ids of clusters and members, terms. */
export function unsignedDigitsOf(low: number, high: number): string {
  return high >= 0 && high < EXACT ? digitsOf(low, high) : large(low >>> 0, high >>> 0);
}

/** Numbers above 2^53 come again and again: the ids of the cluster and of its members are in every answer. */
const LARGE = 64;
const largeLow = new Uint32Array(LARGE);
const largeHigh = new Uint32Array(LARGE);
const largeText: string[] = [];

function large(low: number, high: number): string {
  const slot = (low ^ high) & (LARGE - 1);
  const known = largeText[slot];
  if (known !== undefined && largeLow[slot] === low && largeHigh[slot] === high) return known;
  const text = String((BigInt(high) << 32n) | BigInt(low));
  largeLow[slot] = low;
  largeHigh[slot] = high;
  largeText[slot] = text;
  return text;
}
