/** The undici of the program: found at first use, and told apart by what it exports. */

import { invalid, isRecord, kindOf } from '../common/shape.js';
import { UnsupportedError } from '../errors.js';

// biome-ignore lint/suspicious/noExplicitAny: each undici has types of its own
type OfUndici = any;

/** What is needed of undici 6, 7 or 8: `import * as undici from 'undici'`. */
export interface UndiciModule {
  readonly Pool: new (origin: string, options?: OfUndici) => UndiciPool;
  buildConnector(options?: OfUndici): OfUndici;
}

/** What is needed of a pool. */
export interface UndiciPool {
  dispatch(options: OfUndici, handler: OfUndici): boolean;
  close(): Promise<void>;
  destroy(error?: OfUndici): Promise<void>;
}

/** As in the peer dependencies. */
export const UNDICI_RANGE = 'undici ^6.14 || ^7 || ^8';
/** Where the built-in `fetch` looks for its dispatcher: up to undici 7, and from undici 8 on. */
const SLOT = Symbol.for('undici.globalDispatcher.1');
const NEWER_SLOT = Symbol.for('undici.globalDispatcher.2');

/** What the built-in `fetch` goes through. It is there once `fetch` was called. */
export function builtInDispatcher(): { dispatch(options: object, handler: object): boolean } {
  const slots = globalThis as unknown as Record<symbol, ReturnType<typeof builtInDispatcher>>;
  return (slots[NEWER_SLOT] ?? slots[SLOT]) as ReturnType<typeof builtInDispatcher>;
}

/**
 * The module that was given, or the one that the program has; `undefined`: it has none.
 *
 * @throws `ERR_INVALID_ARGUMENT` for a module that is none; `ERR_UNSUPPORTED` for one outside the range, or that does not run
 *   on this Node.js.
 */
export function undiciOf(path: string, given: unknown): UndiciModule | undefined {
  if (given !== undefined) return checkUndici(path, given);
  const found = quietly(findUndici);
  return found === undefined ? undefined : checkUndici(path, found);
}

function checkUndici(path: string, given: unknown): UndiciModule {
  const module = (given ?? {}) as Record<string, unknown>;
  if (typeof given !== 'object' || typeof module.Pool !== 'function' || typeof module.buildConnector !== 'function') {
    throw invalid(
      path,
      `expected the module undici, as import * as undici from 'undici' gives it, got ${kindOf(given)}`,
    );
  }
  // Came with undici 6.14, and stayed. Older ones have other handlers, or none of these.
  if (typeof module.EnvHttpProxyAgent === 'function') return given as UndiciModule;
  throw new UnsupportedError(`${path}: expected ${UNDICI_RANGE}, got an older one`);
}

function findUndici(): unknown {
  try {
    return require('undici');
  } catch (error) {
    const { code, message } = isRecord(error) || error instanceof Error ? (error as NodeJS.ErrnoException) : {};
    if (code === 'MODULE_NOT_FOUND' && message?.startsWith("Cannot find module 'undici'")) return undefined;
    const problem = `undici ${installedVersion()} can't be loaded on Node.js ${process.versions.node}`;
    throw new UnsupportedError(`${problem}: install one that can, of ${UNDICI_RANGE}`, { cause: error });
  }
}

/** Its major version, where it can be told. */
function installedVersion(): string {
  try {
    return String(require('undici/package.json').version).split('.')[0] as string;
  } catch {
    return '';
  }
}

/** Loading undici 8 on Node.js 22 puts it in the place of what the built-in `fetch` goes through: that is the program's to do. */
function quietly<T>(load: () => T): T {
  new Headers(); // Node.js loads its own with the first of these
  const slots = globalThis as unknown as Record<symbol, unknown>;
  const before = slots[SLOT];
  const loaded = load();
  if (before !== undefined && slots[SLOT] !== before) slots[SLOT] = before;
  return loaded;
}
