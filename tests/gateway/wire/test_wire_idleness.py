"""Idle connections that an upstream closes: how long it keeps them shows, and what cannot be known of a lost call."""

from __future__ import annotations

import select
import socket
import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.core.errors import UpstreamUnreachable
from taximeter.gateway.upstream.idleness import AGREE, Idleness, before
from upstream import RESET, Script, response
from waits import happens

OK = response(b"fine")
CLOSES_MS = 60

times = st.floats(min_value=0.001, max_value=3_600)


def test_two_closings_that_agree_teach_how_long_a_connection_is_kept() -> None:
    idleness = Idleness()
    assert idleness.closed(10.0, 5.0) is None
    assert idleness.closed(20.0, 5.1) == 4.0
    assert idleness.closed(99.0, 60.0) is None, "another bound, or chance"
    assert idleness.closed(160.0, 60.0) == 59.0


def test_two_restarts_far_apart_teach_nothing() -> None:
    idleness = Idleness()
    assert [idleness.closed(day * 86_400.0, 7.0) for day in range(1, 9)] == [None] * 8


def test_a_restart_closes_many_in_one_moment_and_teaches_nothing() -> None:
    idleness = Idleness()
    assert [idleness.closed(10.0 + n / 100, 3.0) for n in range(20)] == [None] * 20


@given(times, times, st.floats(min_value=0.01, max_value=3_600))
def test_what_is_learned_is_below_what_was_seen(first: float, second: float, pause: float) -> None:
    idleness = Idleness()
    assert idleness.closed(0.0, first) is None
    learned = idleness.closed(pause + second, second)
    assert learned is None or 0 < learned <= min(first, second) * 0.9999
    near = pause + second <= 60 + 10 * second
    assert (learned is not None) == (near and abs(first - second) <= AGREE * max(first, second))


@given(times)
def test_a_connection_is_used_until_a_little_before_it_is_closed(closes_after_s: float) -> None:
    assert 0 < before(closes_after_s) < closes_after_s
    assert closes_after_s - before(closes_after_s) <= 1


async def test_an_upstream_that_closes_soon_and_does_not_say_so_is_found_out(provider, client) -> None:
    provider.idle_close_ms = CLOSES_MS
    provider.handler = lambda _: Script((OK,))
    given_s = client.pool._terms.keep_alive_s
    while client.pool._terms.keep_alive_s == given_s:  # two closings, if this process is let run in time
        await client.answer()
        await happens(lambda: not client.pool.live)
    await client.answer()
    (connection,) = client.pool._idle
    kept_s = client.pool._terms.keep_alive_s
    assert 0.5 * CLOSES_MS / 1000 < kept_s < given_s
    assert connection._good_until == connection._idle_since + kept_s


async def test_what_is_learned_holds_for_connections_that_are_idle_already(provider, client) -> None:
    provider.handler = lambda _: Script((OK,))
    await client.answer()
    client.pool.closed_idle(0.5)
    client.pool._idleness._closed_at -= 10
    client.pool.closed_idle(0.5)
    (connection,) = client.pool._idle
    assert connection._good_until == connection._idle_since + 0.4
    client.pool._idleness._closed_at -= 10
    client.pool.closed_idle(0.6)
    assert client.pool._terms.keep_alive_s == 0.4, "it is never kept longer again"


async def test_a_call_that_is_lost_with_its_connection_teaches_too_and_is_not_sent_again(provider, client) -> None:
    told: list[float] = []
    client.pool.closed_idle = told.append
    provider.script(OK)
    provider.script(RESET)
    await client.answer()
    with pytest.raises(UpstreamUnreachable) as caught:
        await client.answer()
    assert caught.value.sent and len(told) == 1
    provider.script(RESET)
    with pytest.raises(UpstreamUnreachable):
        await client.answer()  # on a new connection, which was never idle
    assert (len(told), len(provider.requests)) == (1, 3)


async def test_what_we_close_ourselves_teaches_nothing(provider, client_of) -> None:
    client = client_of(provider, keep_alive_s=0.02)
    told: list[float] = []
    client.pool.closed_idle = told.append
    provider.handler = lambda _: Script((OK,))
    await client.answer()
    await provider.until(lambda: provider.open_connections == 0)
    await client.answer()
    await client.pool.close()
    assert told == []


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO as Linux has it")
@pytest.mark.parametrize("end", ["reset", "half-closed, then reset"])
@pytest.mark.parametrize("read", [True, False], ids=["read", "unread"])
def test_a_reset_before_any_acknowledgement_does_not_tell_whether_a_request_was_read(read: bool, end: str) -> None:
    """Why a lost call is not sent again though the kernel says that nothing was acknowledged (docs/decisions/0018)."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as ours:
        theirs, _ = listener.accept()
        for _ in range(20):  # requests and answers: acknowledgements travel with what is sent
            ours.sendall(b"request")
            assert theirs.recv(100) == b"request"
            theirs.sendall(b"answer")
            assert ours.recv(100) == b"answer"
        before_bytes = acknowledged(ours)
        if end != "reset":
            theirs.shutdown(socket.SHUT_WR)
        ours.sendall(b"a request that costs something")
        if read:
            assert theirs.recv(100) == b"a request that costs something"
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        poller = select.poll()
        poller.register(ours, select.POLLHUP)
        poller.poll(10_000)
        assert acknowledged(ours) == before_bytes


def acknowledged(of: socket.socket) -> int:
    """tcpi_bytes_acked (linux/tcp.h)."""
    (acked,) = struct.unpack_from("Q", of.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), 120)
    return int(acked)
