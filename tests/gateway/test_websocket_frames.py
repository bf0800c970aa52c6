"""Frames that pass through: every byte as it came at any cut, and the same messages as a kept library reads."""

import json

from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from taximeter.gateway.websocket.frames import PING, TEXT, Frames, Malformed, close_frame, text_frame
from taximeter.gateway.websocket.messages import HELD_BYTES, Messages, event_of

PAYLOADS = st.one_of(
    st.text(max_size=200).map(str.encode), st.sampled_from([b"x" * 125, b"x" * 126, b"x" * 65_535, b"x" * 65_536])
)


@st.composite
def sent(draw):
    """(masked, the messages, the bytes of their frames with pings in between)"""
    masked, messages, wire = draw(st.booleans()), [], b""
    for _ in range(draw(st.integers(0, 4))):
        opcode = draw(st.sampled_from([Opcode.TEXT, Opcode.BINARY]))
        parts = draw(st.lists(PAYLOADS, min_size=1, max_size=4))
        messages.append((int(opcode), b"".join(parts)))
        for number, part in enumerate(parts):
            named = opcode if number == 0 else Opcode.CONT
            wire += Frame(named, part, fin=number == len(parts) - 1).serialize(mask=masked)
            if draw(st.booleans()):
                wire += Frame(Opcode.PING, b"there?").serialize(mask=masked)
    return masked, messages, wire


@given(sent(), st.data())
def test_pieces_are_the_bytes_that_came_and_the_messages_that_were_sent(made, data):
    masked, messages, wire = made
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=12)))
    reader, pieces = Frames(masked=masked), []
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        pieces += reader.feed(wire[start:end])
    assert b"".join(piece.raw for piece in pieces) == wire
    found: list[tuple[int, bytes]] = []
    for piece in pieces:
        if piece.control:
            assert piece.opcode == PING
            continue
        if piece.first:
            found.append((piece.opcode, b""))
        found[-1] = piece.opcode, found[-1][1] + piece.payload
    assert found == messages


@given(st.binary(max_size=64), st.booleans())
def test_any_bytes_are_pieces_or_malformed(data, masked):
    reader = Frames(masked=masked)
    try:
        pieces = reader.feed(data)
    except Malformed:
        return
    assert data.startswith(b"".join(piece.raw for piece in pieces))


@given(st.binary(max_size=70_000))
def test_what_we_send_ourselves_is_a_frame(payload):
    (piece,) = Frames(masked=False).feed(text_frame(payload)) if payload else [None]
    if piece is not None:
        assert (piece.opcode, piece.payload, piece.first, piece.last) == (TEXT, payload, True, True)
    for masked in (False, True):
        (closing,) = Frames(masked=masked).feed(close_frame(1012, masked=masked))
        assert closing.payload == (1012).to_bytes(2, "big")


@given(st.text(), st.text(), st.integers(1, 5_000))
def test_a_long_message_is_known_by_its_beginning(kind, name, step):
    body = json.dumps({"type": kind, "event_id": name, "item": {"type": "no"}, "input": "x" * 2 * HELD_BYTES}).encode()
    messages, wire, read = Messages(), Frame(Opcode.TEXT, body).serialize(mask=False), b""
    reader = Frames(masked=False)
    for start in range(0, len(wire), 20 * step):
        for piece in reader.feed(wire[start : start + 20 * step]):
            read += messages.take(piece)
            assert len(messages._held) <= HELD_BYTES
    assert read == body
    assert messages.event == event_of(body, whole=False)
    if len(json.dumps(kind)) + len(json.dumps(name)) < 200:
        assert messages.event is not None
        assert (messages.event.type, messages.event.event_id) == (kind, name)
