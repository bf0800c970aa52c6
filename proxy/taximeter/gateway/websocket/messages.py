"""Complete text messages out of frames' pieces, in bounded memory: what each is, as soon as that can be told.

A message that fits is kept until it is whole. Of a longer one its beginning tells what it is; the rest is handed on in
the pieces in which it comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from taximeter.flavors.framing.scan import TopMembers
from taximeter.flavors.usage.counts import decode, fields

if TYPE_CHECKING:
    from taximeter.gateway.websocket.frames import Piece

HELD_BYTES = 64 * 1024
"""A message up to this is read whole; of a longer one so much is looked at to tell what it is."""
_NAMES = ("type", "event_id", "response_id", "stream_id", "model", "item_id")


class Event(msgspec.Struct, kw_only=True):
    """What every message of these APIs may say of itself; anything else in it is read by who wants it."""

    type: str = ""
    event_id: str | None = None
    response_id: str | None = None
    stream_id: str | None = None
    model: str | None = None
    item_id: str | None = None
    response: msgspec.Raw = msgspec.Raw(b"")
    session: msgspec.Raw = msgspec.Raw(b"")
    error: msgspec.Raw = msgspec.Raw(b"")


_decoder = msgspec.json.Decoder(Event)


def event_of(body: bytes, *, whole: bool) -> Event:
    """What a message, or the beginning of one, says of itself. What cannot be read has no type."""
    if whole:
        try:
            return _decoder.decode(body)
        except (ValueError, RecursionError):
            pass
    scan = scanning()
    scan.feed(body)
    event = said(scan)
    if event.response_id is None and not whole:
        event.response_id = _inner_id(body)
    return event


def scanning() -> TopMembers:
    """Looks for what `said` tells in a message that comes in pieces."""
    return TopMembers(_NAMES, 256)


def said(scan: TopMembers) -> Event:
    """What a message has said of itself so far."""
    found: dict[str, str] = {}
    for name, piece in scan.found().items():
        if piece[:1] == b'"' and (end := _end_of_string(piece)):
            value = decode(piece[:end])
            if isinstance(value, str):
                found[name] = value
    return Event(**found)  # type: ignore[arg-type]  # names are members


def response_of(event: Event) -> dict[str, object]:
    """The members of the response an event is about; none where it does not tell."""
    return fields(decode(event.response)) if event.response else {}


class Messages:
    """One direction's. `take` each piece of a text message; then look at `event`."""

    __slots__ = ("_held", "event", "over")

    def __init__(self) -> None:
        self._held = bytearray()
        self.event: Event | None = None
        """What the message in progress, or the one just complete, is; None: not known yet."""
        self.over = False
        """It is longer than what is held: from now on its pieces are handed out as they come."""

    def take(self, piece: Piece) -> bytes:
        """The next piece of a message. Returns what of it is to be read now, b"" where more has to come first."""
        if piece.first:
            self._held.clear()
            self.event, self.over = None, False
        if self.over:
            return piece.payload
        self._held += piece.payload
        if piece.last or len(self._held) > HELD_BYTES:
            body = bytes(self._held)
            self._held = bytearray()
            self.over = not piece.last
            self.event = event_of(body, whole=piece.last)
            return body
        return b""


def _inner_id(body: bytes) -> str | None:
    """The id of the `response` object that a message begins with."""
    scan = TopMembers(("response",), HELD_BYTES)
    scan.feed(body)
    inner = scan.found().get("response")
    if inner is None:
        return None
    ids = TopMembers(("id",), 256)
    ids.feed(inner)
    piece = ids.found().get("id", b"")
    end = _end_of_string(piece) if piece[:1] == b'"' else 0
    value = decode(piece[:end]) if end else None
    return value if isinstance(value, str) else None


def _end_of_string(piece: bytes) -> int:
    at = 1
    while (at := piece.find(b'"', at)) > 0:
        before = piece[:at]
        if not (len(before) - len(before.rstrip(b"\\"))) % 2:
            return at + 1
        at += 1
    return 0
