"""Which table answers which question, and that no question walks a whole table: what keeps answers fast for ever."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event

from ledger import T0, US, batch, call
from present import present
from taximeter.sinks.history.conditions import shape
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.read.reader import Reader
from taximeter.sinks.history.read.rollups import _choose, knows_tag
from taximeter.sinks.history.schema import series, summaries
from taximeter.sinks.history.write.writer import Writer
from taximeter.sinks.query import Filters

DAY_US = 86_400 * US


@pytest.mark.parametrize(
    ("group_by", "filters", "kept"),
    [
        ((), Filters(), "task"),
        (("task",), Filters(), "task"),
        (("model",), Filters(), "provider,model,operation"),
        (("provider", "model"), Filters(operation="llm"), "provider,model,operation"),
        (("workspace",), Filters(), "workspace,key_id"),
        ((), Filters(workspace="acme"), "workspace,key_id"),
        (("model",), Filters(workspace="acme"), None),
        (("service_tier",), Filters(), None),
    ],
)
def test_the_summary_with_fewest_rows_that_knows_all_names_answers(group_by, filters, kept):
    numbered, _, of = _choose(group_by, shape(filters))
    assert numbered is (summaries if kept else series)
    if kept:
        assert kept in present(of).compile().params.values()


@pytest.mark.parametrize("filters", [Filters(), Filters(workspace=["acme", "beta"]), Filters(task="query", model="m")])
def test_one_tag_beside_names_of_series_has_roll_ups_of_its_own(filters):
    one: tuple[tuple[str, ...], ...] = (("track",), ("workspace", "document"), ("end_user", "model", "task"))
    for names in one:
        assert knows_tag(names, shape(filters))
    other: tuple[tuple[str, ...], ...] = ((), ("workspace",), ("track", "document"), ("track", "upstream"))
    for names in other:
        assert not knows_tag(names, shape(filters))
    assert not knows_tag(("track",), shape(Filters(track="t")))
    assert not knows_tag(("track",), shape(Filters(outcome="ok")))


RANGE = Filters(from_us=T0 - 40 * DAY_US + 7, to_us=T0 + 3 * DAY_US + 7)
QUESTIONS = {
    "totals": lambda reader: reader.usage(RANGE),
    "all time by day": lambda reader: reader.usage(Filters(), ["model"], "day"),
    "by workspace and model": lambda reader: reader.usage(RANGE, ["workspace", "model"]),
    "days of a zone": lambda reader: reader.usage(RANGE, [], "day", "Europe/Berlin"),
    "a workspace's hours": lambda reader: reader.usage(Filters(workspace="acme"), ["model"], "hour"),
    "minutes": lambda reader: reader.usage(Filters(from_us=T0, to_us=T0 + 3_600 * US), [], "minute"),
    "a track": lambda reader: reader.track("acme", "t"),
    "a document": lambda reader: reader.usage(Filters(document="d", from_us=T0 - DAY_US)),
    "an end user": lambda reader: reader.usage(Filters(end_user="ann"), ["model"]),
    "by end user": lambda reader: reader.usage(RANGE, ["end_user"]),
    "a workspace's documents": lambda reader: reader.usage(Filters(workspace="acme"), ["document"]),
    "tracks in days of a zone": lambda reader: reader.usage(RANGE, ["workspace", "track"], "day", "Europe/Berlin"),
    "a request": lambda reader: reader.record("req-1"),
    "newest": lambda reader: reader.events(Filters(), 10),
    "newest of a workspace": lambda reader: reader.events(Filters(workspace="acme"), 10),
    "export": lambda reader: list(reader.export(RANGE)),
    "identity": lambda reader: reader.identity(),
}
LARGE = ("usage_events", "usage_rollup", "usage_rollup_hour", "usage_summary", "usage_summary_hour", "usage_tags_hour")


@pytest.mark.parametrize("question", QUESTIONS)
def test_no_question_walks_a_large_table(sqlite_url, question):
    with Database(sqlite_url) as database:
        Writer(database).apply([batch([call(track="t", document="d", end_user="ann")])])
        asked: list[tuple[str, Any]] = []
        event.listen(
            database._reader, "before_cursor_execute", lambda _c, _k, sql, params, *_: asked.append((sql, params))
        )
        QUESTIONS[question](Reader(database))
        plans: list[str] = []
        with database.reading() as connection:
            for sql, params in asked.copy():
                plans += [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", params)]
    assert plans
    walked = [plan for plan in plans if plan.startswith("SCAN") and plan.split()[1] in LARGE]
    assert walked == []


def test_a_statement_is_built_once_for_each_shape_of_a_question(sqlite_url):
    from taximeter.sinks.history.read import rollups

    with Database(sqlite_url) as database:
        Writer(database).apply([batch([call()])])
        reader = Reader(database)
        reader.usage(Filters(workspace="acme"), ["model"])
        built = rollups._query.cache_info().misses
        for workspace in ("beta", ["acme", "beta"], []):
            reader.usage(Filters(workspace=workspace), ["model"])
        assert rollups._query.cache_info().misses == built
