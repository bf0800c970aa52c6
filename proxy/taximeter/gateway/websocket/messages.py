"""Complete messages out of frames' pieces, in bounded memory: what each is, as soon as that can be told.

A message that fits is kept until it is whole. Of a longer one its beginning tells what it is; the rest is handed on in
the pieces in which it comes. Messages are read whether they are text or binary: Google's server sends its JSON in
binary ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from taximeter.flavors.framing.scan import TopMembers
from taximeter.flavors.usage.counts import decode, fields, members

if TYPE_CHECKING:
    from taximeter.gateway.websocket.frames import Piece

HELD_BYTES = 64 * 1024
"""A message up to this is read whole; of a longer one so much is looked at to tell what it is."""
SESSION_BYTES = 1024 * 1024
"""The same of what a session is told, or tells of itself: instructions may be long, and the model stands beside."""
_NOTHING = msgspec.Raw(b"")


class Event(msgspec.Struct, kw_only=True):
    """What every message of these APIs may say of itself; anything else in it is read by who wants it."""

    type: str = ""
    event_id: str | None = None
    response_id: str | None = None
    stream_id: str | None = None
    model: str | None = None
    response: msgspec.Raw = _NOTHING
    session: msgspec.Raw = _NOTHING
    error: msgspec.Raw = _NOTHING
    setup: msgspec.Raw = _NOTHING
    content: msgspec.Raw = _NOTHING
    results: msgspec.Raw = _NOTHING
    generated: msgspec.Raw = _NOTHING
    spoken: msgspec.Raw = _NOTHING
    calls: msgspec.Raw = _NOTHING
    usage: msgspec.Raw = _NOTHING

    @property
    def known(self) -> bool:
        """Whether it has said what it is."""
        return bool(self.type or self.setup or self.content or self.results or self.spoken or self.generated)


_TEXTS = ("type", "event_id", "response_id", "stream_id", "model")
_OBJECTS = {"response": "response", "session": "session", "error": "error"}
_OBJECTS_OF_LIVE = {
    "setup": "setup",
    "clientContent": "content",
    "client_content": "content",
    "toolResponse": "results",
    "tool_response": "results",
    "realtimeInput": "spoken",
    "realtime_input": "spoken",
    "serverContent": "generated",
    "toolCall": "calls",
    "usageMetadata": "usage",
}
"""Of Gemini's Live API, whose messages have no type but a member each (https://ai.google.dev/api/live); clients spell
them in either way, as protobuf's JSON allows."""
_ALL_OBJECTS = {**_OBJECTS, **_OBJECTS_OF_LIVE}


def event_of(body: bytes, *, whole: bool) -> Event:
    """What a message, or the beginning of one, says of itself. What cannot be read has no type."""
    found = members(body) if whole else None
    if found is not None:
        return _event({name: bytes(raw) for name, raw in found.items() if name in _LOOKED_AT}, _ALL_OBJECTS)
    scan = scanning()
    scan.feed(body)
    event = said(scan)
    if not whole:
        event.response_id = event.response_id or _inner_text(body, "response", "id")
        if event.setup:
            event.model = _inner_text(body, "setup", "model")
    return event


def scanning() -> TopMembers:
    """Looks for what `said` tells in a message that comes in pieces."""
    return TopMembers((*_TEXTS, *_OBJECTS_OF_LIVE), 256)


def said(scan: TopMembers) -> Event:
    """What a message has said of itself so far; of Live's objects only that they are there."""
    return _event(scan.found(), _OBJECTS_OF_LIVE)


def response_of(event: Event) -> dict[str, object]:
    """The members of the response an event is about; none where it does not tell."""
    return fields(decode(event.response)) if event.response else {}


class Messages:
    """One direction's. `take` each piece of a message; then look at `event`."""

    __slots__ = ("_held", "_most", "event", "over")

    def __init__(self) -> None:
        self._held = bytearray()
        self._most = HELD_BYTES
        self.event: Event | None = None
        """What the message in progress, or the one just complete, is; None: not known yet."""
        self.over = False
        """It is longer than what is held: from now on its pieces are handed out as they come."""

    def take(self, piece: Piece) -> bytes:
        """The next piece of a message. Returns what of it is to be read now, b"" where more has to come first."""
        if piece.first:
            self._held.clear()
            self.event, self.over, self._most = None, False, HELD_BYTES
        if self.over:
            return piece.payload
        self._held += piece.payload
        if not piece.last and len(self._held) <= self._most:
            return b""
        body = bytes(self._held)
        event = event_of(body, whole=piece.last)
        if not piece.last and len(body) <= SESSION_BYTES and event.type.startswith("session."):
            self._most = SESSION_BYTES
            return b""
        self._held = bytearray()
        self.over, self.event = not piece.last, event
        return body


def _event(found: Mapping[str, bytes], objects: Mapping[str, str]) -> Event:
    event = Event()
    for name, piece in found.items():
        if piece[:1] == b'"' and name in _TEXTS:
            value = _text_of(piece)
            if value is not None:
                setattr(event, name, value)
        elif piece[:1] == b"{" and name in objects:
            setattr(event, objects[name], msgspec.Raw(piece))
    return event


def _inner_text(body: bytes, holder: str, name: str) -> str | None:
    """A text in an object that a message begins with."""
    scan = TopMembers((holder,), HELD_BYTES)
    scan.feed(body)
    inner = scan.found().get(holder)
    if inner is None:
        return None
    texts = TopMembers((name,), 256)
    texts.feed(inner)
    return _text_of(texts.found().get(name, b""))


def _text_of(piece: bytes) -> str | None:
    """The text that a piece of JSON begins with."""
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


_LOOKED_AT = frozenset((*_TEXTS, *_ALL_OBJECTS))
