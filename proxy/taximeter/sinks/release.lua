-- Lets go what calls have reserved whose records are counted already (counters.lua does it in the ordinary way).
-- KEYS  1 held, 2 reserved, 3 reserved_at
-- ARGV  calls
-- Answers how many held something.
local released = 0
for _, call in ipairs(ARGV) do
  local parts = redis.call('HGET', KEYS[2], call)
  if parts then
    released = released + 1
    for budget, amount in string.gmatch(parts, '(%S+) (%S+)') do
      redis.call('HINCRBY', KEYS[1], budget, '-' .. amount)
    end
    redis.call('HDEL', KEYS[2], call)
  end
  redis.call('ZREM', KEYS[3], call)
end
return released
