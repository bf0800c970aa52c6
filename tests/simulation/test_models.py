"""The simulated Redis answers as a real Valkey does, on the same sequences of commands and scripts."""

from __future__ import annotations

import hashlib
import time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from simulation.compared.redis_both import Both

KEYS = ("a", "b", "c")
FIELDS = ("f", "g", ":h")
AMOUNTS = ("0", "1", "-7", "05", "9223372036854775807", "-9223372036854775808", "9223372036854775808", "x", "", "1.5")
key, field, amount = st.sampled_from(KEYS), st.sampled_from(FIELDS), st.sampled_from(AMOUNTS)
score = st.sampled_from(("0", "1", "2.5", "17", "-3"))
bound = st.sampled_from(("-inf", "+inf", "0", "(1", "2.5", "(2.5", "17"))
far_s = st.sampled_from((4_000_000_000, 4_000_000_060))
"""Moments in a hundred years: what expires is seen, and nothing does."""

CALL = "return redis.call(unpack(ARGV))"
PCALL = "return redis.pcall('HINCRBY', ARGV[1], ARGV[2], ARGV[3])"
SHA = hashlib.sha1(CALL.encode(), usedforsecurity=False).hexdigest()
ADD = "redis.call('DEL', 'c') return {redis.pcall('HINCRBY', ARGV[1], ARGV[2], ARGV[3]), redis.call('SADD', 'c', 'm')}"
"""The first of its writes needs no memory: then the others have it, however full the server is."""
SHAPES = "return {tonumber(ARGV[1]), redis.call('TYPE', ARGV[2]).ok, false, {1}}"


def just(*words: Any) -> Any:
    """A command of words, and of strategies for words."""
    return st.tuples(*(word if isinstance(word, st.SearchStrategy) else st.just(word) for word in words))


COMMANDS = st.one_of(
    just("SET", key, amount),
    just("SET", key, amount, "NX"),
    just("SET", key, amount, "NX", "PX", 100_000_000),
    just(st.sampled_from(("GET", "TYPE", "HGETALL", "SMEMBERS", "SCARD", "HLEN", "ZCARD", "EXISTS")), key),
    just("DEL", key, key),
    just("HSET", key, field, amount, field, amount),
    just("HSETNX", key, field, amount),
    just(st.sampled_from(("HGET", "HEXISTS", "ZSCORE", "SISMEMBER")), key, field),
    just(st.sampled_from(("HMGET", "HDEL", "SADD", "SREM", "ZREM")), key, field, field),
    just("HINCRBY", key, field, amount),
    just("ZADD", key, score, field),
    just(st.sampled_from(("ZCOUNT", "ZRANGEBYSCORE", "ZREMRANGEBYSCORE")), key, bound, bound),
    just("ZRANGEBYSCORE", key, "-inf", bound, "LIMIT", st.sampled_from((0, 1)), 1),
    just("EXPIREAT", key, far_s),
    just("EXPIREAT", key, 1),
    just("EXPIRE", key, st.sampled_from((1_000_000, 0, -1, "x"))),
    just("PEXPIRE", key, st.sampled_from((1_000_000_000, -1))),
    just("SET", key, amount, st.sampled_from(("EX", "PX")), 100_000_000),
    just(st.sampled_from(("HGET", "SISMEMBER", "NOTHING")), key),
    just("EVALSHA", st.sampled_from((SHA, "0" * 40)), 0, "HSET", key, field, amount),
    just("EVAL", ADD, 0, key, field, amount),
    just("EVAL", ADD, 0, key, field, amount),
    just(st.sampled_from(("full", "room", "restart"))),
    just("EVAL", CALL, 0, "HINCRBY", key, field, amount),
    just("EVAL", CALL, 0, "HGETALL", key),
    just("EVAL", PCALL, 0, key, field, amount),
    just("EVAL", SHAPES, 0, amount, key),
)


def test_the_simulated_redis_answers_as_valkey(valkey_url):
    client = Redis.from_url(valkey_url, protocol=2)

    @settings(max_examples=60)
    @given(st.lists(COMMANDS, min_size=10, max_size=40))
    def same(commands: list[tuple[Any, ...]]) -> None:
        both = Both(lambda: time.time_ns() // 1_000_000, client, same_clock=True)
        for command in commands:
            match command:
                case ("full" | "room",):
                    both.full = command == ("full",)
                case ("restart",):
                    both.restart()
                case _:
                    both.call(*command)
        both.full = False
        both.compare_keys()

    try:
        same()
    finally:
        client.config_set("maxmemory", 0)
        client.close()
