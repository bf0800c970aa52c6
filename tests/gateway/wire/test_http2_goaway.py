"""GOAWAY frames are taken out of what h2 reads, however the bytes come; the rest is as it was."""

from __future__ import annotations

import pytest
from h2.exceptions import FrameTooLargeError
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, PingFrame
from hypothesis import given
from hypothesis import strategies as st

from taximeter.gateway.upstream.goaway import Frames, Goaway

ids, codes = st.integers(0, 2**31 - 1), st.integers(0, 2**32 - 1)
goaways = st.builds(lambda last, code, more: GoAwayFrame(0, last, code, more), ids, codes, st.binary(max_size=20))
others = st.one_of(
    st.builds(DataFrame, st.integers(1, 99), st.binary(max_size=60)),
    st.builds(PingFrame, st.just(0), st.binary(min_size=8, max_size=8)),
)


@given(st.lists(st.one_of(goaways, others), max_size=8), st.lists(st.integers(0, 400), max_size=8))
def test_any_frames_in_any_pieces(frames: list[Frame], cuts: list[int]) -> None:
    data = b"".join(frame.serialize() for frame in frames)
    reader, passed, found = Frames(), b"", []
    ends = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
    for begin, end in zip([0, *ends], ends, strict=False):
        rest, some = reader.feed(data[begin:end])
        passed += b"".join(rest)
        found += some
    said = [frame for frame in frames if isinstance(frame, GoAwayFrame)]
    assert found == [Goaway(frame.last_stream_id, frame.error_code) for frame in said]
    assert passed == b"".join(frame.serialize() for frame in frames if frame not in said)


@given(st.binary(max_size=200), st.integers(0, 200))
def test_any_bytes_are_passed_on_or_refused(data: bytes, cut: int) -> None:
    reader = Frames()
    for part in (data[:cut], data[cut:]):
        passed, _ = reader.feed(part)
        assert b"".join(passed) in data
        if reader.breach is not None:
            return


def test_a_goaway_too_short_to_be_one_is_left_to_h2() -> None:
    frame = b"\x00\x00\x04\x07\x00\x00\x00\x00\x00abcd"
    assert Frames().feed(frame) == ([frame], [])


@pytest.mark.parametrize("kind", [b"\x00", b"\x07"])
def test_a_frame_longer_than_allowed_is_refused_before_it_has_come(kind: bytes) -> None:
    before = PingFrame(0, b"12345678").serialize()
    reader = Frames()
    assert reader.feed(before + b"\x00\x40\x01" + kind + b"\x00\x00\x00\x00\x01") == ([before], [])
    assert isinstance(reader.breach, FrameTooLargeError)
