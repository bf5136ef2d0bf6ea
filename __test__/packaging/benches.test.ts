// Each row of `make bench` runs: what it stands on may change, and who measures should not be the first to see that.

import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, onTestFinished, test } from 'vitest';

// Left out: `backends` takes most of a minute even so, and `grpc` wants the grpc-js that other tests install.
const ROWS = [
  'import',
  'call',
  'pick',
  'http',
  'register',
  'traffic',
  'get',
  'fanout',
  'names',
  'many',
  'coord',
  'locks',
  'breaker',
  'uid',
  'once',
  'ratelimit',
];

test('every row gives its figures', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'rollcall-bench-'));
  onTestFinished(() => rm(folder, { recursive: true }));
  const json = join(folder, 'figures.json');
  const told = await promisify(execFile)(
    process.execPath,
    ['bench/run.mjs', '--small', '--only', ROWS.join(), '--json', json],
    { timeout: 170_000 },
  );
  expect(told.stdout).toContain('In this size the figures say nothing.');
  const { rows } = JSON.parse(await readFile(json, 'utf8')) as {
    rows: { row: string; figures: { what: string; median: number | null }[] }[];
  };
  expect(rows.map(({ row }) => row)).toEqual(ROWS);
  for (const { row, figures } of rows) {
    expect(figures, row).not.toEqual([]);
    for (const { what, median } of figures) expect(median, `${row}: ${what}`).toEqual(expect.any(Number));
  }
}, 180_000);
