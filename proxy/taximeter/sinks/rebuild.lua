-- Writes part of a workspace's counters anew: the keys named are replaced. Only while this rebuild owns the workspace.
-- KEYS  1 gen, then the keys to write
-- ARGV  1 generation expected (rebuild:<id>), 2 generation afterwards (the same, or the new one with the last part),
--       then for each key: the time (s) it expires at or 0, "hash" or "set", number of arguments, arguments
-- A key with no arguments is removed. Answers 1, or 0: somebody else owns it, nothing was changed.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2])  -- first, so that a full Redis refuses before anything is removed
local at = 3
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
