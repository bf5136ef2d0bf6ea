import { expect, test } from 'vitest';
import { check } from './check.js';
import { run } from './conduct.js';
import { report } from './report.js';

// It stops the leader, loses what a zone asks of one member, kills a member and moves the leader; and a process that makes ids is
// killed for longer than its lease lives: see `make faults SEED=… MINUTES=1`.
const SEED = 1;

test('a minute of faults on etcd violates nothing', { timeout: 300_000 }, async () => {
  const history = await run({ backend: 'etcd', seed: SEED, minutes: 1 });
  const violations = check(history);
  expect(violations, violations.length > 0 ? report(history, violations) : undefined).toEqual([]);
});
