/** What lives on a client of coord, and is closed before it, in whatever order a framework ends its modules. */

import type { Coord } from '../coord/index.js';

const users = new WeakMap<object, Set<() => unknown>>();

/** Has `close` called before the client is closed; it may be called again. */
export function closedBefore(coord: Coord, close: () => unknown): void {
  const closes = users.get(coord) ?? new Set();
  users.set(coord, closes.add(close));
}

/** Closes what lives on a client. What fails is for who made it to tell. */
export async function closeUsersOf(coord: Coord): Promise<void> {
  await Promise.allSettled([...(users.get(coord) ?? [])].map(async (close) => await close()));
  users.delete(coord);
}
