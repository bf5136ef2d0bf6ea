/** Records: the keys below a prefix, each of which is a configuration of its own. Nothing here asks the store. */

import { isDeepStrictEqual } from 'node:util';
import { entryOf, isRecordKey, type Resolved } from './definition.js';
import type { Entry } from './entry.js';
import { type Evaluated, evaluate, type Judged, type Layers, type Partly, refused } from './evaluate.js';
import { frozen } from './merge.js';

/** Whether its value is a record. */
export const isRecord = ({ key }: Resolved<unknown>): boolean => isRecordKey(key);

/** What lies in the layers of a configuration. Of a record: all that lies below them, by which its entries are named. */
export function layersIn(resolved: Resolved<unknown>, entries: ReadonlyMap<string, Entry>): Layers {
  if (!isRecord(resolved)) return resolved.layers.map((key) => entries.get(key));
  return [...entries.values()].filter(({ key }) => nameOf(resolved, key) !== undefined);
}

/** Whether two are of the same entries. */
export const sameLayers = (a: Layers, b: Layers): boolean =>
  a.length === b.length && a.every((entry, place) => entry === b[place]);

/** Which entry of a record a key belongs to, if one. */
export function nameOf({ key: own, layers, labels }: Resolved<unknown>, key: string): string | undefined {
  const label = key.indexOf('/@');
  if (label >= 0) {
    const name = key.startsWith(own) ? key.slice(own.length, label) : '';
    return labels.includes(key.slice(label)) && name !== '' ? name : undefined;
  }
  // The longest, where one lies in another.
  const folders = layers.filter((layer) => key.startsWith(layer));
  const folder = folders.reduce((longest, layer) => (layer.length > longest.length ? layer : longest), '');
  const name = key.slice(folder.length);
  return folder !== '' && name !== '' && !name.startsWith('@') ? name : undefined;
}

/**
 * Makes the entries of a record, each by itself. One that is refused has what was good `before`, or is left out; of a definition
 * with `whole` it refuses all. Never rejects.
 */
export async function evaluateRecord<T>(
  resolved: Resolved<T>,
  layers: Layers,
  revision: bigint,
  limitMs: number,
  before: ReadonlyMap<string, Judged> | undefined,
): Promise<Evaluated<T>> {
  const there = layers.filter((entry) => entry !== undefined);
  const byKey = new Map(there.map((entry) => [entry.key, entry]));
  const names = new Set(there.map(({ key }) => nameOf(resolved, key) as string));
  for (const name of Object.keys((resolved.def.default as object | undefined) ?? {})) names.add(name);
  const sorted = [...names].sort();
  const judged = await Promise.all(
    sorted.map(async (name): Promise<readonly [string, Judged]> => {
      const own = entryOf(resolved, name);
      const layers = own.layers.map((key) => byKey.get(key));
      const was = before?.get(name);
      if (was && sameLayers(was.layers, layers)) return [name, was];
      const evaluated = await evaluate(own, layers, revision, limitMs);
      const isRefused = 'refused' in evaluated;
      if (isRefused) return [name, { layers, good: was?.good, refused: evaluated.refused }];
      const value = was?.good && isDeepStrictEqual(was.good.value, evaluated.value) ? was.good.value : evaluated.value;
      const { source, hide } = evaluated;
      return [name, { layers, good: { value, layers, source, hide }, refused: undefined }];
    }),
  );
  const entries = new Map(judged);
  const wrong = [...entries].flatMap(([name, { refused }]) => (refused ? [{ name, refused }] : []));
  const issues = wrong.flatMap(({ name, refused }) => refused.issues.map((issue) => ({ ...issue, entry: name })));
  const cause = wrong.find(({ refused }) => refused.cause !== undefined)?.refused.cause;
  const why = wrong.length > 0 ? refused(resolved.key, revision, issues, cause).refused : undefined;
  if (why && resolved.def.whole) return { refused: why };
  const good = [...entries].flatMap(([name, { good }]) => (good ? [[name, good] as const] : []));
  const kept = new Set(good.flatMap(([, { layers }]) => layers.filter((entry) => entry !== undefined)));
  const partly: Partly = {
    entries,
    layers: [...kept],
    refused: why,
    isNews: wrong.some(({ name, refused }) => before?.get(name)?.refused !== refused),
  };
  const source = good.some(([, { source }]) => source === 'store') ? 'store' : 'default';
  // A field of the record, whatever its name.
  const value: object = Object.defineProperties(
    {},
    Object.fromEntries(good.map(([name, { value }]) => [name, { value, enumerable: true }])),
  );
  const hide = (text: string) => good.reduce((shown, [, { hide }]) => hide(shown), text);
  return { value: frozen(value) as T, source, hide, partly };
}
