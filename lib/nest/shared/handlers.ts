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

/** The same for properties that hold a setting: on the prototype. */
const SETTINGS = Symbol.for('rollcall.nest.config');

/** What a decorated property holds. */
export interface SettingProperty {
  readonly property: string | symbol;
  /** Of the setting. */
  readonly key: string;
  /** The name of the etcd client. */
  readonly client: string | undefined;
  parse(text: string | null): unknown;
}

/** Marks a property of a class. */
export function markSetting(prototype: object, setting: SettingProperty): void {
  const marked = prototype as { [SETTINGS]?: SettingProperty[] };
  // Not into the list of a class that this one inherits from.
  Object.defineProperty(marked, SETTINGS, { value: [...(marked[SETTINGS] ?? []), setting], configurable: true });
}

/** Every marked property of the providers and controllers of an application, with what sets it. */
export function* settingsOf(
  modules: Iterable<unknown>,
  refused: (problem: string) => void,
): Generator<SettingProperty & { set(text: string | null): void }> {
  for (const { instance, isStatic } of instancesOf(modules)) {
    for (const setting of marksOf<SettingProperty>(instance, SETTINGS)) {
      if (!isStatic) {
        refused(
          `@Config on ${String(setting.property)}: without effect in a provider that is made for each request or each user`,
        );
        continue;
      }
      const set = (text: string | null) => {
        (instance as Record<string | symbol, unknown>)[setting.property] = setting.parse(text);
      };
      yield { ...setting, set };
    }
  }
}

/** What is needed of Nest's wrappers of providers and controllers. */
interface InstanceWrapper {
  instance?: unknown;
  metatype?: unknown;
  isTransient?: boolean;
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
  for (const { instance, isStatic } of instancesOf(modules)) {
    for (const [key, method] of methodsOf(instance)) {
      const handlers = marksOf<ServiceHandler>(method, MARK);
      if (handlers.length > 0 && !isStatic) {
        refused(
          `@OnServiceChange on ${key}(): without effect in a provider that is made for each request or each user`,
        );
        continue;
      }
      for (const handler of handlers) yield { ...handler, call: (list) => method.call(instance, list) };
    }
  }
}

/** What is marked. Mocks that are proxies have something under every name. */
function marksOf<T>(marked: object, mark: symbol): readonly T[] {
  const marks = (marked as { [mark: symbol]: unknown })[mark];
  return Array.isArray(marks) ? marks : [];
}

/** Every provider and controller, once. */
function* instancesOf(modules: Iterable<unknown>): Generator<{ instance: object; isStatic: boolean }> {
  const seen = new Set<unknown>();
  for (const module of modules) {
    const { providers, controllers } = module as ModuleRef;
    for (const wrapper of [...providers.values(), ...controllers.values()]) {
      const { instance } = wrapper;
      if (typeof instance !== 'object' || instance === null || seen.has(instance)) continue;
      seen.add(instance);
      // Of a transient provider this is an object that nobody uses.
      const isStatic = wrapper.isDependencyTreeStatic?.() !== false && wrapper.isTransient !== true;
      yield { instance, isStatic };
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
