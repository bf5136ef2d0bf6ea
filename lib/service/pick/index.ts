/** All filters and strategies. Loaded at the first use of one: see `../selectors.ts`. */

export { consistentHash } from './consistent-hash.js';
export { metadata, scheme, secure, version, zone } from './filters.js';
export { leastLoaded } from './least-loaded.js';
export { random } from './random.js';
export { roundRobin } from './round-robin.js';
export { weighted } from './weighted.js';
export { weightedRandom } from './weighted-random.js';
