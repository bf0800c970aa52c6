-- Reserves an upper bound of what a call may use, of all its allowances or of none.
-- KEYS  1 gen, 2 held, 3 reserved, 4 reserved_at, 5 tallies, then of each allowance, a cap's kept limit and the sums of its
--       period: one, or a rolling window's buckets
-- ARGV  1 call, 2 now (s since epoch), 3 who asks (a field of held: how often it has reserved in this epoch),
--       4 the epoch it reserved in last, without a minus ("" none), 5 how often it did,
--       6 "1": the call is in flight already and holds what it holds, whatever is left;
--       then for each allowance: its field of held, how many keys, limit, amount, two names of a tally: one of them has
--       to be added up. A cap's limit is "?": the kept one, if there is any; "!<n>": this one, if none is kept;
--       "^<n>": this one, if none or a lower one is kept. It is kept whatever is answered but {"lost"}, for 400 days.
-- Answers {"held", epoch ("" none), how often the asker has reserved in it}; {"over", n, spent, charged, limit} where the
-- n-th allowance (1…) has not enough left even with nothing in flight; {"full", n, spent, charged, limit} where it would
-- have, were nothing held by calls in flight; with each of these, at its end, what is left of each allowance and not held,
-- this call included where it holds, "-1" of a cap that is none (nothing of that where the call holds already, or is in
-- flight); {"lost"} where the totals or what is held are not all there: a Redis that was emptied, restored, or is a replica
-- that has not heard of everything, or a budget so new that its sums are not added up yet. Then, and after an error,
-- nothing is held.

local CAP_LIVES_S = 34560000

local function lost()
  if typed(KEYS[2], 'hash') then
    redis.call('HDEL', KEYS[2], ':epoch') -- until the control process has put everything together again
  end
  return {'lost'}
end

if not (natural(ARGV[2]) and natural(ARGV[5])) or string.find(ARGV[1], '%s') or #ARGV % 6 ~= 0 then
  return refused('a call that cannot be named, or an allowance that is cut short')
end
local sums = 5
for at = 7, #ARGV, 6 do
  local limit = ARGV[at + 2]
  local sound = natural(limit) or limit == '?' or (string.find(limit, '^[!^]') and natural(string.sub(limit, 2)))
  if not (natural(ARGV[at + 1]) and sound and natural(ARGV[at + 3])) or string.find(ARGV[at], '^:')
      or string.find(ARGV[at], '%s') or (ARGV[at + 1] == '0' and not natural(limit)) then
    return refused('an amount of ' .. ARGV[at] .. ' is no number')
  end
  sums = sums + tonumber(ARGV[at + 1])
end
if sums ~= #KEYS then
  return refused('a sum without its allowance')
end
if not (typed(KEYS[2], 'hash') and typed(KEYS[3], 'hash') and typed(KEYS[4], 'zset') and typed(KEYS[5], 'set')) then
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

-- What an allowance's sums come to, as {used, charged}; nil where one is none.
local function spent_of(first, last)
  local used, charged = 0, 0
  for key = first, last do
    if not typed(KEYS[key], 'hash') then
      return nil
    end
    local found = redis.call('HMGET', KEYS[key], 'used', 'charged')
    if not (integer(found[1] or '0') and integer(found[2] or '0')) then
      return nil
    end
    if first == last then -- as they are: more than 2^53 is not exact in Lua
      return {found[1] or '0', found[2] or '0'}
    end
    used, charged = used + tonumber(found[1] or '0'), charged + tonumber(found[2] or '0')
  end
  return {string.format('%.0f', used), string.format('%.0f', charged)}
end

-- The limit of the allowance whose keys begin there and where its sums do, or nothing where it is a cap that is none; nil
-- and false where it is spoilt. What a cap is from now on stands in `caps`.
local caps = {}
local function limit_of(first, limit)
  if natural(limit) then
    return limit, first
  end
  if not typed(KEYS[first], 'string') then
    return nil, false
  end
  local kept, said = redis.call('GET', KEYS[first]), string.sub(limit, 2)
  if kept and not natural(kept) then
    return nil, false
  end
  if limit ~= '?' and (not kept or (string.sub(limit, 1, 1) == '^' and tonumber(said) > tonumber(kept))) then
    kept = said
  end
  caps[KEYS[first]] = kept or nil
  return kept or nil, first + 1
end

local over, full, parts, unheld, first = nil, nil, {}, {}, 6
for n = 1, (#ARGV - 6) / 6 do
  local at = 6 * n + 1
  local field, amount, last = ARGV[at], ARGV[at + 3], first + tonumber(ARGV[at + 1]) - 1
  local held = redis.call('HGET', KEYS[2], field) or '0'
  if not integer(held) then
    return lost()
  end
  local limit, sum = limit_of(first, ARGV[at + 2])
  if not limit and not sum then
    return lost()
  end
  if not limit then
    unheld[n] = not flying and -1 or nil
    amount = '0'
  elseif not flying then
    if redis.call('SISMEMBER', KEYS[5], ARGV[at + 4]) + redis.call('SISMEMBER', KEYS[5], ARGV[at + 5]) == 0 then
      return {'lost'}
    end
    local spent = spent_of(sum, last)
    if not spent then
      return lost()
    end
    -- Exact: a limit is at most 2^53, and so is what is left of it as long as it is more than 0.
    local left = tonumber(limit) - tonumber(spent[1])
    left = left <= 0 and left or left - tonumber(spent[2])
    unheld[n] = math.max(0, left - tonumber(held))
    if left <= 0 or tonumber(amount) > left then
      over = over or {'over', n, spent[1], spent[2], limit}
    elseif tonumber(held) + tonumber(amount) > left then
      full = full or {'full', n, spent[1], spent[2], limit}
    end
  end
  if amount ~= '0' then
    parts[#parts + 1] = {field, amount}
  end
  first = last + 1
end

-- The reply, with what is left of each allowance after `amounts` are taken.
local function telling(reply, takes)
  for n, left in ipairs(unheld) do
    reply[#reply + 1] = string.format('%.0f', takes and left >= 0 and left - tonumber(ARGV[6 * n + 4]) or left)
  end
  return reply
end

for key, limit in pairs(caps) do
  redis.call('SET', key, limit, 'EX', CAP_LIVES_S)
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
