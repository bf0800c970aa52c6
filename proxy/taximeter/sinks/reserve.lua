-- Reserves an upper bound of what a call may use, of all its budgets or of none.
-- KEYS  1 held, 2 reserved, 3 reserved_at, then each budget's counter hash of its period
-- ARGV  1 call, 2 now (s since epoch), then for each budget: id, field of its hash, limit, amount
-- Answers {1}; or {"over", n, spent} where the n-th budget (1…) has not enough left even with nothing in flight;
-- or {"full", n, spent} where it would have, were nothing held by calls in flight. Then nothing was changed.
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then
  return {1}
end
local full, parts = nil, {}
local n = 0
for at = 3, #ARGV, 4 do
  n = n + 1
  local id, limit, amount = ARGV[at], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local spent = redis.call('HGET', KEYS[3 + n], ARGV[at + 1]) or '0'
  if tonumber(spent) >= limit or tonumber(spent) + amount > limit then
    return {'over', n, spent}
  end
  local held = tonumber(redis.call('HGET', KEYS[1], id) or '0')
  if not full and tonumber(spent) + held + amount > limit then
    full = {'full', n, spent}
  end
  parts[#parts + 1] = id .. ' ' .. ARGV[at + 3]
end
if full then
  return full
end
for at = 3, #ARGV, 4 do
  redis.call('HINCRBY', KEYS[1], ARGV[at], ARGV[at + 3])
end
redis.call('HSET', KEYS[2], ARGV[1], table.concat(parts, ' '))
redis.call('ZADD', KEYS[3], ARGV[2], ARGV[1])
return {1}
