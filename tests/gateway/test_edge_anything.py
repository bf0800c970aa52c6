"""Whatever bytes come, in whatever pieces: a connection never raises, and hands on nothing that it should not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from taximeter.config import LimitSettings
from taximeter.server.asgi import asgi
from taximeter.server.connection import MAX_PIPELINED
from taximeter.server.exchange import ClientLeft, Exchange
from taximeter.server.judging import METHODS
from taximeter.server.server import Server

LINES = [b"%b %b HTTP/%b\r\n" % (method, target, version)
         for method in (b"GET", b"POST", b"CONNECT", b"TRACE", b"PRI", b"get")
         for target in (b"/v1/x", b"//x", b"*", b"a:80", b"http://a/", b"/a#b")
         for version in (b"1.1", b"1.0", b"2.0")]  # fmt: skip
FIELDS = [
    b"Host: a\r\n", b"Host: a\r\n", b"Host: a\r\n", b"Connection: Upgrade\r\n", b"Upgrade: h2c\r\n",
    b"Upgrade: websocket\r\n",
    b"Connection: close, Upgrade\r\n", b"Content-Length: 0\r\n", b"Content-Length: 5\r\n", b"Content-Length: -1\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n", b"Expect: 100-continue\r\n",
    b"X: " + b"y" * 3000 + b"\r\n",
    b" folded\r\n", b"Bad Name: x\r\n", b"\x00: x\r\n",
]  # fmt: skip
BODIES = [
    b"hello",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"0\r\nHost: b\r\n\r\n",
    b"ffffffffffffffffff\r\n",
    b"-1\r\n",
    b"\r\n",
]
ONES = [
    b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello",
    b"CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]
PIECE = st.sampled_from([*LINES, *FIELDS, b"\r\n", b"\r\n", *BODIES]) | st.binary(max_size=12)
HEAD = st.tuples(st.sampled_from(LINES), st.lists(st.sampled_from(FIELDS), max_size=4)).map(
    lambda parts: parts[0] + b"Host: a\r\n" + b"".join(parts[1]) + b"\r\n"
)
SENT = st.lists(st.sampled_from(ONES) | HEAD | PIECE, min_size=1, max_size=60)


class Wire(asyncio.Transport):
    """A client's connection at the seam: what was written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.protocol: Any = None

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    abort = write_eof = close

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0  # whoever is there takes everything at once

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_protocol(self) -> Any:
        return self.protocol

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


class Seen:
    """What was handed on, and answered."""

    def __init__(self) -> None:
        self.targets: list[tuple[str, bytes]] = []
        self.begun = 0

    def begin(self, method: str, path: bytes) -> None:
        self.targets.append((method, path))

    async def handle(self, exchange: Exchange) -> None:
        self.begin(exchange.method.decode(), exchange.path)
        try:
            body, _ = await exchange.body(1 << 20)
        except ClientLeft:
            return
        exchange.answer(200, [(b"content-length", b"%d" % len(body))], body)

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        self.begin(scope["method"], scope["raw_path"])
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize("kind", ["application", "handler"])
@settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@example(sent=[ONES[3]], cut=0)
@example(sent=[ONES[2]] * 40, cut=0)
@example(sent=[ONES[0]] * 60, cut=7)
@given(sent=SENT, cut=st.integers(0, 40))
def test_any_bytes_in_any_pieces(kind: str, sent: list[bytes], cut: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    asyncio.run(feed(kind, b"".join(sent), cut))
    assert [entry.getMessage() for entry in caplog.records if entry.levelname in ("ERROR", "CRITICAL")] == []


async def feed(kind: str, data: bytes, cut: int) -> None:
    seen = Seen()
    server = Server(seen.handle if kind == "handler" else asgi(seen.asgi), LimitSettings(head_bytes=2000))
    protocol = server.connection()
    wire = wire_of(protocol)
    parts = [data[at : at + cut] for at in range(0, len(data), cut)] if cut else [data]
    for part in parts:
        if wire.closed or wire.protocol is not protocol:
            break
        protocol.data_received(part)
        assert len(protocol._waiting) <= MAX_PIPELINED
        await asyncio.sleep(0)
    for _ in range(3 * MAX_PIPELINED):
        await asyncio.sleep(0)
    assert all(method.encode() in METHODS and path.startswith(b"/") for method, path in seen.targets)
    assert wire.written == b"" or wire.written.startswith(b"HTTP/1.1 ")
    assert wire.written.count(b"HTTP/1.1 200 OK") <= len(seen.targets)
    wire.closed = True
    (wire.protocol or protocol).connection_lost(None)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not server.connections
    assert not server.service.runs


def wire_of(protocol: Any) -> Wire:
    wire = Wire()
    wire.protocol = protocol
    protocol.connection_made(wire)
    return wire
