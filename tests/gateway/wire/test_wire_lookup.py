"""Names of upstreams: a slow one keeps nobody else waiting, and what is known is used while it is renewed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from taximeter.core.errors import UpstreamTimeout
from taximeter.gateway.upstream import lookup
from taximeter.gateway.upstream.lookup import Lookup
from upstream import Provider, Script, response
from waits import HANG_S, happens


class Names:
    """A name service at the seam: what names mean, which are slow, and how often each was asked for."""

    def __init__(self) -> None:
        self.means = {"quick.test": "127.0.0.1"}
        self.slow: set[str] = set()
        self.go_on = threading.Event()
        self.asked: list[str] = []

    def getaddrinfo(self, host: str, port: int, type: int = 0, flags: int = 0) -> list[Any]:
        if flags & socket.AI_NUMERICHOST:
            return socket.getaddrinfo(host, port, type=type, flags=flags)
        self.asked.append(host)
        if host in self.slow:
            self.go_on.wait(HANG_S)
        if host not in self.means:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return socket.getaddrinfo(self.means[host], port, type=type)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    service = Names()
    monkeypatch.setattr(lookup, "getaddrinfo", service.getaddrinfo)
    yield service
    service.go_on.set()


async def test_names_that_are_slow_keep_no_call_to_another_upstream_waiting(names, provider, client_of) -> None:
    names.slow = {f"slow-{number}.test" for number in range(12)}  # more than any pool of threads has
    slow = [client_of(Provider(host=name, port=1), connect_timeout_s=HANG_S) for name in sorted(names.slow)]
    waiting = [asyncio.create_task(client.send()) for client in slow for _ in range(3)]
    await happens(lambda: len(names.asked) == 12)  # one lookup each, however many wait for it
    provider.handler = lambda _: Script((response(b"fine"),))
    quick = client_of(provider, base_url=f"http://quick.test:{provider.port}/v1")
    assert (await quick.answer())[0] == 200
    assert not any(task.done() for task in waiting)
    for task in waiting:
        task.cancel()
    for task in waiting:
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_name_that_is_never_found_out_is_a_timeout(names, client_of) -> None:
    names.slow = {"slow.test"}
    client = client_of(Provider(host="slow.test", port=1), connect_timeout_s=0.05)
    for _ in range(2):
        with pytest.raises(UpstreamTimeout) as caught:
            await client.send()
        assert not caught.value.sent
    assert names.asked == ["slow.test"]


async def test_what_is_known_is_used_while_it_is_renewed_and_where_that_fails(names, provider, client_of) -> None:
    provider.handler = lambda _: Script((response(b"fine"),))
    client = client_of(provider, base_url=f"http://quick.test:{provider.port}/v1", dns_lifetime_s=0)
    await client.answer()
    names.slow = {"quick.test"}
    provider.drop_connections()
    await provider.until(lambda: provider.open_connections == 0)
    await happens(lambda: client.pool.live == 0)
    assert (await client.answer())[0] == 200
    await happens(lambda: names.asked == ["quick.test"] * 2)
    names.means.clear()
    names.go_on.set()
    await happens(lambda: client.pool._dialer._lookup._under_way is None)
    provider.drop_connections()
    await happens(lambda: client.pool.live == 0)
    assert (await client.answer())[0] == 200
    assert provider.connections == 3


async def test_addresses_hold_for_their_lifetime_and_are_doubted_when_nobody_is_there(names) -> None:
    names.means["quick.test"] = "127.0.0.2"
    asked = Lookup("quick.test", 80, 3_600)
    assert [found[4] for found in await asked.addresses()] == [("127.0.0.2", 80)]
    names.means["quick.test"] = "127.0.0.3"
    for _ in range(3):
        assert [found[4] for found in await asked.addresses()] == [("127.0.0.2", 80)]
    assert names.asked == ["quick.test"]
    asked.doubt()
    assert [found[4] for found in await asked.addresses()] == [("127.0.0.2", 80)]
    await happens(lambda: asked._under_way is None)
    assert [found[4] for found in await asked.addresses()] == [("127.0.0.3", 80)]
    assert names.asked == ["quick.test"] * 2


async def test_an_address_is_not_looked_up(names) -> None:
    for host in ("127.0.0.1", "::1"):
        asked = Lookup(host, 80, 0)
        asked.doubt()
        assert [found[4][0] for found in await asked.addresses()] == [host]
    assert names.asked == []
