-- Lets go what calls have reserved whose records are counted already (counters.lua does it in the ordinary way).
-- KEYS  1 held, 2 reserved, 3 reserved_at
-- ARGV  calls
-- Answers how many held something; or an error: then nothing was changed.
if not (typed(KEYS[1], 'hash') and typed(KEYS[2], 'hash') and typed(KEYS[3], 'zset')) then
  return refused('what is held is not as it was kept')
end
local found = {}
for n, call in ipairs(ARGV) do
  local parts = redis.call('HGET', KEYS[2], call)
  if parts then
    found[n] = parts_of(parts)
    if not can_release(KEYS[1], found[n]) then
      return refused('a sum of what is held is no integer')
    end
  end
end
local released = 0
for n, call in ipairs(ARGV) do
  if redis.call('HDEL', KEYS[2], call) == 1 then -- a call named twice lets go once
    released = released + 1
    let_go(KEYS[1], found[n])
  end
  redis.call('ZREM', KEYS[3], call)
end
return released
