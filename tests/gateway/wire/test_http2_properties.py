"""Whatever an HTTP/2 upstream sends, in any pieces: nothing is raised, and each call ends as its connection does."""

from __future__ import annotations

import asyncio
from typing import Any

from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from taximeter.core.errors import UpstreamError
from taximeter.gateway.upstream.http2_connection import Http2Connection
from taximeter.gateway.upstream.terms import terms_of
from taximeter.server.client import at_once

OK = b"\x88"
"""`:status: 200`, compressed."""
streams = st.sampled_from([1, 1, 3, 5, 7, 2])
numbers = st.integers(0, 2**31 - 1)
heads = st.one_of(st.just(OK), st.just(OK + b"\x0f\x0d\x012"), st.binary(max_size=12))  # a length of 2; anything
flags = st.sampled_from([["END_HEADERS"], ["END_HEADERS"], ["END_HEADERS", "END_STREAM"], []])
ends = st.sampled_from([[], ["END_STREAM"]])
frames = st.one_of(
    st.builds(lambda at, data, on: HeadersFrame(at, data, flags=on), streams, heads, flags),
    st.builds(lambda at, data, on: DataFrame(at, data, flags=on), streams, st.binary(max_size=9), ends),
    st.builds(RstStreamFrame, streams, st.integers(0, 20)),
    st.builds(lambda last, code: GoAwayFrame(0, last, code), st.sampled_from([0, 1, 3, 2**31 - 1]), st.integers(0, 20)),
    st.builds(WindowUpdateFrame, st.sampled_from([0, 1, 3]), st.integers(1, 2**31 - 1)),
    st.builds(lambda pairs: SettingsFrame(0, pairs), st.dictionaries(st.integers(0, 8), numbers, max_size=3)),
    st.builds(lambda data: PingFrame(0, data), st.binary(min_size=8, max_size=8)),
    st.builds(lambda at: PriorityFrame(at, depends_on=at + 2), streams),
    st.builds(lambda at, data: ContinuationFrame(at, data, flags=["END_HEADERS"]), streams, heads),
    st.builds(lambda at, data: PushPromiseFrame(at, 2, data, flags=["END_HEADERS"]), streams, heads),
)  # fmt: skip


def answering(steps: list[tuple[int, bytes, bool]]) -> list[Frame]:
    """Frames of two answers that keep to the protocol: a head, data, an end."""
    begun: set[int] = set()
    over: set[int] = set()
    found: list[Frame] = []
    for at, data, last in steps:
        if at not in over:
            kind = DataFrame if at in begun else HeadersFrame
            flags = [*(["END_STREAM"] if last else []), *([] if at in begun else ["END_HEADERS"])]
            found.append(kind(at, data if at in begun else OK, flags=flags))
            begun.add(at)
            over |= {at} if last else set()
    return found


steps = st.tuples(st.sampled_from([1, 3]), st.binary(max_size=9), st.booleans())
anything = st.lists(st.one_of(frames, st.binary(max_size=20)), max_size=4)
sensible = st.lists(steps, max_size=8).map(answering)


class Socket:
    """A transport that takes everything."""

    def __init__(self) -> None:
        self.closing = False

    def get_extra_info(self, _: str) -> None: ...

    def write(self, _: bytes) -> None: ...

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close


class Keeper:
    def freed(self) -> None: ...

    def changed(self) -> None: ...


@settings(max_examples=300)
@given(
    sensible, st.lists(st.one_of(frames, st.binary(max_size=20)), max_size=4), st.lists(st.integers(0, 300), max_size=6)
)
def test_any_frames_and_any_bytes_in_any_pieces(begun: list[Frame], rest: list[Frame | bytes], cuts: list[int]) -> None:
    data = b"".join(each if isinstance(each, bytes) else each.serialize() for each in (*begun, *rest))
    ends = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
    asyncio.run(fed([data[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]))


async def fed(pieces: list[bytes]) -> None:
    terms, _ = terms_of("p", 60, 60, 60, at_once)
    connection = Http2Connection(Keeper(), terms)
    transport: Any = Socket()
    connection.connection_made(transport)
    connection.data_received(SettingsFrame(0, {3: 2}).serialize())
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"p"), (b":path", b"/")]
    answers = []
    while connection.free:
        answers.append(connection.open(fields, b"{}", 2))
    assert len(answers) == 2
    for piece in pieces:
        connection.data_received(piece)
    connection.eof_received()
    connection.connection_lost(None)
    assert connection.closed and not connection.streams and transport.closing
    for answer in answers:
        got = b""
        try:
            while part := await answer.read():
                got += part
            assert answer.ended and answer.status
        except UpstreamError:
            assert not answer.ended
