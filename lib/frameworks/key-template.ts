/** The key of a lock, with what comes from the arguments of a call. */

import { invalid, kindOf } from '../common/shape.js';
import { lockOptions } from './locks.js';

/** A text, or a place of the arguments: its index, then names. */
type Part = string | { readonly shown: string; readonly index: number; readonly names: readonly string[] };

const PLACE = /^(\d{1,3})((?:\.[\p{L}\p{N}_$-]+)*)$/u;
const FOLDER = '/locks/';
const WANTED = 'such as "report:{0}" or "report:{0.id}"';

/** Such as `report:{0}` or `order:{0.id}`: in the place of braces stands the argument, or what it has under these names. */
export class KeyTemplate {
  readonly #parts: readonly Part[];
  readonly #path: string;

  /**
   * @param path how messages call what has it.
   * @throws `ERR_INVALID_ARGUMENT`.
   */
  constructor(path: string, text: unknown) {
    if (typeof text !== 'string') throw invalid(`${path}: key`, `expected a string ${WANTED}, got ${kindOf(text)}`);
    this.#path = path;
    this.#parts = text
      .split(/(\{[^{}]*\})/)
      .filter((part) => part !== '')
      .map((part) => this.#partOf(part));
    // What is wrong with the text itself shows before anything runs.
    const sample = this.#parts.map((part) => (typeof part === 'string' ? part : 'x')).join('');
    lockOptions().pathOf(`${path}: key`, FOLDER, sample);
  }

  /** @throws `ERR_INVALID_ARGUMENT`, which names the place, and does not show what stands there. */
  fill(args: readonly unknown[]): string {
    return this.#parts
      .map((part) => (typeof part === 'string' ? part : textOf(`${this.#path}: {${part.shown}}`, found(part, args))))
      .join('');
  }

  #partOf(part: string): Part {
    if (!/[{}]/.test(part)) return part;
    const shown = part.slice(1, -1);
    const [, index, names = ''] = (part.startsWith('{') && part.endsWith('}') && PLACE.exec(shown)) || [];
    if (index === undefined)
      throw invalid(`${this.#path}: key`, `expected places of the arguments in braces, ${WANTED}`);
    return { shown, index: Number(index), names: names.split('.').slice(1) };
  }
}

function found({ index, names }: Exclude<Part, string>, args: readonly unknown[]): unknown {
  let at = args[index];
  for (const name of names) {
    if (at === undefined || at === null) return undefined;
    at = (at as Record<string, unknown>)[name];
  }
  return at;
}

/** What of an argument stands in a key: what could lie at another place than it says is refused. */
function textOf(path: string, value: unknown): string {
  const isNumber = typeof value === 'bigint' || (typeof value === 'number' && Number.isFinite(value));
  if (isNumber) return String(value);
  if (typeof value !== 'string') {
    const got = typeof value === 'number' ? String(value) : kindOf(value);
    throw invalid(path, `expected a string or a number, got ${got}`);
  }
  for (const part of ['/', '..']) {
    if (value.includes(part)) throw invalid(path, `expected a text without "${part}"`);
  }
  lockOptions().pathOf(path, FOLDER, value);
  return value;
}
