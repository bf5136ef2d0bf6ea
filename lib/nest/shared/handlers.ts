/** The methods of a program that hear of changes, marked by decorators. */

/** `Symbol.for`: the mark of the ES module is seen by the CommonJS build. */
const MARK = Symbol.for('rollcall.nest.onServiceChange');

/** What a decorated method wants to hear of. */
export interface ServiceHandler {
  readonly service: string;
  /** The name of the registry. */
  readonly registry: string | undefined;
}

/** Marks a method. One method may have several marks. */
export function markHandler(method: object, handler: ServiceHandler): void {
  const marked = method as { [MARK]?: ServiceHandler[] };
  Object.defineProperty(marked, MARK, { value: [...(marked[MARK] ?? []), handler], configurable: true });
}

/** What is needed of Nest's wrappers of providers and controllers. */
interface InstanceWrapper {
  instance?: unknown;
  metatype?: unknown;
  isDependencyTreeStatic?(): boolean;
}

interface ModuleRef {
  providers: Map<unknown, InstanceWrapper>;
  controllers: Map<unknown, InstanceWrapper>;
}

/** Every marked method of the providers and controllers of an application, bound to its object. */
export function* handlersOf(
  modules: Iterable<unknown>,
  refused: (problem: string) => void,
): Generator<ServiceHandler & { call(list: unknown): unknown }> {
  const seen = new Set<unknown>();
  for (const module of modules) {
    const { providers, controllers } = module as ModuleRef;
    for (const wrapper of [...providers.values(), ...controllers.values()]) {
      const { instance } = wrapper;
      if (typeof instance !== 'object' || instance === null || seen.has(instance)) continue;
      seen.add(instance);
      for (const [key, method] of methodsOf(instance)) {
        const handlers = (method as { [MARK]?: ServiceHandler[] })[MARK] ?? [];
        if (handlers.length > 0 && wrapper.isDependencyTreeStatic?.() === false) {
          refused(`@OnServiceChange on ${key}(): without effect in a provider that is made for each request`);
          continue;
        }
        for (const handler of handlers) yield { ...handler, call: (list) => method.call(instance, list) };
      }
    }
  }
}

function* methodsOf(instance: object): Generator<[string, (...args: unknown[]) => unknown]> {
  const names = new Set<string>();
  for (let at = Object.getPrototypeOf(instance); at && at !== Object.prototype; at = Object.getPrototypeOf(at)) {
    for (const [key, { value }] of Object.entries(Object.getOwnPropertyDescriptors(at))) {
      if (typeof value !== 'function' || names.has(key)) continue;
      names.add(key);
      yield [key, value];
    }
  }
}
