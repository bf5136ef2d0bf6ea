/** Secrets: which fields of a configuration they are, how they are deciphered, and how they are kept out of what is shown. */

import { kindOf } from '../../common/shape.js';
import { outcomeOf } from '../../common/waiting.js';
import type { ConfigIssue } from '../errors.js';
import type { Layer } from './entry.js';
import { changed, isPlain, mapped, Refusal } from './merge.js';
import { type ConfigFormat, readAs } from './text.js';

/** What is shown in the place of a secret. */
export const HIDDEN = '…';
/** And of one that is another than that which it is compared with. */
const ANOTHER = '… (another)';

/** What is to be known of a definition here. */
interface Definition {
  readonly key: string;
  readonly layers: readonly string[];
  readonly format: ConfigFormat;
  readonly schema: object;
  readonly secret: readonly string[];
  readonly decrypt: ((text: string) => string | Promise<string>) | undefined;
}

const partsOf = (path: string): string[] => (path === '' ? [] : path.split('.'));

/** What is made of a text, number, …; `at` tells one place of a value from another. */
type Change = (leaf: unknown, at: string) => unknown;

/** A copy in which each text, number, … at this path or below it is what `change` makes of it. */
function changedBelow(value: unknown, path: readonly string[], change: Change, at = ''): unknown {
  const [name, ...rest] = path;
  if (Array.isArray(value)) {
    // A path goes through lists: what is said of a field is said of that of each.
    const inner = name === '*' ? rest : path;
    return value.map((item, place) => changedBelow(item, inner, change, `${at}/${place}`));
  }
  if (!isPlain(value)) return name === undefined ? change(value, at) : value;
  return mapped(value, (inner, key) => {
    const isMeant = name === undefined || name === '*' || name === key;
    return isMeant ? changedBelow(inner, rest, change, `${at}/${key}`) : inner;
  });
}

/** The same for all paths. */
function changedAt(value: unknown, paths: readonly string[], change: Change): unknown {
  return paths.reduce((whole, path) => changedBelow(whole, partsOf(path), change), value);
}

/** The secrets of some values, as far as they could be shown, and texts without them. */
export class Secrets {
  readonly #paths: readonly string[];
  readonly #texts = new Set<string>();

  constructor(paths: readonly string[]) {
    this.#paths = paths;
  }

  /** Whether there are any to be kept. */
  get some(): boolean {
    return this.#paths.length > 0;
  }

  /** Takes those of a value in. */
  learn(value: unknown): void {
    if (this.some && hasNoFields(value)) this.learnText(String(value));
    changedAt(value, this.#paths, (leaf) => {
      if (typeof leaf === 'string' || typeof leaf === 'number' || typeof leaf === 'bigint')
        this.learnText(String(leaf));
      return leaf;
    });
  }

  learnText(text: string): void {
    if (text === '') return;
    this.#texts.add(text);
    this.#texts.add(JSON.stringify(text).slice(1, -1));
  }

  /** A text without them. */
  hide(text: string): string {
    if (this.#texts.size === 0) return text;
    // The longest first, for one may be a part of another.
    const all = [...this.#texts].sort((a, b) => b.length - a.length);
    return all.reduce((shown, secret) => shown.split(secret).join(HIDDEN), text);
  }

  /** What a schema says, without them: of a field that is one, nothing but that it is. */
  hideIn(issues: readonly ConfigIssue[], paths: readonly (readonly string[])[]): ConfigIssue[] {
    return issues.map((issue, place) => {
      if (!this.some) return issue;
      const isSecret = this.#paths.some((path) => leadsTo(partsOf(path), paths[place] ?? []));
      return {
        ...issue,
        message: isSecret ? `${HIDDEN} (what is wrong with a secret is not shown)` : this.hide(issue.message),
      };
    });
  }
}

/** A text where fields are expected may be what could not be read, and is secret as a whole. */
const hasNoFields = (value: unknown): boolean => typeof value !== 'object' && value !== undefined;

/** Whether a field is at a path or below it; numbers are places in lists. */
function leadsTo(path: readonly string[], field: readonly string[]): boolean {
  const [name, ...rest] = path;
  if (name === undefined) return true;
  const [own, ...below] = field;
  if (own === undefined) return false;
  if (name === '*' || name === own) return leadsTo(rest, below);
  return /^\d+$/.test(own) && leadsTo(path, below);
}

/** What `decrypt` has made of the layers, which are the same objects until they change. */
const deciphered = new WeakMap<object, WeakMap<Layer, unknown>>();

/** What a layer says, as it is written. */
const readAsItIs = ({ format }: Definition, { key, value, isJson }: Layer): unknown =>
  isJson ? JSON.parse(value) : readAs(format, key, value);

/** What a layer says: its text read, and its secrets deciphered. */
export async function readLayer(def: Definition, layer: Layer, limitMs: number): Promise<unknown> {
  const { decrypt, secret } = def;
  if (layer.isJson || !decrypt) return readAsItIs(def, layer);
  const known = deciphered.get(def.schema) ?? new WeakMap<Layer, unknown>();
  deciphered.set(def.schema, known);
  if (known.has(layer)) return known.get(layer);
  const plain = new Map<string, string>();
  const all = async (texts: readonly string[]) => {
    const work = Promise.all(
      texts.map(async (text) => {
        const made: unknown = await decrypt(text);
        if (typeof made !== 'string') throw new Error(`expected text of decrypt(), got ${kindOf(made)}`);
        plain.set(text, made);
      }),
    );
    // What it throws may show the text.
    const outcome = await outcomeOf(work, undefined, limitMs).catch(() => {
      throw new Refusal('decrypt() failed', '');
    });
    if (outcome === 'expired') throw new Refusal(`decrypt() gave no answer within ${limitMs} ms`, '');
  };
  let text = layer.value;
  if (secret.includes('')) {
    await all([text]);
    text = plain.get(text) as string;
  }
  const value = readAs(def.format, layer.key, text);
  const paths = secret.filter((path) => path !== '');
  const found = new Set<string>();
  changedAt(value, paths, (leaf) => {
    if (typeof leaf === 'string') found.add(leaf);
    return leaf;
  });
  await all([...found]);
  const done = unmarked(changedAt(value, paths, (leaf) => mark(leaf, plain)));
  known.set(layer, done);
  return done;
}

/** What was deciphered, until all of it is: it may look like what is yet to be. */
class Deciphered {
  constructor(readonly text: string) {}
}

const mark = (leaf: unknown, plain: ReadonlyMap<string, string>): unknown =>
  typeof leaf === 'string' ? new Deciphered(plain.get(leaf) as string) : leaf;

function unmarked(value: unknown): unknown {
  return changed(value, (leaf) => (leaf instanceof Deciphered ? leaf.text : leaf));
}

/** A layer as it may lie on a disk: without its secrets. `undefined`: nothing of it may. */
export function withoutSecrets(def: Definition, layer: Layer): Layer | undefined {
  if (def.secret.length === 0) return layer;
  if (def.secret.includes('')) return undefined;
  const value = readAsItIs(def, layer);
  if (hasNoFields(value)) return undefined;
  const gone = Symbol();
  const bare = pruned(
    changedAt(value, def.secret, () => gone),
    gone,
  );
  return bare === gone ? undefined : { ...layer, value: JSON.stringify(bare), isJson: true };
}

function pruned(value: unknown, gone: symbol): unknown {
  if (Array.isArray(value)) return value.some((item) => item === gone) ? gone : value.map((item) => pruned(item, gone));
  if (!isPlain(value)) return value;
  const kept = Object.entries(value).map(([key, inner]) => [key, pruned(inner, gone)] as const);
  return Object.fromEntries(kept.filter(([, inner]) => inner !== gone));
}

/** Two versions of a value as they are compared: laid out, with what is shown in the place of secrets. */
export function shownVersions(
  def: Definition,
  key: string,
  before: string | null,
  after: string | null,
): [string | null, string | null] {
  const asWhole = (): [string | null, string | null] => [
    before && HIDDEN,
    after && (after === before ? HIDDEN : ANOTHER),
  ];
  if (def.secret.includes('')) return asWhole();
  const old = new Map<string, unknown>();
  const read = (text: string | null) => {
    if (text === null) return null;
    const value = readAs(def.format, key, text);
    if (hasNoFields(value)) throw new Refusal('expected fields', '');
    return { value };
  };
  try {
    const [a, b] = [read(before), read(after)];
    const first =
      a &&
      changedAt(a.value, def.secret, (leaf, at) => {
        if (!old.has(at)) old.set(at, leaf);
        return HIDDEN;
      });
    const second =
      b &&
      changedAt(b.value, def.secret, (leaf, at) => {
        if (leaf === HIDDEN || leaf === ANOTHER) return leaf; // by another path
        return !a || Object.is(old.get(at), leaf) ? HIDDEN : ANOTHER;
      });
    return [a && JSON.stringify(first), b && JSON.stringify(second)];
  } catch {
    return asWhole();
  }
}

/** Whether a key, or a layer of labels of it, is one of a definition, for whichever options. */
export function isKeyOf(def: Definition, key: string): boolean {
  const [own = ''] = key.split('/@');
  return [def.key, ...def.layers].some((template) => {
    const quoted = template.replaceAll(/[.*+?^$()|[\]\\]/g, '\\$&').replaceAll(/\{(env|service|instance)\}/g, '[^/]+');
    return new RegExp(`^${quoted}${template.endsWith('/') ? '.+' : ''}$`, 'u').test(own);
  });
}
