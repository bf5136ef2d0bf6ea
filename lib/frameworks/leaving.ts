/** What an application has registered leaves before its servers close. */

import { defaultDrain } from '../registry/options.js';
import type { Registration } from '../registry/registration.js';
import type { Registry } from '../registry/registry.js';
import type { AppLogger } from './logger.js';

/** The drain of a registry: what is `given`, else the default. */
export function drainOf(registry: Registry, given?: number): number {
  return given ?? defaultDrain(registry.backend);
}

/** Takes out whatever the program has registered, all at once, and waits for the drain. Never rejects. */
export async function leave(
  registry: Registry,
  { drainMs, except, log }: { drainMs: number; except: Registration | undefined; log: AppLogger },
): Promise<void> {
  // A test may have put something else in its place, such as a mock that answers whatever it is asked.
  const live: unknown = registry.live?.();
  const mine = Array.isArray(live) ? (live as Registration[]).filter((each) => each !== except) : [];
  await Promise.all(mine.map((each) => takeOut(each, { drainMs, as: `${each.name}/${each.id}`, log })));
}

/** Takes one out, and waits for the drain. Never rejects: what went wrong is logged, of what is called `as`. */
export async function takeOut(
  registration: Registration,
  { drainMs, as, log }: { drainMs: number; as: string; log: AppLogger },
): Promise<void> {
  try {
    await registration.deregister({ drainMs });
  } catch (error) {
    log.warn(`${as} could not be taken out of the registry: ${(error as Error).message}`);
  }
}
