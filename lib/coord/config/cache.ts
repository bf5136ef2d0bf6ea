/** What was good last of each configuration, in files: for a start without the store. */

import { join, resolve } from 'node:path';
import { digest, LastGoodFile } from '../../common/last-good.js';
import type { Log } from '../../common/logger.js';
import { outcomeOf } from '../../common/waiting.js';
import type { Resolved } from './definition.js';
import type { Layer } from './entry.js';
import type { Layers } from './evaluate.js';
import { isRecord, nameOf } from './records.js';
import { withoutSecrets } from './secret.js';

/** The layers of a configuration as they lay in the store, all of one revision. */
export interface Kept {
  readonly layers: Layers;
  readonly revision: bigint;
}

/** What is in a file, before it is checked. */
interface Content {
  layers?: unknown;
  revision?: unknown;
}

/** The folder of a client. */
export class Cache {
  readonly #folder: string;
  readonly #log: Log;
  readonly #writing = new Set<Promise<void>>();

  constructor(folder: string, log: Log) {
    this.#folder = resolve(folder);
    this.#log = log;
  }

  /** The file of a configuration: another one for other layers, so that each instance label has its own. */
  of(resolved: Resolved<unknown>): CacheFile {
    const name = resolved.key.replaceAll(/[^\w.-]+/g, '_').slice(-80);
    const all = isRecord(resolved) ? [...resolved.layers, ...resolved.labels] : resolved.layers;
    const path = join(this.#folder, `config${name}.${digest(all.join('\n'))}.last-good`);
    return new CacheFile(new LastGoodFile(path), resolved, this.#log, this.#writing);
  }

  /** Waits for what is being written, for `limitMs` at the most. */
  async settled(limitMs: number): Promise<void> {
    await outcomeOf(Promise.all(this.#writing), undefined, limitMs);
  }
}

/** The file of one configuration. */
export class CacheFile {
  readonly #file: LastGoodFile;
  readonly #resolved: Resolved<unknown>;
  readonly #log: Log;
  readonly #writing: Set<Promise<void>>;
  #hasFailed = false;

  constructor(file: LastGoodFile, resolved: Resolved<unknown>, log: Log, writing: Set<Promise<void>>) {
    this.#file = file;
    this.#resolved = resolved;
    this.#log = log;
    this.#writing = writing;
  }

  get path(): string {
    return this.#file.path;
  }

  /** What was good last; `undefined`: there is no file. Rejects with what is wrong with the file, which it names. */
  async load(limitMs: number): Promise<Kept | undefined> {
    const outcome = await outcomeOf(this.#file.read(), undefined, limitMs);
    if (typeof outcome === 'string') {
      throw new Error(`the last-known-good file ${this.path}: can't be read within ${limitMs} ms`);
    }
    return outcome.value === undefined ? undefined : this.#kept(outcome.value);
  }

  /** Keeps what is good now, when the disk has time for it. What hinders that is logged once, until it succeeds again. */
  keep({ layers, revision }: Kept): void {
    const { def, layers: keys } = this.#resolved;
    const entry = (of: Layer | undefined) => {
      const kept = of && withoutSecrets(def, of);
      return kept ? { value: kept.value, revision: String(kept.revision), ...(kept.isJson && { isJson: true }) } : null;
    };
    const all = layers.map((of, place) => [of?.key ?? keys[place], entry(of)] as const);
    const content = {
      revision: String(revision),
      layers: isRecord(this.#resolved) ? all.filter(([, of]) => of) : all,
    };
    const writing = this.#file.write(JSON.stringify(content)).then(
      () => {
        this.#hasFailed = false;
      },
      (error: Error) => {
        if (!this.#hasFailed) this.#log.write('warn', error.message);
        this.#hasFailed = true;
      },
    );
    this.#writing.add(writing);
    void writing.then(() => this.#writing.delete(writing));
  }

  /** Its checksum held; still, it may be of another program. */
  #kept(text: string): Kept {
    try {
      const { layers, revision } = JSON.parse(text) as Content;
      const keys = this.#resolved.layers;
      const all = layers as [string, { value: string; revision: string; isJson?: unknown } | null][];
      const isOurs = isRecord(this.#resolved)
        ? all.every(([key, of]) => of && nameOf(this.#resolved, key) !== undefined)
        : all.length === keys.length && all.every(([key], place) => key === keys[place]);
      if (!isOurs) throw new Error('other layers');
      return {
        revision: BigInt(revision as string),
        layers: all.map(([key, of]) => {
          if (!of) return undefined;
          const isJson = of.isJson === true && { isJson: true };
          return Object.freeze({
            key,
            value: String(of.value),
            isText: true,
            revision: BigInt(of.revision),
            ...isJson,
          });
        }),
      };
    } catch (cause) {
      throw new Error(`the last-known-good file ${this.path}: expected the layers of ${this.#resolved.key}`, { cause });
    }
  }
}
