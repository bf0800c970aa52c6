"""Calls while Redis is away, with `on_unavailable = "slice"`: within what was put aside, counted once, never over."""

from __future__ import annotations

import asyncio

import pytest

from gateway.test_budget import CHAT, budget, post, redis
from gateway.test_rates import rate
from present import present
from taximeter.budgets.rates import Rates
from taximeter.budgets.reservations import Reservations
from taximeter.budgets.slice_files import DEAD_S, DeadSlices, SliceFile
from taximeter.gateway.admission import slices as slices_module
from taximeter.gateway.admission.budget import BudgetGate
from taximeter.gateway.admission.holding import connect
from upstream import STALL, response
from valkeys import counted as added_up

__all__ = ["redis"]
SLICED = {"on_unavailable": "slice", "slice_percent": 10.0}
AWAY = "redis://127.0.0.1:1/0"
JSON = [("content-type", "application/json")]


class Sliced:
    """A worker's gate whose Redis can be taken away."""

    def __init__(self, gate, there, now_s) -> None:
        self.gate, self._there, self._now_s = gate, there, now_s
        self._nobody: Reservations = connect(AWAY)

    async def look(self):
        """What the worker does four times a second."""
        if self.gate._flying:
            await self.gate.look()
        await self.gate.look_at_rates()
        await self.gate.look_at_slices()

    async def away(self):
        self.gate._holding = self._nobody

    async def back(self):
        await self._nobody.close()
        self.gate._holding = self._there

    def later(self, seconds):
        self._now_s[0] += seconds


@pytest.fixture
async def sliced(valkey_url, tmp_path):
    gates = []

    async def use(running, *budgets, rates=()):
        added_up(valkey_url, budgets)
        gate, now_s = running.gate, [0.0]
        made = BudgetGate(
            gate.settings.budget,
            connect=lambda: connect(valkey_url),
            prices=gate.metering.prices,
            counting=gate.metering.tokenizers,
            rates=Rates(rates),
            slice_file=SliceFile(tmp_path),
        )
        if made._slices is not None:
            made._slices._clock_s = lambda: now_s[0]
        gate.admission.budgets = made
        gate.admission.use_budgets(budgets)
        assert (await post(running)).status_code == 200  # it serves this budget
        gates.append((made, present(made._holding)))
        return Sliced(made, made._holding, now_s)

    yield use
    for each, there in gates:
        await each.close()
        await there.close()


async def slices_of(redis):
    return {call: parts for call, parts in (await redis.hgetall("tm:{acme}:reserved")).items() if call[:6] == "slice:"}


async def counted(running, redis, *, drop=True):
    """As if the control process had counted every record so far: the cursor moves, and what calls held is let go."""
    for record in running.records:
        journal_id, _, seq = record["event_id"].rpartition(":")
        await redis.hset("tm:{acme}:cursor", journal_id, seq)
    for call, parts in (await redis.hgetall("tm:{acme}:reserved")).items():
        if drop and call[:6] != "slice:":
            await redis.hdel("tm:{acme}:reserved", call)
            await redis.hincrby("tm:{acme}:held", "b1", -int(parts.split()[1]))


async def test_calls_go_on_within_the_slice_and_are_then_refused(serve, provider, sliced, redis):
    async with serve(provider, budget=SLICED) as running:
        worker = await sliced(running, budget())
        await worker.look()
        assert list((await slices_of(redis)).values()) == ["b1 1000"]
        one = int(await redis.hget("tm:{acme}:held", "b1")) - 1_000
        await worker.away()
        answers = [await post(running) for _ in range(1_000 // one + 1)]
        assert [each.status_code for each in answers] == [200] * (1_000 // one) + [503]
        assert answers[-1].headers["x-taximeter-error"] == "budget_unavailable"
        assert "x-taximeter-budget-remaining" not in answers[0].headers  # nothing is known of it
        await worker.back()
        await worker.look()  # nothing of it is counted yet: it stays held, whole
        assert "b1 1000" in (await slices_of(redis)).values()
        assert int(await redis.hget("tm:{acme}:held", "b1")) >= 1_000
        await counted(running, redis)
        await worker.look()
        await worker.look()
        assert list((await slices_of(redis)).values()) == ["b1 1000"]  # another one
        assert await redis.hget("tm:{acme}:held", "b1") == "1000"


async def test_a_budget_of_each_workspace_has_slices_too(serve, provider, sliced, redis, valkey_url):
    each = budget(workspace="*")
    added_up(valkey_url, [budget()])
    async with serve(provider, budget=SLICED) as running:
        worker = await sliced(running, each)
        for _ in range(2):  # and keeps it
            await worker.look()
            assert list((await slices_of(redis)).values()) == ["b1 1000"]
        await worker.away()
        assert (await post(running)).status_code == 200


async def test_a_call_under_way_keeps_its_slice_held(serve, provider, sliced, redis):
    async with serve(provider, budget=SLICED) as running:
        worker = await sliced(running, budget())
        await worker.look()
        [name] = await slices_of(redis)
        await worker.away()
        go_on = asyncio.Event()
        provider.script(go_on, response(b"{}", headers=JSON))
        calling = asyncio.create_task(post(running))
        await provider.until(lambda: len(provider.requests) == 2 and provider.requests[1].complete)
        await worker.back()
        await worker.look()
        await counted(running, redis)
        await worker.look()
        assert name in await slices_of(redis)
        go_on.set()
        assert (await calling).status_code == 200
        await worker.look()
        assert name in await slices_of(redis)
        await counted(running, redis)
        await worker.look()
        assert name not in await slices_of(redis)


async def test_a_budget_without_a_slice_refuses_and_every_budget_of_a_call_needs_one(serve, provider, sliced, redis):
    async with serve(provider, budget=SLICED) as running:
        worker = await sliced(running, budget(), budget(id="b2", task="query"))
        await worker.look()
        await worker.away()
        assert (await post(running, path="/w/acme/k/query/v1/chat/completions")).status_code == 503
        assert (await post(running)).status_code == 200  # and it took nothing
        assert (await post(running, {**CHAT, "max_tokens": 2_000})).status_code == 503


async def test_a_redis_that_forgot_the_slice_is_told_again(serve, provider, sliced, redis):
    async with serve(provider, budget=SLICED) as running:
        worker = await sliced(running, budget())
        await worker.look()
        held = await slices_of(redis)
        await redis.flushall()
        await worker.gate.look()
        assert await slices_of(redis) == held


async def test_what_slices_hold_is_given_back_where_a_call_needs_it(serve, provider, sliced, redis):
    async with serve(provider, budget=SLICED) as running:
        first = await sliced(running, budget())
        await first.look()
        other = await sliced(running, budget())
        await other.look()
        assert len(await slices_of(redis)) == 2
        await counted(running, redis)
        await redis.hset("tm:{acme}:total", "total_tokens", 0)
        held = int(await redis.hget("tm:{acme}:held", "b1"))
        await redis.hincrby("tm:{acme}:held", "b1", 9_900 - held)  # a hundred are left, and two slices of a thousand
        answer = await post(running, {**CHAT, "max_tokens": 500})
        assert answer.status_code == 200 and len(await slices_of(redis)) == 1  # its own
        assert (await post(running, {**CHAT, "max_tokens": 500})).headers["x-taximeter-error"] == "budget_reserved"
        await first.look()
        assert await slices_of(redis) == {}
        assert (await post(running, {**CHAT, "max_tokens": 500})).status_code == 200
        await first.look()
        await other.look()
        assert await slices_of(redis) == {}  # not for a while
        await redis.hset("tm:{acme}:held", "b1", 0)
        other.later(slices_module.IDLE_S + 1)
        await post(running)
        await other.look()
        assert len(await slices_of(redis)) == 1


async def test_a_slice_that_is_not_needed_any_more_is_given_back(serve, provider, sliced, redis):
    async with serve(provider, budget=SLICED) as running:
        worker = await sliced(running, budget())
        await worker.look()
        worker.later(slices_module.IDLE_S + 1)
        await worker.look()
        assert await slices_of(redis) == {} and worker.gate._slices.idle
        assert (await post(running)).status_code == 200
        await worker.look()
        running.gate.admission.use_budgets([budget(id="b9")])  # b1 is ended
        await worker.look()
        assert await slices_of(redis) == {}


async def test_a_budget_that_has_no_room_for_a_slice_has_none(serve, provider, sliced, redis):
    async with serve(provider, budget=SLICED) as running:
        worker = await sliced(running, budget(limit=1_000))
        await redis.hset("tm:{acme}:held", "b1", 950)
        await worker.look()
        assert await slices_of(redis) == {}


async def test_a_dead_workers_slices_are_let_go_once_its_calls_are_counted(serve, provider, sliced, redis, tmp_path):
    async with serve(provider, budget=SLICED) as running:
        worker = await sliced(running, budget())
        await worker.look()
        [name] = await slices_of(redis)
        now_s, drained = [0.0], [False]

        async def has_drained(sink):
            return sink == "redis" and drained[0]

        dead = DeadSlices(tmp_path, worker.gate._holding.release, has_drained, clock_s=lambda: now_s[0])
        await dead.look()
        now_s[0] += DEAD_S + 1
        drained[0] = True
        await dead.look()
        assert name in await slices_of(redis)  # it lives
        worker.gate._slices._file.close()
        await dead.look()
        assert name in await slices_of(redis)  # its journal may not be taken over yet
        now_s[0] += DEAD_S + 1
        drained[0] = False
        await dead.look()
        assert name in await slices_of(redis)
        drained[0] = True
        await dead.look()
        assert await slices_of(redis) == {} and list((tmp_path / "slices").iterdir()) == []


async def test_a_worker_that_ends_gives_back_what_it_can_and_leaves_word_of_the_rest(
    serve, provider, sliced, redis, tmp_path
):
    async with serve(provider, budget=SLICED) as running:
        worker = await sliced(running, budget())
        await worker.look()
        await worker.away()
        assert (await post(running)).status_code == 200
        await worker.back()
        await worker.gate._slices.close(worker.gate._holding)
        [name] = await slices_of(redis)
        [file] = (tmp_path / "slices").iterdir()
        assert file.read_text() == f"acme {name}\n"
        again = await sliced(running, budget())
        await again.look()
        before = await redis.hgetall("tm:{acme}:held"), await redis.hgetall("tm:{acme}:reserved")
        await again.gate._slices.close(again.gate._holding)
        assert list(await slices_of(redis)) == [name] and len(list((tmp_path / "slices").iterdir())) == 2
        for key, value in zip(("tm:{acme}:held", "tm:{acme}:reserved"), before, strict=True):
            await redis.hset(key, mapping=value)
        assert len(await slices_of(redis)) == 2  # Redis went back: it holds what was given back
        now_s = [0.0]
        dead = DeadSlices(tmp_path, again.gate._holding.release, lambda sink: asyncio.sleep(0, True),
                          clock_s=lambda: now_s[0])  # fmt: skip
        await dead.look()
        now_s[0] += DEAD_S + 1
        await dead.look()
        assert await slices_of(redis) == {}


async def test_a_rate_goes_on_within_a_share_and_redis_is_told_afterwards(serve, provider, sliced, redis):
    async with serve(provider, budget=SLICED) as running:
        worker = await sliced(running, rates=[rate(requests_per_minute=30, concurrent=20)])
        await worker.away()
        assert [(await post(running)).status_code for _ in range(4)] == [200, 200, 200, 503]
        await worker.back()
        await worker.look()
        await worker.look()
        assert sum(map(int, await redis.hvals("tm:{acme}:rate:requests:r"))) == 4
        assert await redis.zcard("tm:{acme}:rate:calls:r") == 0
        answer = await post(running)
        assert answer.headers["x-ratelimit-remaining-requests"] == "25"


async def test_calls_at_once_have_a_share_too(serve, provider, sliced, redis):
    async with serve(provider, budget=SLICED) as running:
        worker = await sliced(running, rates=[rate(concurrent=10)])
        await worker.away()
        provider.script(STALL)
        calling = asyncio.create_task(post(running))
        await provider.until(lambda: len(provider.requests) == 2 and provider.requests[1].complete)
        assert (await post(running)).status_code == 503
        await worker.back()
        await worker.look()
        assert await redis.zcard("tm:{acme}:rate:calls:r") == 1  # it goes on
        provider.drop_connections()
        await calling
