
if not typed(state_key, 'hash') then
  redis.call('DEL', state_key)
end
local state = redis.call('HGET', state_key, 'id')
if not state then
  local forgotten = known_state ~= '-'
  redis.call('HSET', state_key, 'id', new_state, 'opens_ms', string.format('%.0f', now_ms + (forgotten and 1000 or 0)))
  redis.call('PEXPIRE', state_key, 600000)
  if forgotten then
    return {{'lost', new_state}, {}}
  end
  state = new_state
elseif known_state ~= '-' and known_state ~= state then
  return {{'lost', state}, {}}
end
local times = tonumber(natural(redis.call('HGET', state_key, asker) or '0') or '0')
if known_state == state and times < known_times then
  return {{'back'}, {}}
end
local opens_ms = tonumber(redis.call('HGET', state_key, 'opens_ms') or '0') or 0
if opens_ms > now_ms and opens_ms <= now_ms + 1000 then
  return {{'gather'}, {}}
end

local found, refusal = {}, nil
for n = 1, rates do
  local at = 4 * n + 3
  local length, limit, amount = tonumber(words[at + 1]), tonumber(words[at + 2]), tonumber(words[at + 3])
  local each = {calls = words[at] == 'calls', limit = limit, amount = amount, length = length}
  if each.calls then
    each.spoilt = not typed(rate_keys[n], 'zset')
    each.there = not each.spoilt and redis.call('ZSCORE', rate_keys[n], call)
    each.sum = each.spoilt and 0 or redis.call('ZCOUNT', rate_keys[n], now_s - lease, now_s + lease)
    each.amount = each.there and 0 or 1
    if each.sum + each.amount > limit and not each.there then
      refusal = refusal or {'rate', n, limit < 1 and '-1' or '1000'}
    end
  else
    each.window = window_of(rate_keys[n], length)
    each.sum, each.spoilt = each.window.sum, each.window.spoilt
    if amount > limit then
      refusal = refusal or {'rate', n, '-1'}
    elseif amount > limit - each.sum then -- exact: a limit is at most 2^53
      local left, ms = each.sum, 0
      for _, second in ipairs(each.window.seconds) do
        if amount > limit - left then
          left, ms = left - second[2], leaves_ms(second[1], length)
        end
      end
      refusal = refusal or {'rate', n, string.format('%.0f', math.max(1, ms))}
    end
  end
  found[n] = each
end

-- How each rate stands, with the call in it or not.
local function standing(taken)
  local told = {state, tostring(now_s), tostring(times)}
  for _, each in ipairs(found) do
    local sum, reset_ms = each.sum + (taken and each.amount or 0), 0
    if not each.calls then
      local seconds = each.window.seconds
      if taken and each.amount > 0 then
        reset_ms = leaves_ms(now_s, each.length)
      elseif #seconds > 0 then
        reset_ms = leaves_ms(seconds[#seconds][1], each.length)
      end
    end
    told[#told + 1] = string.format('%.0f', math.max(0, each.limit - sum))
    told[#told + 1] = string.format('%.0f', math.max(0, reset_ms))
  end
  return told
end

if refusal then
  return {refusal, standing(false)}
end
local reply = #KEYS == 0 and {'held', '', '0'} or reserve()
if reply.err or reply[1] ~= 'held' then
  return reply.err and reply or {reply, standing(false)}
end
for n, each in ipairs(found) do
  local key = rate_keys[n]
  if each.spoilt then
    redis.call('DEL', key)
  end
  if each.calls then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now_s - lease - 1)
    redis.call('ZADD', key, now_s, call)
    redis.call('EXPIRE', key, 2 * lease)
  else
    for _, field in ipairs(each.window.drop) do
      redis.call('HDEL', key, field)
    end
    local amount = each.window.moved + each.amount
    if amount > 0 then
      add(key, tostring(now_s), string.format('%.0f', amount))
      redis.call('EXPIRE', key, 2 * each.length + 2)
    end
  end
end
times = times + 1
redis.call('HSET', state_key, asker, tostring(times))
redis.call('PEXPIRE', state_key, 600000)
return {reply, standing(true)}
