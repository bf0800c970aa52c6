-- Moves the low watermark of some journals, if no rebuild has begun since the generation given.
-- KEYS  1 watermark, 2 moved
-- ARGV  1 generation, 2 "up" or "down", 3 generation afterwards, 4 now (s), then for each journal: journal_id, seq
-- "up" never lowers, "down" never raises; the generation changes only if something was moved down.
-- Answers 1; 0 where the generation is another one; or an error: nothing was changed.
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[1] then
  return 0
end
if not typed(KEYS[2], 'hash') or not natural(ARGV[4]) or #ARGV % 2 == 1 or (ARGV[2] ~= 'up' and ARGV[2] ~= 'down') then
  return refused('the watermark is not as it was kept, or what is asked is not')
end
local moves = {}
for i = 5, #ARGV, 2 do
  local actual = redis.call('HGET', KEYS[1], ARGV[i]) or '0'
  if not (natural(actual) and natural(ARGV[i + 1])) or ARGV[i] == 'generation' then
    return refused('a watermark that is no number')
  end
  actual = tonumber(moves[ARGV[i]] or actual)
  local wanted = tonumber(ARGV[i + 1])
  if (ARGV[2] == 'up' and wanted > actual) or (ARGV[2] == 'down' and wanted < actual) then
    moves[ARGV[i]] = ARGV[i + 1]
  end
end
for journal_id, seq in pairs(moves) do
  redis.call('HSET', KEYS[1], journal_id, seq)
  if ARGV[2] == 'up' then
    redis.call('HSET', KEYS[2], journal_id, ARGV[4])
  else
    redis.call('HSET', KEYS[1], 'generation', ARGV[3])
  end
end
return 1
