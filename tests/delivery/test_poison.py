"""Odd lines in a journal file, all the way through delivery: every sink has all of them; nothing fails, or is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

import oddities
from delivery.test_deliver import delivering, quick
from journals import AT
from ledger import T0
from taximeter.config import WebhookSettings
from taximeter.control.services.live import Live
from taximeter.core.lines import Header, Line
from taximeter.core.record import Record
from taximeter.core.totals import FIELDS, add, empty, saturated
from taximeter.journal.format import encode
from taximeter.journal.tail import decode_record
from taximeter.sinks.history.sink import History
from taximeter.sinks.prometheus.cells import Metrics
from taximeter.sinks.query import Filters
from taximeter.sinks.redis.counters import Counters
from taximeter.sinks.sink import Sink
from taximeter.sinks.webhook.sink import Webhook
from valkeys import kept_totals

__all__ = ["quick"]
ID = "0123456789abcdef" * 2


def every_oddity() -> list[bytes]:
    """Each member of a record with each odd value, each odd usage object, and each member left out."""
    values: tuple[Any, ...] = (
        *oddities.NUMBERS,
        *oddities.TEXTS,
        0.5,
        -0.5,
        1e300,
        None,
        True,
        [],
        {},
        {"a": 1},
        {"k\0": "v\0"},
    )
    members = [name for name in Record.__struct_fields__ if name not in ("event_id", "usage")]
    odd: list[Any] = [({name: value}, None, set()) for name in members for value in values]
    odd += [({}, usage, set()) for usage in oddities.USAGES]
    odd += [({}, None, {name}) for name in members]
    return [oddities.line(seq, one, ID) for seq, one in enumerate(odd, start=1)]


def by_workspace(records: list[Record]) -> dict[str, list[int]]:
    cells: dict[str, list[int]] = {}
    for record in records:
        add(cells.setdefault(record.workspace, empty()), record)
    return cells


@pytest.mark.parametrize("kind", ["cloudevents", "segments"])
async def test_no_line_stops_a_sink_and_all_agree(tmp_path: Path, new_url, valkey_url: str, quick, kind: str) -> None:
    async with Redis.from_url(valkey_url) as client:
        await client.flushall()
    directory, lines = tmp_path / "journal", every_oddity()
    directory.mkdir()
    head = encode(Line(journal=Header(schema=1, journal_id=ID, node="n", worker="1", started_at=AT)))
    (directory / f"{ID}.jsonl").write_bytes(head + b"".join(line + b"\n" for line in lines))
    history = History(new_url())
    settings = msgspec.convert({"url": "http://127.0.0.1:9/", "format": kind}, WebhookSettings)
    webhook = Webhook(settings, history, node="n", token="", secret="", now_us=lambda: T0)
    counters = Counters(valkey_url, history=history)
    sinks: list[Sink] = [history, counters, Metrics(history.cursors), Live(history.cursors), webhook]
    try:
        async with delivering(directory, *sinks, keep_s=10**6) as delivery:
            assert (await delivery.drain(120, [sink.name for sink in sinks])).complete
            health = delivery.health()
            assert health.unreadable_lines == 0
            assert health.halted == {}
            for name, sink in health.sinks.items():
                assert (name, sink.errors, sink.set_aside, sink.failing) == (name, 0, 0, None)
        expected = by_workspace([decode_record(line) for line in lines])
        assert sum(cell[0] for cell in expected.values()) > len(lines) / 2
        await history.roll_up_tags()
        for workspace, cell in expected.items():
            (group,) = await history.usage(Filters(workspace=workspace))
            counted = await kept_totals(counters, workspace)
            for found in (group.totals, counted):
                assert list(saturated([getattr(found, name) for name in FIELDS])) == list(saturated(cell))
        assert (await counters.auditor.audit(10_000)).rebuilt == []
    finally:
        await counters.close()
        await webhook.close()
        await history.close()


REFUSE = {
    "sqlite": "CREATE TRIGGER refuse BEFORE INSERT ON usage_events WHEN NEW.request_id = 'req-7' "
    "BEGIN SELECT RAISE(ABORT, 'not this one'); END",
    "postgresql": "ALTER TABLE usage_events ADD CONSTRAINT refuse CHECK (request_id <> 'req-7')",
}
ALLOW = {"sqlite": "DROP TRIGGER refuse", "postgresql": "ALTER TABLE usage_events DROP CONSTRAINT refuse"}


async def test_a_record_a_database_refuses_is_missing_there_until_it_is_taken(
    tmp_path: Path, new_url, valkey_url: str, quick
) -> None:
    """From refusal to replay with real servers: the other records, the other sinks, and then all of them."""
    async with Redis.from_url(valkey_url) as client:
        await client.flushall()
    directory, lines = tmp_path / "journal", [oddities.line(seq, ({}, None, set()), ID) for seq in range(1, 31)]
    directory.mkdir()
    head = encode(Line(journal=Header(schema=1, journal_id=ID, node="n", worker="1", started_at=AT)))
    (directory / f"{ID}.jsonl").write_bytes(head + b"".join(line + b"\n" for line in lines))
    history = History(new_url())
    counters = Counters(valkey_url, history=history)

    async def execute(statements: dict[str, str]) -> None:
        def act(database) -> None:
            with database.writing() as connection:
                connection.exec_driver_sql(statements[database.dialect])

        await history.write(act)

    async def requests() -> tuple[int, int]:
        kept = (await history.usage(Filters()))[0].totals.requests
        return kept, sum([(await kept_totals(counters, name)).requests for name in ("acme", "beta")])

    try:
        await history.prepare()
        await execute(REFUSE)
        async with delivering(directory, history, counters, keep_s=10**6) as delivery:
            assert (await delivery.drain(60, ["history", "redis"])).complete
            assert await requests() == (29, 30)
            (letter,) = delivery.aside.letters()
            assert (letter.sink, letter.record.event_id) == ("history", f"{ID}:7")
            assert letter.problem.startswith("HistoryRefused")
            assert (await delivery.replay()).replayed == 0
            assert delivery.health().sinks["history"].failing is None
            await counters.auditor.audit()
            assert await requests() == (29, 29)  # Redis follows history, and so it does when history has it
            await execute(ALLOW)
            assert (await delivery.replay()).replayed == 1
            await history.roll_up_tags()
            await counters.auditor.audit()
            assert await requests() == (30, 30)
            assert (await delivery.replay()).replayed == 0
    finally:
        await counters.close()
        await history.close()
