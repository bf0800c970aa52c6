"""No record that a journal can hold stops a sink, or a reader of what the sink keeps; sums are those of the records."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

import oddities
from closing import closed
from collector import Collector
from ledger import T0, batch, call
from taximeter.config.settings import OtelSettings
from taximeter.control.answers import responses as shapes
from taximeter.control.answers import rows
from taximeter.control.services.live import Live
from taximeter.core.bounds import MAX_COST_NUSD, MAX_SUM
from taximeter.core.record import Operation, Record
from taximeter.core.totals import FIELDS, add, empty, saturated
from taximeter.core.usage import MAX_COUNT
from taximeter.journal.tail import decode_record
from taximeter.sinks.batch import Batch
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.sink import History
from taximeter.sinks.otel import Otel
from taximeter.sinks.prometheus.cells import Metrics
from taximeter.sinks.prometheus.families import Exposition
from taximeter.sinks.query import GROUPS, Filters
from taximeter.sinks.redis.counters import Counters
from taximeter.sinks.sink import Sink
from taximeter.sinks.webhook.store import Store
from valkeys import kept_totals

FEW = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
MANY = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


async def from_the_start(journal_ids):
    return dict.fromkeys(journal_ids, 0)


def read(lines: Sequence[bytes]) -> Batch:
    """The batch delivery makes of lines."""
    records = [decode_record(line) for line in lines]
    return Batch(journal_id="j1", after=0, upto=len(records), records=records, digest="d")


def summed(records: Sequence[Record]) -> list[int]:
    cell = empty()
    for record in records:
        add(cell, record)
    return cell


def by_workspace(records: Sequence[Record]) -> dict[str, list[int]]:
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.workspace, []).append(record)
    return {workspace: summed(mine) for workspace, mine in found.items()}


async def take(sink: Sink, sent: Batch) -> None:
    assert await sink.cursors(["j1"]) == {"j1": 0}
    assert await sink.deliver([sent]) == {"j1": sent.upto}
    assert await sink.deliver([sent]) == {"j1": sent.upto}  # once only


@FEW
@given(lines=oddities.lines())
def test_history_takes_and_shows_any_record(new_url, lines: list[bytes]) -> None:
    asyncio.run(into_history(new_url(), read(lines)))


async def into_history(url: str, sent: Batch) -> None:
    history = History(url)
    try:
        await take(history, sent)
        (total,) = await history.usage(Filters())
        assert figures(total) == summed(sent.records)
        await history.roll_up_tags()
        for name in GROUPS:
            groups = await history.usage(Filters(), [name])
            assert [sum(cell) for cell in zip(*map(figures, groups), strict=True)] == summed(sent.records)
            shapes.encode(shapes.aggregate(groups, Filters(), [name], windowed=False))
        for workspace, cell in by_workspace(sent.records).items():
            ledger = await history.ledger(workspace, days_from_us=0, hours_from_us=0, tracks_from_us=0)
            assert ledger.total == cell
            assert (await history.standing(workspace, {"j1": sent.upto})).total == cell
            shapes.encode(shapes.track(await history.track(workspace, "t1"), name="t1", workspace=workspace))
        shown, page = await history.events(Filters(), 1_000)
        assert page is None
        assert {each.event_id for each in shown} == {each.event_id for each in sent.records}
        async for some in history.export(Filters()):
            rows.csv_lines(some)
            rows.jsonl_lines(some)
        shapes.encode([shapes.record(each) for each in shown])
    finally:
        await history.close()


def figures(group) -> list[int]:
    return [getattr(group.totals, name) for name in FIELDS]


@MANY
@given(lines=oddities.lines())
def test_redis_takes_any_record_and_counts_it_once(valkey_url: str, lines: list[bytes]) -> None:
    asyncio.run(into_redis(valkey_url, read(lines)))


async def into_redis(url: str, sent: Batch) -> None:
    async with Redis.from_url(url) as client:
        await client.flushall()
    sink = Counters(url)
    try:
        await take(sink, sent)
        for workspace, cell in by_workspace(sent.records).items():
            counted = await kept_totals(sink, workspace)
            assert [getattr(counted, name) for name in FIELDS] == list(saturated(cell))
    finally:
        await sink.close()


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@MANY
@given(lines=oddities.lines())
def test_prometheus_and_live_views_take_any_record(lines: list[bytes]) -> None:
    asyncio.run(into_memory(read(lines)))


async def into_memory(sent: Batch) -> None:
    metrics, live = Metrics(from_the_start), Live(from_the_start)
    with live.watch(Filters()) as watch:
        await take(metrics, sent)
        await take(live, sent)
        for record in sent.records:
            assert await watch.next(1) is record
            shapes.encode(shapes.record(record))
    for accept in ("", "application/openmetrics-text; version=1.0.0"):
        Exposition(metrics).render(accept)


async def test_an_otlp_exporter_takes_any_record(collector: Collector) -> None:
    odd: list[Any] = [({name: value}, None, set()) for name in oddities.FIGURES for value in oddities.NUMBERS]
    odd += [({name: value}, None, set()) for name in ("request_model", "track") for value in oddities.TEXTS]
    sent = read([oddities.line(seq, one) for seq, one in enumerate(odd, start=1)])
    async with closed(Otel(OtelSettings(endpoint=collector.url), node="n1", start=from_the_start)) as sink:
        await take(sink, sent)
    assert len(collector.spans) == len(sent.records)


@FEW
@given(lines=oddities.lines(most=10), events=st.booleans())
def test_the_webhook_takes_and_writes_about_any_record(new_url, lines: list[bytes], events: bool) -> None:
    sent = read(lines)
    with Database(new_url()) as database:
        store = Store(database, "n1", events=events, now_us=lambda: T0)
        store.prepare()
        assert store.apply([sent]) == {"j1": sent.upto}
        for workspace in by_workspace(sent.records):
            store.cut(workspace, "t1")
        for letter in store.letters():
            json.loads(letter.body)


DEAR = {"cost_nusd": MAX_SUM, "input_tokens": MAX_COUNT, "operation": Operation.LLM}


async def test_sums_stop_where_they_would_overflow_and_questions_go_on(new_url, valkey_url: str) -> None:
    """Three of these in one cell overflow 64 bits, and so do three cells in one answer."""
    async with Redis.from_url(valkey_url) as client:
        await client.flushall()
    history = History(new_url())
    counters = Counters(valkey_url, history=history, history_id=await history.identity())
    day_us = 86_400_000_000
    try:
        after = 0
        for n in range(4):
            same_month = [
                call(**DEAR, ended_at=T0 + n % 2 * day_us, track="t1", request_id=f"r{n}-{k}") for k in range(3)
            ]
            sent = batch(same_month, after=after)
            for sink in (history, counters):
                await sink.cursors(["j1"])
                assert await sink.deliver([sent]) == {"j1": sent.upto}
            after = sent.upto
        for asked in ([], ["workspace"], ["track"], ["workspace", "track"], ["model"]):
            # By tag, what carries none is what is left of all, which is only known to be more.
            (group,) = [each for each in await history.usage(Filters(), asked) if None not in each.key.values()]
            assert group.totals.cost_nusd >= MAX_SUM
            assert group.totals.requests == 12
            assert group.totals.llm_input_tokens == 12 * MAX_COUNT
        for window in ("hour", "day", "month"):
            groups = await history.usage(Filters(), ["workspace"], window)
            assert sum(group.totals.requests for group in groups) == 12
        ragged = Filters(from_us=T0 - 7, to_us=T0 + 1)
        assert (await history.usage(ragged))[0].totals.cost_nusd == 6 * MAX_SUM  # from records: exact, whatever size
        (part,) = await history.track("acme", "t1")
        assert part.totals.cost_nusd == 12 * MAX_SUM
        await history.roll_up_tags()
        ranked = await history.ranked(Filters(), "model", 5, "day")
        shapes.encode([group.totals for group in ranked.groups])
        counted = await kept_totals(counters, "acme")
        assert counted.cost_nusd >= MAX_SUM
        assert counted.llm_input_tokens == 12 * MAX_COUNT
        assert (await counters.auditor.audit()).rebuilt == []  # both know only that it is more
        await counters.rebuild("acme")
        assert (await kept_totals(counters, "acme")).cost_nusd == MAX_SUM
        assert (await history.prune(T0 + 40 * day_us)) > 0
    finally:
        await counters.close()
        await history.close()


async def test_thirty_answers_of_a_trillion_tokens_stop_nothing(new_url, valkey_url: str) -> None:
    """As the versions before wrote them down: 2^40 tokens, each priced at what a dear model takes for so many."""
    async with Redis.from_url(valkey_url) as client:
        await client.flushall()
    odd = {"input_tokens": 2**40, "output_tokens": 2**40, "cost_nusd": 6 * 10**17, "workspace": "evil"}
    lines = [oddities.line(seq, (odd if seq <= 30 else {}, None, set())) for seq in range(1, 41)]
    sent, history, counters = read(lines), History(new_url()), Counters(valkey_url)
    try:
        for sink in (history, counters):
            await take(sink, sent)
        for workspace in ("acme", "beta"):
            expected = summed([call()] * 5)
            assert figures((await history.usage(Filters(workspace=workspace)))[0]) == expected
            counted = await kept_totals(counters, workspace)
            assert [getattr(counted, name) for name in FIELDS] == expected
        evil = (await history.usage(Filters(workspace="evil")))[0].totals
        assert (evil.requests, evil.unknown_requests, evil.cost_nusd, evil.total_tokens) == (30, 30, 0, 0)
    finally:
        await counters.close()
        await history.close()


def test_a_largest_call_fits_many_times() -> None:
    """The arithmetic of core.record: what a sum holds."""
    assert MAX_SUM // MAX_COST_NUSD == 461_168
    assert 2 * MAX_SUM < 2**63
