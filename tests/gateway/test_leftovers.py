"""A call that is over leaves nothing for the collector, which a worker seldom runs, and nothing at its connection."""

import asyncio
import contextlib
import gc
import json

import pytest

from taximeter.core.errors import RequestError, UpstreamCut
from taximeter.gateway.metering.call import Call
from taximeter.gateway.relay import Relay
from taximeter.gateway.upstream.response import Response
from taximeter.gateway.upstream.wire import WireConnection
from taximeter.server.connection import Connection
from taximeter.server.exchange import Exchange
from taximeter.server.inline import Signal
from upstream import CLOSE, STALL, chunk, response, stream_head
from waits import happens

OF_A_CALL = (Relay, Signal, Response, Call, UpstreamCut, asyncio.CancelledError)
EVENT = b'data: {"model":"m","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
UNARY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "one two three"}]}
STREAM = {**UNARY, "stream": True}
LATER = (lambda _: b"",)


def request_of(body, path="/v1/chat/completions"):
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
    return f"{head}\r\n\r\n".encode() + data


EVER = (*OF_A_CALL, Exchange, Connection, RequestError)
_before: list[object] = []


def alive(*kinds):
    """What there is of these kinds, without what other tests had left: an exception, say, that one of them keeps."""
    known = {id(each) for each in _before}
    return [found for found in gc.get_objects() if isinstance(found, kinds) and id(found) not in known]


@pytest.fixture
def no_collection():
    gc.collect()
    gc.disable()
    _before[:] = alive(*EVER)
    yield
    _before.clear()
    gc.enable()


CALLS = {
    "unary": (UNARY, None, True),
    "stream": (STREAM, None, True),
    "stream without usage": (STREAM, [stream_head(), chunk(EVENT), chunk(DONE), b"0\r\n\r\n"], True),
    "stream in one piece": (STREAM, [stream_head() + chunk(EVENT) + chunk(DONE) + b"0\r\n\r\n"], True),
    "refused by the upstream": (UNARY, [response(b"{}", 500)], True),
    "refused by us": ({**UNARY, "model": "x" * 10}, None, True),
    "cut": (STREAM, [stream_head(), chunk(EVENT), CLOSE], False),
    "no answer": (UNARY, [CLOSE], True),
    "client leaves": (STREAM, [stream_head(), chunk(EVENT), STALL], None),
}


@pytest.fixture(params=[False, True], ids=["new connection", "kept connection"])
def warm(request):
    return request.param


@pytest.mark.parametrize(("body", "steps", "ends"), CALLS.values(), ids=CALLS.keys())
async def test_a_call_that_is_over_leaves_nothing(serve, provider, no_collection, body, steps, ends) -> None:
    async with serve(provider) as running:
        for number in range(3):
            if steps is not None:
                provider.script(*steps)
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.write(request_of(body))
            await reader.readuntil(b"\r\n\r\n")
            if ends is None:
                await reader.readuntil(EVENT)
            elif not ends:
                await reader.read()
            if ends:  # idle: what it keeps of the call is small
                await running.record(number)
                await asyncio.sleep(0)
                await happens(lambda: not alive(*OF_A_CALL), "no object of the call being left")
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            await running.record(number)
        del reader, writer
        running.exchanges.clear()
        await happens(lambda: not alive(*OF_A_CALL, Exchange, Connection))
        (upstream,) = running.gate.upstreams.all
        await happens(lambda: set(alive(WireConnection)) == upstream._transport.pool._live)


UPLOADS = {
    "stalled": ("application/json", {"body_timeout_s": 0.05}),
    "stalled, streaming through": ("application/octet-stream", {"body_timeout_s": 0.05}),
    "without room": ("application/json", {"held_bytes": 100_000}),
    "left": ("application/json", {}),
}


@pytest.mark.parametrize(("kind", "limits"), UPLOADS.values(), ids=UPLOADS.keys())
async def test_an_upload_that_is_over_leaves_nothing(serve, provider, no_collection, kind, limits) -> None:
    head = f"POST /v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: 500000\r\n\r\n"
    async with serve(provider, limits=limits) as running:
        for number in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.write(head.encode() + b"x" * 400_000)
            if limits:
                assert (await reader.readuntil(b"\r\n")).split()[1] in (b"408", b"429")
            else:
                await happens(lambda: running.server.service.held_bytes == 400_000)
            writer.transport.abort()
            await running.record(number)
        del reader, writer
        running.exchanges.clear()
        await happens(lambda: not alive(*EVER))
