/** Nest 12: see suite.ts. */

import { suite } from './suite.js';

suite(12, { kind: 'esm', adapter: 'express' });
