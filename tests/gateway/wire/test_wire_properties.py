"""However the network cuts an answer, the same answer is read; whatever comes, a connection never carries doubt."""

from __future__ import annotations

import asyncio
import socket
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.core.errors import UpstreamError
from taximeter.gateway.upstream.terms import Terms
from taximeter.gateway.upstream.wire import WireConnection
from upstream import LAST_CHUNK, chunk

SOCKETS = socket.socketpair()


class FakeTransport(asyncio.Transport):
    """The part of a transport that a connection uses while it reads."""

    def __init__(self) -> None:
        self.aborted = False

    def get_extra_info(self, name: str, default: object = None) -> socket.socket:
        return SOCKETS[0]

    def write(self, data: bytes | bytearray | memoryview) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


class FakePool:
    def __init__(self) -> None:
        self.released: list[WireConnection] = []

    def release(self, connection: WireConnection) -> None:
        self.released.append(connection)

    def lost(self, connection: WireConnection) -> None: ...

    def closed_idle(self, idle_s: float) -> None: ...


def outcome(pieces: list[bytes], *, eof: bool) -> tuple[Any, ...]:
    """(status, headers, body, complete, error's class, connection kept) of an answer that arrives in these pieces."""
    pool = FakePool()
    connection = WireConnection(pool, Terms("fake", 100, 100, 60.0))
    connection.connection_made(FakeTransport())
    answer = connection.send(b"GET / HTTP/1.1\r\n\r\n", b"", False)
    for piece in pieces:
        connection.data_received(piece)
    if eof:
        connection.eof_received()
    body = answer.take()
    error = answer._error
    assert error is None or isinstance(error, UpstreamError)
    kept = bool(pool.released) and not connection.closed
    return answer.status, answer.headers, body, answer.ended, type(error), kept


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(n % len(data) for n in at)})
    return [data[a:b] for a, b in pairwise(edges)]


bodies = st.lists(st.binary(max_size=40), max_size=6)
cuts = st.lists(st.integers(0, 10_000), max_size=12)
names = st.from_regex(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,20}", fullmatch=True).map(lambda s: "X-" + s)
values = st.from_regex(r"([!-~\x80-\xff]([ -~\x80-\xff]{0,30}[!-~\x80-\xff])?)?", fullmatch=True)


@given(bodies, cuts, st.lists(st.tuples(names, values), max_size=5), st.sampled_from(["length", "chunked", "close"]))
def test_any_cut_reads_the_same_answer(body, at, fields, framing) -> None:
    whole = b"".join(body)
    head = "".join(f"{name}: {value}\r\n" for name, value in fields).encode("latin-1")
    relayed = [(name.lower().encode(), value.encode("latin-1")) for name, value in fields]
    if framing == "length":
        head += b"Content-Length: %d\r\n" % len(whole)
        relayed.append((b"content-length", b"%d" % len(whole)))
        raw = whole
    elif framing == "chunked":
        head += b"Transfer-Encoding: chunked\r\n"
        raw = b"".join(map(chunk, body)) + LAST_CHUNK
    else:
        raw = whole
    data = b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + raw
    *read, kept = outcome(cut(data, at), eof=framing == "close")
    assert read == [200, relayed, whole, True, type(None)]
    if framing == "close":
        assert not kept
    whole_kept = outcome([data], eof=False)[-1]
    assert whole_kept == (framing != "close")
    assert kept <= whole_kept


@given(bodies, cuts, st.binary(min_size=1, max_size=40), st.booleans())
def test_a_connection_is_never_kept_when_more_follows(body, at, more, chunked) -> None:
    whole = b"".join(body)
    if chunked:
        data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(map(chunk, body)) + LAST_CHUNK
    else:
        data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(whole) + whole
    *_, read, complete, error, kept = outcome(cut(data + more, at), eof=False)
    assert (read, complete, error, kept) == (whole, True, type(None), False)


@given(bodies, cuts, st.integers(1, 200), st.booleans())
def test_an_answer_cut_short_is_never_complete(body, at, missing, chunked) -> None:
    whole = b"".join(body)
    if chunked:
        data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(map(chunk, body)) + LAST_CHUNK
    else:
        whole += b"!"
        data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(whole) + whole
    data = data[: -min(missing, len(data) - 1)]
    *_, read, complete, error, kept = outcome(cut(data, at), eof=True)
    assert not complete and not kept and issubclass(error, UpstreamError)
    assert whole.startswith(read)


@given(st.binary(min_size=1, max_size=300), cuts)
def test_no_bytes_break_the_connection(noise, at) -> None:
    *_, kept = outcome(cut(noise, at), eof=True)
    assert not kept


@given(st.binary(max_size=200), cuts)
def test_noise_after_a_status_line_is_never_kept_unless_whole(noise, at) -> None:
    data = b"HTTP/1.1 200 OK\r\n" + noise
    status, _, _, complete, error, kept = outcome(cut(data, at), eof=True)
    assert complete != (error is not type(None))
    assert not kept or (complete and status == 200)


@pytest.fixture(scope="module", autouse=True)
def _close_sockets():
    yield
    for one in SOCKETS:
        one.close()
