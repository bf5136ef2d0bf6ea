// docs/bench-coord.md: a table for each row of it.

import { loadavg } from 'node:os';
import { fileURLToPath } from 'node:url';
import { writeBetween } from '../etcd/report.mjs';
import { describe } from './machine.mjs';
import { markdownOf } from './report.mjs';
import { HOW, notSteady } from './steady.mjs';

const PAGE = fileURLToPath(new URL('../../docs/bench-coord.md', import.meta.url));
const BY = 'make bench-coord';
const [began] = loadavg();

export function writeCoord(name, figures) {
  const about = {
    ...describe(),
    date: new Date().toISOString().slice(0, 10),
    'warming up': HOW,
    'not steady': notSteady().join('; ') || 'nothing',
    load: `${began.toFixed(1)} when it began, ${loadavg()[0].toFixed(1)} at the end (this benchmark itself makes about 2)`,
  };
  const lines = Object.entries(about).map(([what, text]) => `- ${what}: ${text}`);
  writeBetween(PAGE, 'circumstances', lines.join('\n'), BY);
  writeBetween(PAGE, name, markdownOf(figures), BY);
}
