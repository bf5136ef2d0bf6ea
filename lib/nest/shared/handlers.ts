/**
 * The methods and properties of a program that hear of changes, marked by decorators. The marks are metadata, as those of
 * Nest itself are: decorators that put a function of their own in the place of a method carry them over.
 */

import type { AnyConfigDef } from '../../frameworks/configurations.js';
import type { LeaderMark } from '../../frameworks/leader-only.js';
import type { TickMark } from '../../frameworks/once-per-tick.js';

/** What `reflect-metadata` puts there, which Nest loads. */
const metadata = Reflect as typeof Reflect & {
  defineMetadata(key: string, value: unknown, target: object): void;
  getMetadata(key: string, target: object): unknown;
};

/** On a method: what it hears of. */
const HANDLERS = 'rollcall:onServiceChange';
/** On a method: which configurations it hears of. */
const CONFIGS = 'rollcall:onConfigChange';
/** On a method: in which elections its instance must lead. */
const LEADERS = 'rollcall:leaderOnly';
/** On a method: which ticks it runs once. */
const TICKS = 'rollcall:oncePerTick';
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

/** Which configuration a decorated method wants to hear of. */
export interface ConfigHandler {
  readonly def: AnyConfigDef;
  /** The name of the client of coord. */
  readonly coord: string | undefined;
}

/** Marks a method. One method may have several marks. */
export function markConfigHandler(method: object, handler: ConfigHandler): void {
  mark(CONFIGS, method, handler);
}

/** Of which election of which client a decorated method is. */
export interface LeaderMethod extends LeaderMark {
  /** The name of the client of coord. */
  readonly coord: string | undefined;
}

/** Marks a method. */
export function markLeader(method: object, leader: LeaderMethod): void {
  mark(LEADERS, method, leader);
}

/** Of which ticks of which client a decorated method is. */
export interface TickMethod extends TickMark {
  /** The name of the client of coord. */
  readonly coord: string | undefined;
}

/** Marks a method. */
export function markTick(method: object, tick: TickMethod): void {
  mark(TICKS, method, tick);
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

/** A marked method of an application, bound to its object. */
interface Bound<Arguments extends unknown[]> {
  /** How messages call it, such as `@OnServiceChange on Orders.changed`. */
  readonly path: string;
  call(...args: Arguments): unknown;
}

/** Every method that hears of services, of the providers and controllers of an application. */
export const handlersOf = (modules: Iterable<unknown>, refused: (problem: string) => void) =>
  markedOf<ServiceHandler, [list: unknown]>(HANDLERS, '@OnServiceChange', modules, refused);

/** Every method that hears of configurations. */
export const configHandlersOf = (modules: Iterable<unknown>, refused: (problem: string) => void) =>
  markedOf<ConfigHandler, [next: unknown, previous: unknown, context: object]>(
    CONFIGS,
    '@OnConfigChange',
    modules,
    refused,
  );

/** Every method that runs only where its instance leads, also of classes of which there are many. */
export const leadersOf = (modules: Iterable<unknown>) => everyMark<LeaderMethod>(LEADERS, modules);

/** Every method that runs once for each tick, also of classes of which there are many. */
export const ticksOf = (modules: Iterable<unknown>) => everyMark<TickMethod>(TICKS, modules);

function* everyMark<Mark>(key: string, modules: Iterable<unknown>): Generator<Mark> {
  for (const { instance } of instancesOf(modules)) {
    for (const [, method] of methodsOf(instance)) yield* marksOf<Mark>(key, method);
  }
}

function* markedOf<Mark extends object, Arguments extends unknown[]>(
  key: string,
  decorator: string,
  modules: Iterable<unknown>,
  refused: (problem: string) => void,
): Generator<Mark & Bound<Arguments>> {
  for (const found of instancesOf(modules)) {
    const { instance } = found;
    for (const [name, method] of methodsOf(instance)) {
      const marks = marksOf<Mark>(key, method);
      if (marks.length > 0 && !found.isStatic) {
        refused(notThere(decorator, found, `${String(name)}()`));
        continue;
      }
      const path = `${decorator} on ${nameOf(found)}.${String(name)}`;
      for (const mark of marks) yield { ...mark, path, call: (...args) => method.apply(instance, args) };
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

const nameOf = ({ type }: Found): string => (typeof type === 'function' ? type.name : 'a provider');

function notThere(decorator: string, found: Found, member: string): string {
  const name = nameOf(found);
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
