// The rows of the suite: one per backend and server version, each in a file of `rows/`. A row says what its registry, or the
// way to it, cannot be made to do; a test that needs it is skipped with that reason in its name. To add a backend, write
// its file and name it here.

import { afterAll, beforeAll, describe, test } from 'vitest';
import { ETCD_VERSIONS } from '../support/etcd.js';
import { bilibili } from './rows/bilibili.js';
import { consul } from './rows/consul.js';
import { etcd } from './rows/etcd.js';
import { kubernetes } from './rows/kubernetes.js';
import { memory } from './rows/memory.js';
import { nacos } from './rows/nacos.js';
import { polaris } from './rows/polaris.js';
import { zookeeper } from './rows/zookeeper.js';
import type { Need, Row, Scope, Server } from './scope.js';

export * from './scope.js';

const all: Row[] = [memory, ...ETCD_VERSIONS.map(etcd), consul, zookeeper, ...nacos, kubernetes, polaris, bilibili];

/** All, or with `ONLY=consul` those of that backend: `ONLY=consul make test` has built no other server. */
export const rows = all.filter(({ name }) => !process.env.ONLY || name.split(' ')[0] === process.env.ONLY);

export type It = (
  title: string,
  body: (scope: Scope) => Promise<void>,
  how?: { needs?: Need[]; timeoutMs?: number },
) => void;

/** The servers of this file, started when the first theme needs them and shared by all. */
const running = new Map<Row, Promise<Server>>();

/**
 * Declares the tests of a theme once for every row. The tests of a file share a server per row and run at the same
 * time, each in a scope of its own; `sequential` is for a theme that looks at something the scopes share.
 */
export function forEveryBackend(theme: string, declare: (it: It, row: Row) => void, { sequential = false } = {}): void {
  for (const row of rows) {
    describe(`${theme} · ${row.name}`, { concurrent: !sequential }, () => {
      const server = (): Promise<Server> => {
        const started = running.get(row) ?? row.start();
        running.set(row, started);
        return started;
      };
      // In no test's time.
      beforeAll(async () => void (await server()));
      declare((title, body, { needs = [], timeoutMs = 60_000 } = {}) => {
        const missing = needs.find((need) => row.cannot[need] !== undefined);
        if (missing) {
          test.skip(`${title} (not run: ${row.cannot[missing]})`, () => {});
          return;
        }
        test(title, { timeout: timeoutMs * (row.patience ?? 1) }, async ({ onTestFinished }) => {
          const scope = await (await server()).scope();
          onTestFinished(() => scope.close());
          await body(scope);
        });
      }, row);
    });
  }
}

afterAll(async () => {
  for (const server of running.values()) await server.then((it) => it.close());
});
