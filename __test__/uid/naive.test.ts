// Why the hard tests of ids are hard: generators that are written in an afternoon, and one that many install, make ids twice by the
// same steps. What rollcall/uid makes of each stands beside it, and in hard.test.ts in full.
import { Snowflake } from '@sapphire/snowflake';
import { createUid } from 'rollcall/uid';
import { expect, test } from 'vitest';
import { client, until } from '../coord/kit.js';
import { begin, expectGrowing, layoutOf, made, settable } from './uid-kit.js';

const EPOCH = 1_288_834_974_657;

/** A generator of 41/10/12 bits that trusts its worker id and its clock. */
function toy(workerId: number): () => bigint {
  let last = 0;
  let sequence = 0;
  return () => {
    const now = Date.now();
    sequence = now === last ? (sequence + 1) & 4095 : 0;
    last = now;
    return (BigInt(now - EPOCH) << 22n) | BigInt((workerId << 12) | sequence);
  };
}

const twice = (ids: readonly bigint[]): number => ids.length - new Set(ids).size;

test('more ids in a millisecond than fit, and a clock that steps back', async (finish) => {
  const clock = settable(finish);
  const now = Date.now();
  const uid = await createUid({ workerId: 3, logger: false });
  const sapphire = new Snowflake(EPOCH);
  const makes = { toy: toy(3), sapphire: () => sapphire.generate(), uid: () => uid.next() };
  const found = Object.entries(makes).map(([name, make]) => {
    clock.at(now);
    const burst = Array.from({ length: 5000 }, make);
    clock.at(now + 10);
    const before = Array.from({ length: 100 }, make);
    clock.at(now + 5);
    make();
    clock.at(now + 10);
    const after = Array.from({ length: 100 }, make);
    if (name === 'uid') expectGrowing([...burst, ...before, ...after]);
    return [name, twice(burst) > 0, twice([...before, ...after]) > 0];
  });
  expect(found).toEqual([
    ['toy', true, true],
    ['sapphire', true, false],
    ['uid', false, false],
  ]);
});

test('a lease that is lost while its holder goes on: the next one stamps the same milliseconds', async (finish) => {
  const server = await begin(finish);
  const layout = layoutOf(1);
  // The toy: a lock is its worker id, and nobody looks again.
  const first = await client(finish, server.url);
  const held = await first.lock.acquire('worker/1');
  const old = toy(1);
  await server.del(held.key);
  await until('the loss', () => !held.isHeld);
  const second = await client(finish, server.url);
  await second.lock.acquire('worker/1');
  const next = toy(1);
  settable(finish).at(Date.now());
  expect(twice([old(), next()])).toBe(1);

  const uid = await made(finish, server.url, { layout, windowMs: 60_000 });
  await made(finish, server.url, { layout });
  const n = uid.workerId || 2;
  await server.del(`/im-infra/allocators/orders/ids/${n}`);
  const other = await made(finish, server.url, { layout });
  expect(other.workerId).toBe(uid.workerId);
  expect(twice([...uid.nextMany(10_000), ...other.nextMany(10_000)])).toBe(0);
});
