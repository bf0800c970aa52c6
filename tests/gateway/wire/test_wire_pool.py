"""The pool: reuse, stale connections, the cap, the clock."""

from __future__ import annotations

import asyncio
import os
import resource
import socket

import pytest

from closing import Closing
from taximeter.core.errors import TooManyOpenFiles, UpstreamTimeout, UpstreamUnreachable
from taximeter.gateway.upstream.dial import Origin
from taximeter.gateway.upstream.pool import Pool
from taximeter.node.descriptors import OpenFiles
from upstream import CLOSE, LAST_CHUNK, RESET, STALL, Provider, Script, chunk, response, stream_head
from waits import HANG_S, clock_at_rest

OK = response(b"fine")


async def test_calls_one_after_another_share_a_connection(provider, client) -> None:
    for _ in range(20):
        provider.script(OK)
        await client.answer()
    assert (provider.connections, client.pool.opened, client.pool.idle) == (1, 1, 1)


async def test_calls_at_once_get_a_connection_each_and_the_last_freed_is_used_first(provider, client) -> None:
    gates = [asyncio.Event() for _ in range(3)]
    for gate in gates:
        provider.script(gate, OK)
    calls = [asyncio.ensure_future(client.answer()) for _ in gates]
    await provider.until(lambda: len(provider.requests) == 3)
    for freed, gate in enumerate(gates, 1):
        gate.set()
        while client.pool.idle < freed:
            await asyncio.sleep(0)
    await asyncio.gather(*calls)
    assert client.pool.idle == 3
    provider.script(OK)
    await client.answer()
    assert provider.requests[-1].connection == provider.requests[2].connection
    assert provider.connections == 3


async def test_an_idle_connection_that_closed_is_not_used(provider, client) -> None:
    provider.script(OK, CLOSE)
    await client.answer()
    await provider.until(lambda: provider.open_connections == 0)
    provider.script(OK)
    assert await client.answer() == (200, b"fine")
    assert [seen.connection for seen in provider.requests] == [1, 2]


async def test_a_close_that_waits_unseen_in_the_kernel_is_seen_before_writing(client_of, closing: Closing) -> None:
    """The loop has not run since the other side closed: only the kernel knows. Nothing may be written to it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        loop = asyncio.get_running_loop()
        pool = closing(Pool(Origin("127.0.0.1", server.getsockname()[1]), name="p"))
        connection = await pool.connect()
        accepted, _ = await loop.sock_accept(server)
        assert connection.usable()
        accepted.close()
        assert not connection.usable()


async def test_bytes_nobody_asked_for_cost_the_connection_not_the_next_caller(provider, client) -> None:
    stray = asyncio.Event()
    provider.script(OK, stray, response(b"somebody else's"))
    await client.answer()
    assert client.pool.idle == 1
    stray.set()
    await provider.until(lambda: provider.open_connections == 0)
    assert client.pool.live == 0
    provider.script(OK)
    assert await client.answer() == (200, b"fine")


async def test_a_reset_after_the_request_was_written_is_not_sent_again(provider, client) -> None:
    provider.script(OK)
    await client.answer()
    provider.script(RESET)
    with pytest.raises(UpstreamUnreachable) as caught:
        await client.send()
    assert caught.value.sent
    assert len(provider.requests) == 2 and provider.connections == 1


async def test_at_the_cap_calls_wait_for_a_free_connection(provider, client_of) -> None:
    client = client_of(provider, max_connections=2)
    gates = [asyncio.Event() for _ in range(6)]
    for gate in gates:
        provider.script(gate, OK)
    calls = [asyncio.ensure_future(client.answer()) for _ in gates]
    for seen, gate in enumerate(gates, 1):
        await provider.until(lambda seen=seen: len(provider.requests) >= min(seen + 1, 6))
        assert provider.connections <= 2
        gate.set()
    assert [await call for call in calls] == [(200, b"fine")] * 6
    assert provider.connections == 2


async def test_at_the_cap_a_lost_connection_makes_room(provider, client_of) -> None:
    client = client_of(provider, max_connections=1)
    provider.script(STALL)
    provider.script(OK)
    first = asyncio.ensure_future(client.answer())
    await provider.until(lambda: provider.requests)
    second = asyncio.ensure_future(client.answer())
    await asyncio.sleep(0)
    first.cancel()
    assert await second == (200, b"fine")
    assert provider.connections == 2


async def test_waiting_at_the_cap_is_bounded_and_leaves_nothing_behind(provider, client_of) -> None:
    client = client_of(provider, max_connections=1, connect_timeout_s=0.05)
    gate = asyncio.Event()
    provider.script(gate, OK)
    with clock_at_rest():
        first = asyncio.ensure_future(client.answer())
        await provider.until(lambda: provider.requests)
    with pytest.raises(UpstreamTimeout, match="connections may be in use") as caught:
        await client.send()
    assert not caught.value.sent
    gate.set()
    await first
    provider.script(OK)
    with clock_at_rest():
        assert await client.answer() == (200, b"fine")
    assert provider.connections == 1


async def test_a_waiter_that_leaves_as_its_turn_comes_passes_it_on(provider, client_of) -> None:
    client = client_of(provider, max_connections=1)
    gate = asyncio.Event()
    provider.script(gate, OK)
    provider.script(OK)
    first = asyncio.ensure_future(client.send())
    await provider.until(lambda: provider.requests)
    leaving, staying = (asyncio.ensure_future(client.answer()) for _ in range(2))
    while len(client.pool._waiting) < 2:
        await asyncio.sleep(0)
    release = client.pool.release

    def release_and_leave(connection) -> None:
        release(connection)
        leaving.cancel()  # it has been given the connection, and does not know yet

    client.pool.release = release_and_leave
    gate.set()
    await first
    assert await staying == (200, b"fine")
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert provider.connections == 1


async def test_nobody_listens(client_of) -> None:
    async with Provider() as gone:
        pass
    client = client_of(gone)
    with pytest.raises(UpstreamUnreachable, match="cannot be reached") as caught:
        await client.send()
    assert not caught.value.sent
    assert client.pool._slots == 1000


async def test_a_name_that_does_not_resolve(client_of) -> None:
    client = client_of(Provider(host="no-such-host.invalid", port=1), connect_timeout_s=5)
    with pytest.raises((UpstreamUnreachable, UpstreamTimeout)) as caught:
        await client.send()
    assert not caught.value.sent


async def test_a_connection_that_never_stands_times_out(client_of) -> None:
    """A listening socket whose queue is full lets connects hang."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = []
        for _ in range(8):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
        client = client_of(Provider(port=full.getsockname()[1]), connect_timeout_s=0.1)
        with pytest.raises(UpstreamTimeout) as caught:
            await client.send()
        assert not caught.value.sent and client.pool._slots == 1000
        for filler in fillers:
            filler.close()


async def test_no_first_byte_times_out(provider, client_of) -> None:
    client = client_of(provider, first_byte_timeout_s=0.1)
    provider.script(b"HTTP/1.1 200 OK\r\n", STALL)
    with pytest.raises(UpstreamTimeout, match="did not answer in time") as caught:
        await client.send()
    assert caught.value.sent
    await provider.until(lambda: provider.requests[0].client_left)
    assert client.pool.live == 0


@pytest.mark.parametrize(
    "head", [stream_head() + chunk(b"a"), response(b"a", framing="close")], ids=["chunks", "close"]
)
async def test_silence_in_mid_answer_times_out(provider, client_of, head) -> None:
    client = client_of(provider, idle_timeout_s=0.1)
    provider.script(head, STALL)
    answer = await client.send()
    assert await answer.read() == b"a"
    with pytest.raises(UpstreamTimeout, match="fell silent"):
        await answer.read()
    await provider.until(lambda: provider.requests[0].client_left)


async def test_silence_before_the_head_is_not_idleness(provider, client_of) -> None:
    client = client_of(provider, idle_timeout_s=0.05, first_byte_timeout_s=600)
    go_on = asyncio.Event()
    provider.script(go_on, OK)
    call = asyncio.ensure_future(client.answer())
    await provider.until(lambda: provider.requests)
    connection = next(iter(client.pool._live))
    ticks = connection.tick
    for _ in range(200):  # far more beats than the idle timeout has
        ticks()
    go_on.set()
    assert await call == (200, b"fine")


async def test_a_reader_that_holds_back_is_not_the_upstreams_silence(provider, client_of) -> None:
    client = client_of(provider, idle_timeout_s=0.05, first_byte_timeout_s=0.05)
    provider.script(stream_head(), chunk(b"x" * 2_000_000), LAST_CHUNK)
    answer = await client.send()
    connection = next(iter(client.pool._live))
    async with asyncio.timeout(HANG_S):
        while connection._reading:
            assert not await answer.pipe(lambda data: False)
    for _ in range(200):
        connection.tick()
    assert not connection.closed
    answer.abort()


async def test_an_idle_connection_is_closed_before_the_upstream_would(provider, closing: Closing) -> None:
    pool = closing(Pool(Origin(provider.host, provider.port), name="p", keep_alive_s=0.05))
    connection = await pool.connect()
    pool.release(connection)
    await provider.until(lambda: provider.connections == 1 and provider.open_connections == 0)
    assert (pool.idle, pool.live, pool.take()) == (0, 0, None)
    await asyncio.sleep(0)
    assert pool._beat is None or not pool._beat.cancelled()


async def test_closing_the_pool_cuts_what_is_under_way(provider, client) -> None:
    provider.script(stream_head() + chunk(b"a"), STALL)
    answer = await client.send()
    await answer.read()
    await client.pool.close()
    with pytest.raises(Exception, match="middle of its answer"):
        await answer.read()
    await provider.until(lambda: provider.open_connections == 0)


async def test_a_long_wait_for_an_answer_is_no_idleness_afterwards(provider, closing: Closing) -> None:
    pool = closing(Pool(Origin(provider.host, provider.port), name="p", keep_alive_s=600))
    go_on = asyncio.Event()
    provider.script(go_on, OK)
    connection = await pool.connect()
    answer = connection.send(b"GET / HTTP/1.1\r\n\r\n", b"", False)
    for _ in range(700):
        connection.tick()
    go_on.set()
    await answer.head()
    connection.tick()
    assert (pool.idle, connection.closed) == (1, False)


@pytest.mark.parametrize("said", ["timeout=1", "max=100, Timeout = 1", 'timeout="1"'])
async def test_a_connection_is_not_kept_longer_than_its_upstream_says(provider, client, said) -> None:
    provider.script(response(b"fine", headers=[("keep-alive", said)]))
    await client.answer()
    assert client.pool.idle == 1
    await provider.until(lambda: provider.open_connections == 0)  # closed by us: the provider never does


async def test_a_connection_that_its_upstream_will_not_keep_is_not_used_again(provider, client) -> None:
    for _ in range(3):
        provider.script(response(b"fine", headers=[("keep-alive", "timeout=0")]))
        assert await client.answer() == (200, b"fine")
    assert provider.connections == 3
    provider.script(response(b"fine", headers=[("keep-alive", "timeout=nonsense")]))
    await client.answer()
    await client.answer()
    assert provider.connections == 4


async def test_no_call_is_lost_to_an_upstream_that_closes_soon(provider, client_of) -> None:
    """Where the bound is set below the upstream's own: calls come at the very time at which it closes."""
    provider.idle_close_ms = 40
    provider.handler = lambda _: Script((OK,))
    client = client_of(provider, keep_alive_s=0.02)
    for number in range(60):
        assert (await client.answer())[0] == 200
        await asyncio.sleep(0.037 + number % 7 * 0.001)
    assert provider.connections > 30


async def test_the_kernel_watches_an_upstream_that_is_silent(provider, client_of) -> None:
    client = client_of(provider, tcp_keepalive_s=21, tcp_user_timeout_s=33)
    await client.answer()
    (connection,) = client.pool._live
    raw = connection._transport.get_extra_info("socket")
    assert watched(raw) == (1, 21, 7, 3, 33_000)


def watched(raw: socket.socket) -> tuple[int, ...]:
    names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
    return (
        raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        *[raw.getsockopt(socket.IPPROTO_TCP, name) for name in names],
    )


async def test_running_out_of_sockets_is_no_fault_of_the_upstream(provider, client, caplog, monkeypatch) -> None:
    monkeypatch.setattr("taximeter.gateway.upstream.dial.OPEN_FILES", OpenFiles())  # which has told nothing yet
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with pytest.raises(TooManyOpenFiles, match="limit of open files") as caught:
            await client.send()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (caught.value.sent, caught.value.status, caught.value.retry_after_s) == (False, 503, 1)
    assert "LimitNOFILE" in caplog.text
    assert (await client.answer())[1], "and it goes on as soon as there are some"
