"""However the network cuts requests, the same requests are read; and nothing is read behind one that is refused."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from taximeter.server.framing import END, RequestFraming
from taximeter.server.head import Head
from taximeter.server.judging import METHODS

HOST = b"Host: a\r\n"
GOOD = [
    b"GET /a?b=c HTTP/1.1\r\n" + HOST + b"\r\n",
    b"POST /a HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello",
    b"POST /a HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n3;x=y\r\nyou\r\n0\r\nHost: b\r\n\r\n",
    b"POST /a HTTP/1.1\r\n" + HOST + b"Connection: Upgrade, X-Hop\r\nX-Hop: 1\r\nUpgrade: h2c\r\n"
    b"Content-Length: 5\r\n\r\nhello",
    b"HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
]
BAD = [
    b"GET /a HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    b"TRACE /a HTTP/1.1\r\n" + HOST + b"\r\n",
    b"POST /a HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST /a HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
    b"\x16\x03\x01",
]


def read(parts: list[bytes]) -> tuple[list[Head | bytes], str | None]:
    """The events, pieces of one body joined, and the code of the refusal."""
    framing = RequestFraming(2_000, 50)
    events: list[Head | bytes] = []
    for part in parts:
        framing.feed(part)
        for event in framing.events:
            if events and isinstance(event, bytes) and isinstance(events[-1], bytes) and event and events[-1]:
                events[-1] += event
            else:
                events.append(event)
        framing.events.clear()
        if framing.refusal is not None:
            break
    framing.end()
    return events, None if framing.refusal is None else framing.refusal.code


@given(
    sent=st.lists(st.sampled_from(GOOD), max_size=6),
    last=st.sampled_from([b"", *BAD]),
    at=st.lists(st.integers(0, 10**6)),
)
def test_cuts_change_nothing(sent: list[bytes], last: bytes, at: list[int]) -> None:
    data = b"".join(sent) + last
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in at)})
    pieces = [data[one:other] for one, other in pairwise(edges)]
    events, refused = read(pieces)
    assert (events, refused) == read([data] if data else [])
    assert (refused is not None) == bool(last)
    heads = [event for event in events if isinstance(event, Head)]
    assert len(sent) <= len(heads) <= len(sent) + 1  # the one whose chunks are bad has a head
    assert events.count(END) == len(sent)
    assert all(head.method in METHODS and head.target.startswith(b"/") for head in heads)
    for head, one in zip(heads, sent, strict=False):
        assert head.keep_alive == (b"HTTP/1.0" not in one)
        assert head.expects_continue == (b"Expect" in one)
        assert [value for name, value in head.headers if name == b"host"] == ([] if b"HTTP/1.0" in one else [b"a"])
        assert b"upgrade" not in dict(head.headers)


@given(at=st.lists(st.integers(0, 200), max_size=8), then=st.sampled_from([b"", *GOOD]))
def test_a_target_in_utf_8_is_read_percent_encoded_however_it_comes(at: list[int], then: bytes) -> None:
    data = "POST /caf\xe9/a%20b?q=\u20ac HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n\xe9".encode()
    edges = sorted({0, len(data), *(place % len(data) for place in at)})
    events, refused = read([data[one:other] for one, other in pairwise(edges)] + [then] * bool(then))
    assert refused is None
    head, body, end, *_ = events
    assert isinstance(head, Head)
    assert (head.method, head.target, body, end) == (b"POST", b"/caf%C3%A9/a%20b?q=%E2%82%AC", b"\xc3\xa9", END)


def test_other_bytes_that_no_target_may_have_are_refused_however_they_come() -> None:
    for odd in (b"\t", b"\x7f", b"\x0c", b"\xe9\t"):
        data = b"GET /a" + odd + b"b HTTP/1.1\r\n" + HOST + b"\r\n"
        assert read([data]) == ([], "bad_request")
        assert read([data[at : at + 1] for at in range(len(data))]) == ([], "bad_request")
    raw = b"GET /\xe9 HTTP/1.1\r\n" + HOST + b"\r\n"
    (head, end), refused = read([GOOD[0] + raw])  # where it begins behind another is not known
    assert isinstance(head, Head) and (head.target, end, refused) == (b"/a?b=c", END, "bad_request")
    upgrading = b"POST /\xe9 HTTP/1.1\r\n" + GOOD[3].partition(b"\n")[2]
    assert [event.target for event in read([upgrading, GOOD[0]])[0] if isinstance(event, Head)] == [b"/%E9", b"/a?b=c"]


def test_nothing_is_read_behind_a_request_that_closes() -> None:
    closing = b"DELETE /a HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
    (head, end), refused = read([closing + GOOD[0] + BAD[0]])
    assert isinstance(head, Head) and (head.method, head.keep_alive, end, refused) == (b"DELETE", False, END, None)


def test_a_head_is_bounded_however_it_comes() -> None:
    fits = b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 1_900 + b"\r\n\r\n"
    large = fits.replace(b"x" * 100, b"x" * 250, 1)
    for data, code in ((fits, None), (large, "payload_too_large"), (large[:-4], "payload_too_large")):
        assert read([data])[1] == code
        assert read([data[at : at + 1] for at in range(len(data))])[1] == code
    assert read([fits * 3])[1] is None
    assert read([b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 50 + b"\r\n"])[1] == "payload_too_large"


WEBSOCKET = b"GET /v1/realtime HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n"


@given(st.lists(st.sampled_from(GOOD), max_size=3), st.binary(max_size=30), st.data())
def test_what_follows_a_request_for_a_websocket_is_no_http(before, behind, data):
    alone = b"".join(request for request in before if b"HTTP/1.0" not in request)
    framing = RequestFraming(2_000, 50, True)
    cut = data.draw(st.integers(0, len(alone)))
    framing.feed(alone[:cut])
    framing.feed(alone[cut:] + WEBSOCKET + behind)
    heads = [event for event in framing.events if isinstance(event, Head)]
    assert framing.refusal is None
    assert [head.upgrades for head in heads] == [False] * (len(heads) - 1) + [True]
    assert (heads[-1].target, framing.rest) == (b"/v1/realtime", behind)
    assert len(heads) == 1 + sum(b"HTTP/1.0" not in request for request in before)


def test_where_none_is_served_a_request_for_a_websocket_is_one_like_any_other():
    events, refusal = read([WEBSOCKET + GOOD[0]])
    first, _, second, _ = events
    assert isinstance(first, Head) and isinstance(second, Head)
    assert (first.upgrades, second.target, refusal) == (False, b"/a?b=c", None)
    assert all(name != b"upgrade" for name, _ in first.headers)
