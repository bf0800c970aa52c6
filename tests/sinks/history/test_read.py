from __future__ import annotations

from base64 import urlsafe_b64encode
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs
from sqlalchemy import text

from ledger import T0, US, batch, call, random_call
from taximeter.core.errors import BadRequest, ConfigError
from taximeter.core.record import Operation, Outcome, Record, Source
from taximeter.core.totals import Totals
from taximeter.sinks import batch as sums_of
from taximeter.sinks import cells
from taximeter.sinks.history import database
from taximeter.sinks.history.database import Database, HistoryUnavailable
from taximeter.sinks.history.read.reader import Reader
from taximeter.sinks.history.schema import VERSION, meta
from taximeter.sinks.history.sink import History
from taximeter.sinks.history.windows import boundaries
from taximeter.sinks.history.write.tag_rollups import TagRoller
from taximeter.sinks.history.write.writer import Writer
from taximeter.sinks.query import GROUPS, SERIES, TAGS, Filters

MANY = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
SPAN_US = 3 * 86_400 * US
EDGES = st.one_of(
    st.none(),
    st.integers(T0 - US, T0 + SPAN_US),
    st.integers(-1, 3 * 96).map(lambda quarter: (T0 // (900 * US) + quarter) * 900 * US),
)
CHOICES = {
    "workspace": ["acme", "beta", "nobody"], "provider": ["openai", "cohere"], "model": ["m1", "m2", "unknown"],
    "task": ["query", "index", ""], "operation": [*Operation], "key_id": ["k1", ""], "service_tier": ["flex", ""],
    "track": ["t1", "t2", ""], "document": ["d1", ""], "end_user": ["ann", ""], "request_id": ["req-1", "req-2"],
    "outcome": [*Outcome], "kind": ["usage", "correction"], "error_code": ["upstream_timeout", "budget_reserved", ""],
}  # fmt: skip


def value(record: Record, name: str) -> str | None:
    found = getattr(record, name)
    return None if found is None else str(found)


def passes(record: Record, filters: Filters) -> bool:
    """The plain meaning of a filter."""
    if filters.from_us is not None and record.ended_at < filters.from_us:
        return False
    if filters.to_us is not None and record.ended_at >= filters.to_us:
        return False
    for name in CHOICES:
        wanted = getattr(filters, name)
        wanted = [wanted] if isinstance(wanted, str) else wanted
        if wanted is not None and (value(record, name) or "") not in wanted:
            return False
    return True


def folded(records: list[Record], filters: Filters, group_by: list[str], marks: list[int] | None) -> dict[Any, Any]:
    """(window start, key) -> sums, by adding up every record."""
    sums: dict[Any, list[int]] = defaultdict(cells.empty)
    for record in records:
        if passes(record, filters):
            start = None if marks is None else max(mark for mark in marks if mark <= record.ended_at)
            sums_of.add(sums[start, tuple(value(record, name) for name in group_by)], record)
    if not group_by and marks is None:
        sums.setdefault((None, ()), cells.empty())
    return {place: cells.split(cell) for place, cell in sums.items()}


@st.composite
def filtered(draw: st.DrawFn, names: list[str]) -> Filters:
    one, other = draw(EDGES), draw(EDGES)
    if one is not None and other is not None and one > other:
        one, other = other, one
    given: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(names), max_size=2, unique=True)):
        choice = st.sampled_from(CHOICES[name])
        given[name] = draw(st.one_of(choice.map(str), st.lists(choice.map(str), max_size=2)))
    return Filters(from_us=one, to_us=other, **given)


@pytest.fixture(scope="module")
def shelf() -> Iterator[dict[str, tuple[Reader, list[Record]]]]:
    kept: dict[str, tuple[Reader, list[Record]]] = {}
    yield kept
    for reader, _ in kept.values():
        reader.close()


@pytest.fixture
def stored(shelf, request, new_url) -> tuple[Reader, list[Record]]:
    """One database of 400 records for each dialect: it is the questions that vary. Of one journal half of what carries
    tags is in the roll-ups by tag, of the other nothing yet."""
    kind = request.node.callspec.params["new_url"]
    if kind not in shelf:
        rng = Random(7)
        first, second, third = (batch([random_call(rng, SPAN_US) for _ in range(n)]) for n in (150, 150, 100))
        second = batch(second.records, after=150)
        third = batch(third.records, "j2")
        database = Database(new_url())
        writer = Writer(database)
        writer.apply([first])
        while TagRoller(database).roll_up():
            pass
        writer.apply([second, third])
        shelf[kind] = Reader(database), [*first.records, *second.records, *third.records]
    return shelf[kind]


@MANY
@given(filters=filtered([*SERIES]), group_by=st.lists(st.sampled_from(SERIES), max_size=3, unique=True))
def test_usage_from_roll_ups_is_the_sum_of_the_records(stored, filters, group_by):
    reader, records = stored
    found = {
        (None, tuple(group.key.values())): (group.totals, group.details) for group in reader.usage(filters, group_by)
    }
    assert found == folded(records, filters, group_by, None)


@MANY
@given(filters=filtered([*CHOICES]), group_by=st.lists(st.sampled_from(GROUPS), max_size=3, unique=True))
def test_usage_from_single_records_is_the_sum_of_the_records(stored, filters, group_by):
    reader, records = stored
    found = {
        (None, tuple(group.key.values())): (group.totals, group.details) for group in reader.usage(filters, group_by)
    }
    assert found == folded(records, filters, group_by, None)


@MANY
@given(
    filters=st.one_of(filtered([*SERIES]), filtered([*CHOICES])),
    group_by=st.lists(st.sampled_from(GROUPS), max_size=1),
    window=st.sampled_from(["minute", "hour", "day", "month"]),
    tz=st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata", "Pacific/Chatham", "America/St_Johns"]),
)
def test_windows_are_the_sums_of_their_records(stored, filters, group_by, window, tz):
    check_windows(stored, filters, group_by, window, tz)


def check_windows(stored, filters, group_by, window, tz):
    reader, records = stored
    start = T0 - US if filters.from_us is None else filters.from_us
    end = T0 + SPAN_US if filters.to_us is None else filters.to_us
    bounded = structs.replace(filters, from_us=start, to_us=end)
    found = {
        (group.start_us, tuple(group.key.values())): (group.totals, group.details)
        for group in reader.usage(bounded, group_by, window, tz)
    }
    marks = boundaries(start, end, window, tz)[:-1]
    assert found == folded(records, bounded, group_by, marks)


BY_TAG = st.tuples(st.sampled_from(TAGS), st.sampled_from([(), ("workspace",)]), st.booleans()).map(
    lambda drawn: [drawn[0], *drawn[1]] if drawn[2] else [*drawn[1], drawn[0]]
)


@MANY
@given(filters=filtered(["workspace"]), group_by=BY_TAG)
def test_usage_by_tag_is_the_sum_of_the_records(stored, filters, group_by):
    reader, records = stored
    found = {
        (None, tuple(group.key.values())): (group.totals, group.details) for group in reader.usage(filters, group_by)
    }
    assert found == folded(records, filters, group_by, None)


@MANY
@given(
    filters=filtered(["workspace"]),
    group_by=BY_TAG,
    window=st.sampled_from(["minute", "hour", "day", "month"]),
    tz=st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata", "Pacific/Chatham", "America/St_Johns"]),
)
def test_windows_by_tag_are_the_sums_of_their_records(stored, filters, group_by, window, tz):
    check_windows(stored, filters, group_by, window, tz)


@MANY
@given(
    filters=st.one_of(filtered([*SERIES]), filtered([*CHOICES])),
    by=st.sampled_from(GROUPS),
    most=st.integers(0, 3),
    window=st.sampled_from(["hour", "day", "month"]),
    tz=st.sampled_from(["UTC", "Europe/Berlin", "Pacific/Chatham", "America/New_York"]),
)
def test_the_largest_groups_over_time_are_what_usage_says_of_them(stored, filters, by, most, window, tz):
    reader, _ = stored
    found = reader.ranked(filters, by, most, window, tz)
    assert sorted(found.groups, key=repr) == sorted(reader.usage(filters, [by]), key=repr)
    costs = [(-group.totals.cost_nusd, -group.totals.total_tokens) for group in found.groups]
    assert costs == sorted(costs)
    names = [group.key[by] for group in found.groups[:most]]
    assert found.largest == [each for each in reader.usage(filters, [by], window, tz) if each.key[by] in names]
    assert found.everything == reader.usage(filters, [], window, tz)


@pytest.mark.parametrize("window", ["minute", "hour", "day", "month"])
def test_windows_of_an_unbounded_range_hold_every_record_in_order(stored, window):
    reader, records = stored
    groups = reader.usage(Filters(), ["workspace"], window, "Asia/Kolkata")
    assert sum(group.details.attempts + group.details.corrections for group in groups) == len(records)
    assert all(a.end_us <= b.start_us for a, b in pairwise(groups) if a.start_us != b.start_us)


def test_a_range_is_half_open_to_the_microsecond(stored):
    reader, records = stored
    at = records[17].ended_at
    assert reader.count(Filters(from_us=at, to_us=at + 1)) == 1
    assert reader.count(Filters(from_us=at - 1, to_us=at)) == 0
    assert reader.count(Filters(to_us=at)) + reader.count(Filters(from_us=at)) == len(records)


def test_nothing_used_is_one_group_of_zeros(url):
    with Database(url) as database:
        reader = Reader(database)
        (group,) = reader.usage(Filters())
        assert (group.key, group.totals) == ({}, Totals())
        assert reader.usage(Filters(), ["model"]) == []
        assert reader.usage(Filters(), [], "day") == []
        assert reader.record("no such") == []
        assert reader.events(Filters()) == ([], None)
        assert reader.track("acme", "no such") == []
        assert list(reader.export(Filters())) == []


@MANY
@given(filters=filtered([*CHOICES]), limit=st.sampled_from([1, 7, 1_000]))
def test_pages_hold_every_matching_record_once_newest_first(stored, filters, limit):
    reader, records = stored
    page, found = None, []
    for _ in range(len(records) + 1):
        some, page = reader.events(filters, limit, page)
        assert len(some) <= limit
        found += some
        if page is None or len(found) > 60:
            break
    expected = sorted((record for record in records if passes(record, filters)), key=lambda record: -record.ended_at)
    assert found == (expected if page is None else expected[: len(found)])


@MANY
@given(filters=filtered([*CHOICES]), chunk=st.sampled_from([7, 100, 400]))
def test_an_export_is_every_matching_record_oldest_first(stored, filters, chunk):
    reader, records = stored
    lists = list(reader.export(filters, chunk))
    assert all(0 < len(some) <= chunk for some in lists)
    expected = sorted((record for record in records if passes(record, filters)), key=lambda record: record.ended_at)
    assert [record for some in lists for record in some] == expected
    assert reader.count(filters) == len(expected)


def test_records_of_one_moment_and_late_ones_neither_repeat_nor_hide_while_paging(url):
    with Database(url) as database:
        writer, reader = Writer(database), Reader(database)
        writer.apply([batch([call(request_id=f"r{at}") for at in range(5)])])
        first, page = reader.events(Filters(), 2)
        late = [call(request_id="old", ended_at=T0 - 5), call(request_id="new", ended_at=T0 + 5)]
        writer.apply([batch(late, after=5)])
        rest, end = reader.events(Filters(), 10, page)
        assert end is None
        assert [record.request_id for record in first + rest] == ["r4", "r3", "r2", "r1", "r0", "old"]


FULL = call(
    attempt=2, track="t", document="d", task="k", end_user="u", key_id="key", tags={"team": "red"}, ttft_ms=12.5,
    overhead_us=90, duration_ms=0.12345678, stream=True, response_model="gpt-4o-mini-2024-07-18",
    upstream_request_id="req_x", service_tier="flex", partial=True, tokenizer="o200k", cached_input_tokens=4,
    cache_write_input_tokens=5, cache_write_input_tokens_5m=3, cache_write_input_tokens_1h=2, audio_input_tokens=1,
    image_input_tokens=2, reasoning_output_tokens=3, audio_output_tokens=4, accepted_prediction_tokens=5,
    rejected_prediction_tokens=6, search_units=7, rerank_documents=8, embedding_inputs=9, web_search_requests=10,
    seconds=1.2345678, inconsistent=True, upstream_cost_nusd=11, request_bytes=12, response_bytes=13,
    error_code="timeout",
)  # fmt: skip


@pytest.mark.parametrize("record", [FULL, call(), call(response_model=None, request_model=None)])
def test_a_record_comes_back_as_it_was(url, record):
    with Database(url) as database:
        Writer(database).apply([batch([record])])
        assert Reader(database).record("req-1") == batch([record]).records


def test_a_request_shows_its_attempts_and_corrections_in_order(url):
    with Database(url) as database:
        second, first = call(attempt=2, ended_at=T0 - 7), call(outcome=Outcome.UPSTREAM_CUT)
        fix = call(kind="correction", cost_nusd=-5, ended_at=T0 + 9, input_tokens=None, output_tokens=None)
        Writer(database).apply([batch([second, fix, first, call(request_id="other")])])
        found = Reader(database).record("req-1")
        assert [(record.attempt, record.kind) for record in found] == [(1, "usage"), (1, "correction"), (2, "usage")]


def test_a_correction_changes_cost_and_nothing_else(url):
    with Database(url) as database:
        writer, reader = Writer(database), Reader(database)
        writer.apply([batch([call()])])
        (before,) = reader.usage(Filters())
        fix = call(
            kind="correction",
            input_source=Source.NONE,
            cost_nusd=-2_000,
            ended_at=T0 + US,
            input_tokens=None,
            output_tokens=None,
        )
        writer.apply([batch([fix], after=1)])
        (after,) = reader.usage(Filters())
        assert after.totals == structs.replace(before.totals, cost_nusd=25_000)
        assert after.details == structs.replace(before.details, corrections=1)
        assert [record.kind for record in reader.events(Filters())[0]] == ["correction", "usage"]


def test_a_track_is_shown_by_document_operation_and_model(url):
    embedding = {"operation": Operation.EMBEDDING, "response_model": "e-1", "output_tokens": None, "ended_at": T0 + 5}
    records = [
        call(track="t", document="d"),
        call(track="t", document="d", ended_at=T0 + 3, audio_input_tokens=4, accepted_prediction_tokens=2),
        call(track="t", **embedding),
        call(track="t", workspace="beta"),
        call(track="u"),
    ]
    with Database(url) as database:
        Writer(database).apply([batch(records)])
        nameless, document = Reader(database).track("acme", "t")
    assert (nameless.document, nameless.operation, nameless.model) == (None, "embedding", "e-1")
    assert (nameless.first_us, nameless.last_us, nameless.totals.embedding_tokens) == (T0 + 5, T0 + 5, 100)
    assert (document.document, document.operation, document.model) == ("d", "llm", "gpt-4o-mini")
    assert (document.first_us, document.last_us, document.totals.llm_input_tokens) == (T0, T0 + 3, 200)
    assert (document.details.audio_input_tokens, document.details.accepted_prediction_tokens) == (4, 2)


def test_bad_questions_are_refused(stored):
    reader, _ = stored
    for ask in (
        lambda: reader.usage(Filters(), ["colour"]),
        lambda: reader.usage(Filters(), [], "day", "Mars/Olympus"),
        lambda: reader.usage(Filters(from_us=-1)),
        lambda: reader.usage(Filters(to_us=10**30)),
        lambda: reader.events(Filters(), 0),
        lambda: reader.events(Filters(), 1_001),
        lambda: reader.events(Filters(), 10, "no cursor"),
        lambda: reader.events(Filters(), 10, "bm8="),
        lambda: reader.events(Filters(), 10, urlsafe_b64encode(b"[18446744073709551616,0]").decode()),
        lambda: reader.usage(Filters(workspace="a\0")),
        lambda: reader.events(Filters(track=["t1", "a\0"])),
    ):
        with pytest.raises(BadRequest):
            ask()


def test_which_requests_have_arrived_is_asked_for_any_number_at_once(stored):
    reader, records = stored
    there = {(record.request_id, record.workspace) for record in records}
    names = [*(name for name, _ in there), *(f"never-{number}" for number in range(40_000))]
    found = reader.arrived(names)
    assert found <= there and {name for name, _ in found} == {name for name, _ in there}


def test_the_llm_usage_view_has_the_columns_reports_rely_on(url):
    fix = call(
        kind="correction",
        input_source=Source.NONE,
        cost_nusd=-7_000,
        ended_at=T0 + US,
        input_tokens=None,
        output_tokens=None,
    )
    unknown = call(
        request_id="u", input_tokens=None, output_tokens=None, total_tokens=None, cost_nusd=None, duration_ms=None,
        ended_at=T0 + 2 * US,
    )  # fmt: skip
    priced_later = structs.replace(fix, request_id="u", cost_nusd=9_000)
    with Database(url) as database:
        Writer(database).apply([batch([call(task="query"), fix, unknown, priced_later])])
        with database.reading() as connection:
            found = connection.execute(text("SELECT * FROM llm_usage ORDER BY id"))
            names, rows = list(found.keys()), [row._asdict() for row in found]
    assert names == [
        "id", "timestamp", "provider", "model", "task_type", "input_tokens", "output_tokens", "total_tokens",
        "cost_usd", "response_time_ms", "created_at",
    ]  # fmt: skip
    assert [str(row.pop("timestamp"))[:19] for row in rows] == ["2025-11-22 08:26:40", "2025-11-22 08:26:42"]
    assert [str(row.pop("created_at"))[:19] for row in rows] == ["2025-11-22 08:26:40", "2025-11-22 08:26:42"]
    assert [float(row.pop("cost_usd")) for row in rows] == [0.00002, 0.000009]
    same = {"provider": "openai", "model": "gpt-4o-mini"}
    assert rows == [
        {"id": 1 << 40 | 1, **same, "task_type": "query", "input_tokens": 100, "output_tokens": 20,
         "total_tokens": 120, "response_time_ms": 250},
        {"id": 1 << 40 | 3, **same, "task_type": None, "input_tokens": None, "output_tokens": None,
         "total_tokens": None, "response_time_ms": None},
    ]  # fmt: skip


def test_a_database_of_a_newer_taximeter_is_refused(url):
    newer = f"schema version {VERSION + 1}"
    with Database(url) as database, database.writing() as connection:
        connection.execute(meta.update().where(meta.c.name == "version").values(value=str(VERSION + 1)))
    with pytest.raises(ConfigError, match=newer):
        Reader.open(url)
    with Database(url) as database, pytest.raises(ConfigError, match=newer):
        Writer(database).prepare()


def test_reading_opens_nothing_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="no history database"):
        Reader.open(f"sqlite:///{tmp_path}/none.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", ["", "mysql://x/y", "sqlite://", "sqlite:///:memory:", "not a url"])
def test_a_url_that_cannot_be_history_is_refused(bad):
    with pytest.raises(ConfigError, match=r"history\.url"):
        Database(bad)


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


def test_a_question_that_takes_too_long_is_an_error_and_the_next_is_answered(new_url, monkeypatch):
    monkeypatch.setattr(database, "QUESTION_S", 1)
    monkeypatch.setattr(database, "_POSTGRES_SESSION", database._POSTGRES_SESSION.replace("120s", "1s"))
    with Database(new_url()) as opened:
        for _ in range(2):
            with (
                pytest.raises(HistoryUnavailable, match=r"interrupted|statement timeout"),
                opened.reading() as connection,
            ):
                connection.execute(text(ENDLESS)).scalar()
            with opened.reading() as connection:
                assert connection.execute(text("SELECT 7")).scalar() == 7


def test_a_password_is_not_shown_in_errors():
    assert "secret" not in Database("postgresql://me:secret@db/x").name


async def test_the_command_line_reads_while_the_proxy_writes(sqlite_url, closing):
    history = closing(History(sqlite_url))
    await history.deliver([batch([call()])])
    with Reader.open(sqlite_url) as reader:
        assert reader.usage(Filters())[0].totals.requests == 1
        await history.deliver([batch([call()], after=1)])
        assert reader.usage(Filters())[0].totals.requests == 2


async def test_every_question_can_be_asked_off_the_loop(sqlite_url, closing):
    history = closing(History(sqlite_url))
    await history.deliver([batch([call(track="t")])])
    (group,) = await history.usage(Filters(), ["model"])
    assert (group.key, group.totals.requests) == ({"model": "gpt-4o-mini"}, 1)
    assert len(await history.record("req-1")) == len((await history.events(Filters()))[0]) == 1
    assert len(await history.track("acme", "t")) == 1
    assert (await history.ranked(Filters(), "model", 1, "day")).groups == [group]
    assert await history.count(Filters()) == 1
    assert [len(some) async for some in history.export(Filters())] == [1]
