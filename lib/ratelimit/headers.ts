/** What an HTTP response tells of a decision. */

import { choice, invalid, kindOf, record } from '../common/shape.js';
import type { Decision } from './decision.js';

/** How headers are written: as a draft of the IETF has them, or as they have been for long. */
export type HeaderStyle = 'draft-8' | 'draft-7' | 'legacy';

const STYLES = ['draft-8', 'draft-7', 'legacy'] as const;

const NUMBERS = ['limit', 'remaining', 'retryAfterMs', 'resetMs'] as const;

/** @throws `ERR_INVALID_ARGUMENT` that names the field, of what no limiter has decided. */
export function decisionOf(value: unknown): Decision {
  const given = record('decision', value, 'what allow() gives');
  if (typeof given.rule !== 'string') throw invalid('decision.rule', `expected a string, got ${kindOf(given.rule)}`);
  for (const name of NUMBERS) {
    if (typeof given[name] === 'number') continue;
    throw invalid(`decision.${name}`, `expected a number, got ${kindOf(given[name])}`);
  }
  return value as Decision;
}

/**
 * The headers of a response, with `Retry-After` where a request is refused.
 *
 * - `draft-8` (draft-ietf-httpapi-ratelimit-headers-08 and later): `RateLimit-Policy: "send";q=60;w=2` and `RateLimit: "send";r=59;t=1`.
 * - `draft-7`: `RateLimit-Policy: 60;w=2` and `RateLimit: limit=60, remaining=59, reset=1`.
 * - `legacy`: `X-RateLimit-Limit`, `X-RateLimit-Remaining`, and `X-RateLimit-Reset` in seconds since 1970.
 *
 * Seconds are rounded up. The window `w` is how long an empty bucket takes to be full.
 */
export function headersOf(decision: Decision, windowMs: number, style: unknown): Record<string, string> {
  const known = choice<HeaderStyle>('style', style, STYLES, 'draft-8');
  const { allowed, limit, remaining, retryAfterMs, resetMs, rule, by } = decision;
  const retry: Record<string, string> = allowed ? {} : { 'Retry-After': seconds(retryAfterMs, 1) };
  if (by === 'unknown') return retry; // there is no limit to tell of
  const reset = seconds(resetMs, 0);
  const window = seconds(windowMs, 1);
  if (known === 'legacy') {
    return {
      'X-RateLimit-Limit': String(limit),
      'X-RateLimit-Remaining': String(remaining),
      'X-RateLimit-Reset': seconds(Date.now() + resetMs, 0),
      ...retry,
    };
  }
  if (known === 'draft-7') {
    return {
      'RateLimit-Policy': `${limit};w=${window}`,
      RateLimit: `limit=${limit}, remaining=${remaining}, reset=${reset}`,
      ...retry,
    };
  }
  const name = quoted(rule);
  return {
    'RateLimit-Policy': `${name};q=${limit};w=${window}`,
    RateLimit: `${name};r=${remaining};t=${reset}`,
    ...retry,
  };
}

const seconds = (ms: number, least: number): string => String(Math.max(least, Math.ceil(ms / 1000)));

/** A string of structured fields (RFC 9651), which has printable ASCII alone. */
const quoted = (text: string): string => `"${text.replace(/[^\x20-\x7e]/g, '?').replace(/["\\]/g, '\\$&')}"`;
