/** The registry of an application under test. */

import { connect, getRegistryToken } from './shared/index.js';

/** What is needed of the builder that `Test.createTestingModule()` of `@nestjs/testing` gives. */
export interface TestingBuilder<Builder> {
  overrideProvider(token: unknown): { useFactory(options: { factory: () => unknown }): Builder };
}

let count = 0;

/**
 * Puts a registry in the memory of the process in the place of the real one: `register` and everything else of the
 * application stays as it is, and nothing waits for a drain.
 *
 * ```ts
 * const module = await useMemoryRegistry(Test.createTestingModule({ imports: [AppModule] })).compile();
 * ```
 *
 * @param options `namespace` says which one: `MemoryServer.of(namespace)` and `connect('memory://namespace')` reach it too
 *   (default: one of its own). `name` is that of the registry in the application (default: the default one).
 */
export function useMemoryRegistry<Builder extends TestingBuilder<Builder>>(
  builder: Builder,
  { namespace = `nest-test-${process.pid}-${++count}`, name }: { namespace?: string; name?: string } = {},
): Builder {
  const factory = () => connect({ backend: 'memory', namespace });
  return builder.overrideProvider(getRegistryToken(name)).useFactory({ factory });
}
