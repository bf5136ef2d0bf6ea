// The generated binding, below what TypeScript adds, and what TypeScript would hand over to it.

import { createRequire } from 'node:module';

const { ClientHandle } = createRequire(import.meta.url)('#native');

/** A client that takes all events that have come, each time that it is woken, and does nothing with them. */
export function open(options) {
  const client = ClientHandle.open(options, () => client.drain(2 ** 32 - 1));
  return client;
}

/** The options of a backend, with every common default; no log. */
export const nativeOptions = (backend, group) => ({
  backend,
  ttlMs: 15_000,
  connectTimeoutMs: 10_000,
  timeoutMs: 10_000,
  stallTimeoutMs: 30_000,
  emptyGraceMs: 15_000,
  advertiseHost: null,
  logLevel: 'off',
  memory: null,
  etcd: null,
  consul: null,
  zookeeper: null,
  [backend]: group,
});
