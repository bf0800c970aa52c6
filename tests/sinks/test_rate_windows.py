"""Windows of rates on a real Valkey: the promise, odd amounts, clocks that are set, keys that are lost or spoilt."""

from __future__ import annotations

import asyncio
import secrets
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from redis import ResponseError
from redis.asyncio import Redis

from present import present
from taximeter.budgets.rate_windows import LEASE_S, Admitted, RateRefusal, RateWindows
from taximeter.budgets.rates import WINDOW_S, Limit
from taximeter.budgets.reservations import Lost, Refusal, Reservations, Reserved
from taximeter.budgets.rule import Allowance, Budget
from taximeter.sinks.redis.client import ERRORS, RedisServer
from valkeys import Server, answers, counted, free_ports, known, running
from waits import happens


def requests(limit, place="r"):
    return Limit("r", "requests", limit, place)


def tokens(limit, place="r"):
    return Limit("r", "tokens", limit, place)


def calls(limit, place="r"):
    return Limit("r", "calls", limit, place)


@pytest.fixture
async def workers(valkey_url):
    """`workers()`: the windows of one more worker, on a Redis that is empty at first."""
    async with Redis.from_url(valkey_url) as client:
        await client.flushall()
    servers = []

    def one(**more):
        servers.append(RedisServer(valkey_url))
        return RateWindows(servers[-1], timeout_s=5, **more)

    yield one
    for server in servers:
        await server.close()


@pytest.fixture
async def client(valkey_url):
    async with Redis.from_url(valkey_url, decode_responses=True) as client:
        yield client


async def admit(windows, *wanted, call=None):
    found, _ = await windows.admit(call or secrets.token_hex(4), "acme", wanted)
    return found


async def shift(client, seconds):
    """As if Redis's clock had been set by so much: everything in it is so much older."""
    for key in await client.keys("tm:{acme}:rate:*"):
        if await client.type(key) == "hash":
            fields = await client.hgetall(key)
            await client.delete(key)
            await client.hset(key, mapping={str(int(second) - seconds): n for second, n in fields.items()})
        else:
            for call, score in await client.zrange(key, 0, -1, withscores=True):
                await client.zadd(key, {call: score - seconds})


@pytest.mark.parametrize("kind", [requests, tokens, calls])
async def test_of_many_at_once_through_several_workers_exactly_the_limit_is_admitted(workers, kind):
    limit, each = kind(70), 1 if kind is not tokens else 7
    three = [workers() for _ in range(3)]
    found = await asyncio.gather(*(admit(three[n % 3], (limit, each)) for n in range(200)))
    passed = [one for one in found if isinstance(one, Admitted)]
    assert len(passed) == 70 // each
    assert sorted(one.stands[0].remaining for one in passed) == [n * each for n in range(70 // each)]
    refusals = [one for one in found if isinstance(one, RateRefusal)]
    assert len(refusals) == 200 - len(passed)
    assert all(0 < (one.wait_ms or 0) <= (WINDOW_S + 1) * 1000 for one in refusals)


async def test_a_window_moves_on_and_says_when(workers, client):
    windows = workers()
    for _ in range(3):
        assert isinstance(await admit(windows, (requests(3), 1)), Admitted)
    refused = await admit(windows, (requests(3), 1))
    assert refused.stands[0].remaining == 0 and 59_000 < refused.wait_ms <= 61_000
    assert refused.stands[0].reset_ms == refused.wait_ms
    await shift(client, WINDOW_S - 2)
    assert isinstance(await admit(windows, (requests(3), 1)), RateRefusal)
    await shift(client, 3)
    assert isinstance(await admit(windows, (requests(3), 1)), Admitted)


async def test_tokens_count_at_their_bound_until_they_are_known(workers):
    windows, limit = workers(), tokens(1_000)
    first = await admit(windows, (limit, 900))
    assert isinstance(await admit(windows, (limit, 101)), RateRefusal)
    await windows.end([(first, 100)])
    second = await admit(windows, (limit, 900))
    assert second.stands[0].remaining == 0
    await windows.end([(second, 900)])  # as it was said
    more = await admit(windows, (limit, 1))
    assert more.amount == 1 and more.stands[0].remaining == 0
    too_much = await admit(windows, (limit, 1_001))
    assert too_much.wait_ms is None


async def test_what_a_call_used_beyond_its_bound_counts_too(workers):
    windows, limit = workers(), tokens(1_000)
    first = await admit(windows, (limit, 100))
    await windows.end([(first, 2_000)])
    assert (await admit(windows, (limit, 1))).stands[0].remaining == 0


async def test_calls_at_once_are_freed_when_they_end_and_when_nobody_renews_them(workers, client):
    windows, limit = workers(), calls(2)
    one, two = [await admit(windows, (limit, 1)) for _ in range(2)]
    assert (await admit(windows, (limit, 1))).wait_ms == 1_000
    assert isinstance(await admit(windows, (limit, 1), call=one.call), Admitted)  # the same one
    await windows.end([(one, 0)])
    await windows.end([(one, 0)])
    three = await admit(windows, (limit, 1))
    assert isinstance(three, Admitted)
    await shift(client, LEASE_S - 2)
    await windows.renew([three])
    await shift(client, 3)
    four = await admit(windows, (limit, 1))
    assert isinstance(four, Admitted) and isinstance(await admit(windows, (limit, 1)), RateRefusal)
    assert sorted(await client.zrange(limit.key("acme"), 0, -1)) == sorted([three.call, four.call])
    assert two.call not in (three.call, four.call)


async def test_a_call_counts_in_all_of_its_rates_or_in_none(workers, client):
    windows = workers()
    wide, narrow = requests(10), requests(1, "n")
    assert isinstance(await admit(windows, (wide, 1), (narrow, 1), (calls(5), 1)), Admitted)
    before = {key: await client.dump(key) for key in await client.keys("*")}
    refused = await admit(windows, (wide, 1), (narrow, 1), (calls(5), 1))
    assert refused.limit == narrow and [each.remaining for each in refused.stands] == [9, 0, 4]
    assert {key: await client.dump(key) for key in await client.keys("*")} == before


async def test_a_call_that_a_budget_refuses_counts_in_no_rate_and_one_a_rate_refuses_holds_nothing(valkey_url, client):
    await client.flushall()
    await known(client, "acme")
    server = RedisServer(valkey_url)
    holds = Reservations(server)
    budget = Allowance(Budget(id="b1", workspace="acme", unit="tokens", period="total", limit=100), ())
    counted(valkey_url, [budget.budget])
    now_us = time.time_ns() // 1_000
    try:
        passed = await holds.reserve("r1#1", [(budget, 60)], now_us, rates=[(requests(2), 1)])
        assert isinstance(passed, Reserved) and passed.unheld == (40,)
        assert present(passed.admitted).stands[0].remaining == 1
        refused = await holds.reserve("r2#1", [(budget, 60)], now_us, rates=[(requests(2), 1)])
        assert isinstance(refused, Refusal) and (refused.allowance, refused.unheld) == (budget, (40,))
        assert await client.hvals(requests(2).key("acme")) == ["1"]
        assert isinstance(await holds.reserve("r3#1", [(budget, 1)], now_us, rates=[(requests(2), 1)]), Reserved)
        assert isinstance(await holds.reserve("r4#1", [(budget, 1)], now_us, rates=[(requests(2), 1)]), RateRefusal)
        assert await client.hget("tm:{acme}:held", "b1") == "61"
        await client.hdel("tm:{acme}:held", ":epoch")
        assert isinstance(await holds.reserve("r5#1", [(budget, 1)], now_us, rates=[(calls(9), 1)]), Lost)
        assert await client.keys("tm:{acme}:rate:calls:*") == []
    finally:
        await server.close()


# ── a Redis that lost something ──────────────────────────────────────────────────────────────────────────────


async def test_a_redis_that_was_emptied_opens_no_window_twice(workers, client):
    one, two = workers(), workers()
    limit = requests(10)
    for n in range(10):
        assert isinstance(await admit((one, two)[n % 2], (limit, 1)), Admitted)
    await client.flushall()
    assert await admit(one, (limit, 1)) is None  # and it has told what it had admitted
    assert await admit(two, (limit, 1)) is None
    assert sum(map(int, await client.hvals(limit.key("acme")))) == 10
    assert (await two.look(), await two.look()) == (["acme"], [])  # by asking: what goes on has to be said again
    await client.hset("tm:{acme}:rates", "opens_ms", 0)  # a second later
    assert isinstance(await admit(one, (limit, 1)), RateRefusal)
    assert isinstance(await admit(two, (limit, 1)), RateRefusal)
    assert sum(map(int, await client.hvals(limit.key("acme")))) == 10


async def test_who_does_not_ask_finds_out_too(workers, client):
    one, two = workers(), workers()
    for _ in range(4):
        await admit(one, (requests(10), 1))
    await client.flushall()
    assert isinstance(await admit(two, (requests(10), 1)), Admitted)  # it knew of nothing
    assert await one.look() == ["acme"]
    assert (await admit(two, (requests(10), 1))).stands[0].remaining == 10 - 4 - 2


async def copied(client):
    """What a replica has by now that hears of nothing more."""
    return {key: await client.dump(key) for key in await client.keys("*")}


@pytest.mark.parametrize("finds_out", ["by asking", "by looking"])
async def test_a_redis_that_went_back_opens_no_window_twice(workers, client, valkey_url, finds_out):
    one, two, limit = workers(), workers(), requests(10)
    async with Redis.from_url(valkey_url) as raw:
        for _ in range(3):
            await admit(one, (limit, 1), (calls(20), 1))
        replica = await copied(raw)
        for _ in range(4):
            await admit(two, (limit, 1), (calls(20), 1))
        assert isinstance(await admit(one, (limit, 3)), Admitted)
        await raw.flushall()
        for key, value in replica.items():
            await raw.restore(key, 0, value)
    if finds_out == "by asking":
        assert await admit(two, (limit, 1)) is None
    assert await two.look() == ["acme"]
    assert await one.look() == ["acme"]  # it is told everything anew
    assert sum(map(int, await client.hvals(limit.key("acme")))) == 10
    assert await admit(one, (limit, 1)) is None  # nobody is admitted before all have told
    await client.hset("tm:{acme}:rates", "opens_ms", 0)  # a second later
    for windows in (one, two):
        assert await windows.look() == []
        assert isinstance(await admit(windows, (limit, 1)), RateRefusal)


async def test_who_has_a_call_that_goes_on_looks_however_long_ago_it_began(workers, client):
    now_s = [0.0]
    windows = workers(clock_s=lambda: now_s[0])
    await admit(windows, (calls(1), 1))
    now_s[0] += 10 * WINDOW_S
    await client.flushall()
    await admit(workers(), (calls(2, "another"), 1))
    assert await windows.look({"acme"}) == ["acme"]


async def test_what_is_over_for_a_minute_is_forgotten(workers, client):
    now_s = [0.0]
    windows = workers(clock_s=lambda: now_s[0])
    await admit(windows, (requests(1), 1))
    now_s[0] += WINDOW_S + 2
    assert await windows.look() == []
    await client.flushall()
    assert isinstance(await admit(windows, (requests(1), 1)), Admitted)


@pytest.mark.parametrize("back_s", [1, 30, 59, 86_400])
async def test_a_clock_that_is_set_back_opens_nothing_and_closes_nothing_for_longer_than_a_window(
    workers, client, back_s
):
    windows, limit = workers(), requests(5)
    for _ in range(5):
        await admit(windows, (limit, 1))
    await shift(client, -back_s)
    refused = await admit(windows, (limit, 1))
    assert isinstance(refused, RateRefusal) and (refused.wait_ms or 0) <= (WINDOW_S + 1) * 1000
    wide = await admit(windows, (requests(6), 1))  # what is in the future counts as of now
    assert isinstance(wide, Admitted) and await client.hvals(limit.key("acme")) == ["6"]


@pytest.mark.parametrize("wrong", ["a string", ["a list"], {"x": "y", "12": "-5"}])
async def test_spoilt_keys_are_put_right(workers, client, wrong):
    windows = workers()
    for key in (requests(2).key("acme"), calls(2).key("acme"), "tm:{acme}:rates"):
        if isinstance(wrong, str):
            await client.set(key, wrong)
        elif isinstance(wrong, list):
            await client.rpush(key, *wrong)
        else:
            await client.hset(key, mapping=wrong)
    first = await admit(windows, (requests(2), 1), (calls(2), 1))
    assert isinstance(first, Admitted) and [each.remaining for each in first.stands] == [1, 1]
    await windows.end([(first, 0)])
    assert isinstance(await admit(windows, (requests(2), 1), (calls(2), 1)), Admitted)


async def test_on_a_cluster_calls_of_several_workspaces_that_end_at_once_are_freed(tmp_path):
    [port] = free_ports(1)
    node = Server(tmp_path / "one", port, "cluster-enabled yes")
    async with running(node):
        await node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
        await answers(lambda: node.client.execute_command("CLUSTER", "INFO"), lambda info: "cluster_state:ok" in info)
        server = RedisServer(f"redis+cluster://127.0.0.1:{port}")
        windows, wanted = RateWindows(server, timeout_s=5), [(calls(1), 1), (tokens(1_000), 900)]
        admitted = [(await windows.admit("call", name, wanted))[0] for name in ("acme", "globex", "initech")]
        await windows.end([(each, 10) for each in admitted if isinstance(each, Admitted)])
        for name in ("acme", "globex", "initech"):
            again, _ = await windows.admit("another", name, wanted)
            assert isinstance(again, Admitted) and again.stands[1].remaining == 90
        await server.close()


async def test_ends_that_redis_was_told_in_vain_take_nothing_off_what_it_is_told_when_it_comes_back_empty(tmp_path):
    [port] = free_ports(1)
    node = Server(tmp_path / "one", port)
    async with running(node):
        server = RedisServer(node.url)
        windows, limit = RateWindows(server, timeout_s=5), tokens(1_000)
        first, second = [await admit(windows, (limit, 450)) for _ in range(2)]
        node.kill()
        for _ in range(3):
            with pytest.raises(ERRORS):
                await windows.end([(first, 10)])
        await node.start()  # and is empty
        assert await admit(windows, (limit, 200)) is None  # it is told
        await happens(lambda: _told(node, limit, 900))
        await windows.end([(first, None), (second, 440)])
        assert await node.client.hvals(limit.key("acme")) in (["890"], ["450", "440"])
        await server.close()


async def _told(node, limit, tokens):
    return sum(map(int, await node.client.hvals(limit.key("acme")))) == tokens


async def test_a_worker_forgets_windows_that_are_over(workers):
    now_s = [0.0]
    windows = workers(clock_s=lambda: now_s[0])
    for n in range(10):
        await admit(windows, (requests(5, f"r:end_user=u{n}"), 1))
    memory = windows._known["acme"]
    memory.windows = {key: {second - 100: 1 for second in seconds} for key, seconds in memory.windows.items()}
    now_s[0] = WINDOW_S + 1.0
    await admit(windows, (requests(5, "r:end_user=last"), 1))
    await windows.look()
    assert list(memory.windows) == [requests(5, "r:end_user=last").key("acme")]


# ── any amounts ──────────────────────────────────────────────────────────────────────────────────────────────

amounts = st.one_of(st.sampled_from([0, 1, 2**53 - 1, 2**53, 2**62]), st.integers(0, 50))


@settings(max_examples=60, deadline=None)
@given(
    limit=st.one_of(st.sampled_from([0, 1, 2**53]), st.integers(1, 100)),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("admit"), amounts),
            st.tuples(st.just("end"), amounts),
            st.tuples(st.just("clock"), st.integers(-100, 100)),
        ),
        max_size=12,
    ),
)
@example(limit=2**53, steps=[("admit", 2**53), ("admit", 0), ("admit", 1), ("end", 0), ("admit", 2**53)])
def test_no_window_ever_holds_more_than_its_limit(valkey_url, limit, steps):
    async def run():
        async with Redis.from_url(valkey_url, decode_responses=True) as client:
            await client.flushall()
            server = RedisServer(valkey_url)
            windows = RateWindows(server, timeout_s=5)
            row, flying = tokens(limit), []
            over = 0  # what calls were known to use beyond their bounds
            try:
                for what, amount in steps:
                    if what == "admit":
                        found = await admit(windows, (row, amount))
                        if isinstance(found, Admitted):
                            flying.append((found, amount))
                        else:
                            assert isinstance(found, RateRefusal) and (found.wait_ms is None) is (amount > limit)
                    elif what == "end" and flying:
                        found, bound = flying.pop()
                        over += max(0, amount - bound)
                        await windows.end([(found, amount)])
                    elif what == "clock":
                        await shift(client, amount)
                    now_s = (await client.time())[0]
                    held = await client.hgetall(row.key("acme"))
                    assert sum(int(n) for second, n in held.items() if int(second) >= now_s - WINDOW_S) <= limit + over
                    assert all(int(n) >= 0 for n in held.values())
            finally:
                await server.close()

    asyncio.run(run())


words = st.lists(
    st.sampled_from(
        [
            "window",
            "calls",
            "60",
            "-1",
            "0",
            "1",
            "x",
            "9" * 30,
            "-",
            "01",
            "end",
            "renew",
            "add",
            "correct",
        ]
    ),
    max_size=13,
)


@settings(max_examples=150, deadline=None)
@given(
    script=st.sampled_from(["_ADMIT", "_END", "_RESTORE", "_BACK"]),
    names=st.integers(0, 4),
    args=st.lists(words, max_size=4),
)
def test_what_is_asked_wrongly_changes_nothing(valkey_url, script, names, args):
    import redis

    from taximeter.budgets import rate_windows

    with redis.Redis.from_url(valkey_url, decode_responses=True) as client:
        client.flushall()
        client.hset("k0", mapping={"id": "x"})
        before = {key: client.dump(key) for key in client.keys("*")}
        source = getattr(rate_windows, script).source
        keys = [f"k{n}" for n in range(names)]
        try:
            client.eval(source, len(keys), *keys, *(" ".join(each) for each in args))
        except ResponseError as error:
            assert "nothing was changed" in str(error)
            assert {key: client.dump(key) for key in client.keys("*")} == before
