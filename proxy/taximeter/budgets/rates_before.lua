-- Admits a call by its rates and holds its part of budgets, all of it or nothing. This stands before reserve.lua, which
-- is a function here; rates_after.lua stands behind it.
-- KEYS  those of reserve.lua (none: no budget is about the call); then, where rates are about it, the workspace's state
--       of rates and each rate's window (a hash: second -> how much began in it) or calls (a zset: call -> when it was
--       renewed last, s)
-- ARGV  those of reserve.lua; then words separated by spaces: the call; the state the asker knows ("-" none), an id for
--       a new one; for how long a call counts that nobody renews (s); who asks (a field of the state: how often it has been
--       admitted in it), and how often it knows it has; for each rate "window" or "calls", its length (s), limit, amount
-- Time is this server's own. A second counts until it is over for a whole window, so that no window of that length, however
-- it lies, has more than the limit; what a clock that went back calls the future counts as of now.
-- Answers {reply, {state, now (s), how often the asker was admitted, what is left of the first rate, in how many ms all of
-- it is there again, …}}; reply is
-- reserve.lua's, or {"rate", n, in how many ms the n-th rate (1…) has room for it, "-1" never}; {"lost", state} where this
-- server has forgotten windows the asker knows of: it tells them again (rates_restore.lua); {"back"} where this server went
-- back to before the asker's last call, a stale replica or an old file (rates_back.lua); {"gather"} while others tell.

local words = {}
for word in string.gmatch(ARGV[#ARGV] or '', '%S+') do
  words[#words + 1] = word
end
local rates, rate_keys, state_key, budgets = (#words - 6) / 4, {}, nil, {}
local call, known_state, new_state, lease = words[1], words[2], words[3], tonumber(words[4] or '')
local asker, known_times = words[5], tonumber(words[6] or '')
if rates < 1 or rates % 1 ~= 0 or #KEYS < rates + 1 or not (natural(words[4]) and natural(words[6])) then
  return refused('a list of rates that is cut short')
end
if asker == 'id' or asker == 'opens_ms' or asker == 'back' then
  return refused('an asker that cannot be named')
end
for n = 1, rates do
  local at = 4 * n + 3
  if (words[at] ~= 'window' and words[at] ~= 'calls') or not (natural(words[at + 1]) and natural(words[at + 2])
      and natural(words[at + 3])) or #words[at + 1] > 6 then
    return refused('a rate that is none')
  end
  rate_keys[n] = KEYS[#KEYS - rates + n]
end
state_key = KEYS[#KEYS - rates]

-- What reserve.lua gets to see.
do
  local keys, args = {}, {}
  for n = 1, #KEYS - rates - 1 do
    keys[n] = KEYS[n]
  end
  for n = 1, #ARGV - 1 do
    args[n] = ARGV[n]
  end
  budgets = {keys, args}
end

local time = redis.call('TIME')
local now_s = tonumber(time[1])
local now_ms = now_s * 1000 + math.floor(tonumber(time[2]) / 1000)

-- What a window holds: {sum, {second, amount} … from the oldest, fields to be dropped, amount to be counted as of now}.
local function window_of(key, length)
  local found = {sum = 0, seconds = {}, drop = {}, moved = 0}
  if not typed(key, 'hash') then
    found.spoilt = true
    return found
  end
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local second, amount = natural(fields[i]) and tonumber(fields[i]), natural(fields[i + 1]) and tonumber(fields[i + 1])
    if not second or not amount or second < now_s - length then
      found.drop[#found.drop + 1] = fields[i]
    else
      found.sum = found.sum + amount
      if second > now_s then
        found.drop[#found.drop + 1] = fields[i]
        found.moved = found.moved + amount
        second = now_s
      end
      found.seconds[#found.seconds + 1] = {second, amount}
    end
  end
  table.sort(found.seconds, function(a, b) return a[1] < b[1] end)
  return found
end

-- In how many ms a second has left a window.
local function leaves_ms(second, length)
  return (second + length + 1) * 1000 - now_ms
end

local KEYS, ARGV = budgets[1], budgets[2]
