/** What the recipes of an application have in common. */

import { type IMidwayContainer, MidwayConfigService } from '@midwayjs/core';
import { invalid } from '../common/shape.js';
import type { FindCoord } from '../frameworks/breakers.js';
import { CoordService, hasCoord } from './coord.js';

/** The keys of the recipes, as examples show them. */
const KEYS = { breakers: '{}' } as const;

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
