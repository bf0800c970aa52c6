"""Upstreams on a unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from http2_provider import Connection, Http2Provider
from taximeter import config
from taximeter.config.unix_urls import LONGEST, split_unix
from taximeter.core.errors import UpstreamUnreachable
from taximeter.gateway.upstream.upstreams import Upstream
from upstream import Provider, Script, chunk, response, stream_head
from upstream import _Connection as Served


@pytest.fixture
async def socket_path(provider: Provider, tmp_path: Path) -> AsyncIterator[str]:
    """A socket on which the provider answers."""
    path = str(tmp_path / "u.sock")
    server = await asyncio.get_running_loop().create_unix_server(lambda: Served(provider), path)
    yield path
    server.close()


@pytest.mark.parametrize("form", ["unix:{}:/api/v1", "unix://{}:/api/v1/", "http://unix:{}:/api/v1"])
async def test_calls_go_to_the_socket(provider, client_of, socket_path, form) -> None:
    provider.handler = lambda _: Script((response(b"fine"),))
    client = client_of(provider, base_url=form.format(socket_path))
    for path, target in ((b"/v1/chat/completions", "/api/v1/chat/completions"), (b"/other?a=1", "/api/other?a=1")):
        assert await client.answer(path=path) == (200, b"fine")
        assert (provider.requests[-1].target, provider.requests[-1].header("host")) == (target, "localhost")
    assert provider.connections == 1, "it is kept"


async def test_streams_and_a_provider_that_hangs_up(provider, client_of, socket_path, read_all) -> None:
    provider.script(stream_head(), chunk(b"a"), chunk(b"b"), b"0\r\n\r\n")
    client = client_of(provider, base_url=f"unix:{socket_path}:/v1")
    assert await read_all(await client.send()) == b"ab"
    provider.drop_connections()
    provider.script(response(b"again"))
    await provider.until(lambda: provider.open_connections == 0)
    assert await client.answer() == (200, b"again")


async def test_a_socket_that_is_not_there_can_come_later(provider, client_of, tmp_path) -> None:
    path = str(tmp_path / "later.sock")
    client = client_of(provider, base_url=f"unix:{path}")
    with pytest.raises(UpstreamUnreachable, match="No such file") as caught:
        await client.send()
    assert not caught.value.sent
    server = await asyncio.get_running_loop().create_unix_server(lambda: Served(provider), path)
    provider.script(response(b"fine"))
    assert await client.answer(path=b"/v1/x") == (200, b"fine")
    assert provider.requests[0].target == "/x", "no path: our /v1 stands for its root"
    server.close()


async def test_http2_on_a_socket(tmp_path) -> None:
    path = str(tmp_path / "h2.sock")
    provider = Http2Provider()
    server = await asyncio.get_running_loop().create_unix_server(lambda: Connection(provider), path)
    upstream = Upstream(config.UpstreamSettings(base_url=f"unix:{path}:/v1", http2=True), frozenset(), {})
    answer = await upstream.send(b"POST", b"/v1/x", [], b"{}")
    assert (answer.status, await answer.read()) == (200, b'{"path": "/v1/x"}')
    assert provider.calls[0].value(b":authority") == b"localhost"
    await upstream.close()
    server.close()


@pytest.mark.parametrize(
    "url, why",
    [
        ("unix:relative.sock:/v1", "an absolute path"),
        ("unix:", "an absolute path"),
        ("unix:/a b.sock", "an absolute path"),
        ("unix:/a.sock:v1", "an absolute path"),
        ("unix:/a.sock:/v1?x=1", "an absolute path"),
        ("https://unix:/a.sock:/v1", "without TLS"),
        ("unix:/" + "a" * LONGEST, f"at most {LONGEST} bytes"),
    ],
)
def test_what_names_no_socket(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        split_unix(url)
