/** What this folder extends came with Midway 4; without it the classes could not even be defined. */

import { MidwayCommonError, ServiceDiscovery } from '@midwayjs/core';

if (typeof ServiceDiscovery !== 'function') {
  throw new MidwayCommonError(
    'rollcall/midway/discovery needs Midway 4; on Midway 3 use RegistryService of rollcall/midway',
  );
}
