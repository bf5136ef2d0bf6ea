/** Results as text: JSON, where it holds exactly what was given. */

import { invalid, kindOf } from '../common/shape.js';
import { BadRecordError } from '../errors.js';

/** Turns results into text and back. */
export interface Codec {
  encode(value: unknown): string;
  decode(text: string): unknown;
}

/** JSON that comes back as it was. (But for -0, which comes back as 0.) */
export const EXACT: Codec = {
  encode(value) {
    refuseInexact('result', value, []);
    return JSON.stringify(value);
  },
  decode: (text) => JSON.parse(text),
};

/** What was kept. @throws `ERR_BAD_RECORD` where the codec does not read it, such as one that has changed. */
export function decoded(operation: string, key: string, codec: Codec, text: string): unknown {
  try {
    return codec.decode(text);
  } catch (cause) {
    const message = `${operation}: the codec can't read the result that is kept`;
    throw new BadRecordError(message, { operation, key, cause });
  }
}

/** How deep a result may be: beyond it a cycle is as likely as not, and the stack ends. */
const DEPTH_MOST = 200;

/** @throws `ERR_INVALID_ARGUMENT` that names what JSON would change. */
function refuseInexact(path: string, value: unknown, above: readonly object[]): void {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return;
    case 'number':
      if (Number.isFinite(value)) return;
      throw inexact(path, String(value));
    case 'object':
      break;
    default:
      throw inexact(path, value === undefined ? 'undefined' : `a ${typeof value}`);
  }
  if (value === null) return;
  if (above.includes(value)) throw inexact(path, 'what it lies in itself');
  if (above.length >= DEPTH_MOST) throw inexact(path, `more than ${DEPTH_MOST} levels`);
  const inside = [...above, value];
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) refuseInexact(`${path}[${i}]`, value[i], inside);
    // The prototype of arrays is an array, in each realm; that of a class that extends them is none.
    if (!Array.isArray(Object.getPrototypeOf(value))) throw inexact(path, `a ${nameOf(value)}`);
    if (
      typeof (value as { toJSON?: unknown }).toJSON === 'function' ||
      Reflect.ownKeys(value).length !== value.length + 1
    ) {
      throw inexact(path, 'an array with fields of its own');
    }
    return;
  }
  if (!isPlain(value)) throw inexact(path, `a ${nameOf(value)}`);
  const fields = Object.entries(value);
  if (Reflect.ownKeys(value).length !== fields.length) {
    throw inexact(path, 'an object with symbols for keys, or fields that are not enumerable');
  }
  for (const [field, inner] of fields) refuseInexact(fieldOf(path, field), inner, inside);
}

/** An object literal, of any realm, that does not say itself what JSON makes of it. */
function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  const isLiteral = prototype === null || Object.getPrototypeOf(prototype) === null;
  return isLiteral && typeof (value as { toJSON?: unknown }).toJSON !== 'function';
}

function nameOf(value: object): string {
  const { name } = (value.constructor ?? {}) as { name?: unknown };
  return typeof name === 'string' && name !== '' && name !== 'Object' ? name : kindOf(value);
}

const fieldOf = (path: string, field: string): string =>
  /^[A-Za-z_$][\w$]{0,63}$/.test(field) ? `${path}.${field}` : `${path}[…]`;

const inexact = (path: string, what: string) =>
  invalid(path, `expected what JSON gives back as it was, got ${what}: give a codec, or another result`);
