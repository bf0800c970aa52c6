-- Adds what one workspace used, once: only if the workspace's generation and its cursor for the journal are the ones
-- the sums were cut for. Everything is read and checked before the first write; nothing can be refused after it.
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
-- Answers 1; or {"generation", actual or ""}, or {"cursor", actual}; or an error: then nothing was changed.

local create = false
local generation = redis.call('GET', KEYS[1])
if not generation and ARGV[2] == '1' then
  create = true
elseif generation ~= ARGV[1] then
  return {'generation', generation or ''}
end
if not (natural(ARGV[4]) and natural(ARGV[5]) and natural(ARGV[6]) and natural(ARGV[7])) then
  return refused('a cursor or a number of names that is no number')
end
local cursor = redis.call('HGET', KEYS[2], ARGV[3]) or '0'
if not natural(cursor) then
  return refused('the cursor is no number')
end
if cursor ~= ARGV[4] or tonumber(cursor) >= tonumber(ARGV[5]) then
  return {'cursor', cursor}
end
if not (typed(KEYS[3], 'set') and typed(KEYS[5], 'set')) then
  return refused('the set of models or of tasks is none')
end

local words, count = {}, 0
for word in string.gmatch(ARGV[8], '%S+') do
  count = count + 1
  words[count] = word
end

local limit = tonumber(ARGV[7])
local entered, sizes = {}, {}

-- The key a model or task is counted under; enters it in its set (at the end) where there is room.
local function capped(key, set, other)
  if entered[key] or redis.call('SISMEMBER', set, key) == 1 then
    return key
  end
  sizes[set] = sizes[set] or redis.call('SCARD', set)
  if sizes[set] >= limit then
    return other
  end
  sizes[set] = sizes[set] + 1
  entered[key] = set
  return key
end

-- What is to be done: for each cell its keys, their expiries, its fields and amounts.
local last_key = ARGV[9] and #KEYS - 3 or #KEYS
local fields = natural(words[1]) and tonumber(words[1]) or -1
local cells, next_key, at = {}, 7, fields + 2 -- field n's name is words[n + 1]
while fields >= 0 and at <= count do
  local keys = natural(words[at]) and tonumber(words[at]) or count
  local sums = natural(words[at + keys + 1]) and tonumber(words[at + keys + 1]) or count
  local first = at + keys + 2
  local cell = {keys = {}, expires = {}, fields = {}, amounts = {}}
  if first + 2 * sums - 1 > count or next_key + keys - 1 > last_key then
    return refused('a list of sums that is cut short')
  end
  for i = first, first + 2 * sums - 2, 2 do
    local field = natural(words[i]) and tonumber(words[i]) or 0
    if field < 1 or field > fields or not integer(words[i + 1]) then
      return refused('a sum that is no integer, or of no field')
    end
    cell.fields[#cell.fields + 1] = words[field + 1]
    cell.amounts[#cell.amounts + 1] = words[i + 1]
  end
  for k = 1, keys do
    local key, mode = KEYS[next_key], words[at + k]
    next_key = next_key + 1
    if mode == 'm' then
      key = capped(key, KEYS[3], KEYS[4])
    elseif mode == 't' then
      key = capped(key, KEYS[5], KEYS[6])
    elseif mode ~= '0' then
      if not natural(mode) or #mode > 12 then
        return refused('an expiry that is no time')
      end
      cell.expires[k] = mode
    end
    cell.keys[k] = key
    if sums > 0 then
      for i, value in ipairs(redis.call('HMGET', key, unpack(cell.fields))) do
        if value and not integer(value) then
          return refused(cell.fields[i] .. ' of ' .. key .. ' is no integer')
        end
      end
    end
  end
  cells[#cells + 1] = cell
  at = first + 2 * sums
end
if next_key ~= last_key + 1 then
  return refused('keys without sums')
end

local held, reserved, since = KEYS[#KEYS - 2], KEYS[#KEYS - 1], KEYS[#KEYS]
local released = {}
if ARGV[9] and typed(held, 'hash') and typed(reserved, 'hash') and typed(since, 'zset') then
  for call in string.gmatch(ARGV[9], '%S+') do
    local parts = parts_of(redis.call('HGET', reserved, call) or '')
    if can_release(held, parts) then -- else what is held is summed anew by whoever finds that out
      released[#released + 1] = {call, parts}
    end
  end
end

if create then
  redis.call('SET', KEYS[1], ARGV[1])
end
redis.call('HSET', KEYS[2], ARGV[3], ARGV[6])
for key, set in pairs(entered) do
  redis.call('SADD', set, key)
end
for _, cell in ipairs(cells) do
  for k, key in ipairs(cell.keys) do
    for i, field in ipairs(cell.fields) do
      add(key, field, cell.amounts[i])
    end
    if cell.expires[k] then
      redis.call('EXPIREAT', key, cell.expires[k])
    end
  end
end
for _, each in ipairs(released) do
  if redis.call('HDEL', reserved, each[1]) == 1 then -- a call named twice lets go once
    let_go(held, each[2])
  end
  redis.call('ZREM', since, each[1])
end
return 1
