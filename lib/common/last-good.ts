/**
 * Last-known-good files: what was good when it was last seen, for a start without the server that it came from. A file is there
 * whole or not at all, is read by its owner alone, and is given back only as it was written.
 */

import type { FileHandle } from 'node:fs/promises';
import { basename, dirname } from 'node:path';

/** Of the layout of these files. */
const VERSION = 1;
/** The largest file, in bytes: what the largest answer of a server comes to. */
const MOST = 64 * 1024 * 1024;
/** The first line: what it is, of which version, with which checksum (SHA-256) and how many bytes after it. */
const HEAD = /^rollcall last-good (\d+) ([0-9a-f]{64}) (\d+)$/;
const HEAD_MOST = 128;
/** Drafts older than this were left by processes that were killed. */
const DRAFT_MOST_MS = 60_000;

/** Loaded when the first file is: most programs have none. */
const fs = () => require('node:fs/promises') as typeof import('node:fs/promises');
const flags = () => (require('node:fs') as typeof import('node:fs')).constants;
const crypto = () => require('node:crypto') as typeof import('node:crypto');

/** A short name of a text for the name of a file. */
export const digest = (text: string): string => sum(Buffer.from(text)).slice(0, 16);

/** One such file. Its folder is made when it is first written. */
export class LastGoodFile {
  readonly path: string;
  /** What waits to be written: the latest. */
  #waits: string | undefined;
  #writing: Promise<void> | undefined;
  #isSwept = false;

  constructor(path: string) {
    this.path = path;
  }

  /**
   * What was written last; `undefined`: there is no such file.
   *
   * @throws an error that names the file and says what is wrong with it: cut off, changed, of another version, a link, no file, of
   * another user, one that others can write, unreadable.
   */
  async read(): Promise<string | undefined> {
    const { O_RDONLY, O_NOFOLLOW = 0, O_NONBLOCK = 0 } = flags();
    let file: FileHandle;
    try {
      file = await fs().open(this.path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK); // a pipe would wait for who writes
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT') return undefined;
      throw this.#problem(code === 'ELOOP' ? 'expected a file, got a symbolic link' : `can't be read: ${code}`, error);
    }
    try {
      const { size } = await this.#own(file);
      if (size > MOST + HEAD_MOST) throw this.#problem(`expected at most ${MOST} bytes, got ${size}`);
      return this.#checked(await file.readFile());
    } finally {
      await file.close();
    }
  }

  /**
   * Writes it anew: a draft beside it, on disk, then in its place. What waits while another is being written is replaced by what comes
   * after it. Rejects with an error that names the file; the one before it then stays.
   */
  write(text: string): Promise<void> {
    this.#waits = text;
    this.#writing ??= this.#run();
    return this.#writing;
  }

  async #run(): Promise<void> {
    try {
      while (this.#waits !== undefined) {
        const text = this.#waits;
        this.#waits = undefined;
        await this.#put(Buffer.from(text));
      }
    } catch (error) {
      this.#waits = undefined;
      throw this.#problem(`can't be written: ${(error as Error).message}`, error);
    } finally {
      this.#writing = undefined;
    }
  }

  async #put(bytes: Buffer): Promise<void> {
    if (bytes.length > MOST) throw new Error(`expected at most ${MOST} bytes, got ${bytes.length}`);
    const folder = dirname(this.path);
    await fs().mkdir(folder, { recursive: true, mode: 0o700 });
    await this.#sweep(folder);
    const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW = 0 } = flags();
    const draft = `${this.path}.${crypto().randomUUID()}.tmp`;
    try {
      const file = await fs().open(draft, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
      try {
        await file.writeFile(`rollcall last-good ${VERSION} ${sum(bytes)} ${bytes.length}\n`);
        await file.writeFile(bytes);
        await file.sync();
      } finally {
        await file.close();
      }
      await fs().rename(draft, this.path);
    } catch (error) {
      await fs().rm(draft, { force: true });
      throw error;
    }
    // So that the name is on disk too. Not all systems open a folder for it; then the old or the new file is there all the same.
    const handle = await fs()
      .open(folder, 'r')
      .catch(() => undefined);
    await handle?.sync().catch(() => {});
    await handle?.close();
  }

  /** Removes, once, what killed processes have left of this file. */
  async #sweep(folder: string): Promise<void> {
    if (this.#isSwept) return;
    this.#isSwept = true;
    const own = `${basename(this.path)}.`;
    for (const name of await fs().readdir(folder)) {
      if (!name.startsWith(own) || !name.endsWith('.tmp')) continue;
      const draft = `${folder}/${name}`;
      const { mtimeMs } = await fs().lstat(draft);
      if (Date.now() - mtimeMs > DRAFT_MOST_MS) await fs().rm(draft, { force: true });
    }
  }

  /** Refuses what somebody else can have put there. */
  async #own(file: FileHandle): Promise<{ size: number }> {
    const stat = await file.stat();
    if (!stat.isFile()) throw this.#problem('expected a file');
    const uid = process.geteuid?.();
    if (uid === undefined) return stat; // Windows: its access lists decide
    if (stat.uid !== uid) throw this.#problem(`expected a file of the user ${uid}, got one of ${stat.uid}`);
    if (stat.mode & 0o022) throw this.#problem('expected a file that nobody else can write (mode 0600)');
    return stat;
  }

  #checked(all: Buffer): string {
    const end = all.subarray(0, HEAD_MOST).indexOf('\n');
    const head = HEAD.exec(all.subarray(0, Math.max(end, 0)).toString('latin1'));
    if (!head)
      throw this.#problem('expected a last-known-good file, got something else, or one that is cut off or changed');
    const [, version, checksum, length] = head;
    if (Number(version) !== VERSION) throw this.#problem(`expected version ${VERSION}, got ${version}`);
    const bytes = all.subarray(end + 1);
    if (bytes.length !== Number(length)) {
      throw this.#problem(
        `expected ${length} bytes after the first line, got ${bytes.length}: it is cut off or changed`,
      );
    }
    if (sum(bytes) !== checksum) throw this.#problem('its checksum is another one: it was changed');
    return bytes.toString();
  }

  #problem(problem: string, cause?: unknown): Error {
    return new Error(`the last-known-good file ${this.path}: ${problem}`, { cause });
  }
}

const sum = (bytes: Buffer): string => crypto().createHash('sha256').update(bytes).digest('hex');
