/** What an application does once. */

import type { Once, Run, RunOptions } from '../../once/index.js';
import { madeByModule } from './by-module.js';

/** The `Once` that `OnceModule` has made. */
export class OnceService {
  /** The whole of it: `clear()`, `resolve()`, `inspect()`. The module closes it. */
  readonly once: Once;

  /** @internal */
  constructor(once: Once) {
    madeByModule(once, 'OnceService', 'OnceModule');
    this.once = once;
  }

  /** As `once.do()`: runs `fn`, unless that was done for this key within `ttlMs`. @throws as it. */
  async do(key: string, ttlMs: number, fn: (run: Run) => unknown, options?: RunOptions): Promise<'ran' | 'done'> {
    return await this.once.do(key, ttlMs, fn, options);
  }

  /** As `once.execute()`: gives what `fn` gave for this key, and runs it if that was not done within `ttlMs`. @throws as it. */
  async execute<T>(key: string, ttlMs: number, fn: (run: Run) => T | Promise<T>, options?: RunOptions): Promise<T> {
    return await this.once.execute(key, ttlMs, fn, options);
  }
}
