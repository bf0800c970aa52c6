"""What an answer is, the answer says: each part leaves as it comes, and who leaves in its middle ends it upstream."""

import asyncio
import contextlib
import gzip
import json
from typing import Any

import pytest

from taximeter.gateway import ending
from upstream import CLOSE, LAST_CHUNK, STALL, chunk, stream_head
from waits import HANG_S, happens

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "one two three"}]}
STREAM = {**CHAT, "stream": True}
EVENT = b'data: {"model":"m","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


def head_of(*fields: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def chunked(kind: bytes) -> bytes:
    return head_of(b"content-type: " + kind, b"transfer-encoding: chunked")


def asking(path: str, body: bytes = b"", *, method: str = "POST", headers: str = "") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def chat(body: dict[str, Any], headers: str = "Content-Type: application/json\r\n") -> bytes:
    return asking("/v1/chat/completions", json.dumps(body).encode(), headers=headers)


@contextlib.asynccontextmanager
async def client_of(running, request: bytes):
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(request)
    try:
        async with asyncio.timeout(HANG_S):
            yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


ANSWERS = {
    "speech": ("/v1/audio/speech", chunked(b"audio/mpeg")),
    "text": ("/v1/audio/transcriptions", chunked(b"text/plain")),
    "lines": ("/v1/files/f/content", chunked(b"application/jsonl")),
    "events in another case": ("/v1/chat/completions", chunked(b"Text/Event-Stream")),
    "json in chunks": ("/v1/chat/completions", chunked(b"application/json")),
    "an image": ("/v1/images/generations", chunked(b"image/png")),
    "unlabelled": ("/v1/x", head_of(b"transfer-encoding: chunked")),
    "of known length": ("/v1/files/f/content", head_of(b"content-type: text/plain", b"content-length: 8")),
    "json of known length": ("/v1/embeddings", head_of(b"content-type: application/json", b"content-length: 8")),
    "until the end": ("/v1/x", head_of(b"content-type: text/plain", b"connection: close")),
}


@pytest.mark.parametrize(("path", "head"), ANSWERS.values(), ids=ANSWERS.keys())
async def test_each_part_leaves_when_it_comes_and_the_end_after_its_record(serve, provider, path, head):
    first, second, end = asyncio.Event(), asyncio.Event(), asyncio.Event()
    framed = chunk if b"chunked" in head else bytes
    endings = [end, LAST_CHUNK] if b"chunked" in head else [] if b"length" in head else [end, CLOSE]
    provider.script(head, first, framed(b"half"), second, framed(b"rest"), *endings)
    async with serve(provider) as running, client_of(running, asking(path, b"{}")) as (reader, _):
        await reader.readuntil(b"\r\n\r\n")  # the head alone
        first.set()
        await reader.readuntil(b"half")
        assert not running.records
        second.set()
        if endings:
            await reader.readuntil(b"rest")
            assert not running.records
            end.set()
            await reader.readuntil(LAST_CHUNK)
        else:
            await reader.readuntil(b"rest")
        assert len(running.records) == 1
    assert (running.records[0]["outcome"], running.records[0]["response_bytes"]) == ("ok", 8)


STREAMS = {
    "resumed by GET": (asking("/v1/responses/r?stream=true", method="GET"), stream_head()),
    "a form": (chat(STREAM, "Content-Type: application/x-www-form-urlencoded\r\n"), stream_head()),
    "gzip": (
        asking(
            "/v1/chat/completions",
            gzip.compress(json.dumps(STREAM).encode(), mtime=0),
            headers="Content-Type: application/json\r\nContent-Encoding: gzip\r\n",
        ),
        stream_head(),
    ),
    "a pull": (asking("/api/pull", b'{"model":"m"}'), chunked(b"application/x-ndjson")),
    "speech": (asking("/v1/audio/speech", b"{}"), chunked(b"audio/mpeg")),
    "in another case": (chat(CHAT), chunked(b"Text/Event-Stream; charset=utf-8")),
}


@pytest.mark.parametrize(("request_", "head"), STREAMS.values(), ids=STREAMS.keys())
async def test_who_leaves_what_is_a_stream_ends_it_upstream(serve, provider, request_, head):
    provider.script(head, chunk(b"{}\n\n"), STALL)
    async with serve(provider) as running:
        async with client_of(running, request_) as (reader, _):
            await reader.readuntil(b"{}\n\n")
        await provider.until(lambda: provider.requests[0].client_left)
        record = await running.record()
    assert record["outcome"] == "client_left"


async def test_who_left_before_a_stream_began_that_nobody_asked_for_ends_it_when_it_does(serve, provider):
    go_on = asyncio.Event()
    provider.script(go_on, stream_head(), chunk(EVENT.replace(b'"stop"', b"null")), STALL)
    async with serve(provider) as running:
        async with client_of(running, chat(CHAT)):
            await provider.until(lambda: provider.requests and provider.requests[0].complete)
        await happens(running.watched_left)
        assert not provider.requests[0].client_left  # a usual answer is awaited, as it is billed
        go_on.set()
        await provider.until(lambda: provider.requests[0].client_left)
        record = await running.record()
    assert record["outcome"] == "client_left"


async def test_who_leaves_an_answer_that_is_no_stream_whatever_was_asked_for_has_it_awaited(serve, provider):
    body = json.dumps({"model": "m", "usage": {"prompt_tokens": 3, "completion_tokens": 5}}).encode()
    go_on = asyncio.Event()
    head = head_of(b"content-type: application/json", b"content-length: %d" % len(body))
    provider.script(head + body[:5], go_on, body[5:])
    async with serve(provider, upstream={"stream_usage": "off"}) as running:
        async with client_of(running, chat(STREAM)) as (reader, _):
            await reader.readuntil(body[:5])
        await happens(running.watched_left)
        go_on.set()
        record = await running.record()
    assert (record["outcome"], record["output_tokens"]) == ("client_left", 5)


@pytest.mark.parametrize("ends", ["with its last chunk", "never", "cut"])
async def test_who_leaves_at_done_had_everything(serve, provider, monkeypatch, ends):
    monkeypatch.setattr(ending, "USAGE_EVENT_WAIT_S", 0.05 if ends == "never" else HANG_S)
    left = asyncio.Event()
    lasts: dict[str, list[Any]] = {"with its last chunk": [LAST_CHUNK], "never": [STALL], "cut": [b"no chunk"]}
    provider.script(stream_head(), chunk(EVENT), chunk(DONE), left, *lasts[ends])
    async with serve(provider) as running:
        async with client_of(running, chat(STREAM)) as (reader, _):
            await reader.readuntil(DONE)
            assert not running.records  # no usage was reported: it is counted after the end
        await happens(running.watched_left)
        left.set()
        record = await running.record()
    assert (record["outcome"], record.get("partial", False), record["output_source"]) == ("ok", False, "counted")
