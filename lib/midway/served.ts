/** Decorators in the place of whose method a function of ours stands, and how its object finds the application that it is of. */

import type { IMidwayContainer } from '@midwayjs/core';
import type { Breakers } from '../breaker/index.js';
import { invalid } from '../common/shape.js';
import type { CoordMethods } from '../frameworks/coord-methods.js';
import type { LeaderMark } from '../frameworks/leader-only.js';
import { type AsyncMethod, type Method, type Place, placeOf } from '../frameworks/methods.js';
import type { TickMark } from '../frameworks/once-per-tick.js';

/** What methods take of their application. Each is there if the key of its name is in the configuration. */
export interface Application {
  coord(): CoordMethods;
  breakers(): Breakers;
}

/** A decorated method, which key of the configuration it needs, in which election its instance must lead, and which ticks it runs once. */
interface Served {
  readonly place: Place;
  readonly needs: keyof Application;
  readonly leader?: LeaderMark;
  readonly tick?: TickMark;
}

/** On an object: its application. */
const APPLICATION = Symbol('rollcall:application');

/** All of this process, whichever application has their classes. */
const all: Served[] = [];
/** The prototypes that have them. */
const prototypes = new WeakSet<object>();

/** Puts in the place of a method what `made` makes of it. `of` gives what it needs of the application of an object. */
export function served<Needs extends keyof Application>(
  name: string,
  needs: Needs,
  made: (
    place: Place,
    of: (self: object) => ReturnType<Application[Needs]>,
  ) => { readonly method: Method } & Omit<Served, 'place' | 'needs'>,
) {
  return <T extends AsyncMethod>(
    target: object,
    key: string | symbol,
    descriptor: TypedPropertyDescriptor<T>,
  ): void => {
    const place = placeOf(name, target, key, descriptor);
    const of = (self: object) => {
      const application = (self as { [APPLICATION]?: Application } | undefined)?.[APPLICATION];
      if (application) return application[needs]() as ReturnType<Application[Needs]>;
      const what =
        'called on an object that Midway has not made, or imports of @Configuration is without rollcall/midway';
      throw invalid(place.path, what);
    };
    const { method, ...marks } = made(place, of);
    descriptor.value = method as never;
    all.push({ place, needs, ...marks });
    prototypes.add(target);
  };
}

/** What the types of Midway leave out of a container, and of what it knows. */
interface Container {
  onObjectCreated(hear: (instance: unknown) => void): void;
  readonly registry: { values(): Iterable<{ readonly path?: unknown } | undefined> };
}

/** Lets the decorated methods of what is made from here on find their application. */
export function serve(container: IMidwayContainer, application: Application): void {
  (container as unknown as Container).onObjectCreated((instance) => {
    if (typeof instance !== 'object' || instance === null) return;
    for (let at = Object.getPrototypeOf(instance); at; at = Object.getPrototypeOf(at)) {
      if (!prototypes.has(at)) continue;
      Object.defineProperty(instance, APPLICATION, { value: application, configurable: true });
      return;
    }
  });
}

/** The decorated methods of the classes of an application. */
export function servedIn(container: IMidwayContainer): Served[] {
  const classes = [...(container as unknown as Container).registry.values()]
    .map((definition) => definition?.path)
    .filter((type): type is { prototype: object } => typeof type === 'function');
  const isIn = ({ target }: Place) =>
    classes.some(
      ({ prototype }) => prototype === target || Object.prototype.isPrototypeOf.call(target, prototype ?? {}),
    );
  return all.filter(({ place }) => isIn(place));
}
