/** The breakers of an application, and methods that are called through one. */

import type { Breakers, BreakersOptions } from '../breaker/index.js';
import { invalid, onlyKnown, optional, record } from '../common/shape.js';
import type { Coord } from '../coord/index.js';
import type { AppLogger } from './logger.js';
import { around, FilledParameter, type Method, type Place } from './methods.js';
import { explained } from './open.js';
import { type FindCoord, readied, stored } from './recipes.js';

/** Not before a program has breakers: what it does not use is not loaded. */
const breakerModule = () => require('../breaker/index.js') as typeof import('../breaker/index.js');

/** Policies in the store of a client of coord of the application. */
export interface PoliciesOfApplication {
  /** Such as `/config/{env}/{service}/breakers/`. */
  path: string;
  /** The name of the client of coord, or a client. Default: the default one. */
  coord?: string | Pick<Coord, 'config'> | undefined;
}

/** How the breakers of an application are made: as `createBreakers()` takes it, where `path` is enough for policies in its store. */
export interface BreakerOptions extends Omit<BreakersOptions, 'policies'> {
  /** Policies by the names of breakers, what changes them, or where they lie in the store. Default: none. */
  policies?: BreakersOptions['policies'] | PoliciesOfApplication | undefined;
}

/** Makes the breakers of a module, and reads their policies; `where` is how messages call the module. */
export async function openBreakers(
  where: string,
  options: BreakerOptions,
  log: AppLogger,
  findCoord: FindCoord,
): Promise<Breakers> {
  try {
    const given = optional('options', options);
    const policies = await stored('options.policies', given.policies, findCoord);
    return await readied(breakerModule().createBreakers({ logger: log, ...given, policies } as BreakersOptions));
  } catch (error) {
    throw explained(where, error);
  }
}

/** The parameter that gets the signal of a call. */
export const BREAKER_SIGNAL = new FilledParameter('@BreakerSignal');

/** How a method is called through a breaker. */
export interface BreakerMethodOptions {
  /**
   * Gives something in the place of a call that was refused. It gets the error, and then the arguments of the call. Default: the
   * method rejects.
   */
  // biome-ignore lint/suspicious/noExplicitAny: the arguments of the method
  fallback?: ((error: import('../breaker/index.js').BreakerOpenError, ...args: any[]) => unknown) | undefined;
}

/**
 * What stands in the place of a method that is called through a breaker. `breakersOf` gives those of the application that an object is of.
 *
 * @throws `ERR_INVALID_ARGUMENT`.
 */
export function breakerMethod(
  place: Place,
  name: string,
  given: BreakerMethodOptions | undefined,
  breakersOf: (self: object) => Breakers,
): Method {
  const { fallback } = checked(place, name, given);
  return around(place.method, async (self, args) => {
    return await breakersOf(self)
      .get(name)
      .do(
        // The signal is made when it is asked for, which takes longer than all else of a call.
        async (context) =>
          await place.method.apply(
            self,
            BREAKER_SIGNAL.fill(place, args, () => context.signal),
          ),
        fallback && { fallback: async (error) => await fallback.call(self, error, ...args) },
      );
  });
}

function checked({ path }: Place, name: unknown, given: unknown): BreakerMethodOptions {
  try {
    if (typeof name !== 'string' || name === '') {
      throw invalid('name', 'expected the name of a breaker, such as "grpc:users"');
    }
    const options = given === undefined ? {} : record('options', given);
    onlyKnown('options', options, ['fallback']);
    const { fallback } = options;
    if (fallback !== undefined && typeof fallback !== 'function') {
      throw invalid('options.fallback', 'expected a function');
    }
    return { fallback: fallback as BreakerMethodOptions['fallback'] };
  } catch (error) {
    throw explained(path, error);
  }
}
