/** From what lies in the store to a value that a program may see, or why there is none. Nothing here asks the store. */

import { describe } from '../../common/logger.js';
import { outcomeOf } from '../../common/waiting.js';
import { type ConfigIssue, InvalidConfigError } from '../errors.js';
import type { Resolved } from './definition.js';
import type { Entry } from './entry.js';
import { at, copied, frozen, merged, pathOf, Refusal } from './merge.js';
import type { StandardIssue, StandardResult } from './standard-schema.js';
import { readAs, VALUE_MOST } from './text.js';

/** What is in each layer that lies in the store, the lowest first. */
export type Layers = readonly (Entry | undefined)[];

/**
 * Where a value is from: `store` when a layer lies there, `file` when the store could not be asked and the last-known-good file
 * was, else the default and the environment.
 */
export type ConfigSource = 'store' | 'file' | 'default';

/** A value, frozen, and where it is from. */
export interface Valid<T> {
  readonly value: T;
  readonly source: ConfigSource;
}

/** What was made of the layers. */
export type Evaluated<T> = Valid<T> | { readonly refused: InvalidConfigError };

/**
 * Lays the layers over each other and asks the schema, for `limitMs` at the most. Never rejects: whatever is wrong, with the
 * text, the layers or the schema, is a refusal. `revision` is that of the store.
 */
export async function evaluate<T>(
  resolved: Resolved<T>,
  layers: Layers,
  revision: bigint,
  limitMs: number,
): Promise<Evaluated<T>> {
  const { def, key } = resolved;
  // What is wrong with a text is wrong with its layer, all else with the whole.
  let reads: string | undefined;
  try {
    let whole = overlaid(resolved, layers, (layer) => {
      reads = layer;
    });
    reads = undefined;
    for (const [path, name] of Object.entries(def.env)) {
      const text = process.env[name];
      if (text) whole = merged(whole, at(path, text)); // an empty one is none
    }
    const result = await validated(def.schema['~standard'].validate(whole), limitMs);
    if (result.issues) {
      const none = layers.every((layer) => layer === undefined) && def.default === undefined;
      const issues = issuesOf(result.issues);
      return refused(key, revision, none ? nothing(resolved, issues) : issues);
    }
    const source = layers.some((layer) => layer !== undefined) ? 'store' : 'default';
    return { value: frozen(result.value), source };
  } catch (error) {
    return refused(reads ?? key, revision, [issueOf(error, reads !== undefined)], error);
  }
}

function overlaid<T>({ def, layers: keys }: Resolved<T>, layers: Layers, reads: (key: string) => void): unknown {
  let whole = copied(def.default);
  for (const [place, layer] of layers.entries()) {
    if (!layer) continue;
    const key = keys[place] as string;
    reads(key);
    if (!layer.isText) throw new Refusal('expected text, got bytes that are no UTF-8', '');
    if (Buffer.byteLength(layer.value) > VALUE_MOST) throw new Refusal(`expected at most ${VALUE_MOST} bytes`, '');
    const value = readAs(def.format, key.slice(0, endOfName(key)), layer.value);
    if (def.merge === 'replace') whole = copied(value);
    else whole = value === null ? undefined : merged(whole, value);
  }
  return whole;
}

/** Where the key ends that a layer of labels belongs to. */
function endOfName(key: string): number {
  const at = key.lastIndexOf('/@');
  return at < 0 ? key.length : at;
}

async function validated<T>(
  result: StandardResult<T> | Promise<StandardResult<T>>,
  limitMs: number,
): Promise<StandardResult<T>> {
  if (typeof (result as PromiseLike<unknown>)?.then !== 'function') return result;
  const outcome = await outcomeOf(result as Promise<StandardResult<T>>, undefined, limitMs);
  if (typeof outcome === 'string') throw new Refusal(`the schema gave no answer within ${limitMs} ms`, '');
  return outcome.value;
}

function issuesOf(issues: readonly StandardIssue[]): ConfigIssue[] {
  const keyOf = (part: PropertyKey | { readonly key: PropertyKey }) => (typeof part === 'object' ? part.key : part);
  const all = issues.map(({ message, path }) => ({ message: String(message), path: pathOf((path ?? []).map(keyOf)) }));
  return all.length > 0 ? all : [{ message: 'the schema refused it without a reason', path: '' }];
}

/** There is nothing at all, and the schema wants something: that is what is wrong. */
function nothing<T>({ layers }: Resolved<T>, issues: ConfigIssue[]): ConfigIssue[] {
  return [{ message: `nothing lies at ${layers.join(', ')}, and there is no default`, path: '' }, ...issues];
}

function issueOf(error: unknown, isText: boolean): ConfigIssue {
  if (error instanceof Refusal) return { message: error.message, path: error.path };
  // V8 shows a piece of what it can't read, which may be a secret.
  if (isText && error instanceof SyntaxError) return { message: 'expected JSON', path: '' };
  const [message = ''] = describe((error as Error | null)?.message ?? error).split('\n');
  return { message: `the schema failed: ${message}`, path: '' };
}

/** A refusal, as who has it open is told of it. */
export function refused(
  key: string,
  revision: bigint,
  issues: readonly ConfigIssue[],
  cause?: unknown,
): { refused: InvalidConfigError } {
  const shown = issues.slice(0, 3).map(({ message, path }) => (path === '' ? message : `${path}: ${message}`));
  const more = issues.length > 3 ? `; and ${issues.length - 3} more` : '';
  const message = `${key}, at revision ${revision} of the store: ${shown.join('; ')}${more}`;
  const isOurs = cause === undefined || cause instanceof Refusal || cause instanceof SyntaxError;
  const frozenIssues = Object.freeze(issues.map((issue) => Object.freeze({ ...issue })));
  const details = { key, revision: String(revision), issues: frozenIssues, ...(isOurs ? {} : { cause }) };
  return { refused: new InvalidConfigError(message, details) };
}
