-- Reserves an upper bound of what a call may use, of all its budgets or of none.
-- KEYS  1 gen, 2 held, 3 reserved, 4 reserved_at, then each budget's counter hash of its period
-- ARGV  1 call, 2 now (s since epoch), 3 who asks (a field of held: how often it has reserved in this epoch),
--       4 the epoch it reserved in last, without a minus ("" none), 5 how often it did,
--       6 "1": the call is in flight already and holds what it holds, whatever is left;
--       then for each budget: id, fields of its hash (spent, charged for what is not known), limit, amount
-- Answers {"held", epoch ("" none), how often the asker has reserved in it}; {"over", n, spent, charged} where the n-th
-- budget (1…) has not enough left even with nothing in flight; {"full", n, spent, charged} where it would have, were
-- nothing held by calls in flight; with each of these, at its end, what is left of each budget and not held, this call
-- included where it holds (nothing of that where the call holds already, or is in flight); {"lost"} where the totals or what is held are not all there: a Redis that was emptied, restored, or is a replica
-- that has not heard of everything. Then, and after an error, nothing is held.

local function lost()
  if typed(KEYS[2], 'hash') then
    redis.call('HDEL', KEYS[2], ':epoch') -- until the control process has put everything together again
  end
  return {'lost'}
end

if not (natural(ARGV[2]) and natural(ARGV[5])) or string.find(ARGV[1], '%s') or #ARGV ~= 6 + 5 * (#KEYS - 4) then
  return refused('a call that cannot be named, or a budget without its key')
end
for at = 7, #ARGV, 5 do
  if not (natural(ARGV[at + 3]) and natural(ARGV[at + 4])) or string.find(ARGV[at], '[%s:]') then
    return refused('an amount of budget ' .. ARGV[at] .. ' is no number')
  end
end
if not (typed(KEYS[2], 'hash') and typed(KEYS[3], 'hash') and typed(KEYS[4], 'zset')) then
  return lost()
end
local flying = ARGV[6] == '1'
local generation = typed(KEYS[1], 'string') and redis.call('GET', KEYS[1]) or 'rebuild:'
local epoch = redis.call('HGET', KEYS[2], ':epoch') or ''
local reserved = redis.call('HGET', KEYS[2], ARGV[3]) or '0'
local same = string.gsub(epoch, '^%-', '') == ARGV[4]
if not natural(reserved) or (same and tonumber(reserved) < tonumber(ARGV[5])) then
  lost() -- it went back to before this asker's last reservation
  epoch, reserved = '', '0'
end
if not flying and (string.sub(generation, 1, 8) == 'rebuild:' or epoch == '' or string.sub(epoch, 1, 1) == '-') then
  return {'lost'}
end
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 1 then
  return {'held', epoch, reserved}
end

local over, full, parts, unheld = nil, nil, {}, {}
for n = 1, #KEYS - 4 do
  local at = 5 * n + 2
  local id, amount = ARGV[at], ARGV[at + 4]
  if not integer(redis.call('HGET', KEYS[2], id) or '0') then
    return lost()
  end
  if not flying then
    if not typed(KEYS[4 + n], 'hash') then
      return lost()
    end
    local spent = redis.call('HGET', KEYS[4 + n], ARGV[at + 1]) or '0'
    local charged = redis.call('HGET', KEYS[4 + n], ARGV[at + 2]) or '0'
    if not (integer(spent) and integer(charged)) then
      return lost()
    end
    -- Exact: a limit is at most 2^53, and so is what is left of it as long as it is more than 0.
    local left = tonumber(ARGV[at + 3]) - tonumber(spent)
    left = left <= 0 and left or left - tonumber(charged)
    local held = tonumber(redis.call('HGET', KEYS[2], id) or '0')
    unheld[n] = math.max(0, left - held)
    if left <= 0 or tonumber(amount) > left then
      over = over or {'over', n, spent, charged}
    elseif held + tonumber(amount) > left then
      full = full or {'full', n, spent, charged}
    end
  end
  if amount ~= '0' then
    parts[#parts + 1] = {id, amount}
  end
end

-- The reply, with what is left of each budget after `amounts` are taken.
local function telling(reply, takes)
  for n, left in ipairs(unheld) do
    reply[#reply + 1] = string.format('%.0f', takes and left - tonumber(ARGV[5 * n + 6]) or left)
  end
  return reply
end

if over or full then
  return telling(over or full, false)
end
if #parts == 0 then -- nothing to hold: nothing will have to be let go
  return telling({'held', epoch, reserved}, false)
end
local texts = {}
for _, part in ipairs(parts) do
  add(KEYS[2], part[1], part[2])
  texts[#texts + 1] = part[1] .. ' ' .. part[2]
end
redis.call('HSET', KEYS[3], ARGV[1], table.concat(texts, ' '))
redis.call('ZADD', KEYS[4], ARGV[2], ARGV[1])
return telling({'held', epoch, tostring(redis.call('HINCRBY', KEYS[2], ARGV[3], 1))}, true)
