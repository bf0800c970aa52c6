-- Writes part of a workspace's counters anew: the keys named are replaced. Only while this rebuild owns the workspace.
-- KEYS  1 gen, then the keys to write
-- ARGV  1 generation expected (rebuild:<id>), 2 generation afterwards (the same, or the new one with the last part),
--       then for each key: the time (s) it expires at or 0, "hash" or "set", number of arguments, arguments
-- A key with no arguments is removed. Answers 1; 0 where somebody else owns it; or an error: nothing was changed.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
local at = 3
for k = 2, #KEYS do
  local count = natural(ARGV[at + 2]) and tonumber(ARGV[at + 2]) or #ARGV
  local hash = ARGV[at + 1] == 'hash'
  if at + 2 + count > #ARGV or not (hash or ARGV[at + 1] == 'set') or (hash and count % 2 == 1) then
    return refused('a list of keys that is cut short')
  end
  if not natural(ARGV[at]) or #ARGV[at] > 12 then
    return refused('an expiry that is no time')
  end
  for i = at + 4, hash and at + 2 + count or 0, 2 do
    if not integer(ARGV[i]) then
      return refused('a sum that is no integer')
    end
  end
  at = at + 3 + count
end
if at ~= #ARGV + 1 then
  return refused('arguments without a key')
end
redis.call('SET', KEYS[1], ARGV[2])  -- first, so that a full Redis refuses before anything is removed
at = 3
for k = 2, #KEYS do
  redis.call('DEL', KEYS[k])
  local expires, kind, count = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local first, last = at + 3, at + 2 + count
  if kind == 'hash' then
    for i = first, last, 2 do
      redis.call('HSET', KEYS[k], ARGV[i], ARGV[i + 1])
    end
  else
    for i = first, last do
      redis.call('SADD', KEYS[k], ARGV[i])
    end
  end
  if expires ~= '0' then
    redis.call('EXPIREAT', KEYS[k], expires)
  end
  at = last + 1
end
return 1
