/** A watch that calls back. */

import type { ServiceList } from './instance.js';
import type { Watcher } from './watcher.js';

/** What hears of a service. While its promise is pending it is not called again; then it hears the latest list. */
export type OnServiceList = (instances: ServiceList) => unknown;

/**
 * Calls `listener` with each list of a watcher, until that is over. What the listener throws, and what ends the watch by an
 * error, is told to `failed`.
 *
 * @internal
 */
export function callBack(watcher: Watcher, listener: OnServiceList, failed: (text: string) => void): void {
  const loop = async () => {
    for await (const instances of watcher) {
      try {
        await listener(instances);
      } catch (error) {
        const text = (error as Error | undefined)?.stack ?? String(error);
        failed(`a listener of the service ${watcher.name} failed: ${text}`);
      }
    }
  };
  loop().catch((error: unknown) =>
    failed(`the watch of the service ${watcher.name} has ended: ${(error as Error).message}`),
  );
}

/**
 * What is said of a registry that refuses to tell of a service.
 *
 * @internal
 */
export const refusedText = (name: string, { message }: Error): string =>
  `the registry refuses to tell of the service ${name}, and is asked again: ${message}`;
