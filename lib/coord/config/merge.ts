/** Layers into one value. Pure. */

import type { ConfigIssue } from '../errors.js';

type Bag = Record<string, unknown>;

/** The most levels that a value has. */
const LEVELS_MOST = 100;

/** Why layers don't come to a value. */
export class Refusal extends Error implements ConfigIssue {
  constructor(
    message: string,
    readonly path: string,
  ) {
    super(message);
  }
}

/** An object as JSON has them; nothing of a class, nor an array. */
export function isPlain(value: unknown): value is Bag {
  if (typeof value !== 'object' || value === null) return false;
  const prototype = Object.getPrototypeOf(value) as object | null;
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

/**
 * What `high` makes of `low`, as RFC 7396 has it: objects are merged, whatever else there is replaces, `null` deletes. It has
 * no object of either.
 */
export function merged(low: unknown, high: unknown, path: readonly string[] = []): unknown {
  if (path.length > LEVELS_MOST) throw new Refusal(`expected at most ${LEVELS_MOST} levels`, pathOf(path.slice(0, 3)));
  if (Array.isArray(high)) return high.map((item, place) => copied(item, [...path, String(place)]));
  if (!isPlain(high)) return high;
  const whole: Bag = {};
  if (isPlain(low)) for (const name of Object.keys(low)) whole[name] = low[name];
  for (const name of Object.keys(high)) {
    const inner = [...path, name];
    // It would be the prototype and no field.
    if (name === '__proto__') throw new Refusal('expected another name than "__proto__"', pathOf(inner));
    if (high[name] === null) delete whole[name];
    else whole[name] = merged(whole[name], high[name], inner);
  }
  return whole;
}

/** The same without a merge: `null` in it stays. */
export function copied(value: unknown, path: readonly string[] = []): unknown {
  if (path.length > LEVELS_MOST) throw new Refusal(`expected at most ${LEVELS_MOST} levels`, pathOf(path.slice(0, 3)));
  if (Array.isArray(value)) return value.map((item, place) => copied(item, [...path, String(place)]));
  if (!isPlain(value)) return value;
  const whole: Bag = {};
  for (const name of Object.keys(value)) {
    const inner = [...path, name];
    if (name === '__proto__') throw new Refusal('expected another name than "__proto__"', pathOf(inner));
    whole[name] = copied(value[name], inner);
  }
  return whole;
}

/** A copy in which each text, number, … is what `change` makes of it. */
export function changed(value: unknown, change: (leaf: unknown) => unknown): unknown {
  if (Array.isArray(value)) return value.map((item) => changed(item, change));
  return isPlain(value) ? mapped(value, (inner) => changed(inner, change)) : change(value);
}

/** A copy of an object in which each field, whatever its name, is what `change` makes of it. */
export function mapped(value: Readonly<Bag>, change: (inner: unknown, name: string) => unknown): Bag {
  const copy: Bag = {};
  for (const [name, inner] of Object.entries(value)) {
    const made = change(inner, name);
    Object.defineProperty(copy, name, { value: made, enumerable: true, writable: true, configurable: true });
  }
  return copy;
}

/** A value at a path, such as `db.url`, as a layer. */
export function at(path: string, value: unknown): unknown {
  return path.split('.').reduceRight<unknown>((inner, name) => ({ [name]: inner }), value);
}

/** A path as it is shown: `db.hosts[0]`. */
export function pathOf(path: readonly PropertyKey[]): string {
  return path.reduce<string>((shown, part) => {
    const text = String(part);
    if (/^\d+$/.test(text)) return `${shown}[${text}]`;
    return shown === '' ? text : `${shown}.${text}`;
  }, '');
}

/** Freezes objects and arrays, all the way down; what is of a class stays as it is. */
export function frozen<T>(value: T): T {
  if ((Array.isArray(value) || isPlain(value)) && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const inner of Object.values(value)) frozen(inner);
  }
  return value;
}
