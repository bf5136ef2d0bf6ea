// Looking for keys in a list that is sorted by the bytes of UTF-8.
import { expect, it } from 'vitest';
import { type Entry, entriesAt } from '../../lib/coord/config/entry.js';

const KEYS = ['/a', '/a/1', '/a/2', '/a0', '/b/\u{e000}', '/b/\u{ffff}', '/b/\u{10000}', '/b/\u{1f600}', '/c'];
const entry = (key: string): Entry => ({ key, value: '', isText: true, revision: 1n });
const bytes = (a: string, b: string) => Buffer.compare(Buffer.from(a), Buffer.from(b));

it('finds each key, and nothing that is not there', () => {
  const list = [...KEYS].sort(bytes).map(entry);
  expect(
    list.map(({ key }) => key),
    'JavaScript sorts otherwise',
  ).not.toEqual([...KEYS].sort());
  for (const key of KEYS) expect([...entriesAt(list, [key], [])]).toEqual([[key, entry(key)]]);
  expect(entriesAt(list, ['', '/', '/a/', '/a/3', '/b/\u{f000}', '/d'], []).size).toBe(0);
  expect(entriesAt([], KEYS, ['/a/']).size).toBe(0);
});

it('finds all that lies below a folder, and nothing beside it', () => {
  const list = [...KEYS].sort(bytes).map(entry);
  expect([...entriesAt(list, [], ['/a/']).keys()]).toEqual(['/a/1', '/a/2']);
  expect(entriesAt(list, ['/c'], ['/b/', '/none/']).size).toBe(5);
  expect(entriesAt(list, [], ['/']).size).toBe(KEYS.length);
});
