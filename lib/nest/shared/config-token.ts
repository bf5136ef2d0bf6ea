/** The tokens of configurations: one for each definition. */

import type { ConfigDef } from '../../coord/index.js';
import { type AnyConfigDef, agree, definitionOf } from '../../frameworks/configurations.js';
import { isDefault } from './tokens.js';

/** The definitions of a key that don't say the same. There is one, unless a program is wrong, or loaded again. */
const known = new Map<string, AnyConfigDef[]>();

/**
 * The token of a configuration that `CoordModule` opens: for `inject` of any module's `forRootAsync()`, and for
 * `overrideProvider()` in tests. Its value is a `ConfigRef`. Definitions of one key that say the same share it.
 *
 * @param coord the name of the client of coord. Default: the default one.
 * @throws `ERR_INVALID_ARGUMENT` for what `defineConfig()` has not given.
 */
export function configToken<T>(definition: ConfigDef<T>, coord?: string): string {
  const { key } = definitionOf('definition', definition);
  const all = known.get(key) ?? [];
  known.set(key, all);
  let place = all.findIndex((one) => agree(one, definition));
  if (place < 0) place = all.push(definition) - 1;
  // Nest shows it where it is missing.
  const which = place === 0 ? key : `${key}, definition ${place + 1} of this key`;
  const module = isDefault(coord) ? 'CoordModule' : `CoordModule "${coord}"`;
  return `COORD_CONFIG:${which} (config of ${module})`;
}
