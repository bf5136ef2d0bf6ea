/** The services that only their module can make. */

import { invalid } from '../../common/shape.js';

/** Nest makes what stands in `providers` by its class, with nothing given. Such a service would fail at its first use. */
export function madeByModule(given: unknown, service: string, module: string): void {
  if (given !== undefined) return;
  throw invalid(
    'providers',
    `${service} is given by ${module}: take it out of providers, and import ${module}.forRoot(…) or forRootAsync(…) ` +
      'in the root module, once is enough for all',
  );
}
