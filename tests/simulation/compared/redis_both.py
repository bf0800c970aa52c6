"""The model of Redis with a real server beside it: whatever is sent goes to both, and every answer has to be the same.

Of the real one time is not its own: scripts are given the simulation's, and what expires by it is deleted there.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError

from simulation.virtual.redis_model import RedisModel, Reply, Scores, Status
from waits import HANG_S

_TIME = b"redis.call('TIME')"
_TOLD = b"(function() return {redis.call('GET', ':s'), redis.call('GET', ':us')} end)()"
SAMPLES = 60
"""Calls of each script that are remembered."""


class Both(RedisModel):
    """A model; `AssertionError` where the server differs."""

    def __init__(self, now_ms: Callable[[], int], client: Any, *, same_clock: bool = False) -> None:
        """`client`: a redis.Redis. `same_clock`: `now_ms` is the server's own time, by which keys expire there."""
        super().__init__(now_ms)
        self._same_clock = same_clock
        self._client = client
        self._there: dict[str, tuple[str, bool]] = {}
        """Script -> which one the server has for it, and whether that wants to know the time."""
        self._over: list[bytes] = []
        """Keys that the model has just found to have expired."""
        self._full = False
        self.ran: defaultdict[str, list[tuple[bytes, ...]]] = defaultdict(list)
        """Script -> some of the calls of it: number of keys, keys and arguments."""
        self.compared = 0
        self.differs: list[tuple[Any, ...]] = []
        """Commands whose answers did, whoever caught the error."""
        client.flushall()
        client.script_flush()
        client.config_set("maxmemory", 0)

    @property
    def full(self) -> bool:
        return self._full

    @full.setter
    def full(self, full: bool) -> None:
        if full != getattr(self, "_full", False):
            self._client.config_set("maxmemory", int(full))
        self._full = full

    def call(self, *words: Any) -> Reply:
        ours = super().call(*words)
        self._delete_over()
        if self._named(words[0]) not in ("TIME", "FLUSHALL"):
            theirs = self._theirs(words)
            if told(words, ours) != told(words, theirs):
                self.differs.append((words, ours, theirs))
                raise AssertionError(self.differs[0])
            self.compared += 1
        return ours

    def scan(self, start: bytes) -> list[bytes]:
        found = super().scan(start)
        self._delete_over()
        if sorted(found) != sorted(theirs := self._client.keys(start + b"*")):
            self.differs.append(("SCAN", found, theirs))
        return found

    def restore(self, snapshot: Any) -> None:
        super().restore(snapshot)
        self._client.script_flush()
        self._write_anew()

    def restart(self) -> None:
        """With all that it has; scripts are forgotten."""
        self.restore(self.snapshot())

    def restore_only(self, prefix: bytes, snapshot: Any) -> None:
        super().restore_only(prefix, snapshot)
        self._write_anew()

    def _look(self, key: bytes) -> None:
        there = key in self.keys
        super()._look(key)
        if there and key not in self.keys and not self._same_clock:
            self._over.append(key)

    def _delete_over(self) -> None:
        for key in self._over:
            self._client.delete(key)
        self._over.clear()

    @staticmethod
    def _named(word: Any) -> str:
        return (word.decode() if isinstance(word, bytes) else str(word)).upper()

    def _theirs(self, words: Sequence[Any]) -> Any:
        """The server's answer, or its error."""
        name, *rest = words
        if self._named(name) in ("EVAL", "EVALSHA"):
            words = self._script(self._named(name), *rest)
        return answered(self._client, words)

    def _script(self, name: str, script: Any, *rest: Any) -> list[Any]:
        if name == "EVAL":
            source = script if isinstance(script, bytes) else str(script).encode()
            sha = hashlib.sha1(source, usedforsecurity=False).hexdigest()
            script = source.replace(_TIME, _TOLD)
            there = hashlib.sha1(script, usedforsecurity=False).hexdigest()
            self._there[sha] = there, _TIME in source
        else:
            sha = str(script)
            script = self._there.get(sha, (sha, False))[0]
        if len(self.ran[sha]) < SAMPLES:
            self.ran[sha].append(tuple(each if isinstance(each, bytes) else str(each).encode() for each in rest))
        if self._there.get(sha, ("", False))[1]:
            self._tell_time()
        return [name, script, *rest]

    def _tell_time(self) -> None:
        if self._full:
            self._client.config_set("maxmemory", 0)
        s, us = self._time()
        self._client.mset({":s": s, ":us": us})
        if self._full:
            self._client.config_set("maxmemory", 1)

    def _write_anew(self) -> None:
        self._client.config_set("maxmemory", 0)
        pipeline = self._client.pipeline(transaction=False)
        pipeline.flushall()
        for key, value in self.keys.items():
            if isinstance(value, bytes):
                pipeline.set(key, value)
            elif isinstance(value, Scores):
                pipeline.zadd(key, value)
            elif isinstance(value, dict):
                pipeline.hset(key, mapping=value)
            else:
                pipeline.sadd(key, *value)
            if key in self._expires:
                pipeline.pexpireat(key, self._expires[key])
        pipeline.execute()
        self._client.config_set("maxmemory", int(self._full))

    def compare_keys(self) -> None:
        """Every key: its value, and when it expires where that was said as a moment."""
        for key in list(self.keys):
            self._look(key)
        self._delete_over()
        names = sorted(set(self._client.keys()) - {b":s", b":us"})
        assert names == sorted(self.keys)
        for key in names:
            assert self._value(key) == (dict(value) if isinstance(value := self.keys[key], dict) else value), key
            ours, theirs = self._expires.get(key, -1), self._client.pexpiretime(key)
            assert (ours < 0) == (theirs < 0), key
            if theirs > FAR_MS:
                assert ours == theirs, key
            elif self._same_clock:
                assert abs(ours - theirs) < HANG_S * 1_000, key  # it may hang on when it was told

    def _value(self, key: bytes) -> Any:
        kind = self._client.type(key)
        if kind == b"zset":
            return dict(self._client.zrange(key, 0, -1, withscores=True))
        return {b"string": self._client.get, b"hash": self._client.hgetall, b"set": self._client.smembers}[kind](key)


FAR_MS = 3_900_000_000_000
"""Of the year 2093: what is told as a moment by simulations that are let begin in 2096 is later, what is reckoned from
the server's own time is not."""


def answered(client: Redis, command: Sequence[Any]) -> Any:
    """As the server says it: redis-py's own shaping of replies is left out."""
    connection = client.connection_pool.get_connection()
    try:
        connection.send_command(*command)
        try:
            return connection.read_response()
        except ResponseError as error:
            return error
    finally:
        client.connection_pool.release(connection)


def told(command: Sequence[Any], reply: Any) -> Any:
    """A reply without what may differ: the order of a set or a hash, an error's words where nobody reads them."""
    name = command[0].decode() if isinstance(command[0], bytes) else str(command[0])
    found = _shaped(reply)
    if name == "SMEMBERS" and isinstance(found, (list, set)):
        return sorted(found)
    if isinstance(found, dict):
        return sorted(found.items())
    if isinstance(found, list) and (name == "HGETALL" or "HGETALL" in command):
        return sorted(zip(found[::2], found[1::2], strict=True))
    if name.startswith("EVAL") and isinstance(found, list) and len(found) == 3 and isinstance(found[1], list):
        found[1] = sorted(zip(found[1][::2], found[1][1::2], strict=False))  # audit.lua's cursors
    return found


def _shaped(reply: Any) -> Any:
    if isinstance(reply, Status):
        return bytes(reply)
    if isinstance(reply, list):
        return [_shaped(each) for each in reply]
    if not isinstance(reply, ResponseError):
        return reply
    words = str(reply)
    if "nothing was changed" in words:  # our own
        return words
    for kind, is_it in (
        ("no script", isinstance(reply, NoScriptError)), ("full", isinstance(reply, OutOfMemoryError)),
        ("wrong type", "wrong kind" in words),
    ):  # fmt: skip
        if is_it:
            return f"error: {kind}"
    return "error"
