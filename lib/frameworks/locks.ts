/** What methods need of locks. Not before a program has one: what it does not use is not loaded. */

export const locks = () => require('../coord/locks/lock.js') as typeof import('../coord/locks/lock.js');
export const lockOptions = () => require('../coord/locks/options.js') as typeof import('../coord/locks/options.js');
