"""The httpx2 side of the seam behaves as the wire side does: same bytes, same errors, nothing followed or retried."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import pkgutil
from typing import Any

import httpx2
import pytest

from closing import Closing
from http2_provider import Call, Http2Provider
from taximeter import config
from taximeter.core.errors import (
    RequestError,
    UpstreamCut,
    UpstreamGarbage,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from taximeter.gateway.upstream import http2_answers
from taximeter.gateway.upstream.httpx_client import HttpxTransport, _Exchange
from taximeter.gateway.upstream.opening import Kept
from taximeter.gateway.upstream.upstreams import Upstream
from upstream import CLOSE, LAST_CHUNK, RESET, STALL, Provider, chunk, response, stream_head
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


async def test_no_call_waits_longer_for_a_connection_than_it_may(closing: Closing) -> None:
    """Not for a proxy that does not answer CONNECT, and not for a stream of HTTP/2."""
    async with Provider(on_connect=(STALL,)) as proxy:
        settings = config.UpstreamSettings(
            base_url="https://far.example/v1", proxy_url=proxy.url, connect_timeout_s=0.2
        )
        upstream = closing(Upstream(settings, frozenset(), {}))
        with pytest.raises(UpstreamTimeout, match="within the connect timeout") as caught:
            await upstream.send(b"POST", b"/v1/x", [], b"{}")
        assert not caught.value.sent

    async def stall(call: Call) -> None:
        await call.gone.wait()

    async with Http2Provider(max_streams=2, answer=stall) as provider:
        settings = config.UpstreamSettings(base_url=provider.base_url, http2=True, connect_timeout_s=0.5)
        transport = closing(HttpxTransport(settings, ("http", "127.0.0.1", provider.port)))
        begun = [asyncio.create_task(transport.send(b"POST", b"/x", Kept([]), b"{}", None)) for _ in range(2)]
        await provider.until(lambda: len(provider.calls) == 2)
        with pytest.raises(UpstreamTimeout, match="within the connect timeout") as caught:
            await transport.send(b"POST", b"/x", Kept([]), b"{}", None)
        assert not caught.value.sent and len(provider.calls) == 2
        for each in begun:
            each.cancel()
        await asyncio.gather(*begun, return_exceptions=True)


def exceptions_of(*packages: str) -> list[type[Exception]]:
    """Every class of exceptions that stands in one of these packages, public or not."""
    found: dict[type[Exception], None] = {}
    for package in packages:
        module = importlib.import_module(package)
        names = [each.name for each in pkgutil.walk_packages(getattr(module, "__path__", []), f"{package}.")]
        for name in [package, *names]:
            with contextlib.suppress(ImportError):  # an optional part
                found.update(dict.fromkeys(filter(is_exception, vars(importlib.import_module(name)).values())))
    return sorted(found, key=lambda kind: (kind.__module__, kind.__qualname__))


def is_exception(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, Exception) and not issubclass(thing, Warning)


STANDS_ON = exceptions_of("httpx2", "httpcore2", "h11", "h2", "hpack", "hyperframe", "anyio", "ssl", "socket")


def test_the_exceptions_of_each_library_are_found() -> None:
    assert {"httpx2", "httpcore2", "h11", "h2", "hpack", "hyperframe", "anyio", "ssl"} <= {
        kind.__module__.partition(".")[0] for kind in STANDS_ON
    }
    assert len(STANDS_ON) > 100


@pytest.mark.parametrize("answered", [False, True])
async def test_no_error_is_taken_for_a_fault_of_ours(answered, monkeypatch, closing: Closing) -> None:
    """Of httpx2, and of what it stands on: raised where httpx2 is asked, and where its answer is read."""
    settings = config.UpstreamSettings(name="mine", base_url="http://far.example/v1", proxy_url="http://127.0.0.1:1")
    upstream = closing(Upstream(settings, frozenset(), {}))
    kinds = iter(STANDS_ON)

    class Broken(httpx2.AsyncByteStream):
        async def __aiter__(self):
            yield b"a"
            raise new(next(kinds))

    async def ask(request):
        if not answered:
            raise new(next(kinds))
        return httpx2.Response(200, stream=Broken())

    transport: Any = upstream._transport
    monkeypatch.setattr(transport.http, "handle_async_request", ask)
    for kind in STANDS_ON:
        try:
            await read_all(await upstream.send(b"POST", b"/v1/x", [], b"{}"))
        except RequestError as error:
            assert error.status in (400, 502, 504), kind
            assert "mine" in error.message or error.status == 400, kind
        else:
            pytest.fail(f"{kind} is lost")


def new(kind: type[Exception]) -> Exception:
    """Whatever its class wants to be given."""
    return kind.__new__(kind)


def test_the_http2_client_catches_all_that_its_library_raises() -> None:
    raised = [kind for kind in exceptions_of("h2", "hpack", "hyperframe") if kind.__module__ != "builtins"]
    assert len(raised) > 20
    assert all(issubclass(kind, http2_answers.ERRORS) for kind in raised)
