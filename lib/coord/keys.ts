/** Keys of the store: what may be one, and which are followed together. */

import { invalid, kindOf, wellFormed } from '../common/shape.js';
import { type NativeRange, native } from '../native.js';

/** The longest key, in bytes: the native side holds to it as well. */
export const KEY_MOST = 1024;

/** A key: a path such as `/config/orders/limits`. */
export function keyOf(path: string, value: unknown): string {
  const key = textOf(path, value);
  const problem = native().problemOfStoreKey(key);
  if (problem !== null) throw invalid(path, problem);
  return key;
}

/** A prefix: a key with a slash at its end. */
export function prefixOf(path: string, value: unknown): string {
  const prefix = textOf(path, value);
  const problem = prefix.endsWith('/')
    ? native().problemOfStoreKey(prefix.slice(0, -1))
    : 'expected a prefix that ends in "/", such as "/config/orders/"';
  if (problem !== null) throw invalid(path, problem);
  return prefix;
}

/** One part of a key, such as the name of a service. */
export function partOf(path: string, value: unknown): string {
  const part = textOf(path, value);
  const problem = part.includes('/') ? 'expected no "/", for it is one part of a key' : undefined;
  const wrong = problem ?? native().problemOfStoreKey(`/${part}`);
  if (wrong !== null) throw invalid(path, wrong);
  return part;
}

function textOf(path: string, value: unknown): string {
  if (typeof value !== 'string') throw invalid(path, `expected a string, got ${kindOf(value)}`);
  return wellFormed(path, value);
}

/** This key alone. */
export const only = (key: string): NativeRange => ({ text: key, under: false });

/** All keys that begin so. */
export const under = (prefix: string): NativeRange => ({ text: prefix, under: true });

/** A key up to its last slash. */
export const folderOf = (key: string): string => key.slice(0, key.lastIndexOf('/') + 1);

/** The folders of some keys, without those within another. */
export function foldersOf(keys: readonly string[]): string[] {
  const folders = [...new Set(keys.map(folderOf))].sort();
  return folders.filter((folder) => !folders.some((other) => other !== folder && folder.startsWith(other)));
}
