-- What every script that writes checks before its first write, so that it is applied whole or not at all: a command
-- that fails in the middle of a script leaves what came before it done. This file goes before each of them.
-- Amounts stay strings from end to end: a Lua number is exact to 2^53 only.

-- The text, if HINCRBY takes it: a signed 64-bit integer as it is usually written (no "-0", "+1", "01"); else nil.
local function integer(text)
  local sign, digits = string.match(text or '', '^(%-?)(%d+)$')
  if not digits or (string.sub(digits, 1, 1) == '0' and text ~= '0') or #digits > 19 then
    return nil
  end
  if #digits == 19 and digits > (sign == '-' and '9223372036854775808' or '9223372036854775807') then
    return nil
  end
  return text
end

-- The text, if it is 0, 1, 2 …; else nil.
local function natural(text)
  return string.sub(text or '', 1, 1) ~= '-' and integer(text) or nil
end

-- Whether the key is of this type, or is not there.
local function typed(key, kind)
  local found = redis.call('TYPE', key).ok
  return found == kind or found == 'none'
end

-- The reply of a script that changes nothing because of something it cannot work with.
local function refused(what)
  return redis.error_reply('ERR nothing was changed: ' .. what)
end

-- Adds to a field that is checked to be an integer or missing. A sum beyond 64 bits stays at their end.
local function add(key, field, amount)
  local reply = redis.pcall('HINCRBY', key, field, amount)
  if type(reply) == 'table' then
    local negative = string.sub(amount, 1, 1) == '-'
    redis.call('HSET', key, field, negative and '-9223372036854775808' or '9223372036854775807')
  end
end

-- The parts of what a call holds, "id amount id amount …", as a list of {id, amount}; what is no such part is left out.
local function parts_of(text)
  local parts = {}
  for budget, amount in string.gmatch(text or '', '(%S+) (%S+)') do
    if natural(amount) and amount ~= '0' then
      parts[#parts + 1] = {budget, amount}
    end
  end
  return parts
end

-- Whether a call's parts can be taken from `held`, which is a hash: each is an integer there.
local function can_release(held, parts)
  for _, part in ipairs(parts) do
    if not integer(redis.call('HGET', held, part[1]) or '0') then
      return false
    end
  end
  return true
end

-- Takes a call's parts from what is held. A field that comes to 0 goes: there is one for each value of a scope.
local function let_go(held, parts)
  for _, part in ipairs(parts) do
    add(held, part[1], '-' .. part[2])
    if redis.call('HGET', held, part[1]) == '0' then
      redis.call('HDEL', held, part[1])
    end
  end
end
