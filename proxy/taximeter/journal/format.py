"""The journal's lines as bytes: one JSON object and one newline each (DESIGN §4).

Holds how values become lines and back, and what names files have; knows nothing of descriptors, locks or time.
"""

from __future__ import annotations

import os
import re

import msgspec

from taximeter.core.lines import SCHEMA, Header, Line
from taximeter.core.record import Open, Record
from taximeter.journal.salvage import salvaged

OPEN = b'{"open":'
TICK = b'{"tick":'
CLOSE = b'{"close":'
END = b'{"end":'
"""How the writer begins each kind of line; readers may tell lines apart by these before they decode."""

SUFFIX = ".jsonl"
STATUS_SUFFIX = ".status"
ASIDE = "aside"
"""Directory beside the journal files, with the records that a sink could not take (delivery.aside)."""

MAX_LINE_BYTES = 1024 * 1024
"""Longest line written or read. A record is about 1 KB; only a provider's runaway usage object or a hostile
model name comes near, and one such must not make every reader hold it."""

is_journal_id = re.compile(r"[0-9a-f]{32}").fullmatch

UNREADABLE = (ValueError, RecursionError)
"""What msgspec raises on bytes that are not the JSON expected; UnicodeDecodeError is a ValueError."""

decode_line = msgspec.json.Decoder(Line).decode
"""Any line. Raises one of UNREADABLE."""

_encode = msgspec.json.Encoder().encode


def new_journal_id() -> str:
    """128 random bits as 32 hex digits: unique per file, on every node, for ever."""
    return os.urandom(16).hex()


def encode(line: Line) -> bytes:
    """A line with its newline. Raises ValueError where a text in it is not Unicode (see `salvaged`)."""
    return _line(b"", line, b"\n")


def open_line(opening: Open) -> bytes:
    """The line of a call that is about to be sent. Never raises for what the values hold."""
    try:
        return _line(OPEN, opening, b"}\n")
    except ValueError:
        return _line(OPEN, salvaged(opening, opens=True), b"}\n")


def close_line(record: Record) -> bytes:
    """The line of a settled call. Never raises for what the values hold."""
    try:
        return _line(CLOSE, record, b"}\n")
    except ValueError:
        return _line(CLOSE, salvaged(record), b"}\n")


def header_of(line: bytes, journal_id: str) -> Header:
    """The header in a file's first line. Raises ValueError where that is not this journal's, or not one we can read."""
    try:
        header = decode_line(line).journal
    except UNREADABLE:
        header = None
    if header is None:
        raise ValueError("its first line is not a journal's header")
    if header.schema > SCHEMA:
        raise ValueError(f"it has schema {header.schema}; this version reads up to {SCHEMA}")
    if header.journal_id != journal_id:
        raise ValueError(f"it is the journal {header.journal_id} under another name")
    return header


def start_of(journal_id: str, seq: int) -> bytes:
    """How the close line of a seq begins: `event_id` is the record's first field."""
    return b'%b{"event_id":"%b:%d",' % (CLOSE, journal_id.encode(), seq)


def _line(start: bytes, value: Line | Record, end: bytes) -> bytes:
    data = _encode(value)
    if b"\n" in data:  # only from a provider's pretty-printed usage object, kept as it came
        data = msgspec.json.format(data, indent=-1)
    if len(data) >= MAX_LINE_BYTES:
        raise ValueError(f"a line of {len(data)} bytes, longer than {MAX_LINE_BYTES}")
    return start + data + end
