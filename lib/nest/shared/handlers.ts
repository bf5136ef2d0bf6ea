/**
 * The methods and properties of a program that hear of changes, marked by decorators. The marks are metadata, as those of
 * Nest itself are: decorators that put a function of their own in the place of a method carry them over.
 */

/** What `reflect-metadata` puts there, which Nest loads. */
const metadata = Reflect as typeof Reflect & {
  defineMetadata(key: string, value: unknown, target: object): void;
  getMetadata(key: string, target: object): unknown;
};

/** On a method: what it hears of. */
const HANDLERS = 'rollcall:onServiceChange';
/** On a class: which of its properties hold settings. */
const SETTINGS = 'rollcall:config';

/** What a decorated method wants to hear of. */
export interface ServiceHandler {
  readonly service: string;
  /** The name of the registry. */
  readonly registry: string | undefined;
}

/** Marks a method. One method may have several marks. */
export function markHandler(method: object, handler: ServiceHandler): void {
  mark(HANDLERS, method, handler);
}

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
export function markSetting(type: object, setting: SettingProperty): void {
  mark(SETTINGS, type, setting);
}

/** Not into the list of a class that this one inherits from. */
function mark(key: string, target: object, value: unknown): void {
  metadata.defineMetadata(key, [...marksOf(key, target), value], target);
}

/** What is marked. Mocks that are proxies have something under every name. */
function marksOf<T>(key: string, target: unknown): readonly T[] {
  const marks = typeof target === 'function' ? metadata.getMetadata(key, target) : undefined;
  return Array.isArray(marks) ? marks : [];
}

/** Every marked property of the providers and controllers of an application, with what sets it. */
export function* settingsOf(
  modules: Iterable<unknown>,
  refused: (problem: string) => void,
): Generator<SettingProperty & { set(text: string | null): void }> {
  for (const found of instancesOf(modules)) {
    const { instance, type } = found;
    for (const setting of marksOf<SettingProperty>(SETTINGS, type)) {
      if (!found.isStatic) {
        refused(notThere('@Config', found, String(setting.property)));
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
  for (const found of instancesOf(modules)) {
    const { instance } = found;
    for (const [key, method] of methodsOf(instance)) {
      const handlers = marksOf<ServiceHandler>(HANDLERS, method);
      if (handlers.length > 0 && !found.isStatic) {
        refused(notThere('@OnServiceChange', found, `${String(key)}()`));
        continue;
      }
      for (const handler of handlers) yield { ...handler, call: (list) => method.call(instance, list) };
    }
  }
}

/** A provider or a controller. */
interface Found {
  readonly instance: object;
  readonly type: unknown;
  /** There is one of it, for all. Else `instance` is an object that nobody uses. */
  readonly isStatic: boolean;
}

/** Every provider and controller, once. */
function* instancesOf(modules: Iterable<unknown>): Generator<Found> {
  const seen = new Set<unknown>();
  for (const module of modules) {
    const { providers, controllers } = module as ModuleRef;
    for (const wrapper of [...providers.values(), ...controllers.values()]) {
      const { instance } = wrapper;
      if (typeof instance !== 'object' || instance === null || seen.has(instance)) continue;
      seen.add(instance);
      const isStatic = wrapper.isDependencyTreeStatic?.() !== false && wrapper.isTransient !== true;
      yield { instance, type: Object.getPrototypeOf(instance)?.constructor, isStatic };
    }
  }
}

function notThere(decorator: string, { type }: Found, member: string): string {
  const name = typeof type === 'function' ? type.name : 'a provider';
  return (
    `${decorator} on ${name}.${member}: without effect, since ${name}, or something it depends on, is made for each ` +
    `request or each user; put it into a provider of the default scope, and inject that one into ${name}`
  );
}

function* methodsOf(instance: object): Generator<[string | symbol, (...args: unknown[]) => unknown]> {
  const names = new Set<string | symbol>();
  for (let at = Object.getPrototypeOf(instance); at && at !== Object.prototype; at = Object.getPrototypeOf(at)) {
    for (const key of Reflect.ownKeys(at)) {
      const value: unknown = Object.getOwnPropertyDescriptor(at, key)?.value;
      if (typeof value !== 'function' || names.has(key)) continue;
      names.add(key);
      yield [key, value as (...args: unknown[]) => unknown];
    }
  }
}
