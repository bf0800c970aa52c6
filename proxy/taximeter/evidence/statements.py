"""What is said of records, in a text that is hashed or signed as it stands: of a segment of a journal's chain, and of
everything up to a moment (a root). Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, TypeVar

import msgspec

from taximeter.evidence import tree
from taximeter.evidence.chain import ENTRY_BYTES, PLACE_BYTES, unpack

_SEGMENT = b"\x03"

T = TypeVar("T")


class Segment(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The records of consecutive seqs of one journal, after+1 … upto; with `late`, of one that came after its turn."""

    journal: str
    number: int
    """1, 2, 3 … of its journal."""
    after: int
    upto: int
    records: int
    """How many there are: fewer than seqs where lines could not be read, or records were set aside."""
    first_us: int | None
    last_us: int | None
    """When the first and the last of them ended; None without any."""
    places: str
    """SHA-256 of their seqs and of when they ended (µs since epoch), 8 bytes each, big-endian."""
    previous: str
    """The link before the first."""
    last: str
    """The link of the last."""
    root: str
    """Of the tree of their links."""
    digest: str
    """SHA-256 of the journal file's bytes up to and including the line of `upto`."""
    ended: bool
    """The file's end line is behind `upto`: there is nothing more of it."""
    late: bool = False


class Root(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """All segments since the root before; through `previous`, everything before too."""

    version: int
    history: str
    """Id of the history it is of."""
    number: int
    """1, 2, 3 …"""
    sealed_at: int
    """µs since epoch, by the clock of who made it."""
    segments: int
    records: int
    first_us: int | None
    last_us: int | None
    """When the first and the last of the records ended."""
    unchained: int
    """Journals that history knew before there was evidence: those with no larger number in it. Of them, only what
    segments are about is proven."""
    root: str
    """Of the tree of the segments' hashes, ordered as they are numbered in history."""
    previous: str
    """SHA-256 of the statement before; "" for the first."""
    signers: list[str]
    """Ids of the keys that sign it; more than one where a key takes over from another. [] where there is no key."""


class Signature(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    key: str
    """Id of the key."""
    signature: str
    """Ed25519, in hex."""


class SignedRoot(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A root with its exact text."""

    statement: str
    signatures: list[Signature]

    @property
    def digest(self) -> str:
        return sha256(self.statement.encode()).hexdigest()


def stored_root(statement: str, signatures: str) -> SignedRoot:
    """A root whose signatures are JSON; those that cannot be read are none."""
    try:
        return SignedRoot(statement=statement, signatures=msgspec.json.decode(signatures, type=list[Signature]))
    except ValueError:
        return SignedRoot(statement=statement, signatures=[])


def text_of(said: Segment | Root) -> str:
    return msgspec.json.encode(said).decode()


def segment_of(text: str) -> Segment:
    """Raises ValueError."""
    return _decoded(text, Segment)


def root_of(text: str) -> Root:
    """Raises ValueError."""
    return _decoded(text, Root)


def _decoded(text: str, kind: type[T]) -> T:
    said = msgspec.json.decode(text, type=kind)
    if msgspec.json.encode(said) != text.encode():
        raise ValueError("it is not written as it would be here")
    return said


def told_of(made: SignedRoot) -> str:
    """A root in one line, for the log: kept elsewhere, it holds who has the key to it."""
    said = root_of(made.statement)
    signed = f"signed by {', '.join(said.signers)}" if said.signers else "not signed"
    over = f"{said.records} record{'' if said.records == 1 else 's'}"
    return f"evidence: root {said.number} over {over}, SHA-256 {made.digest}, {signed}"


def leaf(segment: str) -> bytes:
    """A segment's text as a leaf of a root's tree."""
    return sha256(_SEGMENT + segment.encode()).digest()


def segment(packed: bytes, previous: bytes, **named: Any) -> Segment:
    """What is to be said of these entries (chain.pack). Raises ValueError where they are none."""
    entries = unpack(packed)
    links, times = [entry.link for entry in entries], [entry.at_us for entry in entries]
    places = b"".join([packed[at : at + PLACE_BYTES] for at in range(0, len(packed), ENTRY_BYTES)])
    return Segment(
        records=len(entries),
        first_us=min(times, default=None),
        last_us=max(times, default=None),
        places=sha256(places).hexdigest(),
        previous=previous.hex(),
        last=links[-1].hex() if links else previous.hex(),
        root=tree.root(links).hex(),
        **named,
    )


def root(segments: Sequence[str], **named: Any) -> Root:
    """What is to be said of these segments' texts."""
    said = [segment_of(text) for text in segments]
    return Root(
        version=1,
        segments=len(said),
        records=sum(each.records for each in said),
        first_us=min((each.first_us for each in said if each.first_us is not None), default=None),
        last_us=max((each.last_us for each in said if each.last_us is not None), default=None),
        root=tree.root([leaf(text) for text in segments]).hex(),
        **named,
    )
