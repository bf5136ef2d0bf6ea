/** Midway 4: see suite.ts. */

import { suite } from './suite.js';

suite(4);
