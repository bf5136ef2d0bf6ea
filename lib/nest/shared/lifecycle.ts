/**
 * The order of Nest's hooks, which no option sets.
 *
 * It is set by `Module.distance`, which is Nest's own and may change. When a Nest ignores it, the hooks of our modules run
 * at the usual place, among those of the others. What then holds and what does not:
 *
 * - The life of a client is right all the same: prepared, started, left and closed in this order, and closed once. Nest
 *   runs all hooks of one kind before those of the next, and `endsOf()` asks for no more.
 * - It is no longer strict: another module may stop something while the record still stands. A program then takes it out by
 *   hand: `await app.get(RegistryService).deregisterSelf()` before `app.close()`. The log says so at the start, where the
 *   place of a module can't be set.
 * - A Nest that lets it be set and sorts by something else is noticed by the tests of each version (`__test__/nest`), which
 *   stop a module before ours: look what `getModulesToTriggerHooksOn()` of `NestApplicationContext` sorts by.
 */

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
 * Nest sorts the modules by their distance to the root, at the first hook: this must be called before. Says whether Nest
 * lets itself be told; never throws.
 */
export function placeAtEnds(modules: Iterable<unknown>, first: unknown, last: unknown): boolean {
  let isSet = true;
  for (const each of modules) {
    const ref = each as ModuleRef;
    if (ref.metatype === first) isSet = place(ref, Number.POSITIVE_INFINITY) && isSet;
    if (ref.metatype === last) isSet = place(ref, -1) && isSet;
  }
  return isSet;
}

function place(ref: ModuleRef, distance: number): boolean {
  if (typeof ref.distance !== 'number') return false; // this Nest knows no such thing
  try {
    ref.distance = distance;
  } catch {
    return false;
  }
  return ref.distance === distance;
}

/** What the log says when Nest does not let itself be told. */
export const UNORDERED =
  'this version of Nest does not let the order of its hooks be set: other modules may stop before the application is out ' +
  'of the registry; call deregisterSelf() of RegistryService before app.close()';

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
