"""The httpx2 side of the seam behaves as the wire side does: same bytes, same errors, nothing followed or retried."""

from __future__ import annotations

import asyncio
import gc
import ssl

import h2.config
import h2.connection
import h2.events
import httpx2
import pytest
import trustme

from closing import Closing
from taximeter import config
from taximeter.core.errors import (
    RequestError,
    UpstreamCut,
    UpstreamGarbage,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from taximeter.gateway.upstream.httpx_client import _Exchange, map_error
from taximeter.gateway.upstream.upstreams import Upstream
from upstream import CLOSE, LAST_CHUNK, RESET, STALL, chunk, response, stream_head
from waits import HANG_S

OK = response(b"fine")


@pytest.fixture
async def through_proxy(provider):
    """An upstream reached through an outbound proxy: the provider plays the proxy, which sees absolute targets."""
    settings = config.UpstreamSettings(base_url="http://far.example/v1", proxy_url=provider.url, idle_timeout_s=0.3)
    upstream = Upstream(settings, frozenset({b"x-workspace"}), {})
    yield upstream
    await upstream.close()


async def read_all(answer) -> bytes:
    async with asyncio.timeout(HANG_S):
        got = b""
        while piece := await answer.read():
            got += piece
    assert answer.ended
    return got


async def test_a_call_that_is_over_leaves_nothing_for_the_collector(provider, through_proxy) -> None:
    provider.script(response(b"fine"), response(b"fine"))
    await read_all(await through_proxy.send(b"POST", b"/v1/chat", [], b"{}"))
    gc.collect()
    gc.disable()
    try:
        await read_all(await through_proxy.send(b"POST", b"/v1/chat", [], b"{}"))
        for _ in range(3):
            await asyncio.sleep(0)
        assert [held for held in gc.get_objects() if type(held) is _Exchange] == []
    finally:
        gc.enable()


async def test_a_request_goes_through_an_outbound_proxy_as_it_is(provider, through_proxy) -> None:
    provider.script(
        response(b"\x1f\x8b raw", 200, [("Content-Encoding", "gzip"), ("Connection", "x-hop"), ("X-Hop", "1")])
    )
    headers = [
        (b"x-workspace", b"w"),
        (b"x-kept", b"v"),
        (b"accept-encoding", b"gzip"),
        (b"authorization", b"Bearer sk"),
    ]
    answer = await through_proxy.send(b"POST", b"/v1/chat?a=%20", headers, b"{}")
    assert (answer.status, await read_all(answer)) == (200, b"\x1f\x8b raw")
    assert answer.headers == [(b"content-encoding", b"gzip"), (b"content-length", b"6")]
    seen = provider.requests[0]
    assert seen.target == "http://far.example/v1/chat?a=%20"
    assert sorted(seen.headers) == [
        ("accept-encoding", "identity"),
        ("content-length", "2"),
        ("host", "far.example"),
        ("x-kept", "v"),
    ]


async def test_a_stream_is_read_as_it_comes(provider, through_proxy) -> None:
    go_on = asyncio.Event()
    provider.script(stream_head(), chunk(b"a"), go_on, chunk(b"b"), LAST_CHUNK)
    answer = await through_proxy.send(b"POST", b"/v1/x", [], b"{}")
    assert await answer.read() == b"a"
    go_on.set()
    assert await read_all(answer) == b"b"


async def test_an_upload_streams(provider, through_proxy) -> None:
    async def body():
        yield b"ab"
        yield b"cde"

    provider.script(OK)
    await read_all(await through_proxy.send(b"POST", b"/v1/x", [(b"content-length", b"5")], body()))
    provider.script(OK)
    await read_all(await through_proxy.send(b"POST", b"/v1/x", [], body()))
    assert [(r.body, r.header("content-length")) for r in provider.requests] == [(b"abcde", "5"), (b"abcde", None)]


async def test_a_slow_reader_holds_it_back(provider, through_proxy) -> None:
    total = 4 * 1024 * 1024
    provider.script(response(b"x" * total))
    answer = await through_proxy.send(b"POST", b"/v1/x", [], b"{}")
    for _ in range(300):
        await asyncio.sleep(0)
    assert answer._held_bytes < total // 2
    assert len(await read_all(answer)) == total


async def test_redirects_and_cookies_stay_the_clients_business(provider, through_proxy) -> None:
    provider.script(response(b"", 302, [("location", "http://elsewhere/"), ("set-cookie", "a=1")]))
    provider.script(OK)
    assert (await through_proxy.send(b"GET", b"/v1/x", [], b"")).status == 302
    await read_all(await through_proxy.send(b"GET", b"/v1/x", [], b""))
    assert provider.requests[1].header("cookie") is None


@pytest.mark.parametrize(
    "steps, error, sent",
    [
        ((RESET,), UpstreamUnreachable, True),
        ((CLOSE,), UpstreamUnreachable, True),
        ((b"garbage\r\n\r\n", CLOSE), UpstreamGarbage, True),
        (
            (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",),
            UpstreamGarbage,
            True,
        ),
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",), UpstreamGarbage, True),
    ],
    ids=str,
)
async def test_errors_before_the_head(provider, through_proxy, steps, error, sent) -> None:
    provider.script(*steps)
    with pytest.raises(error) as caught:
        await through_proxy.send(b"POST", b"/v1/x", [], b"{}")
    assert caught.value.sent is sent
    assert len(provider.requests) == 1


@pytest.mark.parametrize(
    "steps, error",
    [((RESET,), UpstreamCut), ((CLOSE,), UpstreamCut), ((STALL,), UpstreamTimeout), ((b"zz\r\n",), UpstreamGarbage)],
    ids=str,
)
async def test_errors_after_the_head(provider, through_proxy, steps, error) -> None:
    come = asyncio.Event()
    provider.script(stream_head(), chunk(b"a"), come, *steps)
    answer = await through_proxy.send(b"POST", b"/v1/x", [], b"{}")
    assert await answer.read() == b"a"
    come.set()
    with pytest.raises(error):
        await answer.read()


async def test_no_proxy_no_connection(through_proxy, closing: Closing) -> None:
    settings = config.UpstreamSettings(base_url="http://far.example/v1", proxy_url="http://127.0.0.1:1")
    upstream = closing(Upstream(settings, frozenset(), {}))
    with pytest.raises(UpstreamUnreachable) as caught:
        await upstream.send(b"POST", b"/v1/x", [], b"{}")
    assert not caught.value.sent


async def test_what_the_body_raises_is_raised(provider, through_proxy) -> None:
    class Gone(Exception):
        pass

    async def body():
        yield b"a"
        raise Gone

    with pytest.raises(Gone):
        await through_proxy.send(b"POST", b"/v1/x", [], body())


async def test_an_abort_hangs_up(provider, through_proxy) -> None:
    provider.script(stream_head(), chunk(b"a"), STALL)
    answer = await through_proxy.send(b"POST", b"/v1/x", [], b"{}")
    answer.abort()
    await provider.until(lambda: provider.requests[0].client_left)


class Http2Server(asyncio.Protocol):
    """Answers each HTTP/2 request with its path and method; nothing but HTTP/2 is understood."""

    def __init__(self, seen: list[list[tuple[bytes, bytes]]]) -> None:
        self.seen = seen
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.h2.initiate_connection()
        transport.write(self.h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self.seen.append(event.headers)
            if isinstance(event, h2.events.StreamEnded):
                self.h2.send_headers(event.stream_id, [(":status", "200"), ("x-request-id", "r1")])
                self.h2.send_data(event.stream_id, b"one")
                self.h2.send_data(event.stream_id, b"two", end_stream=True)
        self.transport.write(self.h2.data_to_send())


async def test_an_upstream_that_speaks_only_http2(tmp_path, closing: Closing) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    context.set_alpn_protocols(["h2"])
    seen: list[list[tuple[bytes, bytes]]] = []
    loop = asyncio.get_running_loop()
    server = closing(await loop.create_server(lambda: Http2Server(seen), "127.0.0.1", 0, ssl=context))
    port = server.sockets[0].getsockname()[1]
    base_url = f"https://127.0.0.1:{port}/v1"
    settings = config.UpstreamSettings(
        base_url=base_url, http2=True, ca_file=str(tmp_path / "ca.pem"), api_key_env="KEY"
    )
    upstream = closing(Upstream(settings, frozenset(), {"KEY": "sk-1"}))
    answer = await upstream.send(b"POST", b"/v1/x", [(b"content-type", b"application/json")], b"{}")
    assert (answer.status, answer.headers, await read_all(answer)) == (200, [(b"x-request-id", b"r1")], b"onetwo")
    assert (b":path", b"/v1/x") in seen[0] and (b"authorization", b"Bearer sk-1") in seen[0]


def every_subclass(kind: type[Exception]) -> list[type[Exception]]:
    return [kind, *(each for one in kind.__subclasses__() for each in every_subclass(one))]


@pytest.mark.parametrize("kind", every_subclass(httpx2.HTTPError), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("answered", [False, True])
def test_no_httpx_error_is_unmapped(kind, answered) -> None:
    error = kind.__new__(kind)
    mapped = map_error("mine", error, answered=answered)
    assert isinstance(mapped, RequestError)
    assert mapped.status in (400, 502, 504)
