/** What Redis runs for each request of a distributed rule. */

import { Script } from '../common/redis.js';

/**
 * Takes tokens, if they are there, by Redis' own clock. What is kept of a subject is what it has had, and at which microsecond: then a
 * request that brings another rule goes on from it, and a clock that is set back takes nothing from anybody.
 *
 * It keeps no copy of a rule, and what it keeps goes when all is back. After its deadline it takes nothing: then nobody waits any more
 * for what it says.
 *
 * KEYS: the subject. ARGV: tokens per second, capacity, cost, the deadline in microseconds of Redis' clock.
 * Gives: 1, 0 or, after the deadline, -1; millionths of tokens that it has had now; the clock in microseconds.
 *
 * @internal
 */
export const TAKE = new Script(`
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
if now > tonumber(ARGV[4]) then return {-1, 0, now} end
local rate, capacity, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local spent, isAhead = 0, false
local kept = redis.call('GET', KEYS[1])
if kept then
  local had, at = string.match(kept, '^(%S+) (%S+)$')
  spent, at = tonumber(had), tonumber(at)
  if now > at then spent = math.max(0, spent - (now - at) * rate / 1000000) else isAhead = now < at end
end
local allowed = 0
if spent + cost <= capacity + 0.000001 then
  allowed = 1
  spent = spent + cost
end
if isAhead or (allowed == 1 and cost > 0) then
  local ms = math.max(1, math.ceil(spent / rate * 1000))
  redis.call('SET', KEYS[1], string.format('%.17g %.0f', spent, now), 'PX', string.format('%.0f', ms))
end
return {allowed, math.ceil(spent * 1000000), now}
`);
