/** What the recipes of an application have in common. */

import { type IMidwayContainer, MidwayConfigService } from '@midwayjs/core';
import { invalid, kindOf } from '../common/shape.js';
import { explained } from '../frameworks/open.js';
import type { FindCoord } from '../frameworks/recipes.js';
import { CoordService, hasCoord } from './coord.js';

/** The keys of the recipes, as examples show them. */
const KEYS = {
  breakers: '{}',
  once: '{ redis: (container) => client }',
  rateLimit: '{ rules }',
  uid: '{ service }',
} as const;

export type RecipeKey = keyof typeof KEYS;

/** Whether the configuration has a recipe. */
export const isGiven = (container: IMidwayContainer, key: RecipeKey): boolean =>
  container.get(MidwayConfigService).getConfiguration(key) !== undefined;

/** The configuration has no such recipe. */
export const notGiven = (key: RecipeKey): Error =>
  invalid(key, `not in the configuration: give it, such as ${key}: ${KEYS[key]}`);

/** The client of coord of an application, of which there is one. */
export function coordOf(container: IMidwayContainer): FindCoord {
  return async (name) => {
    if (name !== undefined && name !== 'default') throw invalid('coord', `there is no client "${name}": leave it out`);
    if (!hasCoord(container)) throw invalid('coord', 'not in the configuration, and what is given lies in its store');
    return (await container.getAsync(CoordService)).coord;
  };
}

/**
 * A configuration with what its functions of these names make in their place: Midway copies its configuration, and the copy of a client
 * is none.
 */
export async function madeOf<Config extends object, Name extends keyof Config & string>(
  container: IMidwayContainer,
  key: RecipeKey,
  config: Config,
  names: readonly Name[],
): Promise<Omit<Config, Name> & { [Option in Name]?: never }> {
  const made = { ...config } as Record<string, unknown>;
  for (const name of names) {
    const make: unknown = config[name];
    if (make === undefined) continue;
    if (typeof make !== 'function') {
      throw explained(key, invalid(`options.${name}`, `expected a function that gives it, got ${kindOf(make)}`));
    }
    made[name] = await make(container);
  }
  return made as Omit<Config, Name> & { [Option in Name]?: never };
}
