"""A Redis in memory: the commands and the Lua of the product's scripts, with their types, replies and errors.

A command is atomic, so is a script. That it answers as a real server does, on the same sequences, is shown by
`test_models.py`.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from typing import Any

from lupa.lua51 import LuaError, LuaRuntime, lua_type
from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError

Reply = Any
"""None, bytes, int, `Status`, a list of them; a ResponseError where a command fails."""

_WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
_OOM = "command not allowed when used memory > 'maxmemory'."
_NO_INTEGER = "hash value is not an integer"
_LOW, _HIGH = -(2**63), 2**63 - 1


class Status(bytes):
    """A simple string, such as OK."""


OK = Status(b"OK")
Value = Any
"""bytes, or a dict (hash), set, or dict of scores wrapped as `Scores`."""


class Scores(dict[bytes, float]):
    """A sorted set."""


class RedisModel:
    """One server's keys. `now_ms` is its own clock (ms since epoch)."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self.keys: dict[bytes, Value] = {}
        self._expires: dict[bytes, int] = {}
        """ms since epoch."""
        self.full = False
        """maxmemory is reached: what needs memory is refused, but to a script that has written something already."""
        self._in_script = self._wrote = False
        self._scripts: dict[str, Any] = {}
        self._lua = LuaRuntime(encoding=None, unpack_returned_tuples=False, register_eval=False)
        self._prepare = self._lua.execute(_PRELUDE)(self._called)
        self._commands: dict[bytes, Callable[..., Reply]] = {
            name.encode(): getattr(self, f"_{name.lower()}") for name in _COMMANDS
        }

    def expires_s(self, key: bytes) -> int | None:
        """When a key goes (s since epoch); None: never."""
        at_ms = self._expires.get(key)
        return None if at_ms is None else at_ms // 1_000

    def snapshot(self) -> Any:
        """What a replica, or a file, has of it now."""
        return copy.deepcopy((self.keys, self._expires))

    def restore(self, snapshot: Any) -> None:
        """Go back to it; scripts are forgotten, as by a restart."""
        self.keys, self._expires = copy.deepcopy(snapshot)
        self._scripts.clear()

    def restore_only(self, prefix: bytes, snapshot: Any) -> None:
        """Of the keys that begin so: the shard of a Cluster that they are on fails over to a replica."""
        keys, expires = copy.deepcopy(snapshot)
        for ours, theirs in ((self.keys, keys), (self._expires, expires)):
            for key in [key for key in ours if key.startswith(prefix)]:
                del ours[key]
            ours.update((key, value) for key, value in theirs.items() if key.startswith(prefix))

    def call(self, *words: str | int | float | bytes) -> Reply:
        """One command's reply; an error is returned, not raised."""
        name, *args = [word if type(word) is bytes else _bytes(word) for word in words]
        return self._do(name, args)

    def _do(self, name: bytes, args: list[bytes]) -> Reply:
        command = self._commands.get(name) or self._commands.get(name := name.upper())
        if command is None:
            return ResponseError(f"unknown command '{name.decode()}'")
        if self.full and name in _NEEDS_MEMORY and not self._wrote:
            return OutOfMemoryError(_OOM)
        if self._in_script and name in _WRITES:
            self._wrote = True
        try:
            return command(*args)
        except ResponseError as error:
            return error
        except (TypeError, ValueError, IndexError):
            return ResponseError("ERR value is not an integer or out of range")

    # ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _get_value(self, key: bytes, kind: type) -> Value:
        """The key's value, None where there is none. Raises ResponseError where it is of another type."""
        if key in self._expires:
            self._look(key)
        value = self.keys.get(key)
        if value is not None and type(value) is not kind:
            raise ResponseError(_WRONG_TYPE)
        return value

    def _made(self, key: bytes, kind: type) -> Value:
        value = self._get_value(key, kind)
        if value is None:
            value = self.keys[key] = kind()
        return value

    def _look(self, key: bytes) -> None:
        at = self._expires.get(key)
        if at is not None and at <= self._now_ms():
            self._forget(key)

    def _forget(self, key: bytes) -> bool:
        self._expires.pop(key, None)
        return self.keys.pop(key, None) is not None

    def _tidy(self, key: bytes) -> None:
        if not self.keys.get(key, True):
            self._forget(key)

    def _del(self, *keys: bytes) -> int:
        for key in keys:
            self._look(key)
        return sum(self._forget(key) for key in keys)

    def _exists(self, *keys: bytes) -> int:
        for key in keys:
            self._look(key)
        return sum(key in self.keys for key in keys)

    def _type(self, key: bytes) -> Status:
        self._look(key)
        value = self.keys.get(key)
        kinds: dict[Any, bytes] = {bytes: b"string", dict: b"hash", set: b"set", Scores: b"zset"}
        return Status(b"none" if value is None else kinds[type(value)])

    def _expireat(self, key: bytes, at_s: bytes) -> int:
        return self._pexpireat(key, int(at_s) * 1000)

    def _pexpireat(self, key: bytes, at_ms: int) -> int:
        self._look(key)
        if key not in self.keys:
            return 0
        self._expires[key] = at_ms
        self._look(key)
        return 1

    def _expire(self, key: bytes, s: bytes) -> int:
        return self._pexpireat(key, self._now_ms() + int(s) * 1000)

    def _pexpire(self, key: bytes, ms: bytes) -> int:
        return self._pexpireat(key, self._now_ms() + int(ms))

    def _expiretime(self, key: bytes) -> int:
        self._look(key)
        return -2 if key not in self.keys else self._expires[key] // 1000 if key in self._expires else -1

    def _flushall(self) -> Status:
        self.keys.clear()
        self._expires.clear()
        return OK

    def scan(self, start: bytes) -> list[bytes]:
        """Every key that starts like this."""
        for key in list(self._expires):
            self._look(key)
        return [key for key in self.keys if key.startswith(start)]

    # ── strings ──────────────────────────────────────────────────────────────────────────────────────────────

    def _get(self, key: bytes) -> bytes | None:
        return self._get_value(key, bytes)

    def _set(self, key: bytes, value: bytes, *options: bytes) -> Status | None:
        said = [option.upper() for option in options]
        self._look(key)
        if b"NX" in said and key in self.keys:
            return None
        self.keys[key] = value
        self._expires.pop(key, None)
        for name, unit_ms in ((b"PX", 1), (b"EX", 1000)):
            if name in said:
                self._expires[key] = self._now_ms() + int(said[said.index(name) + 1]) * unit_ms
        return OK

    # ── hashes ───────────────────────────────────────────────────────────────────────────────────────────────

    def _hget(self, key: bytes, field: bytes) -> bytes | None:
        return (self._get_value(key, dict) or {}).get(field)

    def _hmget(self, key: bytes, *fields: bytes) -> list[bytes | None]:
        value = self._get_value(key, dict) or {}
        return [value.get(field) for field in fields]

    def _hgetall(self, key: bytes) -> list[bytes]:
        return [part for item in (self._get_value(key, dict) or {}).items() for part in item]

    def _hset(self, key: bytes, *pairs: bytes) -> int:
        if not pairs or len(pairs) % 2:
            raise ResponseError("wrong number of arguments for 'hset' command")
        value = self._made(key, dict)
        before = len(value)
        value.update(zip(pairs[::2], pairs[1::2], strict=True))
        return len(value) - before

    def _hsetnx(self, key: bytes, field: bytes, value: bytes) -> int:
        there = self._made(key, dict)
        if field in there:
            return 0
        there[field] = value
        return 1

    def _hdel(self, key: bytes, *fields: bytes) -> int:
        value = self._get_value(key, dict) or {}
        gone = sum(value.pop(field, None) is not None for field in fields)
        self._tidy(key)
        return gone

    def _hexists(self, key: bytes, field: bytes) -> int:
        return int(field in (self._get_value(key, dict) or {}))

    def _hlen(self, key: bytes) -> int:
        return len(self._get_value(key, dict) or {})

    def _hincrby(self, key: bytes, field: bytes, amount: bytes) -> int:
        by = _integer(amount, "value is not an integer or out of range")
        value = self._get_value(key, dict)
        there = None if value is None else value.get(field)
        found = by if there is None else by + _integer(there, _NO_INTEGER)
        if not _LOW <= found <= _HIGH:
            raise ResponseError("increment or decrement would overflow")
        if value is None:
            value = self.keys[key] = {}
        value[field] = b"%d" % found
        return found

    # ── sets ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _sadd(self, key: bytes, *members: bytes) -> int:
        value = self._made(key, set)
        before = len(value)
        value.update(members)
        return len(value) - before

    def _srem(self, key: bytes, *members: bytes) -> int:
        value = self._get_value(key, set) or set()
        gone = len(value & set(members))
        value -= set(members)
        self._tidy(key)
        return gone

    def _smembers(self, key: bytes) -> list[bytes]:
        return sorted(self._get_value(key, set) or ())

    def _scard(self, key: bytes) -> int:
        return len(self._get_value(key, set) or ())

    def _sismember(self, key: bytes, member: bytes) -> int:
        return int(member in (self._get_value(key, set) or ()))

    # ── sorted sets ──────────────────────────────────────────────────────────────────────────────────────────

    def _zadd(self, key: bytes, *pairs: bytes) -> int:
        value = self._made(key, Scores)
        before = len(value)
        value.update({member: float(score) for score, member in zip(pairs[::2], pairs[1::2], strict=True)})
        return len(value) - before

    def _zrem(self, key: bytes, *members: bytes) -> int:
        value = self._get_value(key, Scores) or Scores()
        gone = sum(value.pop(member, None) is not None for member in members)
        self._tidy(key)
        return gone

    def _zscore(self, key: bytes, member: bytes) -> bytes | None:
        score = (self._get_value(key, Scores) or {}).get(member)
        return None if score is None else b"%d" % score if score == int(score) else repr(score).encode()

    def _zcard(self, key: bytes) -> int:
        return len(self._get_value(key, Scores) or ())

    def _between(self, key: bytes, least: bytes, most: bytes) -> list[bytes]:
        low, above = _bound(least)
        high, below = _bound(most)
        value = self._get_value(key, Scores) or {}
        return [
            member
            for member, score in sorted(value.items(), key=lambda item: (item[1], item[0]))
            if (score > low or (score == low and not above)) and (score < high or (score == high and not below))
        ]

    def _zcount(self, key: bytes, least: bytes, most: bytes) -> int:
        return len(self._between(key, least, most))

    def _zrangebyscore(self, key: bytes, least: bytes, most: bytes, *limit: bytes) -> list[bytes]:
        found = self._between(key, least, most)
        if limit:
            start, count = int(limit[1]), int(limit[2])
            found = found[start:] if count < 0 else found[start : start + count]
        return found

    def _zremrangebyscore(self, key: bytes, least: bytes, most: bytes) -> int:
        found = self._between(key, least, most)
        return self._zrem(key, *found) if found else 0

    # ── the server, scripts ──────────────────────────────────────────────────────────────────────────────────

    def _time(self) -> list[bytes]:
        now_ms = self._now_ms()
        return [b"%d" % (now_ms // 1000), b"%d" % (now_ms % 1000 * 1000)]

    def _ping(self) -> Status:
        return Status(b"PONG")

    def _evalsha(self, sha: bytes, count: bytes, *rest: bytes) -> Reply:
        script = self._scripts.get(sha.decode())
        if script is None:
            return NoScriptError("No matching script. Please use EVAL.")
        return self._run(script, int(count), rest)

    def _eval(self, source: bytes, count: bytes, *rest: bytes) -> Reply:
        sha = hashlib.sha1(source, usedforsecurity=False).hexdigest()
        script = self._scripts.get(sha)
        if script is None:
            try:
                script = self._scripts[sha] = self._prepare(source)
            except LuaError as error:
                return ResponseError(f"Error compiling script: {error}")
        return self._run(script, int(count), rest)

    def _run(self, script: Any, count: int, rest: tuple[bytes, ...]) -> Reply:
        table = self._lua.table_from
        self._in_script, self._wrote = True, False
        try:
            found = script(table(rest[:count]), table(rest[count:]))
        except ResponseError as error:
            return error
        except Exception as error:
            return ResponseError(f"Error running script: {error}")
        finally:
            self._in_script = self._wrote = False
        return self._from_lua(found)

    def _called(self, protected: bool, name: bytes, *words: Any) -> Any:
        """redis.call and redis.pcall: the reply as Lua has it, and false where it is an error."""
        reply = self._do(name, [word if type(word) is bytes else _text(word) for word in words])
        if type(reply) is bytes or type(reply) is int:
            return reply
        if isinstance(reply, ResponseError):
            if not protected:
                raise reply
            text = str(reply)
            code = "OOM " if isinstance(reply, OutOfMemoryError) else "" if text.startswith("WRONGTYPE") else "ERR "
            return self._lua.table_from({b"err": f"{code}{text}".encode()})
        return self._to_lua(reply)

    def _to_lua(self, reply: Reply) -> Any:
        if type(reply) is bytes:
            return reply
        if reply is None:
            return False
        if isinstance(reply, list):
            return self._lua.table_from([each if type(each) is bytes else self._to_lua(each) for each in reply])
        if isinstance(reply, Status):
            return self._lua.table_from({b"ok": bytes(reply)})
        return reply

    def _from_lua(self, value: Any) -> Reply:
        if value is None or value is False:
            return None
        if value is True:
            return 1
        if isinstance(value, int | float):
            return int(value) if _LOW <= value <= _HIGH else _LOW  # what the server's cast from a double makes of it
        if lua_type(value) == "table":
            if value[b"err"] is not None:
                text = value[b"err"].decode()
                kind = OutOfMemoryError if text.startswith("OOM ") else ResponseError
                return kind(text.removeprefix("ERR ").removeprefix("OOM "))
            if value[b"ok"] is not None:
                return Status(value[b"ok"])
            found, at = [], 1
            while (each := value[at]) is not None:
                found.append(self._from_lua(each))
                at += 1
            return found
        return value


_PRELUDE = b"""
return function(called)
  local function strange(_, name)
    error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
  end
  return function(source)
    local compiled, why = loadstring(source)
    if not compiled then error(why, 0) end
    local world = {KEYS = {}, ARGV = {}}
    for name, value in pairs(_G) do world[name] = value end
    world.redis = {
      call = function(...) return called(false, ...) end,
      pcall = function(...) return called(true, ...) end,
      error_reply = function(text) return {err = text} end,
      status_reply = function(text) return {ok = text} end,
    }
    setfenv(compiled, setmetatable(world, {__index = strange, __newindex = strange}))
    return function(keys, args)
      world.KEYS, world.ARGV = keys, args
      return (compiled())
    end
  end
end
"""

_COMMANDS = (
    "DEL", "EXISTS", "TYPE", "EXPIREAT", "PEXPIRE", "EXPIRETIME", "FLUSHALL", "GET", "SET",
    "HGET", "HMGET", "HGETALL", "HSET", "HSETNX", "HDEL", "HEXISTS", "HLEN", "HINCRBY",
    "SADD", "SREM", "SMEMBERS", "SCARD", "SISMEMBER",
    "ZADD", "ZREM", "ZSCORE", "ZCARD", "ZCOUNT", "ZRANGEBYSCORE", "ZREMRANGEBYSCORE",
    "TIME", "PING", "EVAL", "EVALSHA", "EXPIRE",
)  # fmt: skip
_NEEDS_MEMORY = frozenset((b"SET", b"HSET", b"HSETNX", b"HINCRBY", b"SADD", b"ZADD"))
_WRITES = _NEEDS_MEMORY | {
    b"DEL", b"EXPIRE", b"PEXPIRE", b"EXPIREAT", b"HDEL", b"SREM", b"ZREM", b"ZREMRANGEBYSCORE", b"FLUSHALL",
}  # fmt: skip


def _bytes(word: str | int | float | bytes) -> bytes:
    return word.encode() if type(word) is str else word if isinstance(word, bytes) else str(word).encode()


def _text(word: Any) -> bytes:
    """A Lua number as Valkey reads it: the shortest text that means it (Redis before 7.2: %.17g)."""
    return b"%d" % word if word == int(word) and abs(word) < 2**63 else repr(word).replace("e-0", "e-").encode()


def _integer(text: bytes, otherwise: str) -> int:
    """Exactly as it is usually written. Raises ResponseError."""
    try:
        found = int(text)
    except ValueError:
        found = None
    if found is None or b"%d" % found != text or not _LOW <= found <= _HIGH:
        raise ResponseError(otherwise)
    return found


def _bound(text: bytes) -> tuple[float, bool]:
    """A score, and whether it is left out itself."""
    return (float(text[1:]), True) if text.startswith(b"(") else (float(text), False)
