"""Many callers, one connection: nobody is told that Redis is away because this process is busy or crowded."""

import asyncio
import socket
import time

import pytest
import redis
from redis.asyncio import Redis

from taximeter.budgets.reservations import Refusal, Reservations, Reserved
from taximeter.budgets.rule import Allowance, Budget
from taximeter.sinks.redis.asking import answered, is_ours, within
from taximeter.sinks.redis.client import ERRORS, RedisServer
from valkeys import Relay, known

NOW_US = 1_793_707_200_000_000


def budget(limit):
    return Allowance(Budget(id="b1", workspace="asking", unit="tokens", period="total", limit=limit), ())


@pytest.fixture
async def client(valkey_url):
    async with Redis.from_url(valkey_url) as made:
        await made.flushall()
        await known(made, "asking", budgets=[budget(1).budget])
        yield made
        await made.flushall()


@pytest.fixture
async def holds(valkey_url):
    made = Reservations(RedisServer(valkey_url, timeout_s=None), timeout_s=1.0)
    yield made
    await made.close()


async def test_a_thousand_at_once_use_one_connection_and_exactly_ten_are_held(client, holds):
    before = (await client.info("stats"))["total_connections_received"]
    asked = [holds.reserve(f"r{n}#1", [(budget(100), 10)], NOW_US) for n in range(1_000)]
    answers = await asyncio.gather(*asked)
    assert sum(type(answer) is Reserved for answer in answers) == 10
    assert (await client.info("stats"))["total_connections_received"] - before == 1


async def test_a_loop_that_stood_still_does_not_make_redis_silent(client, holds):
    await holds.reserve("r0#1", [(budget(100), 10)], NOW_US)
    asking = asyncio.ensure_future(holds.reserve("r1#1", [(budget(100), 10)], NOW_US))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    time.sleep(2.5)
    assert type(await asking) is Reserved


async def test_a_server_that_says_nothing_is_away_for_all_who_wait_and_is_asked_anew_afterwards(
    client, valkey_url, closing
):
    port = int(valkey_url.rpartition(":")[2].partition("/")[0])
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        nobody = closing(
            Reservations(RedisServer(f"redis://127.0.0.1:{deaf.getsockname()[1]}/0", timeout_s=None), timeout_s=0.2)
        )
        answers = await asyncio.gather(
            *(nobody.reserve(f"r{n}#1", [(budget(100), 10)], NOW_US) for n in range(300)), return_exceptions=True
        )
        assert len(answers) == 300 and all(isinstance(answer, redis.TimeoutError) for answer in answers)
    async with Relay(port) as relay:
        url = valkey_url.replace(f":{port}", f":{relay.port}")
        through = closing(Reservations(RedisServer(url, timeout_s=None), timeout_s=0.5))
        relay.drop_replies = True
        with pytest.raises(ERRORS):
            await through.reserve("r1#1", [(budget(100), 10)], NOW_US)
        relay.drop_replies = False
        assert type(await through.reserve("r1#1", [(budget(100), 10)], NOW_US)) is Reserved
        assert type(await through.reserve("r2#1", [(budget(100), 91)], NOW_US)) is Refusal


async def test_who_leaves_while_waiting_asks_for_nothing(client, holds):
    asked = [asyncio.ensure_future(holds.reserve(f"r{n}#1", [(budget(100), 10)], NOW_US)) for n in range(3)]
    await asyncio.sleep(0)
    asked[1].cancel()
    await asyncio.wait(asked)
    assert sorted(await client.hkeys("tm:{asking}:reserved")) == [b"r0#1", b"r2#1"]


async def test_nobody_waits_for_ever_whatever_goes_wrong(client, holds, monkeypatch):
    async def breaks(script, calls):
        raise ValueError("what nobody foresaw")

    run = holds._server.run
    monkeypatch.setattr(holds._server, "run", breaks)
    asked = [holds.reserve(f"r{n}#1", [(budget(100), 10)], NOW_US) for n in range(3)]
    assert [type(each) for each in await asyncio.gather(*asked, return_exceptions=True)] == [ValueError] * 3
    monkeypatch.setattr(holds._server, "run", run)
    assert type(await holds.reserve("r9#1", [(budget(100), 10)], NOW_US)) is Reserved


async def test_within_gives_what_comes_and_raises_what_is_raised():
    async def fails():
        raise ValueError

    with pytest.raises(ValueError):
        await within(fails(), 1)
    with pytest.raises(redis.TimeoutError):
        await within(asyncio.sleep(60), 0.05)
    assert await within(asyncio.sleep(0, "x"), 1) == "x"


def test_our_own_exhaustion_is_told_from_an_absent_server():
    try:
        try:
            raise OSError(24, "Too many open files")
        except OSError as error:
            raise redis.ConnectionError("Error 24") from error
    except redis.ConnectionError as error:
        assert is_ours(error)
    assert answered(redis.OutOfMemoryError("OOM")) and answered(redis.exceptions.NoPermissionError("no"))
    assert not answered(redis.ReadOnlyError("x")) and not answered(redis.exceptions.MasterDownError("x"))
    assert not answered(redis.exceptions.MovedError("1 a:1")) and not answered(redis.ConnectionError("refused"))
    assert not is_ours(redis.ConnectionError("refused")) and not is_ours(ConnectionRefusedError(111, "refused"))
