"""Calls to an HTTP/2 upstream through the gateway: what their clients get, and what their records say."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from h2.errors import ErrorCodes

from http2_provider import Call, Http2Provider
from waits import HANG_S

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello there"}]}
USAGE = b'"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}'
ANSWER = b'{"id":"c","object":"chat.completion","model":"m","choices":[],' + USAGE + b"}"
DELTA = b'data: {"choices":[{"index":0,"delta":{"content":"hello"}}]}\n\n'
LAST = b'data: {"choices":[],' + USAGE + b"}\n\ndata: [DONE]\n\n"
HTTP2: dict[str, Any] = {"http2": True}


async def answered(call: Call) -> None:
    await call.complete.wait()
    call.head(200, [("content-type", "application/json"), ("content-length", str(len(ANSWER)))])
    await call.send(ANSWER, last=True)


async def begun(call: Call) -> None:
    await call.complete.wait()
    call.head(200, [("content-type", "text/event-stream")])
    await call.send(DELTA)


async def post(running: Any, **more: Any) -> httpx2.Response:
    async with httpx2.AsyncClient(base_url=running.url, timeout=HANG_S) as client:
        return await client.post("/v1/chat/completions", json={**CHAT, **more})


async def test_a_whole_answer_goes_in_one_piece_behind_its_record(serve) -> None:
    async with Http2Provider(answer=answered) as provider, serve(provider, upstream=HTTP2) as running:
        answer = await post(running)
        (record,) = running.records
    assert (answer.status_code, answer.content) == (200, ANSWER)
    assert (record["outcome"], record["input_tokens"], record["output_tokens"]) == ("ok", 3, 4)


async def test_a_stream_over_which_its_upstream_says_goodbye_comes_to_its_end(serve) -> None:
    async def goodbye(call: Call) -> None:
        await begun(call)
        call.connection.goaway(2**31 - 1)
        call.connection.goaway(call.id)
        await call.send(DELTA)
        await call.send(LAST, last=True)
        call.connection.transport.close()

    async with Http2Provider(answer=goodbye) as provider, serve(provider, upstream=HTTP2) as running:
        answers = [await post(running, stream=True) for _ in range(3)]
        records = running.records
        assert len(provider.connections) == 3
    assert [answer.content.count(DELTA) for answer in answers] == [2, 2, 2]
    ends = [(record["outcome"], record["output_tokens"]) for record in records]
    assert ends == [("ok", 4)] * 3


@pytest.mark.parametrize(
    "code, outcome, error_code",
    [
        (ErrorCodes.REFUSED_STREAM, "upstream_unreachable", "upstream_unreachable"),
        (ErrorCodes.INTERNAL_ERROR, "upstream_cut", "upstream_unreachable"),
    ],
)
async def test_a_reset_before_an_answer_is_recorded_as_what_it_is(serve, code, outcome, error_code) -> None:
    async def reset(call: Call) -> None:
        await call.complete.wait()
        call.reset(code)

    async with Http2Provider(answer=reset) as provider, serve(provider, upstream=HTTP2) as running:
        answer = await post(running)
        (record,) = running.records
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, error_code)
    assert (record["outcome"], record["error_code"], record.get("attempt", 1)) == (outcome, error_code, 1)


@pytest.mark.parametrize("frame", [b"\x00\x00\x01\x06\x00\x00\x00\x00\x00x", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_what_breaks_the_protocol_in_mid_answer_is_no_fault_of_ours(serve, frame) -> None:
    async def garbage(call: Call) -> None:
        await begun(call)
        await read.wait()
        call.connection.transport.write(frame)

    read = asyncio.Event()
    async with Http2Provider(answer=garbage) as provider, serve(provider, upstream=HTTP2) as running:
        async with httpx2.AsyncClient(base_url=running.url, timeout=HANG_S) as client:
            with pytest.raises(httpx2.RemoteProtocolError):
                async with client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as answer:
                    async for part in answer.aiter_raw():
                        assert part == DELTA
                        read.set()
        record = await running.record()
    assert (record["outcome"], record["error_code"], record["partial"]) == (
        "upstream_cut", "upstream_bad_response", True,
    )  # fmt: skip


async def test_the_third_call_over_a_limit_of_two_is_a_504_in_time_and_was_not_sent(serve) -> None:
    async def stall(call: Call) -> None:
        await call.gone.wait()

    limit = {**HTTP2, "max_connections": 1, "connect_timeout_s": 0.2}
    async with Http2Provider(max_streams=2, answer=stall) as provider, serve(provider, upstream=limit) as running:
        waiting = [asyncio.create_task(post(running, stream=True)) for _ in range(2)]
        await provider.until(lambda: len(provider.calls) == 2)
        answer = await post(running)
        (record,) = running.records
        assert (answer.status_code, record["outcome"], len(provider.calls)) == (504, "timeout", 2)
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await provider.until(lambda: [call.code for call in provider.calls] == [ErrorCodes.CANCEL] * 2)


async def test_no_request_leaves_before_its_line_is_written(serve) -> None:
    seen = []

    async with Http2Provider() as provider, serve(provider, upstream=HTTP2) as running:

        async def look(call: Call) -> None:
            seen.append(len(running.lines("open")))
            await answered(call)

        provider.answer = look
        for _ in range(3):
            assert (await post(running)).status_code == 200
    assert seen == [1, 2, 3]


async def test_what_speaks_http2_to_us_is_told_in_http1_that_it_is_not_spoken(serve, provider) -> None:
    """As docs/operations.md tells who sets up HAProxy: `proto h2`, and its own default check of the data port."""
    async with serve(provider) as running:
        for request in (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"OPTIONS / HTTP/1.0\r\n\r\n",
            b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.write(request)
            assert (await asyncio.wait_for(reader.read(), HANG_S)).startswith(b"HTTP/1.1 400 ")
            writer.close()
        offers = (
            b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nConnection: Upgrade, HTTP2-Settings, close\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n" + offers)
        assert (await asyncio.wait_for(reader.read(), HANG_S)).startswith(b"HTTP/1.1 200 ")
        writer.close()
    assert [request.target for request in provider.requests] == ["/v1/models"]
