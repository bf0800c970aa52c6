-- Begins a state of rates anew, on a server that went back to before an asker's last call: everybody tells again what was
-- admitted (rates_restore.lua), and nobody is admitted for a second.
-- KEYS  1 the workspace's state of rates
-- ARGV  1 the state the asker knows, 2 who asks, 3 how often it was admitted in it, 4 an id for a new state
-- Answers the state there is now, "" none. One that is another by now, or knows of all of the asker's calls, stays.
if #KEYS ~= 1 or #ARGV ~= 4 or not natural(ARGV[3]) then
  return refused('a state that is none')
end
if not typed(KEYS[1], 'hash') then
  return ''
end
local state = redis.call('HGET', KEYS[1], 'id')
local times = tonumber(natural(redis.call('HGET', KEYS[1], ARGV[2]) or '0') or '0')
if state ~= ARGV[1] or times >= tonumber(ARGV[3]) then
  return state or ''
end
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'id', ARGV[4], 'opens_ms', string.format('%.0f', now_ms + 1000), 'back', '1')
redis.call('PEXPIRE', KEYS[1], 600000)
return ARGV[4]
