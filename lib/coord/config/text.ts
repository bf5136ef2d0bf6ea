/** Values as they lie in the store: JSON, YAML, TOML, or bare text. */

import { invalid, kindOf, wellFormed } from '../../common/shape.js';
import { isPlain, Refusal } from './merge.js';

/**
 * How a value is read: `auto` by the end of its key (`.json`, `.yaml`, `.yml`, `.toml`, `.txt`), else as JSON where it is JSON, else
 * as text. YAML takes the package `yaml` beside this one, TOML `smol-toml`.
 */
export type ConfigFormat = 'json' | 'yaml' | 'toml' | 'text' | 'auto';

export const FORMATS: readonly ConfigFormat[] = ['json', 'yaml', 'toml', 'text', 'auto'];

/** The largest value, in bytes: 1 MiB, which the native side holds to as well. */
export const VALUE_MOST = 1024 * 1024;

/** What a value is written as: text as it is, all else as JSON. */
export function writtenAs(path: string, value: unknown): string {
  const text = typeof value === 'string' ? wellFormed(path, value) : json(path, value);
  const bytes = Buffer.byteLength(text);
  if (bytes > VALUE_MOST) {
    throw invalid(path, `expected at most ${VALUE_MOST} bytes, got ${bytes}: keep large values elsewhere`);
  }
  return text;
}

function json(path: string, value: unknown): string {
  if (ArrayBuffer.isView(value)) throw invalid(path, 'expected text or what JSON can hold, got bytes');
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch (error) {
    throw invalid(path, 'expected text or what JSON can hold', error);
  }
  if (text === undefined) throw invalid(path, `expected text or what JSON can hold, got ${kindOf(value)}`);
  return text;
}

/** Reads the text of a layer. Throws a `SyntaxError`, or a `Refusal`, where it isn't what `format` says. */
export function readAs(format: ConfigFormat, layer: string, text: string): unknown {
  // That of a label is read as the key that it belongs to.
  const label = layer.lastIndexOf('/@');
  const key = label < 0 ? layer : layer.slice(0, label);
  const plain = format === 'text' || (format === 'auto' && key.endsWith('.txt'));
  if (plain) return text;
  if (format === 'yaml' || (format === 'auto' && /\.ya?ml$/.test(key))) return yaml(text);
  if (format === 'toml' || (format === 'auto' && key.endsWith('.toml'))) return toml(text);
  if (format === 'json' || key.endsWith('.json')) return JSON.parse(text);
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** What is taken of the package `yaml`. */
interface Yaml {
  parse(text: string, options: object): unknown;
}

let reader: Yaml | undefined;

/** As YAML 1.2 has it: no types of YAML 1.1, no key twice, and aliases that do not grow without bound. */
function yaml(text: string): unknown {
  try {
    reader ??= require('yaml') as Yaml;
  } catch {
    throw new Refusal('expected the package "yaml" beside rollcall, to read YAML: npm install yaml', '');
  }
  try {
    return reader.parse(text, { schema: 'core', uniqueKeys: true, maxAliasCount: 100, logLevel: 'error' });
  } catch {
    throw new Refusal('expected YAML', ''); // its own words show pieces of the text, which may be a secret
  }
}

/** What is taken of the package `smol-toml`. */
interface Toml {
  parse(text: string, options: object): unknown;
}

let tomlReader: Toml | undefined;

/** As TOML 1.0 has it. Dates and times are their texts, as in JSON. */
function toml(text: string): unknown {
  try {
    tomlReader ??= require('smol-toml') as Toml;
  } catch {
    throw new Refusal('expected the package "smol-toml" beside rollcall, to read TOML: npm install smol-toml', '');
  }
  try {
    return dated(tomlReader.parse(text, { maxDepth: 100 }));
  } catch {
    throw new Refusal('expected TOML', ''); // its own words show the line, which may be a secret
  }
}

function dated(value: unknown): unknown {
  if (value instanceof Date) return value.toISOString();
  if (Array.isArray(value)) return value.map(dated);
  if (!isPlain(value)) return value;
  const copy: Record<string, unknown> = {};
  for (const [name, inner] of Object.entries(value)) {
    Object.defineProperty(copy, name, { value: dated(inner), enumerable: true, writable: true, configurable: true });
  }
  return copy;
}
