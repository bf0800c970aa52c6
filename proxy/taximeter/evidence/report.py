"""What a check found: each fault by its name and place, and what could not be proven though nothing contradicts it."""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal[
    "record_changed",
    "record_missing",
    "record_added",
    "record_moved",
    "evidence_changed",
    "evidence_missing",
    "root_changed",
    "root_missing",
    "signature_wrong",
    "line_changed",
    "line_missing",
    "line_added",
    "sums_differ",
    "unreadable",
]
"""record: in history or an export; line: in a journal's file; evidence: in what is kept of a journal's chain."""

MOST = 1_000
"""Faults that are named; of more, only their number is told."""


class Fault(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """One thing that is not as it was delivered."""

    kind: Kind
    problem: str
    journal: str | None = None
    seq: int | None = None
    request_id: str | None = None
    """As far as it is known: of a record that is gone, from the journal's file."""
    root: int | None = None

    @property
    def place(self) -> str:
        """Where it is, in words."""
        named = (("journal", self.journal), ("seq", self.seq), ("request", self.request_id), ("root", self.root))
        return ", ".join(f"{name} {value}" for name, value in named if value is not None)


class Report(msgspec.Struct, kw_only=True):
    """What was checked and what was found."""

    source: str
    history: str = ""
    from_us: int | None = None
    to_us: int | None = None
    records: int = 0
    """Records that are as they were delivered."""
    journals: int = 0
    segments: int = 0
    roots: int = 0
    signed_roots: int = 0
    """Of them, with a right signature."""
    trusted_roots: int = 0
    """Of them, that a key speaks for which was given to the check."""
    sealed_us: int | None = None
    """When the last root was made, by its own word (µs since epoch)."""
    keys: list[str] = msgspec.field(default_factory=list)
    """Ids of the keys that signed."""
    unsealed: int = 0
    """Records in the chain, but under no root yet."""
    deleted: int = 0
    """Records that retention has deleted: that they were there is proven, not what they said."""
    outlived: int = 0
    """Records that are there, though all of their time are said to be deleted."""
    before_evidence: int = 0
    """Records delivered before there was evidence."""
    left_out: int = 0
    """Records of which an export has no more than the hash."""
    absent_seqs: int = 0
    """Seqs without a record: lines that could not be read or only tell of other calls, or records set aside."""
    files: int = 0
    """Journal files read."""
    lines: int = 0
    """Records in them that are as they were delivered."""
    undelivered: int = 0
    """Records in them that history has not got yet."""
    notes: list[str] = msgspec.field(default_factory=list)
    faults: list[Fault] = msgspec.field(default_factory=list)
    more_faults: int = 0

    @property
    def holds(self) -> bool:
        return not self.faults

    def add(self, fault: Fault) -> None:
        """A fault once; and no more than MOST of them."""
        if fault in self.faults:
            return
        if len(self.faults) < MOST:
            self.faults.append(fault)
        else:
            self.more_faults += 1
