import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

// Tests prove the built package: run `npm run build` first.
export default defineConfig({
  resolve: {
    alias: [
      { find: /^rollcall$/, replacement: fileURLToPath(new URL('./dist/esm/index.js', import.meta.url)) },
      { find: /^rollcall\/etcd$/, replacement: fileURLToPath(new URL('./dist/esm/etcd/index.js', import.meta.url)) },
    ],
  },
  test: {
    include: ['__test__/**/*.test.ts'],
    exclude: ['**/node_modules/**', '**/fixtures/**'],
    pool: 'forks', // the addon and the servers belong to one process each
    maxWorkers: 2, // servers, not only tests, need the cores
    testTimeout: 60_000,
    hookTimeout: 120_000,
    teardownTimeout: 30_000,
    retry: 0, // a flaky test is fixed
    // Loaded by Node itself, as a user's program loads it.
    server: { deps: { external: [/\/dist\/(esm|cjs)\//] } },
  },
});
