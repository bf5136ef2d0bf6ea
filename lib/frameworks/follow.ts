/** A watch that calls back. */

import type { ServiceList } from '../registry/instance.js';
import type { Registry } from '../registry/registry.js';
import type { Watcher } from '../registry/watcher.js';
import type { AppLogger } from './logger.js';

/** What hears of a service. While its promise is pending it is not called again; then it hears the latest list. */
export type OnServiceList = (instances: ServiceList) => unknown;

/**
 * Watches a service until the watcher is stopped or the registry closed. What the listener throws is logged. A registry
 * that refuses to tell of it is asked again; that is logged once until it has told.
 */
export function follow(registry: Registry, name: string, listener: OnServiceList, log: AppLogger): Watcher {
  const refused = ({ message }: Error) =>
    log.error(`the registry refuses to tell of the service ${name}, and is asked again: ${message}`);
  // A test may have put something else in its place.
  const watcher = registry.watchPatiently?.(name, refused) ?? registry.watch(name);
  const loop = async () => {
    for await (const instances of watcher) {
      try {
        await listener(instances);
      } catch (error) {
        log.error(`a listener of the service ${name} failed: ${(error as Error | undefined)?.stack ?? String(error)}`);
      }
    }
  };
  loop().catch((error: unknown) =>
    log.error(`the watch of the service ${name} has ended: ${(error as Error).message}`),
  );
  return watcher;
}

/** The names of those whose list may be out of date. */
export const staleOf = (watchers: Iterable<Watcher>): string[] => namesOf(watchers, ({ stale }) => stale);

/** The names of those that the registry refuses to tell of. */
export const refusedOf = (watchers: Iterable<Watcher>): string[] => namesOf(watchers, ({ refused }) => refused);

function namesOf(watchers: Iterable<Watcher>, fits: (watcher: Watcher) => boolean): string[] {
  return [...new Set([...watchers].filter(fits).map(({ name }) => name))];
}
