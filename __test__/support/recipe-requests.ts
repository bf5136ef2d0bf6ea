// What programs with breakers and limits are asked over HTTP, whatever their framework: `breakers` and `rates` of the fixtures of Nest
// and of Midway.

import { expect } from 'vitest';

/** A request, and what came of it. */
export type Ask = (
  path: string,
  how?: RequestInit,
) => Promise<{ readonly status: number; readonly headers: Headers; readonly body: Record<string, unknown> }>;

export const asks =
  (port: unknown): Ask =>
  async (path, how) => {
    const response = await fetch(`http://127.0.0.1:${port}/${path}`, how);
    return {
      status: response.status,
      headers: response.headers,
      body: (await response.json()) as Record<string, unknown>,
    };
  };

/** Two failures open the breaker for five minutes: what is refused is answered, and not called. */
export async function askUntilOpen(ask: Ask): Promise<void> {
  expect(await ask('users/7')).toMatchObject({ status: 200, body: { found: 'user 7' } });
  const json = { headers: { accept: 'application/json' } };
  for (let i = 0; i < 2; i++) expect(await ask('users/bad', json)).toMatchObject({ status: 500 });
  const { status, headers, body } = await ask('users/7');
  const message = 'What is needed for this does not answer at the moment';
  expect([status, body]).toEqual([503, { statusCode: 503, code: 'ERR_BREAKER_OPEN', message }]);
  expect(Number(headers.get('retry-after'))).toBeGreaterThan(280);
  expect(Number(headers.get('retry-after'))).toBeLessThanOrEqual(300);
  expect((await ask('users/or-none')).body).toEqual({ found: 'no 7: ERR_BREAKER_OPEN' });
  expect((await ask('users/state')).body, 'what is refused is not called').toMatchObject({ state: 'open', calls: 3 });
}

export const as = (user: string): RequestInit => ({ headers: { 'x-user': user } });

/** Two processes let three requests through together, and refuse the next. */
export async function askOverLimit(one: Ask, other: Ask): Promise<void> {
  const statuses = [];
  for (const ask of [one, other, one, other]) statuses.push((await ask('send', as('ann'))).status);
  expect(statuses, 'in two processes').toEqual([200, 200, 200, 429]);
  const { status, headers, body } = await one('send', as('ann'));
  const message = 'Too many requests';
  expect([status, body]).toEqual([429, { statusCode: 429, code: 'ERR_RATE_LIMITED', message }]);
  expect(headers.get('ratelimit-policy')).toBe('"send";q=3;w=3000');
  expect(headers.get('ratelimit')).toMatch(/^"send";r=0;t=(29|30)\d\d$/);
  expect(Number(headers.get('retry-after'))).toBeGreaterThan(900);
}
