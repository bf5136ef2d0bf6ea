/** From what lies in the store to a value that a program may see, or why there is none. Nothing here asks the store. */

import { describe } from '../../common/logger.js';
import { outcomeOf } from '../../common/waiting.js';
import { type ConfigIssue, InvalidConfigError } from '../errors.js';
import type { Resolved } from './definition.js';
import type { Layer } from './entry.js';
import { at, copied, frozen, merged, pathOf, Refusal } from './merge.js';
import { readLayer, Secrets } from './secret.js';
import type { StandardIssue, StandardResult } from './standard-schema.js';
import { VALUE_MOST } from './text.js';

/** What is in each layer that lies in the store, the lowest first. */
export type Layers = readonly (Layer | undefined)[];

/**
 * Where a value is from: `store` when a layer lies there, `file` when the store could not be asked and the last-known-good file
 * was, else the default and the environment.
 */
export type ConfigSource = 'store' | 'file' | 'default';

/** A value, frozen, and where it is from. */
export interface Valid<T> {
  readonly value: T;
  readonly source: ConfigSource;
  /** A text without the secrets of it. */
  readonly hide: (text: string) => string;
  /** Of a record, what was refused of it. */
  readonly partly?: Partly;
}

/** What a record has of its entries, some of which may have been refused. */
export interface Partly {
  readonly entries: ReadonlyMap<string, Judged>;
  /** What is good of the layers. */
  readonly layers: Layers;
  /** Why some of them stay as they were, if some do. */
  readonly refused: InvalidConfigError | undefined;
  /** Whether that is said for the first time. */
  readonly isNews: boolean;
}

/** What one entry of a record has come to. */
export interface Judged {
  /** What it was made of. */
  readonly layers: Layers;
  /** What was good last. */
  readonly good: (Omit<Valid<unknown>, 'partly'> & { readonly layers: Layers }) | undefined;
  readonly refused: InvalidConfigError | undefined;
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
  const secrets = new Secrets(def.secret);
  const hide = (text: string) => secrets.hide(text);
  // What is wrong with a text is wrong with its layer, all else with the whole.
  let reads: string | undefined;
  try {
    secrets.learn(def.default);
    let whole = await overlaid(resolved, layers, limitMs, secrets, (layer) => {
      reads = layer;
    });
    reads = undefined;
    for (const [path, name] of Object.entries(def.env)) {
      const text = process.env[name];
      if (text) whole = merged(whole, at(path, text)); // an empty one is none
    }
    secrets.learn(whole);
    const result = await validated(def.schema['~standard'].validate(whole), limitMs);
    if (result.issues) {
      const none = layers.every((layer) => layer === undefined) && def.default === undefined;
      const issues = issuesOf(result.issues, secrets);
      return refused(key, revision, none ? nothing(resolved, issues) : issues);
    }
    secrets.learn(result.value);
    const source = layers.some((layer) => layer !== undefined) ? 'store' : 'default';
    return { value: frozen(result.value), source, hide };
  } catch (error) {
    const { message, path } = issueOf(error, reads !== undefined);
    // What was thrown may show what is none of its words.
    return refused(reads ?? key, revision, [{ message: hide(message), path }], secrets.some ? undefined : error);
  }
}

async function overlaid<T>(
  { def, layers: keys }: Resolved<T>,
  layers: Layers,
  limitMs: number,
  secrets: Secrets,
  reads: (key: string) => void,
): Promise<unknown> {
  let whole = copied(def.default);
  for (const [place, layer] of layers.entries()) {
    if (!layer) continue;
    const key = keys[place] as string;
    reads(key);
    if (!layer.isText) throw new Refusal('expected text, got bytes that are no UTF-8', '');
    if (Buffer.byteLength(layer.value) > VALUE_MOST) throw new Refusal(`expected at most ${VALUE_MOST} bytes`, '');
    const value = await readLayer(def, layer, limitMs);
    secrets.learn(value);
    if (def.merge === 'replace') whole = copied(value);
    else whole = value === null ? undefined : merged(whole, value);
  }
  return whole;
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

function issuesOf(issues: readonly StandardIssue[], secrets: Secrets): ConfigIssue[] {
  const keyOf = (part: PropertyKey | { readonly key: PropertyKey }) => (typeof part === 'object' ? part.key : part);
  const paths = issues.map(({ path }) => (path ?? []).map(keyOf));
  const said = issues.map(({ message }, place) => ({ message: String(message), path: pathOf(paths[place] ?? []) }));
  const all = secrets.hideIn(
    said,
    paths.map((path) => path.map(String)),
  );
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
  const shown = issues
    .slice(0, 3)
    .map(({ message, path, entry }) => [entry, path, message].filter((text) => text).join(': '));
  const more = issues.length > 3 ? `; and ${issues.length - 3} more` : '';
  const message = `${key}, at revision ${revision} of the store: ${shown.join('; ')}${more}`;
  const isOurs = cause === undefined || cause instanceof Refusal || cause instanceof SyntaxError;
  const frozenIssues = Object.freeze(issues.map((issue) => Object.freeze({ ...issue })));
  const details = { key, revision: String(revision), issues: frozenIssues, ...(isOurs ? {} : { cause }) };
  return { refused: new InvalidConfigError(message, details) };
}
