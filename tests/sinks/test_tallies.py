"""What budgets are measured by: counted with the records and written anew from a real history, it is the same."""

import contextlib
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from ledger import batch
from ledger_fake import NOON_US, traffic
from taximeter.budgets.rule import Budget, Budgets
from taximeter.budgets.tally import DIMENSIONS, UNITS
from taximeter.core.record import Record
from taximeter.sinks.history.sink import History
from taximeter.sinks.redis.counters import Counters

NOW_US = NOON_US + 2 * 3_600 * 10**6
PERIODS = [("minute", "UTC"), ("hour", "UTC"), ("hour", "Asia/Kolkata"), ("day", "UTC"), ("day", "Europe/Berlin"),
           ("week", "America/New_York"), ("month", "UTC"), ("month", "Asia/Tokyo"), ("total", "UTC"),
           ("rolling 10m", "UTC"), ("rolling 3h", "UTC"), ("rolling 7d", "UTC")]  # fmt: skip
SAID = {"key_id": ["k1", "k2"], "task": ["extract", "query"], "track": ["upload-1", "upload-2"], "document": ["d1"],
        "end_user": ["alice", "bob@example.org"], "model": ["gpt-4o-mini", "org/m 3 {x}"],
        "upstream": ["openai", "local"]}  # fmt: skip


def said(seed: int, records: list[Record]) -> list[Record]:
    """The same with more said of each."""
    rng = random.Random(seed)
    for record in records:
        for name, values in SAID.items():
            if name not in ("task", "track"):
                value = rng.choice([*values, *([] if name == "upstream" else [None])])
                setattr(record, "request_model" if name == "model" else name, value)
        if rng.random() < 0.2:
            record.charged_tokens, record.charged_cost_nusd = rng.randrange(900), rng.randrange(90_000)
            record.charged_input_tokens, record.charged_audio_ms = rng.randrange(500), rng.choice([None, 1_500])
            record.charged_output_tokens = record.charged_tokens
        if rng.random() < 0.2:
            record.seconds = rng.randrange(1, 90_000) / 1_000
    return records


def budget(**given: Any) -> Budget:
    return Budget(**{"id": "bud_00000000000a", "workspace": "acme", "limit": 1, **given})


scopes = st.dictionaries(st.sampled_from(DIMENSIONS), st.integers(0, 2), max_size=3).map(
    lambda found: {name: [*SAID[name], "*", "*"][which] for name, which in found.items()}
)
budgets = st.lists(
    st.tuples(scopes, st.sampled_from(UNITS), st.sampled_from(PERIODS)).map(
        lambda found: budget(
            unit=found[1],
            period=found[2][0],
            tz=found[2][1],
            **found[0],
        )
    ),
    min_size=1,
    max_size=6,
)


@contextlib.asynccontextmanager
async def counting(tmp_path, valkey_url, chosen):
    async with Redis.from_url(valkey_url, decode_responses=True) as client:
        await client.flushall()
        history = History(f"sqlite:///{tmp_path}/{random.random()}.db")
        await history.prepare()
        counters = Counters(valkey_url, history=history, tallies=Budgets(chosen).tallies, now_us=lambda: NOW_US)
        try:
            yield client, history, counters
        finally:
            await counters.close()
            await history.close()


async def tallied(client):
    """Key -> its amounts, zeros left out, and when it expires."""
    found = {}
    async for key in client.scan_iter("tm:{acme}:tally:*"):
        amounts = {field: n for field, n in (await client.hgetall(key)).items() if n != "0"}
        if amounts:
            found[key] = amounts, await client.expiretime(key)
    return found


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=budgets, seed=st.integers(0, 10**6))
async def test_what_is_counted_live_is_what_history_says(tmp_path, valkey_url, chosen, seed):
    async with counting(tmp_path, valkey_url, chosen) as (client, history, counters):
        await counters.rebuild("acme")
        await counters.cursors(["j1"])
        records = said(seed, traffic(seed, 60, workspaces=["acme", "globex"]))
        for at in range(0, 60, 20):
            step = batch(records[at : at + 20], "j1", at)
            await history.deliver([step])
            await counters.deliver([step])
        live = await tallied(client)
        await counters.rebuild("acme")
        anew = await tallied(client)
        kept = {
            (each.unit, each.when.label, str(start)) for each in chosen for start in each.when.kept_s(NOW_US // 10**6)
        }
        assert anew == {key: found for key, found in live.items() if tuple(key.split(":")[3:6]) in kept}


@pytest.mark.parametrize("dimension", DIMENSIONS)
async def test_a_total_of_each_value_is_forgotten_long_after_its_last_use(tmp_path, valkey_url, dimension):
    each = budget(unit="tokens", period="total", **{dimension: "*"})
    async with counting(tmp_path, valkey_url, [each]) as (client, history, counters):
        await counters.rebuild("acme")
        await counters.cursors(["j1"])
        step = batch(said(3, traffic(3, 30, workspaces=["acme"], hours=1)), "j1", 0)
        await history.deliver([step])
        await counters.deliver([step])
        live = await tallied(client)
        await counters.rebuild("acme")
        assert live and live == await tallied(client)
        midnight_s = 3_373_315_200
        assert {expires_s for _, expires_s in live.values()} == {midnight_s + 400 * 86_400}


async def test_an_audit_puts_right_what_somebody_changed(tmp_path, valkey_url):
    whole, tasks = budget(unit="tokens", period="day"), budget(period="total", task="*")
    async with counting(tmp_path, valkey_url, [whole, tasks, budget(end_user="*")]) as (client, history, counters):
        await counters.rebuild("acme")
        await counters.cursors(["j1"])
        step = batch(said(5, traffic(5, 40, workspaces=["acme"])), "j1", 0)
        await history.deliver([step])
        await counters.deliver([step])
        counters.rebuilder.history_id = await history.identity()
        await counters.rebuild("acme")
        assert (await counters.auditor.audit()).rebuilt == []
        right = await tallied(client)
        for key in (key for key in right if "end_user" not in key):
            await client.hset(key, "used", 1)
            assert (await counters.auditor.audit()).rebuilt == ["acme"]
            assert await tallied(client) == right
            await counters.cursors(["j1"])
