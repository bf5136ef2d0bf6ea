/** The way in. What breakers need is loaded with the first of them: a module that only knows their error costs none of it. */

import type { Breakers, BreakersOptions } from './breakers.js';

const loaded = () => require('./breakers.js') as typeof import('./breakers.js');

/** @throws `ERR_INVALID_ARGUMENT` that names the option, also of policies that are given as they are. No I/O. */
export function createBreakers(options?: BreakersOptions): Breakers {
  const { Breakers } = loaded();
  return new Breakers(options);
}
