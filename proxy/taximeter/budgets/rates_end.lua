-- Ends calls, or renews those that go on, in what rates count of them.
-- KEYS  windows and calls of rates
-- ARGV  for each key: "end" and a call that no longer counts; "renew" and calls that go on, separated by spaces; "add"
--       and how much began while this server could not be asked; or "correct" and a second, what a call counted in it,
--       and what it used, separated by spaces
-- What is not there is left alone: the window is over. Answers 1; or an error: nothing was changed.
if #ARGV ~= 2 * #KEYS then
  return refused('a key without what is to be done')
end
local done = {}
for n, key in ipairs(KEYS) do
  local what, with = ARGV[2 * n - 1], ARGV[2 * n]
  if what == 'correct' then
    local second, counted, used = string.match(with, '^(%S+) (%S+) (%S+)$')
    if not (natural(second) and natural(counted) and natural(used)) then
      return refused('a correction that is none')
    end
    done[n] = {second, counted, used}
  elseif what == 'add' then
    if not natural(with) then
      return refused('an amount that is no number')
    end
  elseif what ~= 'end' and what ~= 'renew' then
    return refused('nothing that is to be done')
  end
end
local now_s = redis.call('TIME')[1]
for n, key in ipairs(KEYS) do
  local what, with = ARGV[2 * n - 1], ARGV[2 * n]
  if what == 'correct' and typed(key, 'hash') then
    local was = redis.call('HGET', key, done[n][1])
    if was and natural(was) then
      local now = math.max(0, tonumber(was) - tonumber(done[n][2])) + tonumber(done[n][3])
      redis.call('HSET', key, done[n][1], string.format('%.0f', math.min(now, 9007199254740992)))
    end
  elseif what == 'add' and typed(key, 'hash') then
    if not integer(redis.call('HGET', key, now_s) or '0') then
      redis.call('HDEL', key, now_s)
    end
    add(key, now_s, with)
    redis.call('EXPIRE', key, 122)
  elseif what == 'end' and typed(key, 'zset') then
    redis.call('ZREM', key, with)
  elseif what == 'renew' and typed(key, 'zset') then
    for call in string.gmatch(with, '%S+') do
      redis.call('ZADD', key, now_s, call)
    end
    redis.call('EXPIRE', key, 120)
  end
end
return 1
