// The generated binding, below what TypeScript adds, with the options that TypeScript makes for it.

import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);

/** A client by the options of `connect()`, which takes all events that have come each time it is woken, and drops them. */
export async function open(options) {
  const { settle } = require('../../dist/cjs/registry/options.js');
  const { native } = await settle({ logger: false, ...options });
  const client = require('#native').ClientHandle.open(native, () => client.drain(2 ** 32 - 1));
  return client;
}
