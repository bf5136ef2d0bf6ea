/**
 * Deletes records of coord whose time is over: no store does it for us. After so many claims one of the 4096 folders is looked at, and
 * so many of what is over there are deleted. So what is over and still lies there is bounded by what is claimed, and a store in which
 * nothing is claimed is not asked.
 */

import type { Coord, Entry } from '../coord/index.js';
import { recordOf } from './record.js';

/** Where all records lie. */
export const FOLDER = '/once/';

/** How many claims a look is for. */
const CLAIMS = 16;
const FOLDERS = 4096;
/** The most that one look deletes. */
const DELETED_MOST = 64;
/** How much longer a record is left that is over by the clock of this process: that of others may be behind. */
const LEEWAY_MS = 60_000;

export class Sweeper {
  readonly #config: Coord['config'];
  #claims = 0;
  #next = Math.floor(Math.random() * FOLDERS);
  /** Whether it looks at a folder now. */
  isBusy = false;
  #isClosed = false;

  constructor(config: Coord['config']) {
    this.#config = config;
  }

  /** Something was claimed. */
  tick(): void {
    if (++this.#claims < CLAIMS || this.isBusy || this.#isClosed) return;
    this.#claims = 0;
    this.isBusy = true;
    this.#look()
      .catch(() => {}) // the folder comes again
      .finally(() => {
        this.isBusy = false;
      });
  }

  close(): void {
    this.#isClosed = true;
  }

  async #look(): Promise<void> {
    const folder = this.#next.toString(16).padStart(3, '0');
    this.#next = (this.#next + 1) % FOLDERS;
    const over = (await this.#config.list(`${FOLDER}${folder}/`)).filter(isOver);
    const ended = over.filter(({ value }) => recordOf(value)?.state !== 'running').slice(0, DELETED_MOST);
    if (ended.length > 0) await this.#delete(ended);
    // What was interrupted may still run: its runner must be gone as well.
    for (const entry of over.filter((one) => !ended.includes(one)).slice(0, DELETED_MOST)) {
      const record = recordOf(entry.value);
      if (record?.state !== 'running' || record.owner === undefined) continue;
      const isAlive = (await this.#config.raw(record.owner)) !== null;
      if (!isAlive) await this.#delete([entry], { [record.owner]: 0 }).catch(() => {});
    }
  }

  async #delete(entries: readonly Entry[], gone: Readonly<Record<string, number>> = {}): Promise<void> {
    const ifRevisions = Object.fromEntries(entries.map(({ key, revision }) => [key, revision]));
    await this.#config.setAll(Object.fromEntries(entries.map(({ key }) => [key, null])), {
      ifRevisions: { ...ifRevisions, ...gone },
    });
  }
}

function isOver({ value }: Entry): boolean {
  const expires = recordOf(value)?.expires;
  return expires !== undefined && expires + LEEWAY_MS < Date.now();
}
