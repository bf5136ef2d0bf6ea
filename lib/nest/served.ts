/** Decorators in the place of whose method a function of ours stands, which is given the service that Nest has injected. */

import { Inject } from '@nestjs/common';
import { type AsyncMethod, invalid, type Method, type Place, placeOf } from './shared/index.js';

/**
 * Puts in the place of a method what `made` makes of it. `token` is what classes with it are injected with, and `serviceOf` gives what
 * Nest has injected; `module` is how messages call who gives it.
 */
export function served<Service>(
  name: string,
  { token, module }: { token: string; module: string },
  made: (place: Place, serviceOf: (self: object) => Service) => Method,
) {
  return <T extends AsyncMethod>(
    target: object,
    key: string | symbol,
    descriptor: TypedPropertyDescriptor<T>,
  ): void => {
    const place = placeOf(name, target, key, descriptor);
    const property = Symbol.for(token);
    const serviceOf = (self: object): Service => {
      const service = (self as Record<symbol, Service | undefined> | undefined)?.[property];
      if (service) return service;
      throw invalid(
        place.path,
        `called on an object that Nest has not made: take it from an application with a ${module}`,
      );
    };
    descriptor.value = made(place, serviceOf) as never;
    // Once for each class: a class that inherits from it has it too.
    if (property in target) return;
    Object.defineProperty(target, property, { value: undefined, writable: true });
    Inject(token)(target, property);
  };
}
