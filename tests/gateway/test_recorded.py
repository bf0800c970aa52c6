"""Every recorded exchange through the real gateway: the client gets the recorded bytes, the record is what was used."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import httpx2
import pytest

from recordings import body, corpus, expected
from upstream import LAST_CHUNK, Request, Script, chunk, response
from waits import HANG_S

pytestmark = pytest.mark.skipif(not corpus(), reason="no corpus: set TAXIMETER_CORPUS to the directory that holds it")

PIECE_BYTES = 4_001
AT_ONCE = 8
COMPARED = (
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_input_tokens",
    "reasoning_output_tokens",
    "search_units",
    "seconds",
    "upstream_cost_nusd",
)


def replayed(record: dict[str, Any]) -> Script:
    """The recorded answer on the wire: in pieces and without a length where it was a stream."""
    headers = [("content-type", record["response_content_type"])] if record["response_content_type"] else []
    headers += [(name, str(value)) for name, value in (record.get("response_usage_headers") or {}).items()]
    whole = body(record)
    if not record["stream"]:
        return Script((response(whole, record["status"], headers),))
    head = response(status=record["status"], headers=[*headers, ("transfer-encoding", "chunked")], framing="close")
    pieces = [chunk(whole[at : at + PIECE_BYTES]) for at in range(0, len(whole), PIECE_BYTES)]
    return Script((head, *pieces, LAST_CHUNK))


@pytest.mark.parametrize("stream_usage", ["off", "inject"])
async def test_recordings_through_the_gateway(serve, provider, stream_usage):
    """With `off` the proxy asks for nothing, so every byte is the recorded one; with `inject` the figures hold."""
    by_id = {record["id"]: record for record in corpus()}
    groups = defaultdict(list)
    for record in corpus():
        if stream_usage == "off" or (record["stream"] and record["flavour"].startswith("openai.")):
            groups[record["provider"]].append(record)

    def answer(request: Request) -> Script:
        return replayed(by_id[request.header("x-recording") or ""])

    async def call(client: httpx2.AsyncClient, record: dict[str, Any]) -> str:
        path = record["path"].replace("<", "%3C").replace(">", "%3E")
        content = record["request_body"].encode() if record["method"] != "GET" else None
        headers = {"x-recording": record["id"], "content-type": record["request_content_type"] or "application/json"}
        async with room:
            got = await client.request(record["method"], path, content=content, headers=headers)
        assert got.status_code == record["status"], record["id"]
        if stream_usage == "off":
            assert got.content == body(record), record["id"]
        return got.headers["x-taximeter-request-id"]

    provider.answering = answer
    room = asyncio.Semaphore(AT_ONCE)
    for name, records in groups.items():
        settings = {"name": name, "provider": name, "stream_usage": stream_usage}
        async with (
            serve(provider, upstream=settings) as running,
            httpx2.AsyncClient(base_url=running.url, timeout=HANG_S) as client,
            asyncio.TaskGroup() as group,
        ):
            calls = [group.create_task(call(client, record)) for record in records]
        written = {one["request_id"]: one for one in running.records}
        for record, made in zip(records, calls, strict=True):
            agrees(record, written[made.result()])


def agrees(record: dict[str, Any], written: dict[str, Any]) -> None:
    """What the provider reported is in the record as reported; what it did not is not said to be."""
    want = expected(record)
    for side in ("input", "output"):
        reported = getattr(want, f"{side}_tokens") is not None
        assert (written.get(f"{side}_source", "none") == "reported") is reported, (record["id"], side)
    for name in COMPARED:
        value = getattr(want, name)
        if value is not None or name not in ("input_tokens", "output_tokens"):
            assert written.get(name) == value, (record["id"], name)
    if record["status"] >= 400:
        assert written["outcome"] == "upstream_error"
