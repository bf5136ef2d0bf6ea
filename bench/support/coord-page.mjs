// docs/bench-coord.md: a table for each row of it.

import { loadavg } from 'node:os';
import { fileURLToPath } from 'node:url';
import { writeBetween } from '../etcd/report.mjs';
import { circumstances, describe, listed } from './machine.mjs';
import { markdownOf } from './report.mjs';
import { notSteady } from './steady.mjs';

const PAGE = fileURLToPath(new URL('../../docs/bench-coord.md', import.meta.url));
const BY = 'make bench-coord';
const [began] = loadavg();

export function writeCoord(name, figures) {
  const about = circumstances({ ...describe(), 'not steady': notSteady().join('; ') || 'nothing' }, began);
  writeBetween(PAGE, 'circumstances', listed(about), BY);
  writeBetween(PAGE, name, markdownOf(figures), BY);
}
