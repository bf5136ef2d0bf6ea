/** What an application does with the store of its configuration. */

import type { ConfigDef, ConfigRef, Coord } from '../../coord/index.js';
import type { Configurations } from '../../frameworks/configurations.js';
import type { CoordMethods } from '../../frameworks/coord-methods.js';
import { madeByModule } from './by-module.js';

/** A client of coord, and the configurations that the module has opened. */
export class CoordService {
  /** The client: `coord.config` reads, writes and follows what has no definition. */
  readonly coord: Coord;
  readonly #configurations: Configurations;
  readonly #methods: CoordMethods;

  /** @internal */
  constructor(configurations: Configurations, methods: CoordMethods) {
    madeByModule(configurations, 'CoordService', 'CoordModule');
    this.coord = configurations.coord;
    this.#configurations = configurations;
    this.#methods = methods;
  }

  /** @internal */
  static configurationsOf(service: CoordService): Configurations {
    return service.#configurations;
  }

  /** @internal */
  static methodsOf(service: CoordService): CoordMethods {
    return service.#methods;
  }

  /**
   * A configuration that the module has opened: the same `ConfigRef` as `@InjectConfig()` gives. It is the application's: the
   * module closes it.
   *
   * @throws `ERR_INVALID_ARGUMENT` for a definition that is not in `config` of the module.
   */
  ref<T>(definition: ConfigDef<T>): ConfigRef<T> {
    return this.#configurations.ref('definition', definition);
  }

  /** The keys of configurations whose value may be out of date, because the store can't be reached. */
  get stale(): string[] {
    return this.#configurations.stale;
  }

  /** The keys of configurations whose latest value was refused: the one before it is in use. */
  get rejected(): string[] {
    return this.#configurations.rejected;
  }

  /** The elections of `@LeaderOnly()` in which this instance leads now. */
  get leads(): string[] {
    return this.#methods.leadership.leads;
  }

  /** The elections of `@LeaderOnly()` for which the store does not let this instance stand, because a right is missing for instance. */
  get refusedElections(): string[] {
    return this.#methods.leadership.refused;
  }
}
