-- Reserves an upper bound of what a call may use, of all its budgets or of none.
-- KEYS  1 held, 2 reserved, 3 reserved_at, then each budget's counter hash of its period
-- ARGV  1 call, 2 now (s since epoch), then for each budget: id, field of its hash, limit, amount
-- Answers {1}; or {"over", n, spent} where the n-th budget (1…) has not enough left even with nothing in flight;
-- or {"full", n, spent} where it would have, were nothing held by calls in flight; or an error. Then nothing was changed.
if not (typed(KEYS[1], 'hash') and typed(KEYS[2], 'hash') and typed(KEYS[3], 'zset')) then
  return refused('what is held is not as it was kept')
end
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then
  return {1}
end
if not natural(ARGV[2]) or string.find(ARGV[1], '%s') or #ARGV ~= 2 + 4 * (#KEYS - 3) then
  return refused('a call that cannot be named, or a budget without its key')
end
local over, full, parts = nil, nil, {}
for n = 1, #KEYS - 3 do
  local at = 4 * n - 1
  local id, amount = ARGV[at], natural(ARGV[at + 3])
  local spent = redis.call('HGET', KEYS[3 + n], ARGV[at + 1]) or '0'
  local held = redis.call('HGET', KEYS[1], id) or '0'
  if not (amount and natural(ARGV[at + 2]) and integer(spent) and integer(held)) or string.find(id, '%s') then
    return refused('an amount of budget ' .. id .. ' is no number')
  end
  local left = tonumber(ARGV[at + 2]) - tonumber(spent) -- exact: a limit is at most 2^53
  if left <= 0 or tonumber(amount) > left then
    over = over or {'over', n, spent}
  elseif tonumber(held) + tonumber(amount) > left then
    full = full or {'full', n, spent}
  end
  if amount ~= '0' then
    parts[#parts + 1] = {id, amount}
  end
end
if over or full then
  return over or full
end
if #parts == 0 then -- nothing to hold: nothing will have to be let go
  return {1}
end
local texts = {}
for _, part in ipairs(parts) do
  add(KEYS[1], part[1], part[2])
  texts[#texts + 1] = part[1] .. ' ' .. part[2]
end
redis.call('HSET', KEYS[2], ARGV[1], table.concat(texts, ' '))
redis.call('ZADD', KEYS[3], ARGV[2], ARGV[1])
return {1}
