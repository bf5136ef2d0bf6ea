/** What Redis runs for the requests of distributed rules. */

import { Script } from '../common/redis.js';

/** The deadline of nobody who waits. */
export const NEVER = String(Number.MAX_SAFE_INTEGER);

/**
 * Takes tokens of each subject, if they are there, by Redis' own clock. What is kept of a subject is what it has had, and at which
 * microsecond: then a request that brings another rule goes on from it, and a clock that is set back takes nothing from anybody.
 *
 * It keeps no copy of a rule, and what it keeps goes when all is back. After its deadline it takes nothing: then nobody waits any more
 * for what it says. With a deadline that never comes it writes what it finds, whatever that is: by that it is seen whether Redis takes writes.
 *
 * KEYS: the subjects. ARGV: the deadline in microseconds of Redis' clock, and for each subject tokens per second, capacity and cost.
 * Gives: the clock in microseconds, and before the deadline for each subject 1 or 0, and millionths of tokens that it has had now.
 *
 * @internal
 */
export const TAKE = new Script(`
local call, tonumber, min, max, ceil = redis.call, tonumber, math.min, math.max, math.ceil
local clock = call('TIME')
local now = clock[1] * 1000000 + clock[2]
if now > tonumber(ARGV[1]) then return {now} end
local isTrial = ARGV[1] == '${NEVER}'
local said = {now}
for i = 1, #KEYS do
  local key = KEYS[i]
  local rate, capacity, cost = tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i]), tonumber(ARGV[3 * i + 1])
  local spent, isAhead, allowed = 0, false, 0
  local kept = redis.pcall('GET', key)
  if type(kept) == 'string' and #kept == 16 then
    local at
    spent, at = struct.unpack('dd', kept)
    if now >= at then spent = max(0, spent - (now - at) * rate / 1000000) else isAhead = true end
  end
  if spent + cost <= capacity + 0.000001 then
    allowed = 1
    spent = spent + cost
  end
  if isAhead or isTrial or (allowed == 1 and cost > 0) then
    call('SET', key, struct.pack('dd', spent, now), 'PX', min(1e15, max(1, ceil(spent / rate * 1000))))
  end
  said[2 * i] = allowed
  said[2 * i + 1] = ceil(spent * 1000000)
end
return said
`);
