-- Reads one workspace at one moment.
-- KEYS  1 gen, 2 cursor, 3 total      ARGV  the total's fields
-- Answers {generation or "", cursors as a flat list, amounts (nil where there is none)}
return {redis.call('GET', KEYS[1]) or '', redis.call('HGETALL', KEYS[2]), redis.call('HMGET', KEYS[3], unpack(ARGV))}
