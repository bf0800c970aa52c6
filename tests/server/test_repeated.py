"""Heads that come again are compared and not parsed: whoever asks cannot tell, whatever else comes between."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.server.framing import END, RequestFraming
from taximeter.server.head import Head
from taximeter.server.repeated import REMEMBERED, TRIES, Heads

HEAD = b"POST /v1/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer s\r\nContent-Length: %d\r\nAccept: */*\r\n\r\n"


def request(body: bytes = b"{}", head: bytes = HEAD) -> bytes:
    return head % len(body) + body


def reads(framing: RequestFraming, *pieces: bytes) -> list[object]:
    """What comes of them: heads as what they say, bodies joined, and at last a refusal."""
    told: list[object] = []
    for piece in pieces:
        again = framing.again(piece)
        if again is not None:
            framing.events += (*again, END)
        else:
            framing.feed(piece)
        for event in framing.events:
            if isinstance(event, Head):
                told.append((event.method, event.target, event.headers, event.version, event.keep_alive))
                told.append(b"")
            elif event:
                told[-1] += event  # type: ignore[operator]
            else:
                told.append("end")
        framing.events.clear()
        if framing.refusal is not None:
            told.append(framing.refusal.message)
            break
    return told


@pytest.fixture
def parsed(monkeypatch):
    """How often bytes were parsed."""
    seen: list[bytes] = []
    parse = RequestFraming._parse

    def noted(self: RequestFraming, data: bytes) -> None:
        seen.append(data)
        parse(self, data)

    monkeypatch.setattr(RequestFraming, "_parse", noted)
    return seen


def test_the_second_request_of_a_connection_is_not_parsed(parsed):
    framing = RequestFraming(2_000, 50, heads=Heads())
    assert reads(framing, request(), request(b"[1]"), request()) == reads(
        RequestFraming(2_000, 50), request(), request(b"[1]"), request()
    )
    assert parsed[0] == request() and len(parsed) == 1 + 3  # the first; and all three without known heads


def test_another_connection_of_the_same_client_begins_with_what_is_known(parsed):
    heads = Heads()
    reads(RequestFraming(2_000, 50, heads=heads), request())
    parsed.clear()
    told = reads(RequestFraming(2_000, 50, heads=heads), request(b'{"n":1}'))
    assert not parsed
    assert told[1:] == [b'{"n":1}', "end"]


def test_requests_that_repeat_a_head_share_what_is_learned_of_it_and_no_others_do():
    framing, memos = RequestFraming(2_000, 50, heads=Heads()), []
    for data in (request(), request(b"[1]"), request(head=HEAD.replace(b"Bearer s", b"Bearer t")), request()):
        again = framing.again(data)
        if again is None:
            framing.feed(data)
        head = framing.events[0] if again is None else again[0]
        assert isinstance(head, Head)
        memos.append(head.memo)
        framing.events.clear()
    assert memos[0] is memos[1]
    assert memos[2] is not memos[0]


@pytest.mark.parametrize(
    "odd",
    [
        HEAD % 2 + b"{}" + request(),  # pipelined
        HEAD % 3 + b"{}",  # not all of it
        HEAD % 1 + b"{}",  # more than it says
        HEAD.replace(b"%d", b"02") + b"{}",
        HEAD.replace(b"%d", b"+2") + b"{}",
        HEAD.replace(b"%d", b" 2 ") + b"{}",
        HEAD.replace(b"%d", b"2\r\nContent-Length: 3") + b"{}",
        HEAD.replace(b"%d", b"2\r\nTransfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\n\r\n",
        HEAD.replace(b"%d", b"2x") + b"{}",
        HEAD.replace(b"%d", b"") + b"{}",
        HEAD.replace(b"POST", b"post") % 2 + b"{}",
        HEAD.replace(b"Accept: */*", b"Expect: 100-continue") % 2 + b"{}",
        HEAD.replace(b"1.1", b"1.0") % 2 + b"{}",
        b"\r\n" + request(),
        request() + b"\r\n",  # of old browsers: no part of the body
        request(b'{"n":1}') + b"\r\n\r\n",
        request(b"\r\n\r\n") + b"\r\n",
        request() + b"GE",  # the next one begins
        b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /é HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}".encode(),
    ],
    ids=range(20),
)
def test_what_is_not_just_the_same_is_read_as_ever(odd):
    for pieces in (
        (request(), odd, request(), odd),
        (odd, odd, request()),
        (odd, request(b'{"n":1}'), odd, odd),
        (request(), request()[:40], request()[40:]),
    ):
        assert reads(RequestFraming(2_000, 50, heads=Heads()), *pieces) == reads(RequestFraming(2_000, 50), *pieces)


SENT = st.lists(
    st.tuples(
        st.sampled_from((HEAD, HEAD.replace(b"/x", b"/y"), HEAD.replace(b"Content-Length", b"content-length"))),
        st.binary(max_size=30),
        st.sampled_from((b"", b"", b"\r\n", b"\r\n\r\n")),
    ),
    min_size=1,
    max_size=8,
)


@given(sent=SENT, cuts=st.lists(st.integers(1, 400), max_size=6))
def test_any_requests_in_any_pieces_are_the_same_with_known_heads_and_without(sent, cuts):
    wholes = [request(body, head) + behind for head, body, behind in sent]
    stream, pieces = b"".join(wholes), list(wholes)
    for cut in cuts[::2]:
        pieces = [part for piece in pieces for part in (piece[:cut], piece[cut:]) if part]
    joined = [stream[: cuts[0]], stream[cuts[0] :]] if cuts else [stream]
    for way in (wholes, pieces, [piece for piece in joined if piece]):
        assert reads(RequestFraming(2_000, 50, heads=Heads()), *way) == reads(RequestFraming(2_000, 50), *way)


def test_who_never_repeats_a_head_is_not_expected_to(parsed):
    heads = Heads()
    framing = RequestFraming(2_000, 50, heads=heads)
    for number in range(TRIES + 3):
        reads(framing, request(head=HEAD.replace(b"/x", b"/%d" % number)))
    assert len(heads._known) == TRIES


def test_what_is_known_is_bounded():
    heads = Heads()
    for number in range(REMEMBERED + 10):
        framing = RequestFraming(2_000, 50, heads=heads)
        reads(framing, request(head=HEAD.replace(b"Bearer s", b"Bearer %a" % number).replace(b"'", b"")))
    assert len(heads._known) == 10


@pytest.mark.parametrize("size", [101, 100_000])
def test_long_bodies_are_parsed(size, parsed):
    framing = RequestFraming(2_000, 50, heads=Heads(100))
    reads(framing, request(b"x" * size), request(b"x" * size))
    assert len(parsed) == 2
    reads(framing, request(b"x" * 100), request(b"x" * 100))
    assert len(parsed) == 3
    reads(framing, request(b"x" * size))
    assert len(parsed) == 4  # also behind shorter ones


def test_a_head_that_a_longer_length_would_make_too_large_is_parsed(parsed):
    framing = RequestFraming(len(request()) + 2, 50, heads=Heads())
    assert reads(framing, request(), request())
    assert len(parsed) == 2
