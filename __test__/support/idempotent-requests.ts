// What a program with `Idempotency-Key`s is asked, whatever its framework: `orders` of the fixtures of Nest and of Midway.

import { expect } from 'vitest';
import { type Script, uniqueName, waitFor, within } from './process.js';
import type { RedisServer } from './redis.js';

type App = Script<Record<string, unknown>>;

interface Order {
  item: string;
  waitMs?: number;
}

/** A request, and what came of it. */
async function post(
  port: unknown,
  path: string,
  key: string | undefined,
  body: object,
  how: RequestInit & { user?: string } = {},
) {
  const { user = 'ann', ...rest } = how;
  const headers: Record<string, string> = { 'content-type': 'application/json', 'x-user': user };
  if (key !== undefined) headers['idempotency-key'] = key;
  const url = `http://127.0.0.1:${port}/${path}`;
  const response = await fetch(url, { method: 'POST', headers, body: JSON.stringify(body), ...rest });
  return {
    status: response.status,
    replayed: response.headers.get('idempotent-replayed'),
    location: response.headers.get('location'),
    type: response.headers.get('content-type'),
    retryAfter: Number(response.headers.get('retry-after')),
    text: await response.text(),
  };
}

/** `ports` are of two processes of one program, which have one Redis. */
export async function askIdempotently(
  apps: readonly [App, App],
  ports: readonly [unknown, unknown],
  redis: RedisServer,
) {
  const [app] = apps;
  const [port, other] = ports;
  const create = (key: string | undefined, order: Order, how?: RequestInit & { user?: string }, at = port) =>
    post(at, 'orders', key, order, how);
  const counted = async (at = port) => {
    const response = await fetch(`http://127.0.0.1:${at}/orders/count`);
    return ((await response.json()) as { count: number }).count;
  };
  const both = async () => (await counted()) + (await counted(other));

  // Two at once, in one process and in two: one runs, the other is given its answer.
  for (const second of ports) {
    const before = await both();
    const key = uniqueName('key');
    const order = { item: 'tea', waitMs: 200 };
    const answers = await Promise.all([create(key, order), create(key, order, {}, second)]);
    expect(await both()).toBe(before + 1);
    expect(answers.map(({ status }) => status)).toEqual([201, 201]);
    expect(answers.map(({ replayed }) => replayed).sort()).toEqual(['true', null].sort());
    expect(answers[0]?.text).toBe(answers[1]?.text);
    expect(JSON.parse(answers[0]?.text as string)).toMatchObject({ item: 'tea', at: '1970-01-01T00:00:00.000Z' });
    expect(answers[0]?.location).toMatch(/^\/orders\/\d+$/);
    expect(answers[1]?.location).toBe(answers[0]?.location);
    const later = await create(`"${key}"`, { waitMs: 200, item: 'tea' } as Order);
    expect(later, 'quoted, and its fields in another order').toEqual({
      ...answers[0],
      replayed: 'true',
    });
  }

  // The key of another user, of another request, and none.
  const key = uniqueName('key');
  expect(await create(key, { item: 'cups' })).toMatchObject({ status: 201, replayed: null });
  expect(await create(key, { item: 'cups' }, { user: 'bob' })).toMatchObject({ status: 201, replayed: null });
  const reused = await create(key, { item: 'pots' });
  expect([reused.status, JSON.parse(reused.text)]).toEqual([
    422,
    { statusCode: 422, code: 'ERR_KEY_REUSED', message: 'This Idempotency-Key was used for another request' },
  ]);
  const missing = await create(undefined, { item: 'cups' });
  expect([missing.status, JSON.parse(missing.text).message]).toEqual([400, 'The header Idempotency-Key is missing']);
  expect((await create('k'.repeat(256), { item: 'cups' })).status).toBe(400);
  const before = await counted();
  for (let i = 0; i < 2; i++) expect((await post(port, 'orders/optional', undefined, {})).status).toBeLessThan(300);
  expect(await counted(), 'without a key each runs').toBe(before + 2);

  // While it runs.
  const running = post(port, 'orders/impatient', `${key}-impatient`, { waitMs: 400 });
  await app.line(({ began }) => began === 'impatient', { what: 'the run' });
  const refused = await post(other, 'orders/impatient', `${key}-impatient`, { waitMs: 400 });
  expect([refused.status, JSON.parse(refused.text).code]).toEqual([409, 'ERR_IN_PROGRESS']);
  expect(refused.retryAfter).toBeGreaterThanOrEqual(1);
  const done = await running;
  expect(done).toMatchObject({ replayed: null, text: 'done' });
  expect(await post(other, 'orders/impatient', `${key}-impatient`, { waitMs: 400 })).toEqual({
    ...done,
    replayed: 'true',
  });

  // What fails is run again.
  expect((await post(port, 'orders/failing', `${key}-failing`, {})).status).toBe(400);
  const well = await post(port, 'orders/failing', `${key}-failing`, {});
  expect([well.replayed, JSON.parse(well.text)]).toEqual([null, { failures: 2 }]);
  expect(await post(port, 'orders/failing', `${key}-failing`, {})).toEqual({ ...well, replayed: 'true' });

  // A stream is given once.
  expect(await post(port, 'orders/stream', `${key}-stream`, {})).toMatchObject({ replayed: null, text: '"bytes"' });
  expect(await post(port, 'orders/stream', `${key}-stream`, {})).toMatchObject({ status: 409 });

  // What the method writes itself, what is larger than is kept, and what JSON has no text for: done once, and then 409.
  for (const [path, status] of [
    ['written', 202],
    ['large', undefined],
    ['endless', 500],
  ] as const) {
    const total = await counted();
    const first = await post(port, `orders/${path}`, `${key}-${path}`, {});
    if (status) expect(first.status).toBe(status);
    else expect(first.text.length).toBeGreaterThan(300_000);
    const again = await within(post(port, `orders/${path}`, `${key}-${path}`, {}), 5000, 'the answer');
    expect([again.status, JSON.parse(again.text)]).toEqual([
      409,
      { statusCode: 409, code: 'ERR_OUTCOME_UNKNOWN', message: 'This was done, and its answer is not kept' },
    ]);
    expect(await counted()).toBe(total + 1);
  }

  // What frameworks answer in a way of its own, and who has no name.
  for (const path of ['stamp', 'bytes']) {
    const first = await post(port, `orders/${path}`, `${key}-${path}`, {});
    expect(first.status).toBeLessThan(300);
    expect(await post(other, `orders/${path}`, `${key}-${path}`, {})).toEqual({ ...first, replayed: 'true' });
  }
  // Who asks chooses the key: not one of the program's own.
  expect((await post(port, 'orders/stamp', 'first:eve', {})).status).toBeLessThan(300);
  const own = await fetch(`http://127.0.0.1:${port}/orders/count`, { headers: { 'x-user': 'eve' } });
  expect(await own.json()).toEqual({ count: expect.any(Number), first: expect.any(Number) });
  expect((await post(port, 'orders/stamp', 'first:eve', {})).replayed).toBe('true');
  expect((await post(port, 'orders/bytes', 'k'.repeat(255), {})).status, 'the longest').toBeLessThan(300);

  const nobody = await counted();
  expect((await post(port, 'orders/nobody', `${key}-nobody`, {})).status).toBe(500);
  expect(await counted()).toBe(nobody);

  // A client that goes away in the middle, and asks again, here and elsewhere.
  for (const [item, at] of [
    ['kettle', port],
    ['spoons', other],
  ] as const) {
    const total = await both();
    const leaving = new AbortController();
    const order = { item, waitMs: 300 };
    const left = create(key + item, order, { signal: leaving.signal });
    await app.line(({ began }) => began === item, { what: 'the run' });
    leaving.abort();
    await expect(left).rejects.toThrow(/abort/);
    expect(await create(key + item, order, {}, at)).toMatchObject({ status: 201, replayed: 'true' });
    await app.line(({ ended }) => ended === item, { what: 'its end' });
    expect(await both()).toBe(total + 1);
  }

  // Redis stands still: nothing is run, and nobody waits.
  const total = await both();
  await redis.freeze();
  try {
    const stopped = await within(create(`${key}-frozen`, { item: 'tea' }), 5000, 'the refusal');
    expect([stopped.status, JSON.parse(stopped.text).message]).toEqual([
      503,
      'Whether this was done before can not be asked at the moment',
    ]);
    expect(await both()).toBe(total);
  } finally {
    await redis.thaw();
  }
  await waitFor(async () => (await create(`${key}-thawed`, { item: 'tea' })).status === 201, { what: 'Redis' });
}
