"""Frames that pass through: every byte as it came at any cut, and the same messages as a kept library reads."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from taximeter.gateway.websocket.frames import CLOSE, PING, TEXT, Frames, close_frame, text_frame
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


@st.composite
def odd(draw):
    """(masked, bytes of frames that may break any rule of RFC 6455 §5.2 to §5.5)"""
    masked, wire = draw(st.booleans()), b""
    for _ in range(draw(st.integers(1, 5))):
        head = draw(st.one_of(st.sampled_from([0x01, 0x02, 0x00, 0x80, 0x81, 0x82, 0x89, 0x8A]), st.integers(0, 255)))
        payload = draw(st.binary(max_size=130))
        has_mask = masked is draw(st.sampled_from([True, True, True, False]))
        length = bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + len(payload).to_bytes(2, "big")
        mask = draw(st.binary(min_size=4, max_size=4)) if has_mask else b""
        wire += bytes([head, length[0] | (0x80 if has_mask else 0)]) + length[1:] + mask + payload
    return masked, wire


@settings(deadline=None)
@given(odd(), st.data())
def test_a_kept_library_reads_the_same_and_refuses_whatever_we_refuse(made, data):
    masked, wire = made
    oracle = Protocol(Side.SERVER if masked else Side.CLIENT, state=State.OPEN, max_size=None)
    oracle.receive_data(wire)
    expected = []
    for frame in oracle.events_received():
        assert isinstance(frame, Frame)
        expected.append((int(frame.opcode), bytes(frame.data), frame.fin))
    reader, found = Frames(masked=masked), []
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=6)))
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        found += reader.feed(wire[start:end])
    closed = any(opcode == CLOSE for opcode, _, _ in expected)  # the library reads nothing behind a close
    if reader.broken:
        assert oracle.parser_exc is not None or closed
    payload, told = b"".join(piece.payload for piece in found), b"".join(data for _, data, _ in expected)
    assert payload.startswith(told)
    assert {piece.opcode for piece in found} >= {opcode for opcode, _, _ in expected if opcode}


@given(st.binary(max_size=64), st.booleans())
def test_any_bytes_are_pieces_or_broken(data, masked):
    assert data.startswith(b"".join(piece.raw for piece in Frames(masked=masked).feed(data)))


@given(st.binary(max_size=70_000))
def test_what_we_send_ourselves_is_a_frame(payload):
    (piece,) = Frames(masked=False).feed(text_frame(payload)) if payload else [None]
    if piece is not None:
        assert (piece.opcode, piece.payload, piece.first, piece.last) == (TEXT, payload, True, True)
    for masked in (False, True):
        (closing,) = Frames(masked=masked).feed(close_frame(1012, masked=masked))
        assert closing.payload == (1012).to_bytes(2, "big")


@settings(max_examples=30, deadline=None)
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


def test_what_a_session_is_told_is_read_whole_though_its_instructions_are_long():
    for size, whole in ((300_000, True), (2_000_000, False)):
        session = {"instructions": "x" * size, "model": "gpt-realtime"}
        body = json.dumps({"type": "session.updated", "session": session}).encode()
        messages, reader, read = Messages(), Frames(masked=False), b""
        wire = Frame(Opcode.TEXT, body).serialize(mask=False)
        for start in range(0, len(wire), 50_000):
            for piece in reader.feed(wire[start : start + 50_000]):
                read += messages.take(piece)
        assert messages.event is not None
        assert (read, messages.event.type, bool(messages.event.session)) == (body, "session.updated", whole)
