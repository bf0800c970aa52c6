"""Single records in pages, any order, both ways; and the names a picker offers and a search finds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from random import Random
from typing import Any

import msgspec
import pytest

from ledger import US, batch, call, random_call
from taximeter.core.errors import BadRequest
from taximeter.core.record import Outcome, Record
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.read.reader import Reader
from taximeter.sinks.history.write.tag_rollups import TagRoller
from taximeter.sinks.history.write.writer import Writer
from taximeter.sinks.query import SORTS, Filters, Match, Sort

SORTED = [Sort(by, descending) for by in SORTS for descending in (True, False)]
FILTERS = (
    Filters(),
    Filters(workspace="acme"),
    Filters(outcome=["timeout", "refused"]),
    Filters(outcome="ok"),
    Filters(error_code="upstream_timeout"),
    Filters(workspace="beta", error_code=["upstream_timeout", "budget_reserved"]),
)


def key(record: Record, sort: Sort) -> tuple[Any, int]:
    found = {
        "ended": record.ended_at,
        "cost": record.cost_nusd,
        "tokens": record.total_tokens,
        "took": record.duration_ms,
    }
    value = found[sort.by]
    return (value is not None, value or 0), int(record.event_id.partition(":")[2])


def matches(record: Record, filters: Filters) -> bool:
    given = {name: getattr(filters, name) for name in ("workspace", "outcome", "error_code")}
    return all(
        wanted is None or str(getattr(record, name)) in ([wanted] if isinstance(wanted, str) else wanted)
        for name, wanted in given.items()
    )


@pytest.fixture
def stored(new_url) -> Iterator[tuple[Reader, list[Record]]]:
    rng = Random(3)
    made = batch([random_call(rng) for _ in range(90)])
    database = Database(new_url())
    Writer(database).apply([made])
    with closing(Reader(database)) as reader:
        yield reader, made.records


def test_pages_go_on_and_back_through_every_record_in_any_order(stored):
    reader, records = stored
    for sort in SORTED:
        for filters in FILTERS:
            matching = [each for each in records if matches(each, filters)]
            matching.sort(key=lambda each: key(each, sort), reverse=sort.descending)
            expected = [each.event_id for each in matching]
            pages, page = [], None
            while True:
                found = reader.listing(filters, 7, page, sort)
                pages.append([each.event_id for each in found.records])
                assert (found.before is None) == (len(pages) == 1)
                if found.after is None:
                    break
                page = found.after
            assert [name for some in pages for name in some] == expected, (sort, filters)
            for some in reversed(pages[:-1]):
                found = reader.listing(filters, 7, found.before, sort)
                assert [each.event_id for each in found.records] == some
                assert found.after is not None
            assert found.before is None


def test_back_at_the_first_page_there_is_all_that_came_meanwhile(url):
    database = Database(url)
    writer = Writer(database)
    writer.apply([batch([call(request_id=f"req-{n}", ended_at=10**15 + n * US) for n in range(6)])])
    with closing(Reader(database)) as reader:
        second = reader.listing(Filters(), 4, reader.listing(Filters(), 4).after)
        writer.apply([batch([call(request_id="req-new", ended_at=10**15 + 9 * US)], after=6)])
        first = reader.listing(Filters(), 4, second.before)  # three are before it now, then the newest page again
        assert [each.request_id for each in first.records] == ["req-5", "req-4", "req-3", "req-2"]
        newest = reader.listing(Filters(), 4, first.before)
        assert [each.request_id for each in newest.records] == ["req-new", "req-5", "req-4", "req-3"]
        assert newest.before is None and newest.after is not None


def test_failures_are_looked_for_only_where_roll_ups_know_of_some(url):
    """A provider's own object may hold a member of that name: it is not ours."""
    theirs = msgspec.Raw(b'{"error_code":"not_ours"}')
    database = Database(url)
    calls = [call(request_id=f"req-{n}", ended_at=10**15 + n * 3_600 * US, usage=theirs) for n in range(30)]
    calls[11] = call(request_id="req-11", ended_at=10**15 + 11 * 3_600 * US, outcome=Outcome.TIMEOUT)
    Writer(database).apply([batch(calls)])
    with closing(Reader(database)) as reader:
        assert [each.request_id for each in reader.listing(Filters(outcome="timeout"), 5).records] == ["req-11"]
        assert reader.listing(Filters(error_code="not_ours"), 5).records == []


def test_a_cursor_of_somebody_else_is_refused(stored):
    for page in ("", "no cursor", "W10=", "WzEsMl0="):
        with pytest.raises(BadRequest, match="cursor"):
            stored[0].listing(Filters(), 5, page)


def test_names_are_offered_and_found(url):
    database = Database(url)
    rows = [
        call(request_id="req-1", workspace="acme", task="query", track="upload-7", end_user="Ann"),
        call(request_id="req-2", workspace="beta", response_model="claude_100%", track="upload-8"),
        call(request_id="req-3", workspace="beta", track="fresh", response_model="MODÈLE"),
    ]
    writer = Writer(database)
    writer.apply([batch(rows[:2])])
    while TagRoller(database).roll_up():
        pass
    writer.apply([batch(rows[2:], after=2)])
    with closing(Reader(database)) as reader:
        assert reader.names()["workspace"] == ["acme", "beta"] and reader.names("acme")["task"] == ["query"]
        assert reader.names()["task"] == ["", "query"]
        assert reader.search("UPLOAD") == [Match("track", "upload-7", "acme"), Match("track", "upload-8", "beta")]
        assert reader.search("upload", "acme") == [Match("track", "upload-7", "acme")]
        assert reader.search("fresh") == [Match("track", "fresh", "beta")]  # not in the roll-ups by tag yet
        assert reader.search("fresh", "acme") == []
        assert reader.search("100%") == [Match("model", "claude_100%", None)] and reader.search("100_") == []
        assert reader.search("modèle") == [Match("model", "MODÈLE", None)]
        assert reader.names()["model"] == ["MODÈLE", "claude_100%", "gpt-4o-mini"]  # by code points
        assert reader.search("ann") == [Match("end_user", "Ann", "acme")]
