-- Moves the low watermark of some journals, if no rebuild has begun since the generation given.
-- KEYS  1 watermark, 2 moved
-- ARGV  1 generation, 2 "up" or "down", 3 generation afterwards, 4 now (s), then for each journal: journal_id, seq
-- "up" never lowers, "down" never raises; the generation changes only if something was moved down.
-- Answers 1, or 0: the generation is another one, nothing was changed.
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[1] then
  return 0
end
for i = 5, #ARGV, 2 do
  local actual = tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or '0')
  local wanted = tonumber(ARGV[i + 1])
  if ARGV[2] == 'up' and wanted > actual then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[4])
  elseif ARGV[2] == 'down' and wanted < actual then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1], 'generation', ARGV[3])
  end
end
return 1
