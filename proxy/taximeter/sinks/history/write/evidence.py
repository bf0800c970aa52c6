"""Evidence at rest: pieces gathered into segments, segments sealed under a root, entries dropped with their records."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from taximeter.evidence.chain import ENTRY_BYTES
from taximeter.evidence.keys import Signer
from taximeter.evidence.statements import SignedRoot, root, root_of, segment, stored_root, text_of
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.marks import UNCHAINED, events_since_us, since_us
from taximeter.sinks.history.schema import (
    US,
    evidence_keys,
    evidence_pieces,
    evidence_roots,
    evidence_segments,
    journals,
    meta,
)
from taximeter.sinks.history.write.intern import insert_new

SEGMENT_RECORDS = 8_192
"""In one segment at most, give or take a batch: some 15 ms of hashing in the transaction that gathers it."""
MANY_PIECES = 1_000
"""From so many on a journal's pieces are gathered without waiting for a root."""

_DAY = "evidence_day"
"""Of `meta`: the day (UTC) in which the last look at whether a root is due was."""

_PIECES, _SEGMENTS, _ROOTS = evidence_pieces.c, evidence_segments.c, evidence_roots.c


class EvidenceTables:
    """Writes them, in the writer's thread. Methods raise HistoryUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def gather(self, *, all_: bool = False) -> int:
        """Make a segment of a journal's oldest pieces, of one that has many; returns of how many pieces, 0: none has.

        `all_`: of any that has some.
        """
        least = 1 if all_ else MANY_PIECES
        with self._database.reading() as connection:  # most often this is all: no write transaction for nothing
            if not _waiting(connection, least):
                return 0
        with self._database.writing() as connection:
            waiting = _waiting(connection, least)
            free = select(journals).where(journals.c.journal_no.in_(waiting)).order_by(journals.c.journal_no).limit(1)
            journal = connection.execute(free.with_for_update(skip_locked=True)).first()
            return 0 if journal is None else _gather(connection, journal)

    def is_due(self, now_us: int) -> bool:
        """Whether a day has ended since it was asked for the first time, or the last root of a day was made."""
        today = f"{datetime.fromtimestamp(now_us / US, UTC):%Y-%m-%d}"
        with self._database.reading() as connection:
            if (last := connection.execute(_day()).scalar()) is not None:
                return bool(last < today)
        with self._database.writing() as connection:
            connection.execute(insert_new(meta, connection.dialect.name).values(name=_DAY, value=today))
        return False

    def seal(self, now_us: int, signers: Sequence[Signer], *, daily: bool = False) -> SignedRoot | None:
        """Make a root over all segments that have none; None where there are none.

        The first of `signers` signs; the others too where it has not signed the root before. `daily`: only where no
        node has done so since the day began.
        """
        today = f"{datetime.fromtimestamp(now_us / US, UTC):%Y-%m-%d}"
        with self._database.writing() as connection:
            self._database.lock_schema(connection)  # one node at a time
            if daily:
                moved = update(meta).where(meta.c.name == _DAY, meta.c.value < today).values(value=today)
                if not connection.execute(moved).rowcount:
                    return None
            return _seal(connection, now_us, signers)

    def prune(self) -> int:
        """Drop the entries of sealed segments all of whose records are deleted; returns of how many."""
        with self._database.writing() as connection:
            gone = (_SEGMENTS.last_us < events_since_us(connection)) & _SEGMENTS.root_no.is_not(None)
            return connection.execute(
                update(evidence_segments).where(gone, _SEGMENTS.entries.is_not(None)).values(entries=None)
            ).rowcount


def _day() -> Any:
    return select(meta.c.value).where(meta.c.name == _DAY)


def _waiting(connection: Connection, least: int) -> list[int]:
    """The journals that have so many pieces."""
    counted = select(_PIECES.journal_no).group_by(_PIECES.journal_no).having(func.count() >= least)
    return list(connection.execute(counted.limit(500)).scalars())


def _gather(connection: Connection, journal: Row[Any]) -> int:
    mine = _PIECES.journal_no == journal.journal_no
    rows = connection.execute(
        select(evidence_pieces).where(mine).order_by(_PIECES.piece_no).limit(SEGMENT_RECORDS)
    ).all()
    pieces = _together(rows)
    if not pieces:
        return 0
    entries, first, last = b"".join(piece.entries for piece in pieces), pieces[0], pieces[-1]
    before = connection.execute(
        select(func.max(_SEGMENTS.number)).where(_SEGMENTS.journal_no == journal.journal_no)
    ).scalar()
    said = segment(
        entries,
        bytes.fromhex(first.previous),
        journal=journal.journal_id,
        number=(before or 0) + 1,
        after=first.after,
        upto=last.upto,
        digest=last.digest,
        ended=bool(last.ended),
        late=bool(first.late),
    )
    row = {
        "journal_no": journal.journal_no, "number": said.number, "after": said.after, "upto": said.upto,
        "last_us": said.last_us, "statement": text_of(said), "entries": entries,
    }  # fmt: skip
    connection.execute(insert(evidence_segments).values(**row))
    connection.execute(delete(evidence_pieces).where(mine, _PIECES.piece_no <= last.piece_no))
    return len(pieces)


def _together(rows: Sequence[Row[Any]]) -> list[Row[Any]]:
    """Of a journal's pieces, as many as make a segment: the first if it is late, else those up to a late one."""
    if not rows or rows[0].late:
        return list(rows[:1])
    pieces: list[Row[Any]] = []
    size = 0
    for piece in takewhile(lambda piece: not piece.late, rows):
        if pieces and size + len(piece.entries) > SEGMENT_RECORDS * ENTRY_BYTES:
            break
        pieces.append(piece)
        size += len(piece.entries)
    return pieces


def _seal(connection: Connection, now_us: int, signers: Sequence[Signer]) -> SignedRoot | None:
    row = connection.execute(select(evidence_roots).order_by(_ROOTS.root_no.desc()).limit(1)).first()
    before = None if row is None else stored_root(row.statement, row.signatures)
    number = 1 if row is None else row.root_no + 1
    if not connection.execute(
        update(evidence_segments).where(_SEGMENTS.root_no.is_(None)).values(root_no=number)
    ).rowcount:
        return None
    mine = select(_SEGMENTS.statement).where(_SEGMENTS.root_no == number)
    texts = list(connection.execute(mine.order_by(_SEGMENTS.journal_no, _SEGMENTS.number)).scalars())
    signed_before = set() if before is None else set(root_of(before.statement).signers)
    signing = signers[:1] if not signers or signers[0].id in signed_before else signers
    said = root(
        texts,
        history=connection.execute(select(meta.c.value).where(meta.c.name == "id")).scalar_one(),
        number=number,
        sealed_at=now_us,
        previous="" if before is None else before.digest,
        signers=[signer.id for signer in signing],
        unchained=since_us(connection, UNCHAINED),
    )
    text = text_of(said)
    made = SignedRoot(statement=text, signatures=[signer.sign(text) for signer in signing])
    signatures = msgspec.json.encode(made.signatures).decode()
    connection.execute(insert(evidence_roots).values(root_no=number, statement=text, signatures=signatures))
    for signer in signing:
        row_of = {"key_id": signer.id, "public_key": signer.public.hex()}
        connection.execute(insert_new(evidence_keys, connection.dialect.name).values(**row_of))
    return made
