-- Tells a server that has forgotten windows what an asker admitted in them: once for each state. What one that went back
-- still has of a window goes when the first tells it, as long as nobody is admitted.
-- KEYS  1 the workspace's state of rates, then windows
-- ARGV  1 the state, 2 who asks, 3 words separated by spaces: for each window its length (s), number of seconds, and for
--       each of them: second, amount
-- Answers 1; 0 where the state is another one by now.
local words, parts, at = {}, {}, 1
for word in string.gmatch(ARGV[3] or '', '%S+') do
  words[#words + 1] = word
end
for k = 2, #KEYS do
  local count = natural(words[at + 1]) and tonumber(words[at + 1]) or #words
  if not natural(words[at]) or #words[at] > 6 or at + 1 + 2 * count > #words then
    return refused('a list of windows that is cut short')
  end
  for i = at + 2, at + 1 + 2 * count do
    if not natural(words[i]) then
      return refused('an amount that is no number')
    end
  end
  parts[k] = {words[at], at + 2, at + 1 + 2 * count}
  at = at + 2 + 2 * count
end
if at ~= #words + 1 or #KEYS < 1 or not ARGV[3] or ARGV[2] == 'id' or ARGV[2] == 'opens_ms' or ARGV[2] == 'back' then
  return refused('amounts without a window')
end
if not typed(KEYS[1], 'hash') or redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then
  return 0
end
if redis.call('HSETNX', KEYS[1], ARGV[2], '0') == 0 then
  return 1
end
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local opens_ms = tonumber(redis.call('HGET', KEYS[1], 'opens_ms') or '0') or 0
local anew = redis.call('HEXISTS', KEYS[1], 'back') == 1 and opens_ms > now_ms and opens_ms <= now_ms + 1000
for k, part in pairs(parts) do
  if not typed(KEYS[k], 'hash') or (anew and redis.call('HSETNX', KEYS[1], KEYS[k], '0') == 1) then
    redis.call('DEL', KEYS[k])
  end
  for i = part[2], part[3], 2 do
    if not integer(redis.call('HGET', KEYS[k], words[i]) or '0') then
      redis.call('HDEL', KEYS[k], words[i])
    end
    add(KEYS[k], words[i], words[i + 1])
  end
  redis.call('EXPIRE', KEYS[k], 2 * tonumber(part[1]) + 2)
end
return 1
