"""Bytes that pass a WebSocket are the bytes that came: any messages, fragments, pings and cuts, in both directions."""

import json
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from taximeter.core.errors import BudgetExceeded
from taximeter.gateway.websocket import messages
from taximeter.gateway.websocket import requests as requests_module
from taximeter.gateway.websocket.answers import Answers
from taximeter.gateway.websocket.frames import Frames, text_frame
from taximeter.gateway.websocket.requests import Requests

HELD_BYTES, LIMIT_BYTES = 200, 4_000
ASKS = "response.create"


class Books:
    """Opens what is asked for, but for what is `bad`."""

    spent = None

    def __init__(self, *, must_read=False):
        self.must_read = must_read
        self.opened: list[str | None] = []
        self.heard: list[bytes] = []

    def asks(self, event, *, whole):
        return event.type == ASKS if event.known or whole else None

    def asks_at_its_end(self, event, tail):
        return event.type == ASKS

    def matters(self, event):
        return event.type in ("", ASKS)

    def open(self, event, body, *, whole):
        if event.event_id == "bad":
            raise BudgetExceeded("spent")
        self.opened.append(event.event_id)
        return SimpleNamespace(learn=lambda event: None)

    def limited(self, under_way):
        return False

    def refusal(self, event, error):
        return b"{}"

    def server_says(self, event, payload, *, whole):
        self.heard.append(payload)

    def goes_on(self, payload, *, last):
        self.heard[-1] += payload


class Ends:
    """Where things went."""

    def __init__(self):
        self.sent, self.said, self.stopped = b"", 0, False

    def send(self, data):
        self.sent += data

    def say(self, payload):
        self.said += 1

    def stop(self, code, outcome):
        self.stopped = True

    def stop_if_spent(self):
        pass


KINDS = st.sampled_from([ASKS, ASKS, "input_audio_buffer.append", "other", None])


@st.composite
def message(draw):
    """(whether it asks for what is refused, whether it asks, its payload)"""
    kind, name = draw(KINDS), draw(st.sampled_from(["good", "bad"]))
    if kind is None:
        return False, False, draw(st.binary(max_size=400))
    members = [("type", kind), ("event_id", name), ("input", "x" * draw(st.sampled_from([0, 20, 150, 900])))]
    body = json.dumps(dict(draw(st.permutations(members)))).encode()
    return kind == ASKS and name == "bad", kind == ASKS, body


@st.composite
def conversation(draw, *, masked):
    """(the frames that may go on, pings apart; those of everything; what is asked for)"""
    kept, wire, asked, pings = b"", b"", [], b""
    for refused, asks, body in draw(st.lists(message(), max_size=5)):
        cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=3)))
        parts = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        first = draw(st.sampled_from([Opcode.TEXT, Opcode.BINARY]))
        for number, part in enumerate(parts):
            opcode, last = Opcode.CONT if number else first, number == len(parts) - 1
            frame = Frame(opcode, part, fin=last).serialize(mask=masked)
            ping = Frame(Opcode.PING, b"?").serialize(mask=masked) if draw(st.booleans()) else b""
            wire += frame + ping
            kept += b"" if refused else frame
            pings += ping
        asked += ["bad" if refused else "good"] if asks else []
    return (kept, pings), wire, asked


def apart(sent):
    """The frames of messages, and the others: one of those waits for no message, so it may go on before it."""
    reader, said, others = Frames(masked=True), b"", b""
    for piece in reader.feed(sent):
        said, others = (said, others + piece.raw) if piece.control else (said + piece.raw, others)
    assert reader.between_messages
    return said, others


def pieces(draw, wire):
    cuts = sorted(draw(st.lists(st.integers(0, len(wire)), max_size=12)))
    return [wire[start:end] for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True)]


@settings(deadline=None)
@given(conversation(masked=True), st.booleans(), st.data())
def test_what_a_client_sends_goes_on_as_it_came_but_for_what_is_refused_whole(made, must_read, data):
    kept, wire, asked = made
    books, ends = Books(must_read=must_read), Ends()
    requests = Requests(books, SimpleNamespace(durable=False), ends, LIMIT_BYTES)  # type: ignore[arg-type]
    with patch.object(messages, "HELD_BYTES", HELD_BYTES):
        for each in pieces(data.draw, wire):
            if not ends.stopped:
                requests.feed(each)
    if must_read or "bad" not in asked:
        assert (apart(ends.sent), ends.said, ends.stopped) == (kept, asked.count("bad"), False)
        assert len(books.opened) == asked.count("good")
    elif not ends.stopped:  # a long one is refused by what its beginning says
        assert len(books.opened) + ends.said == len(asked)
    # else its end asked for what is refused, and all before it had gone on


@settings(deadline=None)
@given(conversation(masked=False), st.lists(st.integers(0, 12), max_size=3), st.data())
def test_what_the_upstream_sends_goes_on_as_it_came_and_ours_stands_between_messages(made, when, data):
    _, wire, _ = made
    books, out, ours = Books(), b"", text_frame(b'{"ours": 1}')
    answers = Answers(books)  # type: ignore[arg-type]
    with patch.object(messages, "HELD_BYTES", HELD_BYTES):
        for number, each in enumerate(pieces(data.draw, wire)):
            out += answers.feed(each)[0]
            for _ in range(when.count(number)):
                out += answers.say(ours)
    assert out.replace(ours, b"") == wire
    read = Answers(again := Books())  # type: ignore[arg-type]
    with patch.object(messages, "HELD_BYTES", HELD_BYTES):
        read.feed(out.replace(ours, b""))
    assert [body for body in books.heard if body] == [body for body in again.heard if body]


TEXT = Frame(Opcode.TEXT, b'{"type": "response.create", "input": "', fin=False).serialize(mask=True)


@pytest.mark.parametrize("must_read", [False, True])
@pytest.mark.parametrize("content", [b"", b"x"])
def test_a_message_in_frames_without_end_takes_no_more_memory_than_its_bound(must_read, content):
    books, ends, frames = Books(must_read=must_read), Ends(), 8_000
    requests = Requests(books, SimpleNamespace(durable=False), ends, LIMIT_BYTES)  # type: ignore[arg-type]
    with patch.object(messages, "HELD_BYTES", HELD_BYTES), patch.object(requests_module, "_FRAMING_BYTES", 30_000):
        requests.feed(TEXT + Frame(Opcode.CONT, content, fin=False).serialize(mask=True) * frames)
    passes = bool(content) and not must_read  # it is long, so its beginning has told what it is
    assert ends.stopped is not passes
    assert (len(ends.sent) == len(TEXT) + frames * 7) is passes


@pytest.mark.parametrize("kind", [Opcode.PING, Opcode.PONG, Opcode.CLOSE])
def test_a_ping_and_a_close_wait_for_no_message(kind):
    ends, frame = Ends(), Frame(kind, b"\x03\xe8").serialize(mask=True)
    requests = Requests(Books(), SimpleNamespace(durable=False), ends, LIMIT_BYTES)  # type: ignore[arg-type]
    requests.feed(TEXT + frame)
    assert ends.sent == frame
