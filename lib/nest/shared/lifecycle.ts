/** The order of Nest's hooks, which no option sets. */

/** What is needed of a module in Nest's container. */
interface ModuleRef {
  metatype: unknown;
  distance: number;
}

/**
 * Puts the hooks of two modules at the two ends of Nest's order: those of `first` run first at the start, those of `last`
 * last. At the end Nest 10 runs all hooks in the same order, later versions in the reverse one: whatever both modules do
 * there, is done before the hooks of any other module, and after them.
 *
 * Nest sorts the modules by their distance to the root, at the first hook: this must be called before.
 */
export function placeAtEnds(modules: Iterable<unknown>, first: unknown, last: unknown): void {
  for (const each of modules) {
    const ref = each as ModuleRef;
    if (ref.metatype === first) ref.distance = Number.POSITIVE_INFINITY;
    if (ref.metatype === last) ref.distance = -1;
  }
}

/** What one of these modules is asked to do; each of them is asked, whichever comes first does it. */
export interface Resident {
  /** All objects are made, and no other module has been initialized. Its failure fails the start. */
  prepare?(): Promise<void>;
  /** All other modules are initialized. Its failure fails the start. */
  start(): Promise<void>;
  /** Nothing has been stopped yet. */
  leave(): Promise<void>;
  /** Everything has been stopped. */
  close(): Promise<void>;
}

/** The two ends of a resident's life, as providers with the hooks of Nest. */
export function endsOf(resident: Resident): { first: object; last: object } {
  let stopped = 0;
  const shared = {
    // The first of the two that comes makes the other wait.
    onModuleDestroy: () => resident.leave(),
    onApplicationShutdown: () => (++stopped < 2 ? undefined : resident.close()),
  };
  return {
    first: { ...shared, onModuleInit: () => resident.prepare?.() },
    last: { ...shared, onApplicationBootstrap: () => resident.start() },
  };
}
