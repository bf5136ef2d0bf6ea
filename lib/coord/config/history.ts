/**
 * What stood at a key before: each change moves it below `/config-history`, in the transaction that replaces it. So the revision at
 * which such a record was written is that of the version that came after it, whose comment and author it tells.
 */

import type { Entry } from './entry.js';
import { VALUE_MOST } from './text.js';

/** Below which the records lie. */
const ROOT = '/config-history';
/** Between a key and its records; none of its own keys has such a part. */
const MARK = '/@/';
/** The most that is kept of a key, in bytes. */
const BYTES_MOST = 2 * 1024 * 1024;
/** The largest value that is kept: a transaction has to hold the new one and the old one. */
const KEPT_MOST = VALUE_MOST / 4;
/** The most records that one change removes, so that a transaction does not grow by those of a year. */
const PRUNED_MOST = 4;
/** Enough for 2^53. */
const DIGITS = 16;
/** How much longer a record's key is than that of which it is. */
export const HISTORY_LONGER = ROOT.length + MARK.length + DIGITS;

/** Who made a change, and why. */
export interface Authorship {
  readonly comment: string | undefined;
  readonly author: string | undefined;
}

/** What stood at a key. */
export interface Version {
  /** The revision of the store at which it was written; of one that was absent before all others, 0. */
  readonly revision: bigint;
  /** The text; `null`: nothing stood there; `undefined`: it was not kept, for it is larger than 256 KiB or no text. */
  readonly value: string | null | undefined;
  /** Whether it stands there now. */
  readonly isCurrent: boolean;
  /** Why it was written, if who wrote it said so. */
  readonly comment?: string;
  /** Who wrote it, if that is known. */
  readonly author?: string;
  /** When, by the clock of who wrote it. */
  readonly at?: Date;
}

/** One record, as JSON. */
interface Content extends Partial<Authorship> {
  readonly value?: string | null;
  readonly at?: string;
}

interface Moved extends Content {
  readonly key: string;
  readonly bytes: number;
  /** The revision of the version that stood there. */
  readonly revision: bigint;
  /** The revision of the one after it. */
  readonly next: bigint;
}

/** The folder of the records of a key. */
export const historyOf = (key: string): string => `${ROOT}${key}${MARK}`;

/** Whether changes of a key are kept: not those of what coord itself keeps, nor those of records that are no configuration. */
export const isKept = (key: string): boolean => !/^\/(config-(history|applied)|once)\//.test(key);

/** What a transaction does besides, to keep what it replaces: `keep` versions of each key at the most. */
export function moving(
  key: string,
  current: Entry | null,
  records: readonly Entry[],
  keep: number,
  { comment, author }: Authorship,
): { key: string; value: string | null }[] {
  const moved = movedOf(key, records);
  // Where nothing stands, since the last record was written.
  const revision = current?.revision ?? moved.at(-1)?.next ?? 0n;
  const text = current?.isText && Buffer.byteLength(current.value) <= KEPT_MOST ? current.value : undefined;
  const content: Content = {
    ...(current ? text !== undefined && { value: text } : { value: null }),
    ...(comment !== undefined && { comment }),
    ...(author !== undefined && { author }),
    at: new Date().toISOString(),
  };
  const record = JSON.stringify(content);
  let [count, bytes] = [1, Buffer.byteLength(record)];
  const old: Moved[] = [];
  for (const one of moved.toReversed()) {
    count++;
    bytes += one.bytes;
    if (count > keep || bytes > BYTES_MOST) old.unshift(one);
  }
  const name = `${historyOf(key)}${String(revision).padStart(DIGITS, '0')}`;
  return [{ key: name, value: record }, ...old.slice(0, PRUNED_MOST).map((one) => ({ key: one.key, value: null }))];
}

/** All versions of a key that are known, the newest first, as of the revision at which `current` was read. */
export function versionsOf(key: string, current: Entry | null, records: readonly Entry[], at: bigint): Version[] {
  // A store may leave the revision of a value that is written again as it was.
  const moved = movedOf(key, records).filter(({ next, revision }) => next <= at && revision !== current?.revision);
  const written = new Map(moved.map((one) => [one.next, one]));
  const version = (revision: bigint, value: string | null | undefined, isCurrent: boolean): Version => {
    const by = written.get(revision);
    return Object.freeze({
      revision,
      value,
      isCurrent,
      ...(by?.comment !== undefined && { comment: by.comment }),
      ...(by?.author !== undefined && { author: by.author }),
      ...(by?.at !== undefined && { at: new Date(by.at) }),
    });
  };
  const now = current
    ? version(current.revision, current.isText ? current.value : undefined, true)
    : version(moved.at(-1)?.next ?? 0n, null, true);
  return [now, ...moved.toReversed().map((one) => version(one.revision, one.value, false))];
}

/** The records of a key, the oldest first. What can't be read is left out: others may write there. */
function movedOf(key: string, records: readonly Entry[]): Moved[] {
  const folder = historyOf(key);
  const moved = records.flatMap((record): Moved[] => {
    if (!record.key.startsWith(folder)) return [];
    const name = record.key.slice(folder.length);
    const content = contentOf(record.value);
    if (!/^\d{16}$/.test(name) || !content) return [];
    const bytes = Buffer.byteLength(record.value);
    return [{ ...content, key: record.key, bytes, revision: BigInt(name), next: record.revision }];
  });
  return moved.sort((a, b) => Number(a.revision - b.revision));
}

function contentOf(text: string): Content | undefined {
  try {
    const { value, comment, author, at } = JSON.parse(text) as Record<string, unknown>;
    return {
      ...((typeof value === 'string' || value === null) && { value }),
      ...(typeof comment === 'string' && { comment }),
      ...(typeof author === 'string' && { author }),
      ...(typeof at === 'string' && !Number.isNaN(Date.parse(at)) && { at }),
    };
  } catch {
    return undefined;
  }
}
