import csv
import io
import json

import pytest

from control_plane import embedding, record
from taximeter.control.answers.responses import COLUMNS
from taximeter.control.door import shares
from taximeter.core.record import Outcome
from waits import happens


async def test_csv_has_the_records_names_and_one_line_a_record_oldest_first(control):
    await control.add(record(1, tags={"a": "b"}), embedding(2), record(3, cost_nusd=None, request_model="=1+1"))
    answer = await control.client.get("/usage/export.csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert tuple(rows[0]) == COLUMNS
    assert [row["request_id"] for row in rows] == ["req-1", "req-2", "req-3"]
    assert (rows[0]["input_tokens"], rows[0]["cost_usd"], rows[0]["tags"]) == ("100", "0.000033", '{"a":"b"}')
    assert (rows[1]["output_tokens"], rows[2]["cost_usd"]) == ("", "")
    assert rows[2]["request_model"] == "'=1+1"  # a spreadsheet must not run it
    assert rows[0]["started_at"] == "2026-11-03T12:00:00.750000Z" and rows[0]["usage"] == '{"prompt_tokens":100}'
    assert answer.headers["content-disposition"] == 'attachment; filename="usage.csv"'
    assert answer.headers["x-taximeter-records"] == "3"


async def test_jsonl_is_one_record_a_line_as_events_show_it(control):
    await control.add(*(record(n) for n in range(3)))
    lines = [json.loads(line) for line in (await control.client.get("/usage/export.jsonl")).text.splitlines()]
    events = (await control.get("/usage/events"))["data"]
    assert lines == list(reversed(events))


async def test_an_export_is_filtered_and_larger_than_one_batch(control):
    await control.add(*(record(n, task="index" if n % 2 else "query") for n in range(4_100)))
    answer = await control.client.get("/usage/export.jsonl", params={"task": "index", "outcome": "ok"})
    numbers = [json.loads(line)["request_id"] for line in answer.text.splitlines()]
    assert numbers == [f"req-{n}" for n in range(4_100) if n % 2]


async def test_parquet_keeps_types_and_exact_money(control):
    parquet = pytest.importorskip("pyarrow.parquet")
    await control.add(record(1), embedding(2, cost_nusd=None))
    body = (await control.client.get("/usage/export.parquet")).content
    table = parquet.read_table(io.BytesIO(body))
    assert tuple(table.column_names) == COLUMNS
    first, second = table.to_pylist()
    assert (str(first["cost_usd"]), second["cost_usd"], second["output_tokens"]) == ("0.000033000", None, None)
    assert first["ended_at"].isoformat() == "2026-11-03T12:00:01+00:00" and first["stream"] is False


async def test_an_empty_export_is_a_header_or_nothing(control):
    assert (await control.client.get("/usage/export.csv")).text.count("\n") == 1
    assert (await control.client.get("/usage/export.jsonl")).text == ""


class Watcher:
    """Reads server-sent events from a real socket."""

    def __init__(self, control, query=""):
        self._path = f"/usage/live{query}"
        self._control = control

    async def __aenter__(self):
        self._stream = self._control.client.stream("GET", self._path)
        self.answer = await self._stream.__aenter__()
        self._chunks = self.answer.aiter_bytes()
        self._held = b""
        assert await self.next() == (": watching", None)
        return self

    async def __aexit__(self, *_):
        await self._stream.__aexit__(None, None, None)

    async def next(self):
        while b"\r\n\r\n" not in self._held:
            self._held += await anext(self._chunks)
        event, self._held = self._held.split(b"\r\n\r\n", 1)
        lines = event.decode().split("\r\n")
        data = [line[6:] for line in lines if line.startswith("data: ")]
        name = next((line[7:] for line in lines if line.startswith("event: ")), lines[0])
        return name, json.loads(data[0]) if data else None


async def test_live_shows_matching_calls_as_they_end(control):
    async with Watcher(control, "?workspace=acme&operation=llm") as watcher:
        assert watcher.answer.headers["content-type"].startswith("text/event-stream")
        await control.add(record(1, workspace="beta"), embedding(2), record(3, outcome=Outcome.TIMEOUT))
        name, shown = await watcher.next()
        assert (name, shown["request_id"], shown["outcome"]) == ("record", "req-3", "timeout")


async def test_a_watcher_that_leaves_is_forgotten(control):
    async with Watcher(control):
        assert control.live.watchers == 1
    await happens(lambda: not control.live.watchers)


async def test_watchers_are_bounded(control, monkeypatch):
    monkeypatch.setitem(shares.BOUNDS, "live", shares.ShareBound(1, 1, "live views"))
    async with Watcher(control):
        refused = await control.client.get("/usage/live")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, str(shares.RETRY_S))


async def test_silence_is_broken_by_a_comment(control, monkeypatch):
    monkeypatch.setattr("taximeter.control.api.streams.HEARTBEAT_S", 0.01)
    async with Watcher(control) as watcher:
        assert await watcher.next() == (": still here", None)


async def test_closing_ends_every_watchers_stream(control):
    async with Watcher(control) as watcher:
        await control.live.close()
        with pytest.raises(StopAsyncIteration):
            await watcher.next()
