"""What evidence is read from: history (sinks.history.read.evidence) or an export of it (bundle.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from taximeter.evidence.report import Fault
from taximeter.evidence.statements import SignedRoot


class Stretch(NamedTuple):
    """A segment, or a piece that is none yet."""

    journal: str
    root_no: int | None
    """None: under no root yet."""
    statement: str
    """Of a piece: what would be said of it; "" where nothing can be."""
    place: int
    """For the source: where its entries are."""


class Found(NamedTuple):
    """A record as the source has it."""

    seq: int
    at_us: int
    request_id: str
    content: bytes
    """See chain.content; b"": only its hash is there (an export of one workspace)."""
    problem: str = ""
    """What of it contradicts itself."""


NO_RECORD = b"?"
"""The content of what cannot be read as a record: no link fits it."""


class Source(Protocol):
    """One state of it, however long it is read."""

    name: str
    history: str
    """Its id."""
    deleted_before_us: int
    """Records that ended before may be gone by retention."""
    unchained: int
    """Journals that history knew before there was evidence."""

    def keys(self) -> dict[str, bytes]:
        """Public keys by their id."""

    def roots(self) -> list[SignedRoot]:
        """All of them, the first first."""

    def segments(self, root_no: int | None) -> Iterator[Stretch]:
        """Those under a root, in its tree's order; None: those under none, by journal and number."""

    def entries(self, held: Stretch) -> bytes | None:
        """As chain.pack has them; None where they are not there."""

    def records(self, journal: str, after: int, upto: int) -> Iterator[Found]:
        """Records of a journal with after < seq <= upto, by seq."""

    def ends(self) -> dict[str, tuple[int, str, bool]]:
        """Each chained journal's cursor, last link (hex), and whether its file had ended, where the source knows."""

    def others(
        self, from_us: int, to_us: int, examined: Mapping[str, Sequence[tuple[int, int]]]
    ) -> Iterator[tuple[str, Found]]:
        """Records, with their journals, that ended in [from_us, to_us) and are in none of these stretches: of each
        journal, seqs beyond the first of a pair up to the second."""

    def holding(self, journal: str, seq: int) -> Stretch | None:
        """The segment or piece that has a seq: its own, where its record came late."""

    def late(self, journal: str) -> frozenset[int]:
        """Seqs whose records came after their turn, in segments of their own."""

    def faults(self, from_us: int, to_us: int) -> list[Fault]:
        """What else is wrong with it, as far as it is about a period; asked last."""

    def is_older(self, journal: str, seq: int) -> bool:
        """Whether a record was delivered before there was evidence."""
