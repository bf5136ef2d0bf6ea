/** Midway 3: see suite.ts. */

import { suite } from './suite.js';

suite(3);
