"""What is read of a line to follow a journal: no more of it is decoded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from taximeter.core.record import Record
from taximeter.journal.format import UNREADABLE, decode_line

CUT = b'{"cut":'
"""How a cut line begins."""


class InFlight(msgspec.Struct):
    """A call that is open in the file; its lines are kept as they are, for recovery."""

    workspace: str
    track: str | None
    opening: bytes
    tick: bytes | None = None


class Opened(msgspec.Struct):
    """Of an open line."""

    request_id: str
    workspace: str
    started_at: int
    attempt: int = 1
    track: str | None = None


class Closed(msgspec.Struct):
    """Of a close line."""

    event_id: str
    request_id: str
    ended_at: int
    attempt: int = 1


class Ticked(msgspec.Struct):
    """Of a tick."""

    request_id: str
    at: int
    attempt: int = 1


def _decoder(name: str, kind: type) -> Callable[[bytes], Any]:
    """Of lines with one member."""
    return msgspec.json.Decoder(msgspec.defstruct(name, [(name, kind)])).decode


decode_open, decode_tick = _decoder("open", Opened), _decoder("tick", Ticked)
decode_closed, decode_whole = _decoder("close", Closed), _decoder("close", Record)


def given(line: bytes) -> int:
    """Up to where numbers had been given, as a cut line says; 0: it cannot be read."""
    try:
        told = decode_line(line).cut
    except UNREADABLE:
        return 0
    return 0 if told is None else told.seq
