/**
 * Judging arguments by shape, never by `instanceof`: test runners and `vm` bring objects of other realms. Every message
 * begins with the path of the value and never shows a string that may be secret.
 */

import { InvalidArgumentError } from '../errors.js';

/** The largest number of milliseconds accepted anywhere: 24 days, what fits 31 bits. */
export const MAX_MS = 2 ** 31 - 1;

type Bag = Record<string, unknown>;

/** An error that names the path of a wrong value. */
export function invalid(path: string, problem: string, cause?: unknown): InvalidArgumentError {
  return new InvalidArgumentError(`${path}: ${problem}`, { cause });
}

/** What a value is, in a word, without showing it. */
export function kindOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  if (ArrayBuffer.isView(value)) return 'Buffer';
  if (typeof value !== 'object') return typeof value;
  const tag = Object.prototype.toString.call(value).slice('[object '.length, -1);
  return tag === 'Object' ? 'object' : tag; // such as Map or AbortController, which are no records
}

/** The same, where a number is never a secret and worth showing. */
export function shown(value: unknown): string {
  return typeof value === 'number' ? String(value) : kindOf(value);
}

/** An object with named fields: no array, no `Map`, no bytes. */
export function isRecord(value: unknown): value is Bag {
  return typeof value === 'object' && value !== null && Object.prototype.toString.call(value) === '[object Object]';
}

export function record(path: string, value: unknown, expected = 'an object'): Bag {
  if (!isRecord(value)) throw invalid(path, `expected ${expected}, got ${kindOf(value)}`);
  return value;
}

/** An options argument: `undefined` is none given. */
export function optional(path: string, value: unknown): Bag {
  return value === undefined ? {} : record(path, value);
}

/** Refuses fields that are not in `known`, and says which one was probably meant. */
export function onlyKnown(
  path: string,
  value: Bag,
  known: readonly string[],
  hint?: (key: string) => string | undefined,
) {
  const noun = path.startsWith('options') ? 'option' : 'field';
  for (const key of Object.keys(value)) {
    if (known.includes(key) || value[key] === undefined) continue;
    throw invalid(`${path}.${key}`, hint?.(key) ?? `unknown ${noun}${didYouMean(key, known)}`);
  }
}

/** `; did you mean "x"?`, when one of `known` is at most two edits away; else empty. */
export function didYouMean(word: string, known: readonly string[]): string {
  let best: string | undefined;
  let least = 3;
  for (const candidate of known) {
    const distance = edits(word.toLowerCase(), candidate.toLowerCase());
    if (distance < least && distance < candidate.length) {
      least = distance;
      best = candidate;
    }
  }
  return best === undefined ? '' : `; did you mean "${best}"?`;
}

/** The Levenshtein distance. */
function edits(a: string, b: string): number {
  if (Math.abs(a.length - b.length) > 2) return 3;
  let previous = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const change = (previous[column - 1] as number) + (a[row - 1] === b[column - 1] ? 0 : 1);
      current.push(Math.min(change, (previous[column] as number) + 1, (current[column - 1] as number) + 1));
    }
    previous = current;
  }
  return previous[b.length] as number;
}

export interface Range {
  min: number;
  max?: number;
  /** 0 is allowed below `min`, and means off. */
  zeroIsOff?: boolean;
}

/** A whole number in a range; `undefined` is the default. */
export function integer(path: string, value: unknown, fallback: number, range: Range): number {
  if (value === undefined) return fallback;
  const max = range.max ?? MAX_MS;
  const off = range.zeroIsOff ? '0 (off) or ' : '';
  const expected = `expected ${off}a whole number from ${range.min} to ${max}`;
  if (typeof value !== 'number') throw invalid(path, `${expected}, got ${kindOf(value)}`);
  if (range.zeroIsOff && value === 0) return 0;
  if (!Number.isInteger(value) || value < range.min || value > max) throw invalid(path, `${expected}, got ${value}`);
  return value;
}

export function boolean(path: string, value: unknown, fallback: boolean): boolean {
  if (value === undefined) return fallback;
  if (typeof value !== 'boolean') throw invalid(path, `expected true or false, got ${kindOf(value)}`);
  return value;
}

/** A string that is not empty; `undefined` is none given. */
export function text(path: string, value: unknown): string | undefined {
  if (value === undefined) return undefined;
  if (typeof value !== 'string') throw invalid(path, `expected a string, got ${kindOf(value)}`);
  if (value === '') throw invalid(path, 'expected a string that is not empty');
  return wellFormed(path, value);
}

/** Unicode without lone surrogates, which UTF-8 doesn't have: another text would be written in their place. */
export function wellFormed(path: string, value: string, what = 'a string'): string {
  if ((value as string & { isWellFormed(): boolean }).isWellFormed()) return value;
  throw invalid(path, `expected ${what} of well-formed Unicode, got a lone surrogate`);
}

/** One of a few words; `undefined` is the default. */
export function choice<T extends string>(path: string, value: unknown, known: readonly T[], fallback?: T): T {
  if (value === undefined && fallback !== undefined) return fallback;
  const expected = `expected ${known.map((word) => `"${word}"`).join(' or ')}`;
  if (typeof value !== 'string') throw invalid(path, `${expected}, got ${kindOf(value)}`);
  if (!known.includes(value as T)) {
    throw invalid(path, `${expected}, got ${quoted(value)}${didYouMean(value, known)}`);
  }
  return value as T;
}

/** A word of the caller in quotes, when it is short and plain enough to be shown. */
function quoted(value: string): string {
  return /^[\w.-]{1,32}$/.test(value) ? `"${value}"` : 'another string';
}

function isSignal(value: unknown): value is AbortSignal {
  const signal = value as Partial<AbortSignal> | null;
  return (
    typeof signal === 'object' &&
    typeof signal?.aborted === 'boolean' &&
    typeof signal.addEventListener === 'function' &&
    typeof signal.removeEventListener === 'function'
  );
}

/** An `AbortSignal` of any realm; `undefined` is none given. */
export function abortSignal(path: string, value: unknown): AbortSignal | undefined {
  if (value === undefined) return undefined;
  if (isSignal(value)) return value;
  throw invalid(path, `expected an AbortSignal, got ${kindOf(value)}`);
}
