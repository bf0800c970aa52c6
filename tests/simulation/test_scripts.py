"""The product's scripts do in the simulated Redis what they do in a real Valkey: in simulations, spoilt, in Lua."""

from __future__ import annotations

import importlib
import itertools
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from redis import Redis

import taximeter
from simulation.compared.redis_both import Both, answered, told
from simulation.drawn.scenario import scenario
from simulation.simulation import run
from simulation.virtual import redis_server, world
from simulation.virtual.redis_model import RedisModel
from taximeter.sinks.redis.client import Script

BEGINS_NS = 4_000_000_000 * 10**9
"""2096: what expires at a moment of the simulation does not yet on the server."""
FIRST = (24, 13, 12)
"""Seeds that between them run every script; where they no longer do, others are tried."""
AT_MOST = 30
PRODUCT = Path(taximeter.__file__).parent


def scripts() -> dict[str, Script]:
    """Where it stands -> each script of the product."""
    found: dict[str, Script] = {}
    for path in sorted(PRODUCT.rglob("*.py")):
        if re.search(r"= Script\(", path.read_text()):
            name = ".".join(("taximeter", *path.relative_to(PRODUCT).with_suffix("").parts))
            module = importlib.import_module(name)
            found |= {f"{name}.{what}": each for what, each in vars(module).items() if isinstance(each, Script)}
    return found


@pytest.fixture(scope="module")
def both(valkey_url: str) -> Iterator[Both]:
    """The model and the server at the end of the last simulation, with some of the calls of all of them."""
    client, made = Redis.from_url(valkey_url, protocol=2), list[Both]()

    def model(now_ms: Callable[[], int]) -> Both:
        made.append(Both(now_ms, client))
        return made[-1]

    wanted = {script.sha for script in scripts().values()}
    ran: dict[str, list[tuple[bytes, ...]]] = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(world, "BEGINS_NS", BEGINS_NS)
        patched.setattr(redis_server, "RedisModel", model)
        for number, seed in enumerate(itertools.chain(FIRST, range(AT_MOST))):
            if number >= len(FIRST) and ran.keys() >= wanted:
                break
            run(scenario(seed, calls=40))  # what else it may violate is not looked for here
            assert not made[-1].differs, seed
            made[-1].compare_keys()
            for sha, calls in made[-1].ran.items():
                ran.setdefault(sha, []).extend(calls)
        made[-1].ran.update(ran)
    now_ms = BEGINS_NS // 1_000_000 + 100_000
    made[-1]._now_ms = lambda: now_ms
    yield made[-1]
    client.config_set("maxmemory", 0)
    client.flushall()
    client.close()


def test_every_script_answers_as_in_valkey_in_simulations(both: Both) -> None:
    assert {name for name, script in scripts().items() if script.sha not in both.ran} == set()
    assert both.compared > 100


JUNK = (
    b"",
    b"x",
    b"-1",
    b"-0",
    b"01",
    b"1.5",
    b"1 2 3",
    b"9007199254740993",
    b"9223372036854775807",
    b"9" * 19,
    b"?",
    b"-",
)


def spoil(rng: Random, both: Both, key: bytes) -> None:
    """Have something else be there."""
    both.call("DEL", key)
    rng.choice(
        [
            lambda: both.call("SET", key, rng.choice(JUNK)),
            lambda: both.call("HSET", key, rng.choice((b"used", b":epoch", b"requests", b"id")), rng.choice(JUNK)),
            lambda: both.call("SADD", key, rng.choice(JUNK)),
            lambda: both.call("ZADD", key, 7, rng.choice(JUNK)),
            lambda: None,
        ]
    )()


@pytest.mark.parametrize("name", scripts())
def test_a_script_answers_as_in_valkey_whatever_it_is_given_and_finds(both: Both, name: str) -> None:
    rng, script = Random(name), scripts()[name]
    both.call("EVAL", script.source, 0)
    for _ in range(25):
        count, *words = rng.choice(both.ran[script.sha])
        keys = int(count)
        for _ in range(rng.choice((0, 1, 1, 2)) if words else 0):
            at, what = rng.randrange(len(words)), rng.random()
            if at < keys:
                spoil(rng, both, words[at])
            elif what < 0.2 and len(words) > 1:
                del words[at]
            elif what < 0.4:
                words.insert(at, words[at])
            elif b" " in words[at] and what < 0.8:
                parts = words[at].split()
                parts[rng.randrange(len(parts))] = rng.choice(JUNK)
                words[at] = b" ".join(parts)
            else:
                words[at] = rng.choice(JUNK)
        both.full = rng.random() < 0.2
        both.call("EVALSHA", script.sha, keys, *words)
        both.full = False
    both.compare_keys()


LUA = (
    "return {1, 2.9, -2.9, 0 / 1, true, false, 'x', {2}}",
    "return {1, nil, 3}",
    "return {{}, {a = 1}, {ok = 'fine', 7}}",
    "return 9007199254740993",
    "return 1e300", "return -1e300", "return 0/0", "return {1e18, 9.3e18, -9.3e18, 2^63, -2^63}",
    "return tostring(2^53)", "return tostring(1e15)", "return tostring(123456789012345678)", "return tostring(0.1)",
    "return string.format('%.0f|%.17g|%d|%5s|%q', 2^53, 0.1, 42, 'a', 'q')",
    "return tostring(tonumber('0x10')) .. tostring(tonumber(' 7 ')) .. tostring(tonumber('7x'))",
    "return tostring(tonumber(''))",
    "return {tonumber('9223372036854775807') % 2, 7 % 3, -7 % 3, math.floor(-1.5), math.max(1, 2)}",
    "return redis.call('HSET', 'k', 'f', 2^53)",
    "return redis.call('HSET', 'k', 'f', 0.1) and redis.call('HGET', 'k', 'f')",
    "return redis.call('HSET', 'k', 'f', 1e-7) and redis.call('HGET', 'k', 'f')",
    "return redis.call('HSET', 'k', 'f', 1e20) and redis.call('HGET', 'k', 'f')",
    "return redis.call('HSET', 'k', 1, 123456789012) and redis.call('HGET', 'k', '1')",
    "return {redis.call('GET', 'none'), 1}", "return redis.call('GET', 'none') == false",
    "return type(redis.call('TYPE', 'none')) .. redis.call('TYPE', 'none').ok",
    "return redis.call('SET', 'k', 'v')", "return redis.call('SET', 'k', 'v').ok",
    "return redis.pcall('HGET', 'k', 'f')", "return redis.pcall('HGET', 'k', 'f').err",
    "return redis.call('HGET', 'k', 'f')", "local e = redis.pcall('HGET', 'k', 'f') return type(e)",
    "return redis.pcall('HINCRBY', 'h', 'f', 'x').err", "return redis.pcall('NOTHING').err ~= nil",
    "return redis.error_reply('ERR nothing was changed: so')", "return redis.error_reply('nothing was changed: so')",
    "return redis.status_reply('fine')", "return {err = 'ERR nothing was changed'}", "return {ok = 'fine'}",
    "error('no')", "return nosuch()", "return undefined_global", "x = 1 return 1", "local x = 1 return x",
    "local t = {} return t.a.b", "syntax error here",
    "return #KEYS + #ARGV", "return {KEYS[1], ARGV[1], ARGV[2], ARGV[9]}",
    "return unpack(ARGV)", "return {unpack(ARGV)}",
    "local n = 0 for w in string.gmatch(ARGV[1], '%S+') do n = n + 1 end return n",
    "return string.gsub(ARGV[1], 'a', 'b')",
    "return {string.find(ARGV[1], '%s'), string.match(ARGV[1], '^(%-?)(%d+)$')}",
    "local t = {3, 1, 2} table.sort(t) return table.concat(t, ',')", "return ARGV[1] < ARGV[2]", "return '10' + 5",
    "return redis.call('HSET', 'k2', 'f', '1') + redis.call('EXISTS', 'k2')",
    "return redis.call('TIME')[1] ~= nil", "return select('#', unpack(redis.call('HMGET', 'k2', 'f', 'g')))",
    "return redis.call('ZADD', 'z', '1.5', 'm') and redis.call('ZSCORE', 'z', 'm')",
)  # fmt: skip


def test_lua_in_the_model_is_the_servers(valkey_url: str) -> None:
    client = Redis.from_url(valkey_url, protocol=2)
    client.flushall()
    model = RedisModel(lambda: time.time_ns() // 1_000_000)
    differ = {}
    for source in LUA:
        command = "EVAL", source, 1, "key", "a b  c", "-12"
        ours, theirs = told(command, model.call(*command)), told(command, answered(client, command))
        if ours != theirs:
            differ[source] = ours, theirs
    assert not differ
    client.flushall()
    client.close()


def test_scripts_use_nothing_that_the_model_has_not() -> None:
    """Libraries that a server brings, and this Lua does not."""
    used = set()
    for script in scripts().values():
        used |= set(
            re.findall(rb"\b(cjson|cmsgpack|bit|struct|os|server|redis\.\w+)\b", re.sub(rb"--.*", b"", script.source))
        )
    assert used <= {b"redis.call", b"redis.pcall", b"redis.error_reply", b"redis.status_reply"}
    commands = set()
    for script in scripts().values():
        commands |= set(re.findall(rb"redis\.p?call\('(\w+)'", script.source))
    assert commands <= RedisModel(lambda: 0)._commands.keys()
