import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const file = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** What a test gets when it imports the package: the built one. */
const aliases = (etcd: string) => [
  { find: /^rollcall$/, replacement: file('./dist/esm/index.js') },
  { find: /^rollcall\/etcd$/, replacement: file(etcd) },
  { find: /^rollcall\/coord$/, replacement: file('./dist/esm/coord/index.js') },
  { find: /^rollcall\/breaker$/, replacement: file('./dist/cjs/breaker/index.js') },
  { find: /^rollcall\/ratelimit$/, replacement: file('./dist/cjs/ratelimit/index.js') },
  { find: /^rollcall\/once$/, replacement: file('./dist/cjs/once/index.js') },
  { find: /^rollcall\/uid$/, replacement: file('./dist/cjs/uid/index.js') },
  { find: /^rollcall\/http$/, replacement: file('./dist/esm/http/index.js') },
  { find: /^rollcall\/grpc$/, replacement: file('./dist/esm/grpc/index.js') },
];

/**
 * Files that wait for a clock most of their time: for the end of a lease or session, for an outage. They use less than half of a
 * processor (`cutime` in /proc of the test process counts its servers too). What measures time under load of its own making does
 * not belong here.
 */
const waiting = [
  '__test__/conformance/{repair,registration,watch-outage,traffic}.test.ts',
  '__test__/faults/{cluster,outage,consul,consul-ids,consul-maintenance,tls-rotation,restored,races,errors}.test.ts',
  '__test__/faults/{nacos,polaris,polaris-access,kubernetes-way}.test.ts',
  '__test__/interop/nacos-clients.test.ts',
  '__test__/etcd/{lock,watch-faults}.test.ts',
];

/** Files that keep both processors busy by themselves, with a server of every backend: one at a time, so that their bounds hold. */
const crowded = ['__test__/conformance/{watch,lifecycle}.test.ts'];

// Tests prove the built package: run `npm run build` first.
export default defineConfig({
  test: {
    exclude: ['**/node_modules/**', '**/fixtures/**'],
    pool: 'forks', // the addon and the servers belong to one process each
    maxWorkers: 3, // servers, not only tests, need the cores; those of `waiting` have more
    testTimeout: 60_000,
    hookTimeout: 120_000,
    teardownTimeout: 30_000,
    retry: 0, // a flaky test is fixed
    sequence: { groupOrder: 1 },
    // Loaded by Node itself, as a user's program loads it.
    server: { deps: { external: [/\/dist\/(esm|cjs)\//] } },
    projects: [
      {
        extends: true,
        resolve: { alias: aliases('./dist/esm/etcd/index.js') },
        test: {
          name: 'computing',
          include: ['__test__/**/*.test.ts', 'faults/**/*.test.ts'],
          exclude: [...waiting, ...crowded],
        },
      },
      {
        extends: true,
        resolve: { alias: aliases('./dist/esm/etcd/index.js') },
        test: {
          name: 'crowded',
          include: crowded,
          maxWorkers: 1,
          sequence: { groupOrder: 2 },
        },
      },
      {
        // Before the others, since Vitest runs one number of workers after another.
        extends: true,
        resolve: { alias: aliases('./dist/esm/etcd/index.js') },
        test: {
          name: 'waiting',
          include: waiting,
          maxWorkers: 4,
          sequence: { groupOrder: 0 },
        },
      },
      {
        // Once more, with an option that changes what goes to the server: every file in which gets matter.
        extends: true,
        resolve: { alias: aliases('./__test__/support/grouped.mjs') },
        test: { name: 'grouped gets', include: ['__test__/etcd/{builders,txn,stm,roles,paging}.test.ts'] },
      },
    ],
  },
});
