"""Evidence as answers: roots, and a period's records with what is needed to check them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO, Self

import msgspec
from msgspec.structs import replace

from taximeter.core.errors import BadRequest
from taximeter.core.times import shown
from taximeter.evidence.bundle import write
from taximeter.evidence.source import Source
from taximeter.evidence.statements import Signature, SignedRoot, root_of
from taximeter.sinks.query import Filters


class RootInfo(msgspec.Struct, kw_only=True):
    """A root."""

    number: int
    sealed_at: str | None
    records: int
    """How many are under it, and under none before."""
    sha256: str
    """Of the statement: what to keep elsewhere."""
    statement: str
    signatures: list[Signature]


class RootsPage(msgspec.Struct):
    """Every root."""

    data: list[RootInfo]

    @classmethod
    def of(cls, roots: Iterable[SignedRoot]) -> Self:
        return cls([_info(each) for each in roots])


def _info(signed: SignedRoot) -> RootInfo:
    said = root_of(signed.statement)
    return RootInfo(
        number=said.number,
        sealed_at=shown(said.sealed_at),
        records=said.records,
        sha256=signed.digest,
        statement=signed.statement,
        signatures=signed.signatures,
    )


def write_evidence(source: Source, filters: Filters, file: BinaryIO) -> int:
    """Write an export that can be checked by itself; returns how many records are whole in it.

    Raises BadRequest on any filter but the period and workspaces: of a part of a workspace, nobody could tell whether
    it is all.
    """
    if replace(filters, from_us=None, to_us=None, workspace=None) != Filters():
        raise BadRequest("An export of evidence is of a period, and of some workspaces; leave other filters out.")
    asked = filters.workspace or ()
    workspaces = [asked] if isinstance(asked, str) else list(asked)
    return write(source, file, filters.from_us, filters.to_us, workspaces)
