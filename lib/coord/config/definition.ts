/** What a configuration is: its key, its schema, its layers. Nothing here asks the store. */

import { isDeepStrictEqual } from 'node:util';
import { boolean, choice, invalid, isRecord, kindOf, onlyKnown, record } from '../../common/shape.js';
import { foldersOf, keyOf, prefixOf } from '../keys.js';
import type { Identity } from '../options.js';
import type { InputOf, OutputOf, StandardSchema } from './standard-schema.js';
import type { ConfigFormat } from './text.js';

const FORMATS: readonly ConfigFormat[] = ['json', 'yaml', 'toml', 'text', 'auto'];

/** What `defineConfig()` takes. */
export interface ConfigDefinition<S extends StandardSchema> {
  /**
   * Where it lies: a key of at least two parts, in which `{env}`, `{service}` and `{instance}` stand for the options of the same
   * names, such as `/config/{env}/{service}/limits`.
   */
  key: string;
  /** What a value must be like, and what is made of it: of zod, valibot, arktype or whatever else is a Standard Schema. */
  schema: S;
  /** The lowest layer. Default: none. */
  default?: InputOf<S> | undefined;
  /** How the text of a layer is read. Default `auto`. */
  format?: ConfigFormat | undefined;
  /**
   * The keys of the layers below `key`, the lowest first. Default, where `{service}` is a part of the key: the same key with
   * `global` for `{service}`, and below it that without `{env}`; so `/config/global/limits`, `/config/{env}/global/limits`.
   */
  layers?: readonly string[] | undefined;
  /**
   * How a layer is laid over those below: `deep` merges objects (RFC 7396: lists replace, `null` deletes), `replace` takes the
   * highest layer that is there. Default `deep`.
   */
  merge?: 'deep' | 'replace' | undefined;
  /** Environment variables, the highest layer: the path of a field to the name of a variable, whose text is the value. Default: none. */
  env?: Readonly<Record<string, string>> | undefined;
  /** `false`: no last-known-good file is written of it, as for secrets that must not be on disk. Default true. */
  cache?: boolean | undefined;
  /**
   * The paths of fields that are never shown, in logs, errors, `applied()` and `diff()`, nor written to the last-known-good file, such
   * as `db.password`. All below is meant too; `*` is any name, a list is gone through, `''` is the whole value. Default: none.
   */
  secret?: readonly string[] | undefined;
  /**
   * Makes the text of a secret of what lies in the store: it is called with each text at a path of `secret` (with the text of the
   * layer, for `''`), once for each until it changes, and has `timeoutMs`. What it throws, or no answer, refuses the value, and is not
   * shown. The default and `env` are taken as they are. Default: none.
   */
  decrypt?: ((text: string) => string | Promise<string>) | undefined;
}

/**
 * What `defineConfig()` takes for a record: a key that ends in `/`, below which each key is an entry, named by the rest of it. Each
 * is read, merged and asked of the schema by itself, with layers of its own.
 */
export interface RecordDefinition<S extends StandardSchema>
  extends Omit<ConfigDefinition<S>, 'key' | 'default' | 'layers' | 'env'> {
  /** A key as that of `ConfigDefinition`, with `/` at its end, such as `/config/{env}/{service}/rules/`. */
  key: `${string}/`;
  /** The lowest layer of each entry. Default: none. */
  default?: Readonly<Record<string, InputOf<S>>> | undefined;
  /** As of `ConfigDefinition`, each with `/` at its end. */
  layers?: readonly `${string}/`[] | undefined;
  /** `true`: one entry that is refused refuses all. Default false: it stays as it was, and the others change. */
  whole?: boolean | undefined;
}

/** A configuration, made by `defineConfig()`. It is frozen, and belongs to no client. */
export interface ConfigDef<T> {
  /** Its key, with what stands for the options. */
  readonly key: string;
  /** @internal */
  readonly schema: StandardSchema<unknown, T>;
  /** @internal */
  readonly default: unknown;
  /** @internal */
  readonly format: ConfigFormat;
  /** @internal */
  readonly layers: readonly string[];
  /** @internal */
  readonly merge: 'deep' | 'replace';
  /** @internal */
  readonly env: Readonly<Record<string, string>>;
  /** @internal */
  readonly cache: boolean;
  /** @internal */
  readonly whole: boolean;
  /** @internal */
  readonly secret: readonly string[];
  /** @internal */
  readonly decrypt: ((text: string) => string | Promise<string>) | undefined;
}

const KNOWN = [
  'key',
  'schema',
  'default',
  'format',
  'layers',
  'merge',
  'env',
  'cache',
  'whole',
  'secret',
  'decrypt',
] as const;

/**
 * Defines a configuration, once, where the program is put together. `coord.config.open()` opens it. A key that ends in `/` is
 * that of a record: the names below it, each with its value.
 *
 * @throws `ERR_INVALID_ARGUMENT`.
 */
export function defineConfig<S extends StandardSchema>(
  definition: RecordDefinition<S>,
): ConfigDef<Readonly<Record<string, OutputOf<S>>>>;
export function defineConfig<S extends StandardSchema>(definition: ConfigDefinition<S>): ConfigDef<OutputOf<S>>;
export function defineConfig(definition: object): ConfigDef<unknown> {
  const given = record('definition', definition);
  onlyKnown('definition', given, KNOWN);
  const key = template('definition.key', given.key);
  const isOfRecord = isRecordKey(key);
  if (isOfRecord && given.default !== undefined) record('definition.default', given.default);
  for (const name of isOfRecord ? (['env'] as const) : (['whole'] as const)) {
    if (given[name] !== undefined) {
      throw invalid(`definition.${name}`, `expected none, for the key ${isOfRecord ? 'ends' : 'does not end'} in "/"`);
    }
  }
  return Object.freeze({
    key,
    schema: schemaOf(given.schema),
    default: given.default,
    format: choice('definition.format', given.format, FORMATS, 'auto'),
    layers: layersOf(given.layers, key),
    merge: choice('definition.merge', given.merge, ['deep', 'replace'] as const, 'deep'),
    env: variablesOf(given.env),
    cache: boolean('definition.cache', given.cache, true),
    whole: boolean('definition.whole', given.whole, false),
    ...secretOf(given),
  });
}

function secretOf({
  secret,
  decrypt,
}: Readonly<Record<string, unknown>>): Pick<ConfigDef<unknown>, 'secret' | 'decrypt'> {
  const paths = secretsOf(secret);
  if (decrypt !== undefined && typeof decrypt !== 'function') {
    throw invalid('definition.decrypt', `expected a function, got ${kindOf(decrypt)}`);
  }
  if (decrypt && paths.length === 0) {
    throw invalid('definition.decrypt', 'expected definition.secret beside it: the paths of what it deciphers');
  }
  return { secret: paths, decrypt: decrypt as ConfigDef<unknown>['decrypt'] };
}

/** Whether a key is that of a record, whose entries lie below it. */
export const isRecordKey = (key: string): boolean => key.endsWith('/');

const PLACES = ['env', 'service', 'instance'] as const;
const PLACE = /\{(env|service|instance)\}/g;

function template(path: string, value: unknown): string {
  if (typeof value !== 'string')
    throw invalid(path, `expected a key such as "/config/{env}/{service}/limits", got ${kindOf(value)}`);
  if (/[{}]/.test(value.replaceAll(PLACE, ''))) {
    throw invalid(path, `expected nothing else in braces than ${PLACES.map((place) => `{${place}}`).join(', ')}`);
  }
  if (!/^\/[^/]+\/./.test(value)) {
    throw invalid(
      path,
      'expected a key of at least two parts that begins with "/", such as "/config/{env}/{service}/limits"',
    );
  }
  return value;
}

function schemaOf(value: unknown): StandardSchema {
  const standard = (value as Partial<StandardSchema> | null | undefined)?.['~standard'];
  if (standard?.version === 1 && typeof standard.validate === 'function') return value as StandardSchema;
  throw invalid('definition.schema', `expected a Standard Schema, as of zod, valibot or arktype, got ${kindOf(value)}`);
}

function layersOf(value: unknown, key: string): readonly string[] {
  if (value === undefined) {
    if (!key.includes('{service}')) return [];
    const global = key.replaceAll('{service}', 'global');
    return Object.freeze(global.includes('/{env}/') ? [global.replaceAll('/{env}/', '/'), global] : [global]);
  }
  if (!Array.isArray(value)) throw invalid('definition.layers', `expected an array of keys, got ${kindOf(value)}`);
  const layers = value.map((layer: unknown, place) => template(`definition.layers[${place}]`, layer));
  const odd = layers.findIndex((layer) => isRecordKey(layer) !== isRecordKey(key));
  if (odd >= 0) {
    throw invalid(
      `definition.layers[${odd}]`,
      `expected a key ${isRecordKey(key) ? 'that ends' : 'without an end'} in "/", as the key of the definition`,
    );
  }
  if (new Set([...layers, key]).size <= layers.length) {
    throw invalid('definition.layers', 'expected each key once, and not that of the definition, which is the highest');
  }
  return Object.freeze(layers);
}

function variablesOf(value: unknown): Readonly<Record<string, string>> {
  if (value === undefined) return Object.freeze({});
  const given = record('definition.env', value);
  for (const [path, name] of Object.entries(given)) {
    const at = `definition.env[${JSON.stringify(path)}]`;
    if (path.split('.').some((part) => part === '' || part === '__proto__')) {
      throw invalid(at, 'expected the path of a field, such as "db.url"');
    }
    if (typeof name !== 'string' || name === '') {
      throw invalid(
        at,
        `expected the name of an environment variable, got ${name === '' ? 'an empty string' : kindOf(name)}`,
      );
    }
  }
  return Object.freeze({ ...(given as Record<string, string>) });
}

/** A configuration for one client: where its layers lie. */
export interface Resolved<T> {
  readonly def: ConfigDef<T>;
  /** The key of the definition. */
  readonly key: string;
  /** The keys of all layers, the lowest first; of a record those that its entries have in common, each with `/` at its end. */
  readonly layers: readonly string[];
  /** What the layers of labels have behind the key, the lowest first. */
  readonly labels: readonly string[];
  /** The folders that they lie in. */
  readonly folders: readonly string[];
}

/** Puts the options of a client in the places of a definition. */
export function resolve<T>(definition: ConfigDef<T>, identity: Identity): Resolved<T> {
  const def = definitionOf(definition);
  const key = filled('definition.key', def.key, identity);
  const below = def.layers.map((layer, place) => filled(`definition.layers[${place}]`, layer, identity));
  // Labels in the order of their names, so that two processes agree which wins.
  const labels = Object.keys(identity.labels).sort();
  const own = labels.map((label) => `/@${label}=${identity.labels[label]}`);
  if (identity.instance !== undefined) own.push(`/@instance=${identity.instance}`);
  const layers = isRecordKey(key) ? [...new Set([...below, key])] : withLabels([...below, key], key, own);
  return { def, key, layers, labels: own, folders: foldersOf(layers) };
}

function withLabels(below: readonly string[], key: string, labels: readonly string[]): string[] {
  const own = labels.map((label) => keyOf('definition.key', key + label));
  return [...new Set([...below, ...own])];
}

/** The configuration that one entry of a record is. */
export function entryOf<T>({ def, key, layers, labels, folders }: Resolved<unknown>, name: string): Resolved<T> {
  const defaults = (def.default ?? {}) as Readonly<Record<string, unknown>>;
  const own = { ...def, default: Object.hasOwn(defaults, name) ? defaults[name] : undefined } as ConfigDef<T>;
  const all = [...layers.map((layer) => layer + name), ...labels.map((label) => key + name + label)];
  return { def: own, key: key + name, layers: all, labels, folders };
}

/** Whether it is what `defineConfig()` gives, by its shape: there may be two copies of the package. */
export const isDefinition = (value: unknown): boolean =>
  isRecord(value) && typeof value.key === 'string' && 'merge' in value && isSchema(value.schema);

const isSchema = (value: unknown) =>
  (typeof value === 'object' || typeof value === 'function') && value !== null && '~standard' in value;

function definitionOf<T>(definition: ConfigDef<T>): ConfigDef<T> {
  if (isDefinition(definition)) return definition;
  throw invalid('definition', `expected what defineConfig() gives, got ${kindOf(definition)}`);
}

function filled(path: string, key: string, identity: Identity): string {
  const whole = key.replaceAll(PLACE, (_, name: (typeof PLACES)[number]) => {
    const value = identity[name];
    if (value !== undefined) return value;
    throw invalid(path, `expected the option ${name} of connectCoord(), which stands in the key`);
  });
  return isRecordKey(whole) ? prefixOf(path, whole) : keyOf(path, whole);
}

/** Whether two definitions of one key say the same. */
export function agree(a: ConfigDef<unknown>, b: ConfigDef<unknown>): boolean {
  if (a === b) return true;
  const rest = ({ schema: _, ...others }: ConfigDef<unknown>) => others;
  return a.schema === b.schema && isDeepStrictEqual(rest(a), rest(b));
}

/** Checks the paths of secrets. */
function secretsOf(value: unknown): readonly string[] {
  if (value === undefined) return Object.freeze([]);
  if (!Array.isArray(value)) throw invalid('definition.secret', `expected an array of paths, got ${kindOf(value)}`);
  for (const [place, path] of value.entries()) {
    if (typeof path !== 'string' || (path !== '' && path.split('.').includes(''))) {
      const got = typeof path === 'string' ? JSON.stringify(path) : kindOf(path);
      throw invalid(`definition.secret[${place}]`, `expected the path of a field, such as "db.password", got ${got}`);
    }
  }
  return Object.freeze([...new Set(value as string[])]);
}
