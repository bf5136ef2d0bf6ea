/** The registry and the store of configuration of an application under test. */

import {
  connect,
  getCoordOptionsToken,
  getCoordToken,
  getRegistryToken,
  type OpenCoordOptions,
  openInMemory,
} from './shared/index.js';

/** What is needed of the builder that `Test.createTestingModule()` of `@nestjs/testing` gives. */
export interface TestingBuilder<Builder> {
  overrideProvider(token: unknown): {
    useFactory(options: { factory: (...args: never[]) => unknown; inject?: unknown[] }): Builder;
  };
}

let count = 0;

/**
 * Puts a registry in the memory of the process in the place of the real one: `register` and everything else of the
 * application stays as it is, and nothing waits for a drain. The store of a `CoordModule` is replaced as well; `env`, `service`,
 * `instance` and `labels` are those of its options.
 *
 * ```ts
 * const module = await useMemoryRegistry(Test.createTestingModule({ imports: [AppModule] })).compile();
 * ```
 *
 * @param options `namespace` says which one: `MemoryServer.of(namespace)`, `connect('memory://namespace')` and
 *   `connectCoord('memory://namespace')` reach it too (default: one of its own). `name` is that of the registry, and of the client
 *   of coord, in the application (default: the default ones).
 */
export function useMemoryRegistry<Builder extends TestingBuilder<Builder>>(
  builder: Builder,
  { namespace = `nest-test-${process.pid}-${++count}`, name }: { namespace?: string; name?: string } = {},
): Builder {
  return builder
    .overrideProvider(getRegistryToken(name))
    .useFactory({ factory: () => connect({ backend: 'memory', namespace }) })
    .overrideProvider(getCoordToken(name))
    .useFactory({
      factory: (options: OpenCoordOptions) => openInMemory(options, namespace),
      inject: [getCoordOptionsToken(name)],
    });
}
