/** Methods of a program in whose place a function of ours is put, and the parameters that it fills. */

import { optional, text } from '../common/shape.js';
import { explained } from './open.js';

/** What `reflect-metadata` puts there, which both frameworks load. */
const metadata = Reflect as typeof Reflect & {
  getOwnMetadataKeys?(target: object): unknown[];
  getOwnMetadata(key: unknown, target: object): unknown;
  defineMetadata(key: unknown, value: unknown, target: object): void;
};

/** Any method. */
export type Method = (this: unknown, ...args: unknown[]) => unknown;

/** What a decorator that makes a method asynchronous may stand on. */
// biome-ignore lint/suspicious/noConfusingVoidType: what a method that returns nothing returns
export type AsyncMethod = (...args: never[]) => Promise<unknown> | void;

/** A method, as a decorator finds it. */
export interface Place {
  /** The prototype that has it. */
  readonly target: object;
  readonly key: string | symbol;
  /** How messages call it, such as `@WithLock on Orders.run`. */
  readonly path: string;
  readonly method: Method;
}

/** @throws `TypeError` for what is no method of instances. */
export function placeOf(
  decorator: string,
  target: object,
  key: string | symbol,
  descriptor?: PropertyDescriptor,
): Place {
  const method = methodOf(decorator, target, key, descriptor) as Method;
  return { target, key, path: `${decorator} on ${target.constructor.name}.${String(key)}`, method };
}

/** @throws `TypeError` */
export function methodOf(
  decorator: string,
  target: object,
  key: string | symbol,
  descriptor?: PropertyDescriptor,
): object {
  expectInstance(decorator, target, key);
  if (typeof descriptor?.value === 'function') return descriptor.value;
  throw new TypeError(`${decorator} on ${target.constructor.name}.${String(key)}: expected a method`);
}

/** Static members belong to no object of the application, and would be found by nobody. @throws `TypeError` */
export function expectInstance(decorator: string, target: object, key: string | symbol): void {
  if (typeof target !== 'function') return;
  throw new TypeError(`${decorator} on ${target.name}.${String(key)}: expected a member that is not static`);
}

/**
 * The options of a decorator without the name of whom it is of, and that name.
 *
 * @throws `ERR_INVALID_ARGUMENT` that begins with the decorator.
 */
export function namedApart<Options extends object, Field extends keyof Options & string>(
  decorator: string,
  options: Options | undefined,
  field: Field,
): readonly [name: string | undefined, rest: Omit<Options, Field>] {
  try {
    const { [field]: name, ...rest } = optional('options', options);
    return [text(`options.${field}`, name), rest as Omit<Options, Field>];
  } catch (error) {
    throw explained(decorator, error);
  }
}

/** Of functions that are no methods; nothing of them is a program's. */
const OF_FUNCTIONS: (string | symbol)[] = ['prototype', 'arguments', 'caller'];

/**
 * A function that calls `around` with the object and the arguments. It has the name, the number of parameters, the properties and
 * the metadata of `method`: decorators that stand below go on working, and those above find a method like any other.
 */
export function around<T>(method: Method, call: (self: object, args: unknown[]) => Promise<T>): Method {
  const wrapper = async function (this: unknown, ...args: unknown[]): Promise<T> {
    return await call(this as object, args);
  };
  for (const name of Reflect.ownKeys(method)) {
    if (OF_FUNCTIONS.includes(name)) continue;
    Object.defineProperty(wrapper, name, Object.getOwnPropertyDescriptor(method, name) as PropertyDescriptor);
  }
  for (const key of metadata.getOwnMetadataKeys?.(method) ?? []) {
    metadata.defineMetadata(key, metadata.getOwnMetadata(key, method), wrapper);
  }
  return wrapper;
}

/** A decorator of parameters, each of which is filled at every call. */
export class FilledParameter {
  readonly #places = new WeakMap<object, Map<string | symbol, number>>();
  readonly #decorator: string;

  constructor(decorator: string) {
    this.#decorator = decorator;
  }

  /** @throws `TypeError` for a parameter of a constructor or of a static method, and for a second one of a method. */
  mark(target: object, key: string | symbol | undefined, index: number): void {
    expectInstance(this.#decorator, target, key ?? 'constructor');
    const places = this.#places.get(target) ?? new Map<string | symbol, number>();
    if (places.has(key as string)) {
      const where = `${target.constructor.name}.${String(key)}`;
      throw new TypeError(`${this.#decorator} on ${where}: expected one parameter, got two`);
    }
    this.#places.set(target, places.set(key as string, index));
  }

  /** The arguments of a call with what `value` gives among them, where a parameter is decorated; whatever number of them there is. */
  fill({ target, key }: Place, args: readonly unknown[], value: () => unknown): unknown[] {
    const filled = [...args];
    const index = this.#places.get(target)?.get(key);
    if (index !== undefined) filled[index] = value();
    return filled;
  }
}
