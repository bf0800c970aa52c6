"""History, read by plain SELECTs: every record is a row that says the same, and every roll-up is the records' sum."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from bisect import bisect_left
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

from simulation.audit.journals import DEFAULTS, Journal, Said
from simulation.audit.sums import Sums, began_s, fold, merged, model, of, start_s
from simulation.audit.uneven import NotYet, same

LENGTHS = {"": "quarter", "_hour": "hour", "_day": "day", "_month": "month"}
"""Tables of one roll-up end so."""
SUMMARIES = (("task",), ("provider", "model", "operation"), ("workspace", "key_id"))
SERIES = ("workspace", "provider", "model", "task", "operation", "key_id", "service_tier")
TAGS = ("track", "document", "end_user")
ELSEWHERE = frozenset(("files", "object_state"))
"""Members of a record of which history keeps nothing in its row."""
STEPS_MS = [8.0 * 2 ** (step / 2) for step in range(35)]
"""docs/design.md, section 3: two steps to a doubling, from 8 ms."""

Row = dict[str, Any]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The file as anybody may open it."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        yield connection


def compare(connection: sqlite3.Connection, journals: Mapping[str, Journal], vanished: Container[str]) -> None:
    """Raises Uneven. `vanished`: journals of which a power loss took even the name."""
    told = [said for journal in journals.values() for said in journal.records]
    records = [said for said in told if of(said, "kind") != "told"]
    cursors = {row["journal_id"]: row for row in connection.execute("SELECT * FROM journals")}
    expected = {each.journal_id: each.seq for each in journals.values() if each.seq}
    same("history's cursors", {name: row["seq"] for name, row in cursors.items() if row["seq"]}, expected)
    same("history's records", _rows(connection), {said["event_id"]: _whole(said) for said in records})
    same(
        "history's charges", _charges(connection), {said["event_id"]: _charge(said) for said in records if _owes(said)}
    )
    series = {row["series_no"]: tuple(row[name] for name in SERIES) for row in _all(connection, "usage_series")}
    quarters = fold(records, lambda said: (_series(said), start_s(said["ended_at"], "quarter")))
    for suffix, length in LENGTHS.items():
        cells = _cells(connection, f"usage_rollup{suffix}", "series_no", "start_s")
        found = [((series[number], at_s), cell) for (number, at_s), cell in cells]
        by_series = merged([((of_one, began_s(at_s, length)), cell) for (of_one, at_s), cell in quarters.items()])
        same(f"history's sums by {length}", merged(found), by_series)
        _summaries(connection, suffix, by_series)
    _tags(connection, records, {row["journal_no"]: name for name, row in cursors.items()}, series)
    _latencies(connection, records, series)
    if going := [name for name, row in cursors.items() if row["seq"] and not row["ended"] and name not in vanished]:
        raise NotYet(f"history does not know yet that these journals have ended: {going}")


def _all(connection: sqlite3.Connection, table: str) -> list[Row]:
    return [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]


def _cells(connection: sqlite3.Connection, table: str, *place: str) -> Iterator[tuple[tuple[Any, ...], dict[str, int]]]:
    """Where each row of sums belongs, by these columns, and its other columns, zeros left out."""
    rows = connection.cursor()
    rows.row_factory = None
    rows.execute(f"SELECT {', '.join(place)}, * FROM {table}")
    names, first = [name for name, *_ in rows.description], len(place)
    kept = [at for at, name in enumerate(names) if at >= first and name not in place]
    fields = [names[at] for at in kept]
    values = itemgetter(*kept)
    for row in rows:
        yield row[:first], {name: value for name, value in zip(fields, values(row), strict=True) if value}


def _series(said: Said) -> tuple[str, ...]:
    try:
        return said.series
    except AttributeError:
        said.series = tuple([model(said) if name == "model" else of(said, name) or "" for name in SERIES])
        return said.series


def _rows(connection: sqlite3.Connection) -> dict[str, Row]:
    """The records by their ids, from all the tables that a record's members are in."""
    found: dict[str, Row] = {}
    for row in connection.execute(
        """SELECT e.*, s.workspace, s.provider, s.task, s.operation, s.key_id, s.service_tier, s.model,
               o.upstream, o.api, o.request_model, o.response_model, o.tokenizer, o.price_ref,
               c.kind, c.outcome, c.input_source, c.output_source, j.journal_id
           FROM usage_events e JOIN usage_series s USING (series_no) JOIN usage_origins o USING (origin_no)
           JOIN usage_classes c USING (class_no) JOIN journals j ON j.journal_no = e.id >> 40"""
    ):
        said = {name: value for name, value in zip(row.keys(), row, strict=True) if value not in (None, "")}
        key, millis = f"{said.pop('journal_id')}:{said.pop('id') & (1 << 40) - 1}", said.pop("duration_us", None)
        said |= {"duration_ms": millis / 1_000} if millis is not None else {}
        said |= {"seconds": said.pop("audio_ms") / 1_000} if "audio_ms" in said else {}
        said |= json.loads(said.pop("detail"))
        for name in ("series_no", "origin_no", "class_no"):
            del said[name]
        found[key] = {name: value for name, value in said.items() if value != DEFAULTS.get(name)}
    return found


def _whole(said: Said) -> Row:
    """What its row should say."""
    row = {name: value for name, value in said.items() if name not in ELSEWHERE and value != DEFAULTS.get(name)}
    row["model"] = model(said)
    if "duration_ms" in row:
        row["duration_ms"] = round(row["duration_ms"] * 1_000) / 1_000
    del row["event_id"]
    return row


def _owes(said: Said) -> bool:
    return any(said.get(f"charged_{what}") is not None for what in ("tokens", "cost_nusd", "audio_ms"))


def _charge(said: Said) -> Row:
    names = ("ended_at", "workspace", "key_id", "task", "request_id", "charged_tokens", "charged_cost_nusd")
    zeros = {"charged_tokens": 0, "charged_cost_nusd": 0}
    return {name: said.get(name) or zeros.get(name, "") for name in names}


def _charges(connection: sqlite3.Connection) -> dict[str, Row]:
    rows = connection.execute(
        "SELECT c.*, j.journal_id FROM usage_charges c JOIN journals j ON j.journal_no = c.id >> 40"
    )
    found = {f"{row['journal_id']}:{row['id'] & (1 << 40) - 1}": dict(row) for row in rows}
    return {key: {name: row[name] for name in row if name not in ("id", "attempt", "journal_id")}
            for key, row in found.items()}  # fmt: skip


def _summaries(connection: sqlite3.Connection, suffix: str, by_series: Sums) -> None:
    names = {row["series_no"]: (row["kept"], *(row[name] for name in SERIES))
             for row in _all(connection, "usage_summaries")}  # fmt: skip
    cells = _cells(connection, f"usage_summary{suffix}", "series_no", "start_s")
    found = [((names[number], at_s), cell) for (number, at_s), cell in cells]
    expected = [
        (((",".join(kept), *(value if name in kept else "" for name, value in zip(SERIES, of_one, strict=True))), at),
         cell)
        for kept in SUMMARIES
        for (of_one, at), cell in by_series.items()
    ]  # fmt: skip
    same(f"history's summaries{suffix}", merged(found), merged(expected))


def _tags(
    connection: sqlite3.Connection, records: list[Said], numbers: dict[int, str], series: dict[int, tuple[str, ...]]
) -> None:
    """As far as they have come: they are filled behind delivery."""
    done = {numbers[row["journal_no"]]: row["seq"] for row in _all(connection, "usage_tags_done")}
    hours: Sums = {}
    for tag in TAGS:
        hours |= fold(records, partial(_tag, done, tag))
    for length in ("hour", "day", "month"):
        cells = _cells(connection, f"usage_tags_{length}", "tag", "value", "series_no", "start_s")
        found = [((tag, value, series[number], at_s), cell) for (tag, value, number, at_s), cell in cells]
        expected = merged([((*where, began_s(at_s, length)), cell) for (*where, at_s), cell in hours.items()])
        same(f"history's sums by tag and {length}", merged(found), expected)


def _tag(done: Mapping[str, int], tag: str, said: Said) -> tuple[Any, ...] | None:
    if said.get(tag) is None:
        return None
    journal_id, _, seq = said["event_id"].partition(":")
    if int(seq) > done.get(journal_id, 0):
        return None
    return tag, said[tag], _series(said), start_s(said["ended_at"], "hour")


def _latencies(connection: sqlite3.Connection, records: list[Said], series: dict[int, tuple[str, ...]]) -> None:
    for length in ("hour", "day"):
        found: dict[Any, dict[int, int]] = {}
        for row in _all(connection, f"usage_latency_{length}"):
            where = series[row["series_no"]], row["start_s"], row["measure"]
            found[where] = {step: row[f"step_{step:02}"] for step in range(36) if row[f"step_{step:02}"]}
        expected: dict[Any, Counter[int]] = {}
        for said in records:
            times = (said.get("duration_ms"), said.get("ttft_ms") if of(said, "stream") else None)
            for measure, ms in enumerate(times):
                if ms is not None and said["outcome"] == "ok" and of(said, "kind") == "usage":
                    where = _series(said), start_s(said["ended_at"], length), measure
                    expected.setdefault(where, Counter())[bisect_left(STEPS_MS, ms)] += 1
        same(f"history's latencies by {length}", found, expected)
