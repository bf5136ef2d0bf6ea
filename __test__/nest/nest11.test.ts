/** Nest 11: see suite.ts. */

import { suite } from './suite.js';

suite(11, { kind: 'cjs', adapter: 'express' });
