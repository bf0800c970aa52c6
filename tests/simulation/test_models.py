"""The simulated Redis answers as a real Valkey does, on the same sequences of commands and scripts."""

from __future__ import annotations

import time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis
from redis.exceptions import ResponseError

from simulation.redis_model import RedisModel, Status
from waits import HANG_S

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
    just("EXPIRETIME", key),
    just("EVAL", CALL, 0, "HINCRBY", key, field, amount),
    just("EVAL", CALL, 0, "HGETALL", key),
    just("EVAL", PCALL, 0, key, field, amount),
    just("EVAL", SHAPES, 0, amount, key),
)


def shaped(reply: Any) -> Any:
    """A reply without what differs between a client and the model: names of errors, the order of a hash."""
    if isinstance(reply, ResponseError):
        text = str(reply)
        return "error: wrong type" if "wrong kind" in text else "error"
    if isinstance(reply, Status):
        return bytes(reply)
    return [shaped(each) for each in reply] if isinstance(reply, list) else reply


def answered(client: Redis, command: tuple[Any, ...]) -> Any:
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


def unordered(command: tuple[Any, ...], reply: Any) -> Any:
    """Sets and hashes come in no order."""
    if command[0] == "SMEMBERS" and isinstance(reply, (list, set)):
        return sorted(reply)
    if "HGETALL" in command and isinstance(reply, dict):
        return sorted(reply.items())
    if "HGETALL" in command and isinstance(reply, list):
        return sorted(zip(reply[::2], reply[1::2], strict=True))
    return reply


def test_the_simulated_redis_answers_as_valkey(valkey_url):
    client = Redis.from_url(valkey_url, protocol=2)

    @settings(max_examples=40)
    @given(st.lists(COMMANDS, min_size=10, max_size=40))
    def same(commands: list[tuple[Any, ...]]) -> None:
        model = RedisModel(lambda: time.time_ns() // 1_000_000)
        client.flushall()
        for command in commands:
            theirs = unordered(command, shaped(answered(client, command)))
            ours = unordered(command, shaped(model.call(*command)))
            if command[0] == "EXPIRETIME" and ours > 0:
                assert abs(ours - theirs) < HANG_S, command  # it may hang on when it was asked
            else:
                assert ours == theirs, command

    same()
    client.close()
