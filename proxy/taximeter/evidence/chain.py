"""The chain of a journal's records: what of a record is hashed, and each link from the one before. Pure.

A link is SHA-256 over the link before and the record's content, so the last one speaks for all records, in their order.
What is hashed is a record as history can give it back; so the chain can be followed from the journal's file, from
history and from an export.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Sequence
from hashlib import sha256
from math import isfinite
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from taximeter.core.names import clean
from taximeter.core.record import Operation, Outcome, Record, seq_of

HASH_BYTES = 32

_RECORD, _JOURNAL = b"\x00", b"\x02"
"""What is hashed begins with what it is: no hash of one kind can pass for another's (1: tree.py, 3: statements.py)."""

_NAMES = ("workspace", "provider", "upstream", "api", "kind")
_MAYBE = ("task", "key_id", "service_tier", "request_model", "response_model", "tokenizer", "price_ref")
"""What history stores within core.names' bounds; of these, "" as none."""
_names = attrgetter(*_NAMES, *_MAYBE)

_encode = msgspec.json.Encoder().encode
_sample = Record(
    request_id="-", started_at=0, ended_at=0, workspace="-", upstream="", provider="", api="",
    operation=Operation.OTHER, outcome=Outcome.OK,
)  # fmt: skip
_USAGE, _NONE = _sample.kind, _sample.usage
"""A struct leaves out what *is* its default: of these, what is equal must be the same object."""


class Entry(NamedTuple):
    """What is kept of a record: 48 bytes. Of a seq without one (its line cannot be read) there is none."""

    seq: int
    at_us: int
    """When it ended."""
    link: bytes


_entry = struct.Struct(f">QQ{HASH_BYTES}s")
ENTRY_BYTES, PLACE_BYTES = _entry.size, 16
"""Of an entry, and of what stands before its link."""


def hash_of(text: str) -> bytes:
    """A hash or a key written in hex. Raises ValueError where it is not written as we write it."""
    found = bytes.fromhex(text)
    if found.hex() != text:
        raise ValueError(f"{text[:80]!r} is not written in lower-case hex digits")
    return found


def begin(journal_id: str) -> bytes:
    """The link before a journal's first."""
    return sha256(_JOURNAL + journal_id.encode()).digest()


def follow(previous: bytes, content: bytes) -> bytes:
    """The link of a record."""
    return sha256(_RECORD + previous + content).digest()


def content(record: Record) -> bytes:
    """What is hashed of a record, wherever it was read: JSON as the journal has it, as far as history keeps it."""
    return _content(record if is_plain(record) else _as_stored(record))


def contents(records: Sequence[Record], alike: Iterable[Record]) -> list[bytes]:
    """The contents of many. `alike`: of those that share all their names, one each."""
    return [*map(_content if all(map(is_plain, alike)) else content, records)]


def entries_of(after: int, upto: int, records: Sequence[Record], each: Sequence[bytes], previous: bytes) -> bytes:
    """The entries, packed, of these records with these contents: all there are of the seqs after+1 … upto."""
    whole = len(records) == upto - after
    seqs: Iterable[int] = range(after + 1, upto + 1) if whole else [seq_of(one.event_id) for one in records]
    packed = []
    for seq, record, text in zip(seqs, records, each, strict=True):
        previous = sha256(_RECORD + previous + text).digest()  # `follow`, spelt out: this is done for every record
        packed.append(_entry.pack(seq, record.ended_at, previous))
    return b"".join(packed)


def pack(entries: Iterable[Entry]) -> bytes:
    """Entries as they are kept."""
    return b"".join([_entry.pack(*entry) for entry in entries])


def unpack(packed: bytes) -> list[Entry]:
    """Entries as they were kept. Raises ValueError where these are none."""
    try:
        return [Entry(*each) for each in _entry.iter_unpack(packed)]
    except struct.error as error:
        raise ValueError(f"{len(packed)} bytes are no entries of {ENTRY_BYTES}") from error


def members(content: bytes) -> dict[str, Any]:
    """What a content says, to be read; a number that no float holds (providers' usage objects may have one) is null.
    Raises ValueError where it is none."""
    found = json.loads(content, parse_float=_finite)
    if not isinstance(found, dict):
        raise ValueError("it is no object")
    return found


def _finite(text: str) -> float | None:
    return number if isfinite(number := float(text)) else None


def is_plain(record: Record) -> bool:
    """Whether history stores its names as they are."""
    return all(name is None or (name and clean(name) == name) for name in _names(record))


def _as_stored(record: Record) -> Record:
    names = {name: clean(getattr(record, name)) for name in _NAMES}
    maybe = {name: clean(getattr(record, name) or "") or None for name in _MAYBE}
    return msgspec.structs.replace(record, **names, **maybe)


def _content(record: Record) -> bytes:
    if record.kind is not _USAGE and record.kind == _USAGE:
        record.kind = _USAGE
    if record.usage is not _NONE and bytes(record.usage) == b"null":
        record.usage = _NONE
    if record.object_state is not None or record.files:  # only in what tells of a call, which has no row
        record = msgspec.structs.replace(record, object_state=None, files=())
    text = _encode(record)
    return text if text.isascii() else text.decode(errors="replace").encode()  # `usage` need not be UTF-8
