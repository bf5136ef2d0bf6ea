/** A watch that calls back. */

import { callBack, type OnServiceList, refusedText } from '../registry/follow.js';
import type { Registry } from '../registry/registry.js';
import type { Watcher } from '../registry/watcher.js';
import type { AppLogger } from './logger.js';

export type { OnServiceList };

/**
 * Watches a service until the watcher is stopped or the registry closed, as `Registry.onChange()` does, with the log of the
 * application.
 */
export function follow(registry: Registry, name: string, listener: OnServiceList, log: AppLogger): Watcher {
  // A test may have put something else in its place.
  const watcher =
    registry.watchPatiently?.(name, (error) => log.error(refusedText(name, error))) ?? registry.watch(name);
  callBack(watcher, listener, (text) => log.error(text));
  return watcher;
}

/** The names of those whose list may be out of date. */
export const staleOf = (watchers: Iterable<Watcher>): string[] => namesOf(watchers, ({ stale }) => stale);

/** The names of those that the registry refuses to tell of. */
export const refusedOf = (watchers: Iterable<Watcher>): string[] => namesOf(watchers, ({ refused }) => refused);

function namesOf(watchers: Iterable<Watcher>, fits: (watcher: Watcher) => boolean): string[] {
  return [...new Set([...watchers].filter(fits).map(({ name }) => name))];
}
