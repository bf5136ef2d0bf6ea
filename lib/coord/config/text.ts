/** Values as they lie in the store: JSON, YAML, TOML, or bare text. */

import { invalid, kindOf, wellFormed } from '../../common/shape.js';
import { changed, Refusal } from './merge.js';

/**
 * How a value is read: `auto` by the end of its key (`.json`, `.yaml`, `.yml`, `.toml`, `.txt`), else as JSON where it is JSON, else
 * as text. YAML takes the package `yaml` beside this one, TOML `smol-toml`.
 */
export type ConfigFormat = 'json' | 'yaml' | 'toml' | 'text' | 'auto';

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

/** As YAML 1.2 has it: no types of YAML 1.1, no key twice, and aliases that do not grow without bound. */
const yaml = reader(
  'YAML',
  'yaml',
  () => require('yaml'),
  ({ parse }) => {
    return (text) => parse(text, { schema: 'core', uniqueKeys: true, maxAliasCount: 100, logLevel: 'error' });
  },
);

/** As TOML 1.0 has it. Dates and times are their texts, as in JSON. */
const toml = reader(
  'TOML',
  'smol-toml',
  () => require('smol-toml'),
  ({ parse }) => {
    return (text) =>
      changed(parse(text, { maxDepth: 100 }), (leaf) => (leaf instanceof Date ? leaf.toISOString() : leaf));
  },
);

/** What is taken of a package that reads a format. */
interface Package {
  parse(text: string, options: object): unknown;
}

/** Reads a format by a package that may be there, and is loaded for the first text. `load` names it in a form that bundlers see. */
function reader(
  format: string,
  name: string,
  load: () => unknown,
  made: (found: Package) => (text: string) => unknown,
): (text: string) => unknown {
  let read: ((text: string) => unknown) | undefined;
  return (text) => {
    try {
      read ??= made(load() as Package);
    } catch {
      throw new Refusal(`expected the package "${name}" beside rollcall, to read ${format}: npm install ${name}`, '');
    }
    try {
      return read(text);
    } catch {
      throw new Refusal(`expected ${format}`, ''); // its own words show pieces of the text, which may be a secret
    }
  };
}
