-- Begins or opens an epoch: the time in which everything that calls hold of a workspace's budgets is known to be there.
-- KEYS  1 gen, 2 held, 3 reserved, 4 reserved_at
-- ARGV  1 epoch expected ("" none), 2 epoch afterwards: "-<number>" while holds are gathered, then "<number>".
--       With none only reads.
-- What is held is summed anew from what each call holds; keys of another type are removed.
-- Answers {generation or "", epoch}: as they are afterwards.
local function state()
  local generation = typed(KEYS[1], 'string') and redis.call('GET', KEYS[1]) or ''
  return {generation, typed(KEYS[2], 'hash') and redis.call('HGET', KEYS[2], ':epoch') or ''}
end

local found = state()
if #ARGV == 0 or found[2] ~= ARGV[1] then
  return found
end
for n, kind in ipairs({'hash', 'hash', 'zset'}) do
  if not typed(KEYS[n + 1], kind) then
    redis.call('DEL', KEYS[n + 1])
  end
end
local held = redis.call('HGETALL', KEYS[2])
local calls = redis.call('HGETALL', KEYS[3])
redis.call('DEL', KEYS[2])
if ARGV[1] ~= '' then
  for i = 1, #held, 2 do
    if string.sub(held[i], 1, 1) == ':' and natural(held[i + 1]) then -- how often each asker has reserved
      redis.call('HSET', KEYS[2], held[i], held[i + 1])
    end
  end
end
redis.call('HSET', KEYS[2], ':epoch', ARGV[2])
for i = 2, #calls, 2 do
  for _, part in ipairs(parts_of(calls[i])) do
    add(KEYS[2], part[1], part[2])
  end
end
return state()
