"""The HTTP edge over raw sockets, of both kinds of server: what is refused, what is bounded, how it ends."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from taximeter.config import LimitSettings
from taximeter.core.errors import UpstreamError
from taximeter.server import server as server_module
from taximeter.server.asgi import asgi
from taximeter.server.connection import MAX_PIPELINED
from taximeter.server.exchange import ClientLeft, Exchange, Headers
from taximeter.server.framing import RequestFraming
from taximeter.server.head import Head
from taximeter.server.server import Server
from waits import HANG_S, clock_at_rest, happens

HOST = b"Host: a\r\n"
POST = b"POST /a HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


class Echo:
    """Answers what it received as JSON; `gate` holds an answer back, `calls` are the requests it saw.

    An ASGI application (the control port's kind), or a handler of exchanges (the data port's).
    """

    is_application = True

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.called = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.cancelled = 0
        self.left = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left += 1
                return
            body += message["body"]
            more = message["more_body"]
        answer, length = self._answer(scope["raw_path"], scope["headers"], body)
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": answer[:1], "more_body": True})
        await self._wait(scope["raw_path"])
        await send({"type": "http.response.body", "body": answer[1:]})

    async def handle(self, exchange: Exchange) -> None:
        body = b""
        try:
            while part := await exchange.part():
                body += part
        except ClientLeft:
            self.left += 1
            return
        answer, length = self._answer(exchange.path, exchange.headers, body)
        exchange.start(200, length)
        exchange.write(answer[:1])
        await self._wait(exchange.path)
        exchange.end(answer[1:])

    def _answer(self, path: bytes, head: Headers, body: bytes) -> tuple[bytes, Headers]:
        headers = [(name.decode(), value.decode()) for name, value in head]
        self.calls.append({"path": path.decode(), "headers": headers, "body": body.decode()})
        self.called.set()
        answer = json.dumps(self.calls[-1]).encode()
        return answer, [(b"content-length", str(len(answer)).encode())]

    async def _wait(self, path: bytes) -> None:
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if b"cut" in path:
            raise UpstreamError("cut")


@pytest.fixture(autouse=True, params=[True, False], ids=["application", "handler"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Echo, "is_application", request.param)


Opened = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Served:
    def __init__(self, app: Echo, server: Server, port: int) -> None:
        self.app, self.server, self.port = app, server, port
        self.opened: list[asyncio.StreamWriter] = []

    async def open(self) -> Opened:
        """A connection to the server, closed with it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.opened.append(writer)
        return reader, writer

    async def exchange(self, *parts: bytes, after: Callable[[], Awaitable[Any]] | None = None) -> bytes:
        """Send the parts and read until the server closes."""
        reader, writer = await self.open()
        for part in parts:
            writer.write(part)
            await writer.drain()
        got = await asyncio.wait_for(reader.read(), HANG_S)
        writer.close()
        return got


@asynccontextmanager
async def serving(**limits: Any) -> AsyncIterator[Served]:
    app = Echo()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(asgi(app) if Echo.is_application else app.handle, LimitSettings(**limits))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(server.serve([listener]))
            served = Served(app, server, listener.getsockname()[1])
            try:
                yield served
            finally:
                for writer in served.opened:
                    writer.close()
            server.stop()
            app.gate.set()
            await task


def head_of(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *fields = head.decode().split("\r\n")
    return int(status.split()[1]), dict(field.split(": ", 1) for field in fields), body


REFUSED = {
    "both framings": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "both framings, the other way": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two codings": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two codings, the last one fine": POST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two codings, one empty": POST + b"Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two codings, spelled apart": POST + b"transfer-encoding: chunked\r\nTRANSFER-ENCODING: chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "identity": POST + b"Transfer-Encoding: identity\r\n\r\n",
    "identity, chunked": POST + b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
    "no coding": POST + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n",
    "xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunkedx": POST + b"Transfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n",
    "quoted coding": POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "coding with a parameter": POST + b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    "coding with a comma": POST + b"Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
    "coding with VT": POST + b"Transfer-Encoding: chunked\x0b\r\n\r\n0\r\n\r\n",
    "coding with FF before": POST + b"Transfer-Encoding: \x0cchunked\r\n\r\n0\r\n\r\n",
    "coding with NBSP": POST + b"Transfer-Encoding: chunked\xa0\r\n\r\n0\r\n\r\n",
    "blank before the coding's colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "tab before the coding's colon": POST + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
    "folded coding": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "coding folded into another field": POST + b"X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a coding we cannot relay": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a coding that ends nowhere": POST + b"Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
    "chunked not last": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked in 1.0": b"POST /a HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "doubled length": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "listed length": POST + b"Content-Length: 5, 5\r\n\r\nhello",
    "signed length": POST + b"Content-Length: +5\r\n\r\nhello",
    "huge length": POST + b"Content-Length: 99999999999999999999999\r\n\r\nhello",
    "blank before colon": b"GET /a HTTP/1.1\r\nHost : a\r\n\r\n",
    "obs-fold": b"GET /a HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n",
    "bare LF": b"GET /a HTTP/1.1\nHost: a\n\n",
    "bare LF in one field": b"GET /a HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
    "bad field name": b"GET /a HTTP/1.1\r\n" + HOST + b"X(y): z\r\n\r\n",
    "NUL in a value": b"GET /a HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n",
    "CR in a value": b"GET /a HTTP/1.1\r\n" + HOST + b"X: a\rb\r\n\r\n",
    "two hosts": b"GET /a HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    "no host": b"GET /a HTTP/1.1\r\n\r\n",
    "unknown version": b"GET /a HTTP/1.2\r\n" + HOST + b"\r\n",
    "version 2.0": b"GET /a HTTP/2.0\r\n" + HOST + b"\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "absolute form": b"GET http://elsewhere/x HTTP/1.1\r\n" + HOST + b"\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    "fragment": b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n",
    "tab in the path": b"GET /a\tb HTTP/1.1\r\n" + HOST + b"\r\n",
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("request_bytes", REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "bytewise"])
async def test_what_cannot_be_framed_safely_is_refused_in_openais_shape(request_bytes: bytes, bytewise: bool) -> None:
    async with serving() as edge:
        reader, writer = await edge.open()
        for part in [request_bytes[i : i + 1] for i in range(len(request_bytes))] if bytewise else [request_bytes]:
            writer.write(part)
            if bytewise:
                await asyncio.sleep(0)
        status, headers, body = head_of(await asyncio.wait_for(reader.read(), HANG_S))
        writer.close()
        assert (status, headers["connection"], edge.app.calls) == (400, "close", [])
        assert json.loads(body)["error"].keys() == {"message", "type", "param", "code"}
        assert headers["x-taximeter-error"] == "bad_request"


@pytest.mark.parametrize(
    "target, path, query",
    [
        (b"http://taximeter.example/v1/x?a=1", "/v1/x", "a=1"),
        (b"HTTPS://Taximeter.Example/v1/x", "/v1/x", ""),
        (b"http://taximeter.example", "/", ""),
        (b"http://taximeter.example?a=1", "/", "a=1"),
    ],
)
async def test_an_absolute_target_of_the_same_host_is_its_path(target: bytes, path: str, query: str) -> None:
    async with serving() as edge:
        request = b"GET " + target + b" HTTP/1.1\r\nHost: taximeter.example\r\nConnection: close\r\n\r\n"
        assert head_of(await edge.exchange(request))[0] == 200
    (call,) = edge.app.calls
    assert call["path"] == path
    framing = RequestFraming(65_536, 200)
    framing.feed(request)
    head = framing.events[0]
    assert isinstance(head, Head) and head.target.decode() == path + ("?" + query if query else "")


@pytest.mark.parametrize(
    "target", [b"http://a.example:80/x", b"http://u@taximeter.example/x", b"ftp://taximeter.example/x", b"http:///x"]
)
async def test_an_absolute_target_that_names_anything_else_is_refused(target: bytes) -> None:
    async with serving() as edge:
        request = b"GET " + target + b" HTTP/1.1\r\nHost: taximeter.example\r\n\r\n"
        assert head_of(await edge.exchange(request))[0] == 400
    assert edge.app.calls == []


@pytest.mark.parametrize("coding", [b"chunked", b"Chunked", b"CHUNKED", b"   chunked"])
async def test_chunked_is_taken_however_it_is_spelled(coding: bytes) -> None:
    async with serving() as edge:
        closing = POST + b"Connection: close\r\nTransfer-Encoding:" + coding + b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        assert head_of(await edge.exchange(closing))[0] == 200
    assert [call["body"] for call in edge.app.calls] == ["hello"]


@pytest.mark.parametrize("target", [b"/v1/x", b"elsewhere:80", b"*", b"http://elsewhere/"])
@pytest.mark.parametrize("method", [b"CONNECT", b"TRACE", b"PROPFIND", b"PURGE"])
async def test_methods_that_no_api_uses_are_refused_before_anything_else(method: bytes, target: bytes) -> None:
    async with serving() as edge:
        request = method + b" " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n"
        for sent in (request, request + request, request + b"SSH-2.0-tunnelled\r\n"):
            answer = await edge.exchange(sent)
            if method != b"CONNECT" and target == b"elsewhere:80":  # an authority is a target for CONNECT alone
                assert answer.startswith(b"HTTP/1.1 400 ")
                continue
            status, headers, body = head_of(answer)
            assert (status, headers["x-taximeter-error"]) == (405, "method_not_allowed")
            assert (headers["connection"], headers["allow"]) == (
                "close",
                "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
            )
            assert json.loads(body)["error"]["code"] == "method_not_allowed"
    assert edge.app.calls == []


@pytest.mark.parametrize("chunk", [b"5\nhello\r\n", b"-5\r\nhello\r\n", b"5\r\nhelloX\r\n", b"5 \r\nhello\r\n"])
async def test_a_body_with_bad_chunk_framing_is_never_complete(chunk: bytes) -> None:
    async with serving() as edge:
        status, _, _ = head_of(await edge.exchange(CHUNKED + chunk + b"0\r\n\r\n"))
        assert status == 400
    assert edge.app.calls == []


async def test_a_body_cut_short_is_never_complete() -> None:
    async with serving() as edge:
        reader, writer = await edge.open()
        writer.write(POST + b"Content-Length: 10\r\n\r\nhe")
        writer.write_eof()
        await reader.read()
        writer.close()
    assert (edge.app.calls, edge.app.left) == ([], 1)


async def test_a_head_too_large_is_refused_whole_or_in_pieces() -> None:
    async with serving(head_bytes=2000) as edge:
        big = b"GET /a HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 2100 + b"\r\n\r\n"
        url = b"GET /" + b"x" * 2100 + b" HTTP/1.1\r\n" + HOST + b"\r\n"
        for parts in ([big], [big[:1500], big[1500:2101], big[2101:]], [url]):
            status, headers, _ = head_of(await edge.exchange(*parts))
            assert (status, headers["x-taximeter-error"]) == (413, "payload_too_large")
        assert edge.app.calls == []


async def test_an_endless_head_is_cut_off_at_the_bound() -> None:
    async with serving(head_bytes=2000) as edge:
        status, _, _ = head_of(await edge.exchange(b"GET /a HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 3000))
        assert status == 413


async def test_too_many_fields_are_refused() -> None:
    async with serving(head_fields=50) as edge:
        fields = b"".join(b"X-%d: y\r\n" % number for number in range(50))
        status, _, _ = head_of(await edge.exchange(b"GET /a HTTP/1.1\r\n" + HOST + fields + b"\r\n"))
        assert status == 413


async def test_a_large_body_is_no_large_head() -> None:
    async with serving(head_bytes=2000) as edge:
        reader, writer = await edge.open()
        writer.write(POST + b"Content-Length: 100000\r\n\r\n" + b"x" * 100_000)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_a_slow_head_is_closed_and_so_is_a_silent_connection() -> None:
    async with serving(head_timeout_s=0.05) as edge:
        assert await edge.exchange() == b""
        assert await edge.exchange(b"GET /a HT") == b""
        assert await edge.exchange(b"\r\n") == b""


async def test_blank_lines_after_an_answer_do_not_hold_the_connection() -> None:
    async with serving(head_timeout_s=0.05) as edge:
        with clock_at_rest():
            reader, writer = await edge.open()
            writer.write(b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n")
            await reader.readuntil(b"}")
            writer.write(b"\r\n")
        assert await asyncio.wait_for(reader.read(), HANG_S) == b""
        writer.close()


async def test_an_idle_connection_is_kept_and_then_closed() -> None:
    async with serving(keep_alive_s=0.1, head_timeout_s=60) as edge:
        with clock_at_rest():
            reader, writer = await edge.open()
            for _ in range(2):
                writer.write(b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n")
                await reader.readuntil(b"}")
        assert await asyncio.wait_for(reader.read(), HANG_S) == b""
        writer.close()
        assert len(edge.app.calls) == 2


async def test_the_answer_carries_neither_date_nor_server() -> None:
    async with serving() as edge:
        request = b"GET /a HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
        _, headers, body = head_of(await edge.exchange(request))
        assert headers.keys() == {"content-length", "connection"}
        assert json.loads(body)["path"] == "/a"


async def test_a_chunk_trailer_never_becomes_a_header() -> None:
    async with serving() as edge:
        request = CHUNKED + b"5\r\nhello\r\n0\r\nX-Workspace: evil\r\nHost: b\r\n\r\n"
        reader, writer = await edge.open()
        writer.write(request)
        await reader.readuntil(b"}")
        writer.close()
    (call,) = edge.app.calls
    assert call == {"path": "/a", "headers": [("host", "a"), ("transfer-encoding", "chunked")], "body": "hello"}


LENGTH = b"Content-Length: 30\r\n\r\n%b"
CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n1e\r\n%b\r\n0\r\n\r\n"


@pytest.mark.parametrize("framing", [LENGTH, CHUNKS], ids=["length", "chunked"])
@pytest.mark.parametrize("cut", [0, 40, 140])
async def test_a_request_that_offers_an_upgrade_keeps_its_body(framing: bytes, cut: int) -> None:
    """Java's HttpClient offers h2c with every request; a body taken for the next request would be smuggling."""
    body = b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n"[:30]
    request = (
        POST
        + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
        + framing % body
    )
    async with serving() as edge:
        reader, writer = await edge.open()
        writer.write(request[:cut])
        await asyncio.sleep(0)
        writer.write(request[cut:])
        await asyncio.wait_for(reader.readuntil(b"}"), HANG_S)
        writer.write(b"GET /next HTTP/1.1\r\n" + HOST + b"\r\n")
        await asyncio.wait_for(reader.readuntil(b"}"), HANG_S)
        writer.close()
    first, second = edge.app.calls
    assert (first["path"], first["body"]) == ("/a", body.decode())
    assert [name for name, _ in first["headers"]][:1] == ["host"]
    assert not {"upgrade", "connection", "http2-settings"} & {name for name, _ in first["headers"]}
    assert second["path"] == "/next"


async def test_many_pipelined_requests_that_offer_upgrades_are_all_served() -> None:
    offer = (
        POST + b"Connection: close-not, Upgrade, X-Hop\r\nX-Hop: 1\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello"
    )
    async with serving() as edge:
        reader, writer = await edge.open()
        writer.write(offer * 30)
        for _ in range(30):
            await asyncio.wait_for(reader.readuntil(b"}"), 10)
        writer.close()
    assert [call["body"] for call in edge.app.calls] == ["hello"] * 30
    assert dict(edge.app.calls[0]["headers"])["connection"] == "close-not, x-hop"  # what it names is still left out


async def test_an_offered_upgrade_does_not_keep_a_connection_that_is_to_be_closed() -> None:
    async with serving() as edge:
        offer = POST + b"Connection: close, Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello"
        status, headers, _ = head_of(await edge.exchange(offer))
        assert (status, headers["connection"]) == (200, "close")


async def test_a_bad_request_behind_a_running_answer_never_mixes_into_it() -> None:
    async with serving() as edge:
        edge.app.gate.clear()
        reader, writer = await edge.open()
        writer.write(b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n")
        await reader.readuntil(b"{")
        writer.write(b"BAD\x00\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), HANG_S) == b""
        writer.close()


async def test_pipelined_requests_are_answered_in_order_and_bounded() -> None:
    one = b"GET /%d HTTP/1.1\r\n" + HOST + b"\r\n"
    async with serving() as edge:
        reader, writer = await edge.open()
        writer.write(b"".join(one % number for number in range(3)))
        for _ in range(3):
            await asyncio.wait_for(reader.readuntil(b"}"), HANG_S)
        writer.close()
        assert [call["path"] for call in edge.app.calls] == ["/0", "/1", "/2"]


async def test_what_was_accepted_of_too_many_pipelined_requests_is_answered_before_the_rest_is_refused() -> None:
    one = b"GET /%d HTTP/1.1\r\n" + HOST + b"\r\n"
    async with serving() as edge:
        edge.app.gate.clear()
        reader, writer = await edge.open()
        writer.write(b"".join(one % number for number in range(100)))
        await edge.app.called.wait()
        edge.app.gate.set()
        got = await asyncio.wait_for(reader.read(), 10)
        writer.close()
    assert [call["path"] for call in edge.app.calls] == [f"/{number}" for number in range(MAX_PIPELINED + 1)]
    assert got.count(b"HTTP/1.1 200 ") == MAX_PIPELINED + 1
    status, headers, body = head_of(b"HTTP/1.1 " + got.rpartition(b"HTTP/1.1 ")[2])
    assert (status, headers["retry-after"], headers["connection"]) == (429, "1", "close")
    assert json.loads(body)["error"]["code"] == "overloaded"


async def test_a_cut_answer_ends_without_its_last_bytes(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as edge:
        status, headers, body = head_of(await edge.exchange(b"GET /cut HTTP/1.1\r\n" + HOST + b"\r\n"))
        assert status == 200
        assert len(body) < int(headers["content-length"])
    assert [entry for entry in caplog.records if entry.levelname == "ERROR"] == []


async def test_a_stop_lets_a_running_answer_end_and_takes_no_new_connection() -> None:
    async with serving() as edge:
        edge.app.gate.clear()
        reader, writer = await edge.open()
        writer.write(b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n")
        await edge.app.called.wait()
        closed = asyncio.Event()
        edge.server.on_listeners_closed = closed.set
        edge.server.stop()
        await closed.wait()
        with pytest.raises(ConnectionError):
            await edge.open()
        edge.app.gate.set()
        _, _, body = head_of(await asyncio.wait_for(reader.read(), HANG_S))
        assert json.loads(body)["path"] == "/a"
        writer.close()


async def test_a_request_on_a_kept_connection_is_still_answered_right_after_the_stop() -> None:
    async with serving() as edge:
        reader, writer = await edge.open()
        writer.write(b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n")
        await reader.readuntil(b"}")
        closed = asyncio.Event()
        edge.server.on_listeners_closed = closed.set
        edge.server.stop()
        await closed.wait()
        writer.write(b"GET /b HTTP/1.1\r\n" + HOST + b"\r\n")
        _, headers, _ = head_of(await asyncio.wait_for(reader.read(), HANG_S))
        assert headers["connection"] == "close"
        writer.close()


async def test_an_answer_that_does_not_end_is_cancelled_at_the_bound_and_awaited() -> None:
    async with serving(shutdown_s=0.1) as edge:
        edge.app.gate.clear()
        reader, writer = await edge.open()
        writer.write(b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n")
        await edge.app.called.wait()
        edge.server.stop()
        await asyncio.wait_for(reader.read(), HANG_S)
        writer.close()
    assert edge.app.cancelled == 1


async def test_an_answer_begun_before_the_stop_leaves_room_for_one_more_request_which_is_the_last() -> None:
    """Its head did not say that the connection ends, so its client sends the next request on it, at once."""
    async with serving() as edge:
        edge.app.gate.clear()
        reader, writer = await edge.open()
        writer.write(b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        closed = asyncio.Event()
        edge.server.on_listeners_closed = closed.set
        edge.server.stop()
        await closed.wait()
        edge.app.gate.set()
        assert b"connection: close" not in head
        await reader.readuntil(b"}")
        writer.write(b"GET /b HTTP/1.1\r\n" + HOST + b"\r\n")
        _, headers, body = head_of(await asyncio.wait_for(reader.read(), HANG_S))
        assert (headers["connection"], json.loads(body)["path"]) == ("close", "/b")
        writer.close()


async def test_a_server_that_retires_lets_an_answer_take_its_time_until_it_has_to_hurry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "RETIRED_WAIT_S", 0.0)
    async with serving(shutdown_s=0.01) as edge:
        edge.app.gate.clear()
        _, idle_writer = idle = await edge.open()
        reader, writer = await edge.open()
        writer.write(b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n")
        await edge.app.called.wait()
        edge.server.retire()
        assert await asyncio.wait_for(idle[0].read(), HANG_S) == b"", "nothing comes on it, so it is closed"
        assert edge.app.cancelled == 0
        edge.server.stop()
        await asyncio.wait_for(reader.read(), HANG_S)
        idle_writer.close()
        writer.close()
    assert edge.app.cancelled == 1


async def test_a_server_told_to_leave_goes_on_and_sends_its_clients_elsewhere() -> None:
    async with serving() as edge:
        edge.server.leave()
        for path in (b"/a", b"/b"):
            _, headers, body = head_of(await edge.exchange(b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"\r\n"))
            assert (headers["connection"], json.loads(body)["path"]) == ("close", path.decode())


async def test_one_that_was_stopped_before_it_served_accepts_nothing() -> None:
    app = Echo()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(asgi(app) if Echo.is_application else app.handle, LimitSettings())
        server.stop()
        await asyncio.wait_for(server.serve([listener]), HANG_S)
    assert not server.started


async def test_the_kernel_watches_a_client_that_is_silent() -> None:
    async with serving(tcp_keepalive_s=21, tcp_user_timeout_s=0) as edge:
        await happens(lambda: edge.server.started)
        reader, writer = await edge.open()
        writer.write(b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n")
        await reader.readuntil(b"}")
        (connection,) = edge.server.connections
        raw = connection.client.transport.get_extra_info("socket")
        names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
        assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert [raw.getsockopt(socket.IPPROTO_TCP, name) for name in names] == [21, 7, 3, 0]
        writer.close()
