import { expect, test } from 'vitest';
import { check } from './check.js';
import { run } from './conduct.js';
import { report } from './report.js';

// Its only round stops the leader while one zone hears nothing: see `make faults SEED=… MINUTES=1`.
const SEED = 1;

test('a minute of faults on etcd violates nothing', { timeout: 300_000 }, async () => {
  const history = await run({ backend: 'etcd', seed: SEED, minutes: 1 });
  const violations = check(history);
  expect(violations, violations.length > 0 ? report(history, violations) : undefined).toEqual([]);
});
