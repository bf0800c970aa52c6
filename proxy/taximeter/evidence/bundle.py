"""An export that can be checked by itself: JSON Lines with the records of a period, what is kept of their journals'
chains, and every root. `docs/evidence.md` has its lines.

Reading keeps no more than where things are: a month may be larger than memory.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec

from taximeter.core.bounds import FOREVER_US
from taximeter.core.errors import ConfigError
from taximeter.evidence.chain import hash_of, unpack
from taximeter.evidence.report import Fault
from taximeter.evidence.source import Found, Source, Stretch
from taximeter.evidence.statements import SignedRoot, root_of, segment_of

VERSION = 1
SUFFIX = ".evidence"


class Head(msgspec.Struct, kw_only=True):
    """The first line's."""

    version: int
    history: str
    unchained: int
    deleted_before_us: int
    from_us: int | None
    to_us: int | None
    workspaces: list[str]
    """Of whose records more than the hash is there; [] for all."""


class _Key(msgspec.Struct):
    id: str
    public_key: str


class _Segment(msgspec.Struct):
    journal: str
    root: int | None
    statement: str
    entries: str | None
    """Base64; None for a segment without a record of the period."""


class _Named(msgspec.Struct):
    event_id: str
    request_id: str
    ended_at: int
    workspace: str


class _LeftOut(msgspec.Struct):
    event_id: str
    ended_at: int


class _End(msgspec.Struct):
    lines: int
    sha256: str
    """Of all lines before."""


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    """Exactly one member is set."""

    evidence: Head | None = None
    key: _Key | None = None
    root: SignedRoot | None = None
    segment: _Segment | None = None
    record: msgspec.Raw = msgspec.Raw()
    left_out: _LeftOut | None = None
    end: _End | None = None


_decode = msgspec.json.Decoder(_Line).decode
_decode_named = msgspec.json.Decoder(_Named).decode
_encode = msgspec.json.encode
_RECORD, _CLOSED = b'{"record":', b"}\n"


class _Writer:
    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash, self.lines = file, sha256(), 0

    def line(self, name: str, value: Any) -> None:
        self.raw(_encode({name: value}) + b"\n")

    def raw(self, line: bytes) -> None:
        self._hash.update(line)
        self._file.write(line)
        self.lines += 1

    def end(self) -> None:
        self.line("end", _End(self.lines, self._hash.hexdigest()))


def write(
    source: Source, file: BinaryIO, from_us: int | None, to_us: int | None, workspaces: Sequence[str] = ()
) -> int:
    """Write what is needed to check a period; returns how many records are in it.

    Of `workspaces`, where any are named, records are written whole; of others that they were, and when.
    """
    out, first_us, end_us = _Writer(file), from_us or 0, FOREVER_US if to_us is None else to_us
    head = Head(
        version=VERSION, history=source.history, unchained=source.unchained, from_us=from_us, to_us=to_us,
        deleted_before_us=source.deleted_before_us, workspaces=list(workspaces),
    )  # fmt: skip
    out.line("evidence", head)
    for name, public in source.keys().items():
        out.line("key", _Key(name, public.hex()))
    numbers: list[int | None] = []
    for signed in source.roots():
        out.line("root", signed)
        said = root_of(signed.statement)
        numbers.append(said.number)
    count = 0
    for number in (*numbers, None):
        for held in source.segments(number):
            count += _segment(source, out, held, first_us, end_us, frozenset(workspaces))
    out.end()
    return count


def _segment(source: Source, out: _Writer, held: Stretch, from_us: int, to_us: int, workspaces: frozenset[str]) -> int:
    said, entries = segment_of(held.statement), None
    if said.first_us is not None and said.last_us is not None and said.first_us < to_us and said.last_us >= from_us:
        entries = source.entries(held)
    packed = None if entries is None else base64.b64encode(entries).decode()
    out.line("segment", _Segment(held.journal, held.root_no, held.statement, packed))
    if entries is None:
        return 0
    seqs = {entry.seq for entry in unpack(entries) if from_us <= entry.at_us < to_us}
    count = 0
    for found in source.records(held.journal, said.after, said.upto):
        if found.seq not in seqs and not from_us <= found.at_us < to_us:
            continue
        if found.seq not in seqs and not said.late and found.seq in source.late(held.journal):
            continue
        if workspaces and _decode_named(found.content).workspace not in workspaces:
            out.line("left_out", _LeftOut(f"{held.journal}:{found.seq}", found.at_us))
        else:
            out.raw(_RECORD + found.content.replace(b"\n", b" ") + _CLOSED)
            count += 1
    return count


class _Place(NamedTuple):
    held: Stretch
    start: int
    """Offset of the line behind the segment's, of which `lines` are its records'."""
    lines: int


class Bundle:
    """Reads one; a Source (source.py). Raises ConfigError where the file is none."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._keys: dict[str, bytes] = {}
        self._roots: list[SignedRoot] = []
        self._places: list[_Place] = []
        self._faults: list[Fault] = []
        self._late: dict[str, set[int]] = {}
        self.head = self._index()
        self.history, self.unchained = self.head.history, self.head.unchained
        self.deleted_before_us = self.head.deleted_before_us

    def keys(self) -> dict[str, bytes]:
        return self._keys

    def roots(self) -> list[SignedRoot]:
        return self._roots

    def segments(self, root_no: int | None) -> Iterator[Stretch]:
        return (place.held for place in self._places if place.held.root_no == root_no)

    def entries(self, held: Stretch) -> bytes | None:
        with self._path.open("rb") as file:
            file.seek(held.place)
            line = _read(file.readline())
        packed = None if line is None or line.segment is None else line.segment.entries
        try:
            return None if packed is None else base64.b64decode(packed, validate=True)
        except ValueError:
            return b"?"  # no entries: it cannot be read

    def records(self, journal: str, after: int, upto: int) -> Iterator[Found]:
        place = self._by_stretch.get((journal, after, upto))
        if place is None:
            return
        last = 0
        with self._path.open("rb") as file:
            file.seek(place.start)
            for _ in range(place.lines):
                found = self._found(file.readline(), journal)
                if found is None:
                    continue
                if found.seq <= last:
                    self._fault("record_moved", f"it stands behind seq {last}", journal, found)
                last = found.seq
                yield found

    def late(self, journal: str) -> frozenset[int]:
        return frozenset(self._late.get(journal, ()))

    def ends(self) -> dict[str, tuple[int, str, bool]]:
        return {}

    def others(
        self, from_us: int, to_us: int, examined: Mapping[str, Sequence[tuple[int, int]]]
    ) -> Iterator[tuple[str, Found]]:
        return iter(())

    def holding(self, journal: str, seq: int) -> Stretch | None:
        return None

    def is_older(self, journal: str, seq: int) -> bool:
        return False

    def faults(self, from_us: int, to_us: int) -> list[Fault]:
        return self._faults

    def _index(self) -> Head:
        """Where everything is, and what of the lines cannot be read; the records are read when they are asked for."""
        head, hashed, ended, start, lines = None, sha256(), False, 0, 0
        self._by_stretch: dict[tuple[str, int, int], _Place] = {}
        try:
            with self._path.open("rb") as file:
                for number, raw in enumerate(file, start=1):
                    line = _read(raw)
                    if head is None and (line is None or line.evidence is None):
                        raise ConfigError(f"{self.name} is no export of evidence, or its first line was changed.")
                    if ended:
                        self._unreadable(number, "it stands behind the end")
                    if line is None:
                        self._unreadable(number, "it cannot be read")
                    elif line.evidence is not None:
                        head = self._head(line.evidence, head, number)
                    elif line.end is not None:
                        ended = True
                        if (line.end.lines, line.end.sha256) != (lines, hashed.hexdigest()):
                            self._unreadable(number, "the file is not as it was written: its checksum is another")
                    else:
                        self._take(line, start, len(raw), number)
                    start, lines = start + len(raw), lines + 1
                    hashed.update(raw)
        except OSError as error:
            raise ConfigError(f"{self.name} cannot be read: {error.strerror}") from error
        if head is None:
            raise ConfigError(f"{self.name} is empty.")
        if not ended:
            self._unreadable(lines, "the file ends before its last line")
        self._by_stretch = {
            (said.journal, said.after, said.upto): place
            for place in self._places
            if (said := _said(place.held.statement)) is not None
        }
        return head

    def _head(self, found: Head, before: Head | None, number: int) -> Head:
        if before is not None:
            self._unreadable(number, "it is a first line once more")
            return before
        if found.version != VERSION:
            raise ConfigError(f"{self.name} has version {found.version}; this Taximeter reads {VERSION}.")
        return found

    def _take(self, line: _Line, start: int, size: int, number: int) -> None:
        if line.key is not None:
            self._keys[line.key.id] = _hex(line.key.public_key)
        elif line.root is not None:
            self._roots.append(line.root)
        elif line.segment is not None:
            held = Stretch(line.segment.journal, line.segment.root, line.segment.statement, start)
            self._places.append(_Place(held, start + size, 0))
            said = _said(held.statement)
            if said is not None and said.late:
                self._late.setdefault(said.journal, set()).add(said.upto)
        elif self._places:
            self._places[-1] = self._places[-1]._replace(lines=self._places[-1].lines + 1)
        else:
            self._unreadable(number, "a record stands before any segment")

    def _found(self, raw: bytes, journal: str) -> Found | None:
        line = _read(raw)
        if line is None or (line.record is None and line.left_out is None):
            return None  # told of by `_index`
        content = b"" if line.left_out else raw[len(_RECORD) : -len(_CLOSED)]
        named = line.left_out or _named(content)
        place = None if named is None else _event(named.event_id)
        if named is None or place is None:
            self._faults.append(Fault(kind="unreadable", journal=journal, problem="a record has no event id"))
            return None
        found = Found(place[1], named.ended_at, getattr(named, "request_id", ""), content)
        if line.left_out and not self.head.workspaces:
            self._fault("record_missing", "only its hash is there, in an export of all workspaces", journal, found)
        if place[0] != journal:
            self._fault("record_moved", f"it is of another journal, {place[0]}", journal, found)
            return None
        return found

    def _fault(self, kind: Any, problem: str, journal: str, found: Found) -> None:
        request_id = found.request_id or None
        self._faults.append(Fault(kind=kind, problem=problem, journal=journal, seq=found.seq, request_id=request_id))

    def _unreadable(self, number: int, problem: str) -> None:
        self._faults.append(Fault(kind="unreadable", problem=f"line {number}: {problem}"))


def _read(raw: bytes) -> _Line | None:
    """A line as it was written; None where it is none."""
    try:
        line = _decode(raw)
    except (ValueError, RecursionError):
        return None
    recorded = bool(bytes(line.record))
    others = (line.evidence, line.key, line.root, line.segment, line.left_out, line.end)
    plain = not recorded or (raw.startswith(_RECORD) and raw.endswith(_CLOSED))
    one = recorded + sum(each is not None for each in others) == 1
    return line if plain and one and raw.endswith(b"\n") else None


def _named(content: bytes) -> _Named | None:
    try:
        return _decode_named(content)
    except (ValueError, RecursionError):
        return None


def _said(statement: str) -> Any:
    try:
        return segment_of(statement)
    except ValueError:
        return None


_event_id = re.compile(r"(.+):([0-9]{1,13})").fullmatch


def _event(event_id: str) -> tuple[str, int] | None:
    found = _event_id(event_id)
    return None if found is None else (found[1], int(found[2]))


def _hex(text: str) -> bytes:
    try:
        return hash_of(text)
    except ValueError:
        return b""
