"""Reserving on a real Valkey, together with the counters that let go: never overspent, however calls interleave."""

import asyncio
import random
from typing import Any

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from ledger_fake import NOON_US, FakeHistory, batch, record
from present import present
from taximeter.budgets.charges import Held, charge
from taximeter.budgets.rate_windows import RateRefusal
from taximeter.budgets.rates import Limit
from taximeter.budgets.reservations import Lost, Refusal, Reservations, Reserved, Spent
from taximeter.budgets.rule import Allowance, Budget, Budgets
from taximeter.budgets.tally import UNITS
from taximeter.core.deferred import TOLD, settlement
from taximeter.core.holds import BUDGETS
from taximeter.core.record import Outcome
from taximeter.sinks.redis.client import RedisServer
from taximeter.sinks.redis.counters import Counters
from valkeys import known


def budget(**more):
    return Budget(**{"id": "b1", "workspace": "acme", "unit": "tokens", "period": "day", "limit": 1_000, **more})


def used(seq, tokens, **more):
    """The record of a call that had reserved, as the gateway marks it."""
    return record(seq, input_tokens=tokens, cached_input_tokens=None, output_tokens=0, cost_nusd=tokens * 10,
                  request_id=f"r{seq}", tags={BUDGETS: "b1"}, **more)  # fmt: skip


def sole(each):
    return each if isinstance(each, Allowance) else present(each.sole)


class Desk:
    def __init__(self, url, *budgets):
        self.history = FakeHistory()
        self.budgets = Budgets(budgets)
        self.counters = Counters(url, history=self.history, tallies=self.budgets.tallies, now_us=lambda: NOON_US)
        self.holds = Reservations(RedisServer(url))

    async def count(self, *records):
        step = batch(list(records))
        self.history.take(step)
        assert await self.counters.deliver([step]) == {"j1": step.upto}

    async def reserve(self, number, amount, *budgets):
        return await self.holds.reserve(f"r{number}#1", [(sole(each), amount) for each in budgets], NOON_US)

    async def stand(self, *budgets):
        return await self.holds.spent([sole(each) for each in budgets], NOON_US)

    async def close(self):
        await self.counters.close()
        await self.holds._server.close()


@pytest.fixture
async def desk(valkey_url):
    client = Redis.from_url(valkey_url)
    await client.flushall()
    made = []

    async def make(*budgets):
        await known(client, "acme", budgets=budgets)
        made.append(Desk(valkey_url, *budgets))
        await made[-1].counters.cursors(["j1"])
        return made[-1]

    yield make
    for each in made:
        await each.close()
    await client.flushall()
    await client.aclose()


async def test_what_is_held_is_let_go_in_the_step_that_counts(desk):
    b = budget()
    place = await desk(b)
    assert type(await place.reserve(1, 600, b)) is Reserved
    assert type(await place.reserve(1, 600, b)) is Reserved  # the same call again: nothing more
    assert await place.stand(b) == [Spent(0, 600)]
    full = await place.reserve(2, 500, b)
    assert (full.allowance.budget, full.spent, full.over) == (b, 0, False)
    await place.count(used(1, 450))
    assert await place.stand(b) == [Spent(450, 0)]
    assert type(await place.reserve(2, 500, b)) is Reserved
    over = await place.reserve(3, 551, b)
    assert (over.spent, over.over) == (450, True)


async def test_at_the_edge_of_a_period_what_a_node_whose_clock_is_ahead_used_in_the_next_counts_too(desk):
    b = budget(period="minute")
    place = await desk(b)
    edge_us = NOON_US + 60 * 10**6
    await place.count(used(1, 700, ended_at=edge_us + 100_000))
    allowance = sole(b)
    early = await place.holds.reserve("r2#1", [(allowance, 400)], edge_us - 3 * 10**6)
    assert type(early) is Reserved  # what ends in the next minute is decided before that minute's use can be known
    assert await place.holds.release("acme", ["r2#1"]) == 1
    late = await place.holds.reserve("r3#1", [(allowance, 400)], edge_us - 10**6)
    assert (late.spent, late.over) == (700, True)
    assert type(await place.holds.reserve("r4#1", [(allowance, 300)], edge_us - 10**6)) is Reserved


async def test_all_budgets_of_a_call_are_held_or_none(desk):
    day, key, task = budget(), budget(id="b2", key_id="k", limit=300), budget(id="b3", task="query", unit="usd")
    place = await desk(day, key, task)
    refused = await place.reserve(1, 301, day, key)
    assert (refused.allowance.budget, refused.over) == (key, True)
    assert await place.stand(day, key) == [Spent(0, 0), Spent(0, 0)]
    assert type(await place.reserve(2, 200, day, key, task)) is Reserved
    assert await place.stand(day, key, task) == [Spent(0, 200), Spent(0, 200), Spent(0, 200)]


async def test_scopes_are_counted_apart_from_their_budget_on_with_what_was_before(desk, valkey_url):
    key = budget(id="b2", key_id="k", period="month")
    task = budget(id="b3", task="query", unit="usd", period="total", limit=10**6)
    place = await desk(key, task)
    async with Redis.from_url(valkey_url) as client:
        await client.delete("tm:{acme}:tallies")  # as before these budgets were made
    before = [record(1, key_id="k"), record(2, task="query"), record(3, key_id="other"), record(4, workspace="globex")]
    await place.count(*before)
    assert await place.stand(key, task) == [Spent(0, 0), Spent(0, 0)]
    assert type(await place.reserve(1, 1, key)) is Lost  # what was spent before is not known yet
    assert await place.counters.rebuild("acme") == 1
    assert await place.holds.tallies(["acme"]) == {"acme": {key.tally.text, task.tally.text}}
    assert await place.stand(key, task) == [Spent(120, 0), Spent(27_000, 0)]
    await place.counters.cursors(["j1"])
    await place.count(
        record(5, key_id="k", task="query"), record(6), record(7, key_id="k", kind="correction", cost_nusd=9)
    )
    assert await place.stand(key, task) == [Spent(240, 0), Spent(54_000, 0)]
    await place.counters.rebuild("acme")
    assert await place.stand(key, task) == [Spent(240, 0), Spent(54_000, 0)]


async def test_each_value_has_an_allowance_of_its_own_and_what_is_let_go_leaves_nothing(desk, valkey_url):
    each = budget(id="b2", end_user="*", limit=500)
    place = await desk(each)
    alice, bob = (present(each.allowance(record(1, end_user=name))) for name in ("alice", "bob"))
    assert type(await place.reserve(1, 400, alice)) is Reserved
    assert type(await place.reserve(2, 200, alice)) is Refusal
    assert type(await place.reserve(3, 400, bob)) is Reserved
    assert await place.stand(alice, bob) == [Spent(0, 400), Spent(0, 400)]
    await place.count(used(1, 450, end_user="alice"), used(2, 9, end_user="carol"))
    assert await place.stand(alice, bob) == [Spent(450, 0), Spent(0, 400)]
    async with Redis.from_url(valkey_url, decode_responses=True) as client:
        fields: list[Any] = await client.hkeys("tm:{acme}:held")
        assert [field for field in fields if not field.startswith(":")] == ["b2/bob"]
        sums = [key async for key in client.scan_iter("tm:{acme}:tally:*")]
        assert sorted(sums) == [
            f"tm:{{acme}}:tally:tokens:day:3373228800:end_user={name}" for name in ("alice", "carol")
        ]
        assert all([await client.expiretime(key) == 3_373_228_800 + 90_000 for key in sums])
    await place.counters.rebuild("acme")
    assert await place.stand(alice, bob) == [Spent(450, 0), Spent(0, 400)]


async def test_a_rolling_window_forgets_bucket_by_bucket(desk):
    b = budget(period="rolling 1h", limit=1_000)
    place = await desk(b)
    minute_us = 60 * 10**6
    await place.count(*(used(n, 100, ended_at=NOON_US - n * 10 * minute_us) for n in range(1, 7)))
    assert await place.stand(b) == [Spent(600, 0)]  # one that ended an hour ago is counted: its bucket is not over

    async def later(minutes):
        return (await place.holds.spent([sole(b)], NOON_US + minutes * minute_us))[0].spent

    # Its buckets are of two minutes: a record leaves it up to two minutes late, and never early.
    assert [await later(n) for n in (1, 2, 10, 12, 51, 52)] == [600, 500, 500, 400, 100, 0]
    await place.counters.rebuild("acme")
    assert await place.stand(b) == [Spent(600, 0)]
    assert type(await place.reserve(1, 401, b)) is Refusal and type(await place.reserve(1, 400, b)) is Reserved


async def test_another_node_counts_apart_too_once_a_budget_is_made(desk):
    key = budget(key_id="k")
    one, other = await desk(key), await desk(key)
    other.history = other.counters.rebuilder.history = one.history
    await other.count(record(1, key_id="k"))
    await one.counters.rebuild("acme")
    step = batch([record(2, key_id="k")])
    one.history.take(step)
    for _ in range(3):  # refused on the old generation, asked again, sent again
        try:
            await other.counters.cursors(["j1"])
            if (await other.counters.deliver([step])) == {"j1": 2}:
                break
        except Exception as error:
            assert type(error).__name__ == "CountersMoved"
    assert await one.stand(key) == [Spent(240, 0)]


async def test_a_rebuild_keeps_what_calls_in_flight_hold_and_a_sweep_lets_go_what_is_counted(desk):
    b = budget()
    place = await desk(b)
    await place.reserve(1, 300, b)
    await place.reserve(2, 200, b)
    step = batch([used(1, 100)])
    place.history.take(step)  # history has it, and the rebuild counts it: the script will never see it
    await place.counters.rebuild("acme")
    assert await place.stand(b) == [Spent(100, 500)]
    assert await place.holds.held_before("acme", NOON_US // 10**6, 10) == ["r1#1", "r2#1"]
    assert await place.holds.release("acme", ["r1#1", "r9#1"]) == 1
    assert await place.stand(b) == [Spent(100, 200)]


@pytest.mark.parametrize(
    "limit", [Limit("r", "calls", 1, "r"), Limit("r", "requests", 1, "r")], ids=lambda each: each.kind
)
async def test_a_rebuild_leaves_rates_as_they_are(desk, valkey_url, limit):
    place = await desk(budget())
    assert isinstance(await place.holds.admit("r1#1", "acme", [(limit, 1)]), Reserved)
    await place.counters.rebuild("acme")
    another = Reservations(RedisServer(valkey_url))  # one that has nothing to tell
    assert isinstance(await another.admit("r2#1", "acme", [(limit, 1)]), RateRefusal)
    await another.close()


@pytest.mark.parametrize("seed", range(4))
async def test_concurrent_calls_never_spend_more_than_the_limit(desk, seed):
    rng = random.Random(seed)
    b, k = budget(limit=5_000), budget(id="b2", key_id="k", unit="usd", limit=30_000, period="month")
    place = await desk(b, k)
    await place.counters.rebuild("acme")
    await place.counters.cursors(["j1"])
    ended, seq, refused, most = [], 0, 0, 0

    async def call(number):
        nonlocal refused
        amount, with_key = rng.randint(1, 400), rng.random() < 0.5
        wanted = [(sole(b), amount), (sole(k), amount * 10)] if with_key else [(sole(b), amount)]
        if type(await place.holds.reserve(f"r{number}#1", wanted, NOON_US)) is Refusal:
            refused += 1
            return
        await asyncio.sleep(0)
        ended.append((number, rng.randint(0, amount), "k" if with_key else None))

    for wave in range(12):
        await asyncio.gather(*(call(wave * 20 + n) for n in range(20)))
        rng.shuffle(ended)
        settled, ended = ended[: len(ended) * 2 // 3], ended[len(ended) * 2 // 3 :]
        records = []
        for number, tokens, key in settled:
            seq += 1
            one = used(seq, tokens, key_id=key)
            one.request_id = f"r{number}"
            records.append(one)
        if records:
            await place.count(*records)
        for each, standing in zip((b, k), await place.stand(b, k), strict=True):
            assert standing.held >= 0 and standing.spent + standing.held <= each.limit
        most = max(most, standing.spent)
    assert refused and most > 0


async def test_a_redis_that_was_emptied_decides_nothing_until_all_is_there_again(desk, valkey_url):
    b = budget()
    place = await desk(b)
    await place.count(used(1, 900))
    held = await place.reserve(2, 60, b)
    async with Redis.from_url(valkey_url) as client:
        await client.flushall()
    assert type(await place.reserve(3, 100, b)) is Lost
    assert await place.holds.changed(["acme"]) == {"acme": ""}
    again = await place.holds.reserve("r2#1", held.wanted, NOON_US, in_flight=True)  # it is under way all the same
    assert (type(again), again.epoch) == (Reserved, "") and await place.stand(b) == [Spent(0, 60)]
    await place.counters.rebuild("acme")
    assert type(await place.reserve(3, 30, b)) is Lost  # totals are there, what others hold may not be
    generation, epoch = await place.holds.move_epoch("acme", "", "-9")
    assert generation and epoch == "-9" and type(await place.reserve(3, 30, b)) is Lost
    again = await place.holds.reserve("r2#1", held.wanted, NOON_US, in_flight=True)
    assert again.epoch == "9" and await place.stand(b) == [Spent(900, 60)]
    assert await place.holds.move_epoch("acme", "-8", "8") == (generation, "-9")  # not ours to open
    assert await place.holds.move_epoch("acme", "-9", "9") == (generation, "9")
    assert type(await place.reserve(3, 41, b)) is Refusal
    assert type(await place.reserve(3, 40, b)) is Reserved


async def test_a_redis_that_went_back_is_found_out_by_whoever_reserved_since(desk, valkey_url):
    b = budget()
    place = await desk(b)
    names = ["tm:{acme}:held", "tm:{acme}:reserved", "tm:{acme}:reserved_at"]
    async with Redis.from_url(valkey_url) as client:
        await place.reserve(1, 300, b)
        copies = [present(await client.dump(name)) for name in names]
        held = await place.reserve(2, 600, b)
        for name, copy in zip(names, copies, strict=True):
            await client.restore(name, 0, copy, replace=True)
    assert await place.stand(b) == [Spent(0, 300)]
    assert await place.holds.changed(["acme"]) == {"acme": ""}
    assert type(await place.reserve(3, 600, b)) is Lost
    assert await place.holds.state("acme") == ("g", "")  # everybody knows now
    assert type(await place.holds.reserve("r2#1", held.wanted, NOON_US, in_flight=True)) is Reserved
    await place.holds.move_epoch("acme", "", "-9")
    await place.holds.move_epoch("acme", "-9", "9")
    assert type(await place.reserve(3, 600, b)) is Refusal and await place.stand(b) == [Spent(0, 900)]


@pytest.mark.parametrize("state", ["rebuild:abc", None])
async def test_while_totals_are_being_written_anew_nothing_is_decided(desk, valkey_url, state):
    b = budget()
    place = await desk(b)
    async with Redis.from_url(valkey_url) as client:
        await (client.set("tm:{acme}:gen", state) if state else client.delete("tm:{acme}:gen"))
        assert type(await place.reserve(1, 1, b)) is Lost and await place.stand(b) == [Spent(0, 0)]


async def test_keys_that_somebody_spoilt_are_put_right(desk, valkey_url):
    b = budget()
    place = await desk(b)
    await place.reserve(1, 300, b)
    async with Redis.from_url(valkey_url) as client:
        await client.hset("tm:{acme}:held", "b1", "much")
        assert type(await place.reserve(2, 1, b)) is Lost
        await place.holds.move_epoch("acme", "", "-9")
        assert await place.stand(b) == [Spent(0, 300)]
        await client.set("tm:{acme}:reserved_at", "x")
        await place.holds.move_epoch("acme", "-9", "9")
        assert type(await place.reserve(2, 1, b)) is Reserved and await place.stand(b) == [Spent(0, 301)]


async def test_what_is_charged_counts_against_the_budget_survives_a_rebuild_and_is_taken_back(desk):
    day, key = budget(period="day"), budget(id="b2", key_id="k", unit="usd", period="month", limit=10**6)
    place = await desk(day, key)
    await place.counters.rebuild("acme")
    await place.counters.cursors(["j1"])
    await place.reserve(1, 700, day, key)
    lost = used(1, 0, key_id="k", outcome=Outcome.TIMEOUT, charged_tokens=700, charged_cost_nusd=700_000)
    lost.input_tokens = lost.output_tokens = lost.total_tokens = lost.cost_nusd = None
    await place.count(lost)
    assert await place.stand(day, key) == [Spent(0, 0, 700), Spent(0, 0, 700_000)]
    refused = await place.reserve(2, 301, day)
    assert (refused.spent, refused.charged, refused.over) == (0, 700, True)
    await place.counters.rebuild("acme")
    assert await place.stand(day, key) == [Spent(0, 0, 700), Spent(0, 0, 700_000)]
    await place.counters.cursors(["j1"])
    back = used(2, 0, key_id="k", kind="correction", charged_tokens=-600, charged_cost_nusd=-700_000)
    back.request_id, back.cost_nusd = "r1", 5_000
    await place.count(back)
    assert await place.stand(day, key) == [Spent(0, 0, 100), Spent(5_000, 0, 0)]
    assert type(await place.reserve(3, 900, day)) is Reserved


async def test_what_is_billed_later_is_charged_its_share_and_counts_what_was_used_once_it_is_settled(desk):
    day, model = budget(), budget(id="b2", model="gpt-5", period="month")
    place = await desk(day, model)
    await place.reserve(1, 700, day)
    nothing = dict.fromkeys(("output_tokens", "total_tokens", "cost_nusd"))
    asked = replace(
        used(1, 0, charged_tokens=700, deferred="batch_1", request_model=None), input_tokens=None, **nothing
    )
    await place.count(asked)
    assert await place.stand(day, model) == [Spent(0, 0, 700), Spent(0, 0)]
    poll = used(2, 40, kind=TOLD, line="a", deferred="batch_1", response_model="gpt-5")
    ended = replace(poll, line="", input_tokens=None, total_tokens=None, outcome=Outcome.UPSTREAM_ERROR)
    line = replace(settlement(asked, poll), event_id="j1:2")
    await place.count(line)
    assert await place.stand(day, model) == [Spent(40, 0, 700), Spent(40, 0)]  # there may be more lines
    assert type(await place.reserve(3, 261, day)) is Refusal
    await place.count(replace(settlement(asked, ended), event_id="j1:3"))
    assert await place.stand(day, model) == [Spent(40, 0), Spent(40, 0)]
    assert type(await place.reserve(3, 960, day)) is Reserved


VALUES: dict[str, list[Any]] = {"key_id": ["k1", "k2"], "end_user": ["a", "b", "c"], "model": ["gpt-4o-mini", "o/m 3"],
          "upstream": ["openai"], "track": ["t1", "t2"], "document": [None, "d"], "task": [None, "query"]}  # fmt: skip
PERIODS = [("day", "UTC"), ("day", "Asia/Kolkata"), ("week", "UTC"), ("total", "UTC"), ("rolling 1h", "UTC")]


def random_budget(rng, number):
    scope = {
        name: rng.choice([*VALUES[name], "*", "*"]) or "*" for name in rng.sample(sorted(VALUES), rng.randint(0, 3))
    }
    period, tz = rng.choice(PERIODS)
    unit = rng.choice(UNITS)
    limit = rng.randint(3, 12) if unit == "requests" else rng.randint(1_000, 6_000)
    return budget(id=f"b{number}", unit=unit, period=period, tz=tz, limit=limit, **scope)


@pytest.mark.parametrize("seed", range(6))
async def test_of_budgets_of_any_scope_nobody_spends_more_than_the_limit(desk, seed):
    rng = random.Random(seed)
    budgets = [random_budget(rng, number) for number in range(5)]
    place = await desk(*budgets)
    await place.counters.rebuild("acme")
    await place.counters.cursors(["j1"])
    seen: set[Allowance] = set()
    under_way: list[tuple[int, dict[str, Any], Held]] = []
    seq = refused = 0

    async def call(number):
        nonlocal refused
        says = {name: rng.choice(values) for name, values in VALUES.items()}
        says["request_model"] = says.pop("model")
        allowances = Budgets(budgets).of(record(1, **says))
        bound = Held(
            rng.randint(10, 400), rng.randint(10, 400), output_tokens=rng.randint(0, 10), audio_ms=rng.randint(0, 300)
        )
        seen.update(allowances)
        wanted = [(each, bound.of(each.budget.unit)) for each in allowances]
        if wanted and type(await place.holds.reserve(f"r{number}#1", wanted, NOON_US)) is Refusal:
            refused += 1
        else:
            under_way.append((number, says, bound))

    async def stands():
        found = await place.stand(*seen)
        for each, standing in zip(seen, found, strict=True):
            assert standing.held >= 0
            assert standing.spent + standing.charged + standing.held <= each.budget.limit, (each, standing)
        return found

    for wave in range(10):
        await asyncio.gather(*(call(wave * 20 + n) for n in range(20)))
        rng.shuffle(under_way)
        records = []
        for number, says, bound in [under_way.pop() for _ in range(len(under_way) * 2 // 3)]:
            seq += 1
            output = rng.randint(0, bound.output_tokens or 0)
            known: dict[str, Any] = {"input_tokens": rng.randint(0, bound.of("input_tokens")), "output_tokens": output,
                     "cost_nusd": rng.randint(0, bound.cost_nusd or 0), "seconds": bound.audio_ms / 1_000}  # fmt: skip
            if rng.random() < 0.2:
                known = dict.fromkeys(known, None) | {"total_tokens": None, "outcome": Outcome.TIMEOUT, "status": None}
            ended = record(seq, tags={BUDGETS: "b"}, cached_input_tokens=None, **says, **known)
            ended.request_id, bound.sent = f"r{number}", True
            charge(ended, bound)
            records.append(ended)
        if records:
            await place.count(*records)
        live = await stands()
    await place.counters.rebuild("acme")
    assert await stands() == live
    assert refused
