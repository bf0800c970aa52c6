"""The Redis counters against a real Valkey: exact keys, exact sums, each record once."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, TimeoutError

from closing import Closing, closed
from ledger_fake import NOON_US, FakeHistory, batch, fold, folded, named, record, traffic
from present import present
from taximeter.core.errors import ConfigError
from taximeter.core.record import Operation, Outcome, Record, Source
from taximeter.core.totals import FIELDS, Totals
from taximeter.sinks.ledger import Ledger
from taximeter.sinks.redis import keys
from taximeter.sinks.redis import rebuild as counter_rebuild
from taximeter.sinks.redis.client import Call, Script
from taximeter.sinks.redis.counters import Counters
from taximeter.sinks.redis.nodes import leave_nodes, refuse_eviction
from taximeter.sinks.redis.rebuild import CountersMoved
from valkeys import kept_totals
from waits import HANG_S

NOON_S = NOON_US // 1_000_000
DAY_S = 86_400


@pytest.fixture
async def redis(redis: Redis) -> AsyncIterator[Redis]:
    """What a test sets of its memory is set back."""
    yield redis
    await redis.config_set("maxmemory", 0)
    await redis.config_set("maxmemory-policy", "noeviction")


@pytest.fixture
def history() -> FakeHistory:
    return FakeHistory()


@pytest.fixture
async def counters(redis: Redis, valkey_url: str, history: FakeHistory) -> AsyncIterator[Counters]:
    sink = Counters(valkey_url, history=history, now_us=lambda: NOON_US)
    yield sink
    await sink.close()


async def assert_exact(sink: Counters, records: list[Record]) -> None:
    """Every workspace's total, models and tracks are what its records add up to."""
    for workspace in {r.workspace for r in records}:
        mine = [r for r in records if r.workspace == workspace]
        assert await kept_totals(sink, workspace) == folded(mine)
        for model in {(r.provider, r.model) for r in mine}:
            assert await kept_totals(sink, workspace, keys.model(*model)) == folded(
                r for r in mine if (r.provider, r.model) == model
            )
        for track in {r.track for r in mine if r.track}:
            assert await kept_totals(sink, workspace, keys.track(track)) == folded(r for r in mine if r.track == track)


async def test_keys_and_fields_are_exactly_the_contract(counters: Counters, redis: Redis) -> None:
    sent = batch([record(1, track="doc-7", task="extract")])
    assert await counters.deliver([sent]) == {"j1": 1}
    sums = {
        "requests": "1",
        "llm_requests": "1",
        "llm_input_tokens": "100",
        "llm_cached_input_tokens": "64",
        "llm_output_tokens": "20",
        "total_tokens": "120",
        "cost_nusd": "27000",
    }
    hashes = {
        "tm:{acme}:total": -1,
        "tm:{acme}:month:2076-11": -1,
        "tm:{acme}:day:2076-11-22": NOON_S + DAY_S // 2 + 400 * DAY_S,
        "tm:{acme}:hour:2076-11-22T12": NOON_S + 3_600 + 8 * DAY_S,
        "tm:{acme}:model:openai/gpt-4o-mini-2024-07-18": -1,
        "tm:{acme}:task:extract": -1,
        "tm:{acme}:track:doc-7": NOON_S + 3_600 + 30 * DAY_S,
    }
    for key, expires_s in hashes.items():
        assert (key, await redis.hgetall(key)) == (key, sums)
        assert (key, await redis.expiretime(key)) == (key, expires_s)
    assert await redis.hgetall("tm:{acme}:cursor") == {"j1": "1"}
    assert await redis.smembers("tm:workspaces") == {"acme"}
    assert set(await redis.keys("tm:{acme}:*")) == {
        *hashes,
        "tm:{acme}:cursor",
        "tm:{acme}:gen",
        "tm:{acme}:models",
        "tm:{acme}:tasks",
    }
    assert await redis.ttl("tm:{acme}:cursor") == await redis.ttl("tm:{acme}:gen") == -1


async def test_a_reader_gets_named_totals_and_zeros_for_what_was_never_used(counters: Counters) -> None:
    await counters.deliver([batch([record(1)])])
    assert await kept_totals(counters, "acme", "month:2076-11") == folded([record(1)])
    assert await kept_totals(counters, "acme", "month:2076-12") == Totals()


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    seed=st.integers(0, 2**32), cuts=st.lists(st.integers(1, 120), max_size=4), hours=st.sampled_from([1, 3, 30, 900])
)
async def test_every_hash_is_the_sum_of_its_records(
    valkey_url: str, redis: Redis, seed: int, cuts: list[int], hours: int
) -> None:
    await redis.flushall()
    async with closed(Counters(valkey_url, now_us=lambda: NOON_US)) as sink:
        await assert_every_hash(sink, traffic(seed, 120, hours=hours), cuts)


async def assert_every_hash(sink: Counters, records: list[Record], cuts: list[int]) -> None:
    """Delivered in pieces, every hash is what its records add up to."""
    edges = sorted({0, *cuts, 120})
    for start, end in pairwise(edges):
        if end > start:
            assert await sink.deliver([batch(records[start:end])]) == {"j1": end}
    await assert_exact(sink, records)
    ledgers = FakeHistory()
    ledgers.take(batch(records))
    for workspace in await ledgers.workspaces():
        ledger = await ledgers.ledger(workspace, days_from_us=0, hours_from_us=0, tracks_from_us=0)
        scopes = {f"month:{k}": v for k, v in ledger.months.items()}
        scopes |= {f"day:{k}": v for k, v in ledger.days.items()} | {f"hour:{k}": v for k, v in ledger.hours.items()}
        scopes |= {keys.task(k): v for k, v in ledger.tasks.items()}
        for scope, cell in scopes.items():
            assert (scope, await kept_totals(sink, workspace, scope)) == (scope, named(cell))


async def test_two_journals_of_one_delivery_are_counted_apart(counters: Counters) -> None:
    first, second = traffic(1, 30), traffic(2, 40, journal_id="j2")
    reached = await counters.deliver([batch(first[:10]), batch(second), batch(first[10:])])
    assert reached == {"j1": 30, "j2": 40}
    await assert_exact(counters, first + second)


async def test_a_batch_cut_for_another_cursor_is_not_applied(counters: Counters) -> None:
    records = traffic(3, 30)
    await counters.deliver([batch(records[:10])])
    assert await counters.deliver([batch(records[20:])]) == {"j1": 10}
    assert await counters.deliver([batch(records[:10])]) == {"j1": 10}
    await assert_exact(counters, records[:10])
    assert await counters.deliver([batch(records[10:])]) == {"j1": 30}
    await assert_exact(counters, records)


async def test_a_new_process_knows_where_the_old_one_was(counters: Counters, valkey_url: str, closing: Closing) -> None:
    records = traffic(4, 30)
    await counters.deliver([batch(records[:20])])
    sink = closing(Counters(valkey_url))
    assert await sink.cursors(["j1", "j2"]) == {"j1": 20, "j2": 0}
    assert await sink.deliver([batch(records[20:])]) == {"j1": 30}
    await assert_exact(sink, records)


async def test_records_sent_again_below_the_watermark_are_filtered_by_workspace(
    counters: Counters, redis: Redis, valkey_url: str, closing: Closing
) -> None:
    records = traffic(5, 60)
    await counters.deliver([batch(records[:40])])
    await redis.hset(keys.WATERMARK, "j1", 10)  # as if it had died before the watermark was written
    sink = closing(Counters(valkey_url))
    assert await sink.cursors(["j1"]) == {"j1": 10}
    assert await sink.deliver([batch(records[10:])]) == {"j1": 60}
    assert sink.duplicates_skipped == 30
    await assert_exact(sink, records)


async def test_a_long_batch_runs_as_several_scripts(counters: Counters) -> None:
    records = traffic(6, 2_500, workspaces=["acme"])
    assert await counters.deliver([batch(records)]) == {"j1": 2_500}
    assert await kept_totals(counters, "acme") == folded(records)


async def test_scripts_forgotten_by_the_server_are_sent_again(counters: Counters, redis: Redis) -> None:
    records = traffic(7, 30)
    await counters.deliver([batch(records[:10])])
    await redis.script_flush()
    await counters.deliver([batch(records[10:])])
    await assert_exact(counters, records)


async def test_models_and_tasks_beyond_200_are_summed_as_other(counters: Counters, redis: Redis) -> None:
    records = [record(n, response_model=f"m-{n:03}", task=f"k-{n:03}") for n in range(1, 251)]
    await counters.deliver([batch(records[:120]), batch(records[120:])])
    assert await kept_totals(counters, "acme", keys.model("openai", "m-200")) == folded(records[199:200])
    assert await kept_totals(counters, "acme", keys.model("openai", "m-201")) == Totals()
    assert await kept_totals(counters, "acme", "model:other") == folded(records[200:])
    assert await kept_totals(counters, "acme", "task:other") == folded(records[200:])
    assert len(await redis.keys("tm:{acme}:model:*")) == len(await redis.keys("tm:{acme}:task:*")) == 201


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("gpt-4o", "gpt-4o"),
        ("org/model:v1.2@x", "org/model:v1.2@x"),
        ("a {tag} %", "a%20%7Btag%7D%20%25"),
        ("é\ud800", "%C3%A9%ED%A0%80"),
        ("", "~"),
    ],
)
def test_names_in_keys_are_escaped(text: str, key: str) -> None:
    assert keys.name(text) == key


def test_long_names_are_bounded_and_stay_distinct() -> None:
    names = {keys.name("x" * 5_000 + str(n)) for n in range(100)}
    assert len(names) == 100
    assert {len(name) for name in names} == {200}


async def test_hostile_names_stay_in_their_workspace(counters: Counters, redis: Redis) -> None:
    records = [record(1, response_model="x}:total{", task="a:b@c", track="t:{u}" + "y" * 400)]
    await counters.deliver([batch(records)])
    assert all(str(key).startswith("tm:{acme}:") for key in await redis.keys("tm:{acme*"))
    await assert_exact(counters, records)


async def test_corrections_change_cost_only(counters: Counters) -> None:
    down = record(
        2, kind="correction", input_source=Source.NONE, cost_nusd=-7_000, input_tokens=None, output_tokens=None
    )
    await counters.deliver([batch([record(1), down])])
    assert (await kept_totals(counters, "acme")).cost_nusd == 20_000
    assert (await kept_totals(counters, "acme")).requests == 1


async def test_costs_beyond_what_a_double_holds_stay_exact(counters: Counters) -> None:
    huge = 2**62 - 1
    await counters.deliver([batch([record(1, cost_nusd=huge)])])
    await counters.deliver([batch([record(2, cost_nusd=2)])])
    assert (await kept_totals(counters, "acme")).cost_nusd == huge + 2


async def test_a_busy_track_keeps_its_expiry_moving(counters: Counters, redis: Redis) -> None:
    await counters.deliver([batch([record(1, track="t")])])
    later = NOON_US + 5 * 3_600_000_000
    await counters.deliver([batch([record(2, track="t", ended_at=later)])])
    assert await redis.expiretime("tm:{acme}:track:t") == NOON_S + 6 * 3_600 + 30 * DAY_S


async def test_an_emptied_redis_is_rebuilt_from_history(counters: Counters, redis: Redis, history: FakeHistory) -> None:
    records = traffic(8, 90)
    await counters.deliver([batch(records[:60])])
    history.take(batch(records[:60]))
    await redis.flushall()
    with pytest.raises(CountersMoved):
        await counters.deliver([batch(records[60:])])
    reached = (await counters.cursors(["j1"]))["j1"]
    assert reached <= 60
    await counters.deliver([batch(records[reached:])])
    await assert_exact(counters, records)


async def test_an_emptied_redis_is_noticed_by_a_workspace_never_seen(
    counters: Counters, redis: Redis, history: FakeHistory
) -> None:
    records = traffic(9, 20, workspaces=["acme"])
    await counters.deliver([batch(records)])
    history.take(batch(records))
    await redis.flushall()
    new = record(21, workspace="new")
    with pytest.raises(CountersMoved):
        await counters.deliver([batch([new])])
    reached = (await counters.cursors(["j1"]))["j1"]
    await counters.deliver([batch([*records, new][reached:])])
    await assert_exact(counters, [*records, new])


async def test_history_that_lags_behind_an_emptied_redis_loses_nothing(
    counters: Counters, redis: Redis, history: FakeHistory
) -> None:
    records = traffic(10, 90)
    await counters.deliver([batch(records[:60])])
    history.take(batch(records[:25]))
    await redis.flushall()
    with pytest.raises(CountersMoved):
        await counters.cursors(["j1"])
    reached = (await counters.cursors(["j1"]))["j1"]
    assert reached <= 25
    await counters.deliver([batch(records[reached:])])
    await assert_exact(counters, records)


async def test_one_lost_workspace_is_rebuilt_alone(counters: Counters, redis: Redis, history: FakeHistory) -> None:
    records = traffic(11, 90)
    await counters.deliver([batch(records[:60])])
    history.take(batch(records[:60]))
    generation = await redis.get("tm:{globex}:gen")
    await redis.delete(*await redis.keys("tm:{acme}:*"))
    sent = batch(records[60:])
    with pytest.raises(CountersMoved):
        await counters.deliver([sent])
    with pytest.raises(CountersMoved, match="rebuilt"):
        await counters.cursors(["j1"])
    assert await counters.cursors(["j1"]) == {"j1": 60}
    await counters.deliver([sent])
    await assert_exact(counters, records)
    assert await redis.get("tm:{globex}:gen") == generation


async def test_a_new_process_does_not_take_a_lost_workspace_for_a_new_one(
    counters: Counters, redis: Redis, history: FakeHistory, valkey_url: str, closing: Closing
) -> None:
    records = traffic(12, 60, workspaces=["acme"])
    await counters.deliver([batch(records[:50])])
    history.take(batch(records[:50]))
    await redis.delete(*await redis.keys("tm:{acme}:*"))
    sink = closing(Counters(valkey_url, history=history))
    assert await sink.cursors(["j1"]) == {"j1": 50}
    with pytest.raises(CountersMoved):
        await sink.deliver([batch(records[50:])])
    assert await sink.cursors(["j1"]) == {"j1": 50}
    await sink.deliver([batch(records[50:])])
    await assert_exact(sink, records)


async def test_a_workspace_that_went_back_is_read_again_from_its_journal(
    counters: Counters, redis: Redis, history: FakeHistory
) -> None:
    """A Cluster's shard that failed over to a replica that lagged: the watermark, elsewhere, is ahead of it."""
    records = traffic(13, 90)
    await counters.deliver([batch(records[:30])])
    client = binary(redis)
    dumped = {key: present(await client.dump(key)) for key in await client.keys("tm:{acme}:*")}
    await counters.deliver([batch(records[30:60])])
    for key in await client.keys("tm:{acme}:*"):
        await client.delete(key)
    for key, value in dumped.items():
        await client.restore(key, 0, value)
    await client.aclose()
    with pytest.raises(CountersMoved, match="went back"):
        await counters.deliver([batch(records[60:])])
    reached = (await counters.cursors(["j1"]))["j1"]
    assert reached == max(n for n, r in enumerate(records[:30], 1) if r.workspace == "acme")
    await counters.deliver([batch(records[reached:])])
    await assert_exact(counters, records)


def binary(client: Redis) -> Redis:
    options = client.connection_pool.connection_kwargs
    return Redis(host=options["host"], port=options["port"], password=options["password"])


async def test_a_full_redis_takes_nothing_and_loses_nothing(counters: Counters, redis: Redis) -> None:
    records = traffic(14, 60)
    await counters.deliver([batch(records[:30])])
    await redis.config_set("maxmemory", 1)
    with pytest.raises(OutOfMemoryError):
        await counters.deliver([batch(records[30:])])
    await redis.config_set("maxmemory", 0)
    assert await counters.cursors(["j1"]) == {"j1": 30}
    await counters.deliver([batch(records[30:])])
    await assert_exact(counters, records)


async def test_a_redis_too_slow_to_answer_has_still_counted_once(
    redis: Redis, valkey_url: str, closing: Closing
) -> None:
    sink, hasty = closing(Counters(valkey_url)), closing(Counters(valkey_url, timeout_s=0.2))
    records = traffic(15, 60)
    await sink.deliver([batch(records[:30])])
    await redis.client_pause(600_000, all=False)  # writes wait and are executed afterwards
    try:
        with pytest.raises(TimeoutError):
            await hasty.deliver([batch(records[30:])])
    finally:
        await redis.client_unpause()
    assert (await sink.cursors(["j1"]))["j1"] in (30, 60)
    await sink.deliver([batch(records[30:])])
    await assert_exact(sink, records)


async def test_a_key_that_is_not_a_hash_is_put_right_from_history(
    counters: Counters, redis: Redis, history: FakeHistory
) -> None:
    records = traffic(16, 60, workspaces=["acme"])
    await counters.deliver([batch(records[:30])])
    history.take(batch(records[:30]))
    await redis.set("tm:{acme}:month:2076-11", "somebody's")
    sent = batch(records[30:])
    with pytest.raises(Exception, match="WRONGTYPE"):
        await counters.deliver([sent])
    with pytest.raises(CountersMoved):
        await counters.cursors(["j1"])
    reached = (await counters.cursors(["j1"]))["j1"]
    await counters.deliver([batch(records[reached:])])
    await assert_exact(counters, records)
    assert await kept_totals(counters, "acme", "month:2076-11") == folded(records)


async def test_a_redis_that_may_evict_counters_is_refused(counters: Counters, redis: Redis) -> None:
    await redis.config_set("maxmemory-policy", "allkeys-lru")
    await refuse_eviction(counters.server)  # without a limit nothing is ever evicted
    await redis.config_set("maxmemory", 1_000_000_000)
    with pytest.raises(ConfigError, match="noeviction"):
        await refuse_eviction(counters.server)
    with pytest.raises(ConfigError, match="noeviction"):
        await counters.cursors(["j1"])
    await redis.config_set("maxmemory-policy", "noeviction")
    await refuse_eviction(counters.server)


async def test_an_acl_user_needs_only_our_keys(
    redis: Redis, valkey_url: str, history: FakeHistory, caplog: pytest.LogCaptureFixture, closing: Closing
) -> None:
    password = secrets.token_hex(8)
    allowed = ["+@read", "+@write", "+@scripting", "+@connection", "+time", "-@dangerous"]
    await redis.execute_command("ACL", "SETUSER", "meter", "on", f">{password}", "resetkeys", "~tm:*", *allowed)
    url = f"redis://meter:{password}@{valkey_url.rpartition('@')[2]}"
    sink = closing(Counters(url, history=history))
    records = traffic(17, 40)
    await sink.deliver([batch(records[:20])])
    history.take(batch(records))
    await sink.rebuild()
    await sink.rebuilder.register("n1", "h1")
    await sink.auditor.audit()
    await assert_exact(sink, records)
    assert "must be noeviction" in caplog.text  # INFO is a dangerous command: it can't be asked
    assert password not in caplog.text
    await redis.execute_command("ACL", "DELUSER", "meter")


async def test_audit_finds_and_repairs_drift(counters: Counters, redis: Redis, history: FakeHistory) -> None:
    records = traffic(18, 60)
    await counters.deliver([batch(records)])
    history.take(batch(records))
    assert (await counters.auditor.audit()).rebuilt == []
    await redis.hincrby("tm:{acme}:total", "llm_input_tokens", 5)
    audit = await counters.auditor.audit()
    assert (audit.checked, audit.rebuilt, counters.auditor.drift) == (3, ["acme"], 1)
    await counters.cursors(["j1"])
    await assert_exact(counters, records)


async def test_audit_notices_an_emptied_redis_without_traffic(
    counters: Counters, redis: Redis, history: FakeHistory
) -> None:
    records = traffic(27, 60)
    await counters.deliver([batch(records)])
    history.take(batch(records))
    await redis.flushall()
    audit = await counters.auditor.audit()
    assert (audit.rebuilt, counters.auditor.drift) == (["acme", "globex", "initech"], 3)
    await assert_exact(counters, records)
    assert (await counters.auditor.audit()).rebuilt == []


async def test_audit_takes_neither_lag_for_loss(counters: Counters, history: FakeHistory) -> None:
    records = traffic(19, 60)
    await counters.deliver([batch(records[:30])])
    history.take(batch(records[:20]))  # history behind Redis: it can't judge
    assert (await counters.auditor.audit()).rebuilt == []
    history.take(batch(records))  # history ahead of Redis: the rest is on its way
    audit = await counters.auditor.audit()
    assert (audit.checked, audit.rebuilt, counters.auditor.drift) == (3, [], 0)


async def test_records_nobody_brings_are_taken_from_history(
    redis: Redis, valkey_url: str, history: FakeHistory, closing: Closing
) -> None:
    now = [NOON_US]
    sink = closing(Counters(valkey_url, history=history, now_us=lambda: now[0]))
    records = traffic(20, 60)
    await sink.deliver([batch(records[:30])])
    history.take(batch(records))
    assert (await sink.auditor.audit()).rebuilt == []
    now[0] += 61_000_000
    assert sorted((await sink.auditor.audit()).rebuilt) == ["acme", "globex", "initech"]
    await assert_exact(sink, records)
    reached = await sink.cursors(["j1"])
    await sink.deliver([batch(records[reached["j1"] :])])  # and should they come after all, they are not counted again
    await assert_exact(sink, records)


async def test_another_history_does_not_overwrite_counters_unasked(
    counters: Counters, redis: Redis, history: FakeHistory, valkey_url: str, closing: Closing
) -> None:
    await counters.rebuilder.register("n1", "history-1")
    records = traffic(21, 40)
    await counters.deliver([batch(records)])
    history.take(batch(records))
    await leave_nodes(counters.server, "n1")
    sink = closing(Counters(valkey_url, history=FakeHistory(), history_id="history-2"))
    assert (await sink.auditor.audit()).checked == 0
    await assert_exact(sink, records)
    await sink.rebuild()
    assert await kept_totals(sink, "acme") == Totals()


async def test_old_cursors_are_forgotten_but_not_the_watermark(
    counters: Counters, redis: Redis, history: FakeHistory, valkey_url: str, closing: Closing
) -> None:
    records = traffic(22, 40, workspaces=["acme"])
    await counters.deliver([batch(records, ended=True)])
    history.take(batch(records))
    late = closing(Counters(valkey_url, history=history, now_us=lambda: NOON_US + 31 * DAY_S * 1_000_000))
    assert (await late.auditor.audit()).rebuilt == []
    assert await redis.hgetall("tm:{acme}:cursor") == {}
    assert await late.cursors(["j1"]) == {"j1": 40}
    assert (await late.auditor.audit()).rebuilt == []
    await assert_exact(late, records)


async def test_a_rebuild_beside_a_delivering_node_is_exact(
    counters: Counters, history: FakeHistory, valkey_url: str, closing: Closing
) -> None:
    records = traffic(23, 90)
    await counters.deliver([batch(records[:50])])
    history.take(batch(records[:20]))  # history is behind: what Redis knew beyond it must come again
    other = closing(Counters(valkey_url, history=history))
    assert await other.rebuild() == 3
    with pytest.raises(CountersMoved):
        await counters.deliver([batch(records[50:])])
    reached = (await counters.cursors(["j1"]))["j1"]
    assert reached <= 20
    await counters.deliver([batch(records[reached:])])
    await assert_exact(counters, records)


async def test_a_rebuild_between_counting_and_the_watermark_is_noticed(
    counters: Counters, history: FakeHistory, valkey_url: str, monkeypatch: pytest.MonkeyPatch, closing: Closing
) -> None:
    records = traffic(28, 90)
    await counters.deliver([batch(records[:40])])
    history.take(batch(records[:40]))
    other = closing(Counters(valkey_url, history=history))
    run = counters.server.run

    async def rebuilt_before_the_watermark(script: Script, calls: Sequence[Call]) -> list[Any]:
        if script.source == Script("watermark.lua").source:
            await other.rebuild()
        return await run(script, calls)

    monkeypatch.setattr(counters.server, "run", rebuilt_before_the_watermark)
    with pytest.raises(CountersMoved, match="a rebuild began"):
        await counters.deliver([batch(records[40:])])
    monkeypatch.undo()
    assert await counters.cursors(["j1"]) == {"j1": 40}
    await counters.deliver([batch(records[40:])])
    await assert_exact(counters, records)


async def test_a_rebuild_that_died_half_way_is_taken_over(
    counters: Counters, redis: Redis, history: FakeHistory
) -> None:
    records = traffic(24, 60)
    await counters.deliver([batch(records[:30])])
    history.take(batch(records[:30]))
    await redis.set("tm:{acme}:gen", "rebuild:0123")
    await redis.set(keys.REBUILDING, "0123", px=50)
    sent = batch(records[30:])
    with pytest.raises(CountersMoved):
        await counters.deliver([sent])
    while await redis.exists(keys.REBUILDING):
        with pytest.raises(CountersMoved):
            await counters.cursors(["j1"])
    for _ in range(2):
        try:
            await counters.cursors(["j1"])
        except CountersMoved:
            continue
    await counters.deliver([sent])
    await assert_exact(counters, records)


async def test_a_rebuild_keeps_its_lease_however_long_history_takes(
    counters: Counters, redis: Redis, history: FakeHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the lease of one that died is soon over: nobody renews it."""
    monkeypatch.setattr(counter_rebuild, "_LEASE_MS", 200)
    records = traffic(25, 40)
    await counters.deliver([batch(records)])
    history.take(batch(records))
    asked, go_on, ledger = asyncio.Event(), asyncio.Event(), history.ledger

    async def slow(*args: Any, **more: Any) -> Ledger:
        asked.set()
        await go_on.wait()
        return await ledger(*args, **more)

    monkeypatch.setattr(history, "ledger", slow)
    rebuilding = asyncio.create_task(counters.rebuild())
    await asked.wait()
    holder, left_ms = await redis.get(keys.REBUILDING), await redis.pttl(keys.REBUILDING)
    async with asyncio.timeout(HANG_S):
        for _ in range(3):  # renewed three times: longer than it lasts by itself
            while (now_ms := await redis.pttl(keys.REBUILDING)) <= left_ms:
                left_ms = now_ms
            left_ms = now_ms
    assert await redis.get(keys.REBUILDING) == holder
    go_on.set()
    assert await rebuilding == 3
    assert not await redis.exists(keys.REBUILDING)
    await assert_exact(counters, records)


async def test_a_rebuild_writes_the_same_hashes_as_counting(
    counters: Counters, redis: Redis, history: FakeHistory
) -> None:
    records = traffic(25, 300, hours=60)
    await counters.deliver([batch(records)])
    history.take(batch(records))

    async def state() -> dict[str, object]:
        found: dict[str, object] = {}
        for key in map(str, await redis.keys("tm:{*")):
            if key.endswith((":gen", ":cursor")) or key.startswith("tm:{tm:workspaces}"):
                continue
            value = await redis.smembers(key) if await redis.type(key) == "set" else await redis.hgetall(key)
            value = {k: v for k, v in value.items() if v != "0"} if isinstance(value, dict) else value
            found[key] = (value, await redis.expiretime(key))
        return found

    before = await state()
    await redis.hset("tm:{acme}:track:gone", "requests", 1)
    assert await counters.rebuild() == 3
    assert await state() == before


async def test_nodes_on_one_redis_must_share_a_history(
    counters: Counters, redis: Redis, valkey_url: str, closing: Closing
) -> None:
    other = closing(Counters(valkey_url))
    await counters.rebuilder.register("n1", "postgres-1")
    await other.rebuilder.register("n2", "postgres-1")
    with pytest.raises(ConfigError, match="'n1'"):
        await other.rebuilder.register("n2", "sqlite-2")
    await leave_nodes(counters.server, "n1")
    await other.rebuilder.register("n2", "sqlite-2")
    assert list(await redis.hgetall(keys.NODES)) == ["n2"]
    await redis.hset(keys.NODES, "n0", "sqlite-0 1000")  # not heard of since 1970
    await other.rebuilder.register("n2", "sqlite-2")
    assert list(await redis.hgetall(keys.NODES)) == ["n2"]


async def test_two_nodes_that_meet_a_new_workspace_at_once_take_it_for_no_loss(
    counters: Counters, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    await counters.deliver([batch([record(1, workspace="known")])])
    await redis.sadd(keys.WORKSPACES, "acme")  # by the other
    await redis.config_resetstat()
    delivering = asyncio.create_task(counters.deliver([batch([record(2)])]))
    async with asyncio.timeout(HANG_S):
        while "cmdstat_smembers" not in await redis.info("commandstats"):
            await asyncio.sleep(0)
    await redis.set("tm:{acme}:gen", "of-the-other")
    assert await delivering == {"j1": 2}
    assert await redis.get("tm:{acme}:gen") == "of-the-other" and "lost counters" not in caplog.text
    await assert_exact(counters, [record(2)])


async def test_a_second_process_on_the_same_journal_does_not_double(
    counters: Counters, valkey_url: str, closing: Closing
) -> None:
    other = closing(Counters(valkey_url))
    records = traffic(26, 60)
    await counters.deliver([batch(records[:20])])
    assert await other.cursors(["j1"]) == {"j1": 20}
    await counters.deliver([batch(records[20:40])])
    assert await other.deliver([batch(records[20:40])]) == {"j1": 40}
    await other.deliver([batch(records[40:])])
    await assert_exact(other, records)


async def test_nothing_known_is_not_counted_as_zero_tokens_known(counters: Counters) -> None:
    lost = record(
        1,
        outcome=Outcome.INTERRUPTED,
        input_tokens=None,
        output_tokens=None,
        cost_nusd=None,
        cached_input_tokens=None,
        input_source=Source.NONE,
        output_source=Source.NONE,
        operation=Operation.LLM,
    )
    await counters.deliver([batch([lost])])
    expected = dict.fromkeys(FIELDS, 0) | {"requests": 1, "errors": 1, "unknown_requests": 1, "llm_requests": 1}
    assert await kept_totals(counters, "acme") == Totals(**expected)
    assert fold([lost]) == list(expected.values())
