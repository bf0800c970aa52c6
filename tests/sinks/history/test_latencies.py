"""Percentiles: of every value where they are few, else of histograms that know every call once; never of a sample."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from random import Random

import pytest
from sqlalchemy import text

from ledger import T0, US, batch, call, random_call
from taximeter.core.latency import PERCENTILES, STEPS, of_histogram, of_values, step
from taximeter.core.record import Outcome, Record
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.read.reader import Reader
from taximeter.sinks.history.schema import LATENCY_DAY, LATENCY_HOUR, LEVELS, SUMMARY_LEVELS, TAG_LEVELS, meta
from taximeter.sinks.history.windows import boundaries
from taximeter.sinks.history.write.writer import Writer
from taximeter.sinks.query import Filters, Latency

HOUR_US = 3_600 * US
SPAN_US = 5 * 24 * HOUR_US
FROM_US = T0 // HOUR_US * HOUR_US - 7 * HOUR_US
RANGE = FROM_US, FROM_US + SPAN_US + 26 * HOUR_US
ZONES = ("UTC", "Europe/Berlin", "Asia/Kolkata", "America/Los_Angeles")
READ = "taximeter.sinks.history.read.latencies"


def made(seed: int, most: int) -> list[Record]:
    rng = Random(seed)
    records = [random_call(rng, SPAN_US) for _ in range(most)]
    for each in records:
        each.ttft_ms = rng.choice([None, rng.uniform(1, 5_000)])
        each.stream = rng.random() < 0.7
        if rng.random() < 0.7:
            each.outcome = Outcome.OK
    return records


@pytest.fixture
def stored(new_url) -> Iterator[tuple[Reader, list[Record]]]:
    records = made(11, 300)
    database = Database(new_url())
    writer = Writer(database)
    writer.apply([batch(records[:120])])
    writer.apply([batch(records[120:], after=120)])
    with closing(Reader(database)) as reader:
        yield reader, records


def figures(found: Latency) -> dict[object, object]:
    """(window's start | group | "all", measure) -> (count, percentiles)."""
    parts = [("all", found.total), *((each.start_us, each) for each in found.windows)]
    parts += [(f"group {each.key}", each) for each in found.groups]
    told = {(name, measure): getattr(part, measure) for name, part in parts for measure in ("duration", "ttft")}
    return {place: (each.count, each.p50_ms, each.p95_ms, each.p99_ms) for place, each in told.items() if each.count}


def expected(records: list[Record], by: str, marks: list[int], exact: bool) -> dict[object, object]:
    edges = marks if exact else [-(-mark // HOUR_US) * HOUR_US for mark in marks]
    values: dict[object, list[float]] = {}
    for each in records:
        if each.outcome is not Outcome.OK or each.kind != "usage" or not edges[0] <= each.ended_at < edges[-1]:
            continue
        start = marks[max(at for at, edge in enumerate(edges) if edge <= each.ended_at)]
        for measure, ms in (("duration", each.duration_ms), ("ttft", each.ttft_ms)):
            if ms is not None and (measure == "duration" or each.stream):
                for name in ("all", start, f"group {getattr(each, by)}"):
                    values.setdefault((name, measure), []).append(ms)
    return {place: told(found, exact) for place, found in values.items()}


def told(values: list[float], exact: bool) -> tuple[object, ...]:
    if exact:
        return len(values), *(of_values(sorted(values), n) for n in PERCENTILES)
    counts = [0] * STEPS
    for ms in values:
        counts[step(ms)] += 1
    return len(values), *(of_histogram(counts, n) for n in PERCENTILES)


@pytest.mark.parametrize("window", ["hour", "day", "month"])
def test_few_are_read_one_by_one_and_many_are_in_the_histograms_once(stored, monkeypatch, window):
    reader, records = stored
    for tz in ZONES:
        marks = boundaries(*RANGE, window, tz)
        for by, filters in (("model", Filters()), ("workspace", Filters(workspace="acme")), ("task", Filters(task=""))):
            mine = [
                r for r in records if filters.workspace in (None, r.workspace) and (filters.task is None or not r.task)
            ]
            monkeypatch.setattr(f"{READ}.FEW", 20_000)
            found = reader.latency(filters, by, marks)
            assert (found.basis, figures(found)) == ("records", expected(mine, by, marks, exact=True)), (tz, by)
            monkeypatch.setattr(f"{READ}.FEW", -1)
            for hourly_s in (0, 100 * 86_400):  # from days and what hours they lack; from hours alone
                monkeypatch.setattr(f"{READ}.HOURLY_S", hourly_s)
                found = reader.latency(filters, by, marks)
                assert (found.basis, figures(found)) == ("histogram", expected(mine, by, marks, exact=False)), (tz, by)


def test_where_no_histogram_knows_the_filter_every_value_is_read_or_nothing_is_said(stored, monkeypatch):
    reader, records = stored
    monkeypatch.setattr(f"{READ}.FEW", -1)
    marks = boundaries(*RANGE, "day", "UTC")
    found = reader.latency(Filters(track="t1"), "model", marks)
    mine = [each for each in records if each.track == "t1"]
    assert (found.basis, figures(found)) == ("records", expected(mine, "model", marks, exact=True))
    monkeypatch.setattr(f"{READ}.MOST", 3)
    found = reader.latency(Filters(track="t1"), "model", marks)
    assert (found.basis, figures(found)) == ("unknown", {})


def test_a_history_of_version_3_tells_refusals_and_latencies_from_now_on(url):
    refused = {"outcome": Outcome.REFUSED}
    with Database(url) as database:
        Writer(database).apply([batch([call(**refused), call(ended_at=T0 + 1)])])
        with database.writing() as connection:  # as an older Taximeter made it
            for table in (LATENCY_HOUR, LATENCY_DAY):
                connection.execute(text(f"DROP TABLE {table.name}"))
            for table in (*LEVELS, *SUMMARY_LEVELS, *TAG_LEVELS):
                connection.execute(text(f"ALTER TABLE {table.name} DROP COLUMN refused"))
            connection.execute(meta.update().where(meta.c.name == "version").values(value="3"))
    with Database(url) as database:
        writer, reader = Writer(database), Reader(database)
        writer.apply([batch([call(**refused, ended_at=T0 + HOUR_US), call(ended_at=T0 + HOUR_US)], after=2)])
        (group,) = reader.usage(Filters())
        assert (group.totals.errors, group.details.refused) == (2, 1)
        since_us = reader.apart_since_us()
        assert T0 < since_us <= T0 + 900 * US and since_us % (900 * US) == 0
        assert reader.usage(Filters(from_us=since_us))[0].details.refused == 1
        marks = [T0 // HOUR_US * HOUR_US, T0 + 4 * HOUR_US]
        assert reader.latency(Filters(), "model", marks).total.duration.count == 2  # read one by one
