/** Nest 10: see suite.ts. */

import { suite } from './suite.js';

suite(10, { kind: 'cjs', adapter: 'fastify' });
