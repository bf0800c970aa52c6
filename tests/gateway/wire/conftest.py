"""Upstreams that point at a scripted provider; every test here runs on asyncio's loop and on uvloop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvloop

from taximeter import config
from taximeter.gateway.upstream.response import Response
from taximeter.gateway.upstream.upstreams import Upstream
from upstream import Provider
from waits import HANG_S


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Client:
    """An Upstream under test, with the request most tests send."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        transport: Any = upstream._transport
        self.pool = transport.pool

    async def send(self, body=b"{}", *, method=b"POST", path=b"/v1/x", headers=()) -> Response:
        async with asyncio.timeout(HANG_S):
            return await self.upstream.send(method, path, list(headers), body)

    async def answer(self, body=b"{}", **request) -> tuple[int, bytes]:
        """Send, and read the answer to its end."""
        response = await self.send(body, **request)
        return response.status, await read_all(response)


async def read_all(response: Response) -> bytes:
    async with asyncio.timeout(HANG_S):
        data = b""
        while piece := await response.read():
            data += piece
    assert response.ended
    return data


@pytest.fixture(name="read_all")
def _read_all() -> Callable[[Response], Awaitable[bytes]]:
    return read_all


@pytest.fixture
async def client_of() -> AsyncIterator[Callable[..., Client]]:
    """`client_of(provider, **settings)`; the defaults of `config.Upstream` hold."""
    made = []

    def make(provider: Provider, *, drop: frozenset[bytes] = frozenset(), **settings) -> Client:
        settings.setdefault("base_url", provider.base_url)
        upstream = Upstream(config.UpstreamSettings(**settings), drop, {})
        made.append(upstream)
        return Client(upstream)

    yield make
    for upstream in made:
        await upstream.close()


@pytest.fixture
async def client(provider: Provider, client_of: Callable[..., Client]) -> Client:
    return client_of(provider)
