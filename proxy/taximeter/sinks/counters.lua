-- Adds what one workspace used, once: only if the workspace's generation and its cursor for the journal are the ones
-- the sums were cut for. Everything before the first HINCRBY decides; nothing can be refused after it.
--
-- KEYS  1 gen, 2 cursor, 3 models (set of the model keys in use), 4 model:other, 5 tasks, 6 task:other, then the cells' keys
-- ARGV  1 generation, 2 "1": create it if there is none, 3 journal_id, 4 cursor expected, 5 seq of the first record,
--       6 cursor afterwards (seq of the last record), 7 names allowed in KEYS[3] and in KEYS[5],
--       8 words separated by spaces (one long argument is far cheaper to send than hundreds of short ones):
--       number of fields, their names, then for each cell:
--       number of keys; for each key: 0, or the time (s) it expires at, or "m" / "t": a model's or a task's;
--       number of sums; for each sum: field (1…), amount
--       9 (only where calls of the batch held parts of budgets, with KEYS[#KEYS-2…#KEYS] = held, reserved, reserved_at)
--       those calls: what they reserved is let go in the same step that counts what they used
-- Answers 1; or {"generation", actual or ""}, or {"cursor", actual}: then nothing was changed.
-- Amounts stay strings from end to end: a Lua number is exact to 2^53 only.

local create = false
local generation = redis.call('GET', KEYS[1])
if not generation and ARGV[2] == '1' then
  create = true
elseif generation ~= ARGV[1] then
  return {'generation', generation or ''}
end
local cursor = redis.call('HGET', KEYS[2], ARGV[3]) or '0'
if cursor ~= ARGV[4] or tonumber(cursor) >= tonumber(ARGV[5]) then
  return {'cursor', cursor}
end
if create then
  redis.call('SET', KEYS[1], ARGV[1])
end
redis.call('HSET', KEYS[2], ARGV[3], ARGV[6])

local limit = tonumber(ARGV[7])

local function capped(key, names, other)
  if redis.call('SISMEMBER', names, key) == 1 then
    return key
  end
  if redis.call('SCARD', names) >= limit then
    return other
  end
  redis.call('SADD', names, key)
  return key
end

local words, count = {}, 0
for word in string.gmatch(ARGV[8], '%S+') do
  count = count + 1
  words[count] = word
end

local next_key = 7
local at = tonumber(words[1]) + 2 -- field n's name is words[n + 1]
while at <= count do
  local keys = tonumber(words[at])
  local modes = at
  at = at + keys + 1
  local first, last = at + 1, at + 2 * tonumber(words[at])
  for k = 1, keys do
    local key, mode = KEYS[next_key], words[modes + k]
    next_key = next_key + 1
    if mode == 'm' then
      key = capped(key, KEYS[3], KEYS[4])
    elseif mode == 't' then
      key = capped(key, KEYS[5], KEYS[6])
    end
    for i = first, last, 2 do
      redis.call('HINCRBY', key, words[words[i] + 1], words[i + 1])
    end
    if mode ~= '0' and mode ~= 'm' and mode ~= 't' then
      redis.call('EXPIREAT', key, mode)
    end
  end
  at = last + 1
end

if ARGV[9] then
  local held, reserved, since = KEYS[#KEYS - 2], KEYS[#KEYS - 1], KEYS[#KEYS]
  for call in string.gmatch(ARGV[9], '%S+') do
    local parts = redis.call('HGET', reserved, call)
    if parts then
      for budget, amount in string.gmatch(parts, '(%S+) (%S+)') do
        redis.call('HINCRBY', held, budget, '-' .. amount)
      end
      redis.call('HDEL', reserved, call)
      redis.call('ZREM', since, call)
    end
  end
end
return 1
