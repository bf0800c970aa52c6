"""Evidence as history has it: a Source (evidence.source) over one snapshot of the database."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import accumulate
from typing import Any, Self

from sqlalchemy import Connection, Row, bindparam, func, or_, select

from taximeter.core.record import seq_of
from taximeter.core.times import shown
from taximeter.evidence.chain import content, hash_of
from taximeter.evidence.report import Fault
from taximeter.evidence.source import NO_RECORD, Found, Stretch
from taximeter.evidence.statements import Segment, SignedRoot, segment, segment_of, stored_root, text_of
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.marks import EVENTS, UNCHAINED, since_us
from taximeter.sinks.history.read import listing
from taximeter.sinks.history.read.proven_sums import Differing, differing
from taximeter.sinks.history.rows import COLUMNS, Detail, class_key, event_id, origin_key, series_key, to_record, to_row
from taximeter.sinks.history.schema import (
    SEQ_BITS,
    US,
    events,
    evidence_keys,
    evidence_pieces,
    evidence_roots,
    evidence_segments,
    journals,
    meta,
)

AT_ONCE = 5_000
"""Rows read in one query."""

_PIECES, _SEGMENTS, _ROOTS = evidence_pieces.c, evidence_segments.c, evidence_roots.c
_OF_PIECE = select(_PIECES.entries).where(_PIECES.piece_no == bindparam("piece"))
_OF_SEGMENT = select(_SEGMENTS.entries).where(
    _SEGMENTS.journal_no == bindparam("journal"), _SEGMENTS.number == bindparam("place")
)
_SEQ = (1 << SEQ_BITS) - 1
_DERIVED = slice(COLUMNS.index("duration_us"), COLUMNS.index("detail"))
_DETAIL, _DETAIL_NAMES = COLUMNS.index("detail"), frozenset(Detail.__struct_fields__)
_NOS = tuple(COLUMNS.index(name) for name in ("series_no", "origin_no", "class_no"))


class HistoryEvidence:
    """See evidence.source.Source."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self.name = name
        self.history = str(connection.execute(select(meta.c.value).where(meta.c.name == "id")).scalar_one())
        self.deleted_before_us = since_us(connection, EVENTS)
        self.unchained = since_us(connection, UNCHAINED)
        self._row = cache(self._journal)
        self.late = cache(self._late)
        self._first_after = cache(self._begins_after)

    @classmethod
    @contextmanager
    def of(cls, database: Database) -> Iterator[Self]:
        """One state of the database, for as long as it is looked at."""
        with database.reading() as connection:
            yield cls(connection, database.name)

    def keys(self) -> dict[str, bytes]:
        rows = self._connection.execute(select(evidence_keys))
        return {row.key_id: _bytes(row.public_key) for row in rows}

    def roots(self) -> list[SignedRoot]:
        rows = self._connection.execute(select(evidence_roots).order_by(_ROOTS.root_no))
        return [stored_root(_text(row.statement), _text(row.signatures)) for row in rows]

    def segments(self, root_no: int | None) -> Iterator[Stretch]:
        query = select(
            _SEGMENTS.journal_no, _SEGMENTS.number, _SEGMENTS.root_no, _SEGMENTS.statement, journals.c.journal_id
        ).outerjoin(journals, journals.c.journal_no == _SEGMENTS.journal_no)
        rows = self._connection.execute(
            query.where(_SEGMENTS.root_no.is_(None) if root_no is None else _SEGMENTS.root_no == root_no).order_by(
                _SEGMENTS.journal_no, _SEGMENTS.number
            )
        ).all()
        for row in rows:
            yield Stretch(_named(row), row.root_no, _text(row.statement), _whole(row.number))
        if root_no is None:
            yield from self._pieces()

    def _pieces(self) -> Iterator[Stretch]:
        largest = select(_SEGMENTS.journal_no, func.max(_SEGMENTS.number)).group_by(_SEGMENTS.journal_no)
        numbers = {row[0]: _whole(row[1]) for row in self._connection.execute(largest)}
        names = self._names()
        for row in _in_bites(self._connection, select(evidence_pieces)):
            numbers[row.journal_no] = numbers.get(row.journal_no, 0) + 1
            yield _held(row, names.get(row.journal_no, f"#{row.journal_no}"), numbers[row.journal_no])

    def entries(self, held: Stretch) -> bytes | None:
        if held.place < 0:
            found = self._connection.execute(_OF_PIECE, {"piece": -held.place}).scalar()
        else:
            of = {"journal": self._number(held.journal), "place": held.place}
            found = self._connection.execute(_OF_SEGMENT, of).scalar()
        return found if found is None else _packed(found)

    def records(self, journal: str, after: int, upto: int) -> Iterator[Found]:
        number = self._number(journal)
        if number is None or upto > _SEQ:
            return
        for row in listing.between(self._connection, event_id(number, after + 1), event_id(number, upto)):
            yield _found(row)

    def _journal(self, journal: str) -> Row[Any] | None:
        return self._connection.execute(select(journals).where(journals.c.journal_id == journal)).first()

    def _number(self, journal: str) -> int | None:
        row = self._row(journal)
        return None if row is None else int(row.journal_no)

    def _names(self) -> dict[int, str]:
        rows = self._connection.execute(select(journals.c.journal_no, journals.c.journal_id))
        return {row.journal_no: _named(row) for row in rows}

    def cursor(self, journal: str) -> int:
        """The last seq delivered of a journal; 0: none."""
        row = self._row(journal)
        return 0 if row is None else _whole(row.seq)

    def ends(self) -> dict[str, tuple[int, str, bool]]:
        kept = [journals.c.journal_no.in_(select(kept.c.journal_no)) for kept in (evidence_segments, evidence_pieces)]
        rows = self._connection.execute(select(journals).where(or_(journals.c.chain != "", *kept)))
        return {_named(row): (_whole(row.seq), row.chain, bool(row.ended)) for row in rows}

    def others(
        self, from_us: int, to_us: int, examined: Mapping[str, Sequence[tuple[int, int]]]
    ) -> Iterator[tuple[str, Found]]:
        names = self._names()
        covers = {journal: _covering(stretches) for journal, stretches in examined.items()}
        last = -(2**62)
        query = select(events.c.id, events.c.ended_at, events.c.request_id).where(
            events.c.ended_at >= from_us, events.c.ended_at < to_us
        )
        while True:
            more = query.where(events.c.id > last).order_by(events.c.id).limit(AT_ONCE)
            rows = self._connection.execute(more).all()
            for row in rows:
                number, seq = row.id >> SEQ_BITS, row.id & _SEQ
                journal = names.get(number, f"#{number}")
                if journal not in covers or not covers[journal](seq):
                    yield journal, Found(seq, row.ended_at, row.request_id, b"")
            if len(rows) < AT_ONCE:
                return
            last = rows[-1].id

    def holding(self, journal: str, seq: int) -> Stretch | None:
        having = [(said.late, held) for held, said in self._of_journal(journal) if said.after < seq <= said.upto]
        return max(having, key=lambda each: each[0])[1] if having else None

    def of_journal(self, journal: str) -> Iterator[tuple[Stretch, Segment]]:
        """A journal's segments and pieces, in order; those whose statement cannot be read left out."""
        return self._of_journal(journal)

    def _of_journal(self, journal: str) -> Iterator[tuple[Stretch, Segment]]:
        number = self._number(journal)
        rows = self._connection.execute(
            select(_SEGMENTS.number, _SEGMENTS.root_no, _SEGMENTS.statement)
            .where(_SEGMENTS.journal_no == number)
            .order_by(_SEGMENTS.number)
        ).all()
        for row in rows:
            yield from _readable(Stretch(journal, row.root_no, _text(row.statement), _whole(row.number)))
        last = _whole(rows[-1].number) if rows else 0
        mine = select(evidence_pieces).where(_PIECES.journal_no == number)
        for place, piece in enumerate(_in_bites(self._connection, mine), start=last + 1):
            yield from _readable(_held(piece, journal, place))

    def _late(self, journal: str) -> frozenset[int]:
        return frozenset(said.upto for _, said in self._of_journal(journal) if said.late)

    def faults(self, from_us: int, to_us: int) -> list[Fault]:
        """Sums that are not those of the records; the records themselves are checked one by one."""
        try:
            found = differing(self._connection, from_us, to_us)
        except (TypeError, ValueError) as error:
            return [Fault(kind="sums_differ", problem=f"what records are summed by cannot be read: {error}")]
        return [Fault(kind="sums_differ", problem=_said(each)) for each in found]

    def places(self, request_id: str, workspace: str | None = None) -> list[tuple[str, int]]:
        """Where a request's records are, or those of a workspace: journal and seq, in the order of its attempts."""
        found = listing.of_request(self._connection, request_id)
        found = [record for record in found if workspace in (None, record.workspace)]
        return [(record.event_id.rpartition(":")[0], seq_of(record.event_id)) for record in found]

    def is_older(self, journal: str, seq: int) -> bool:
        number = self._number(journal)
        if number is None or number > self.unchained:
            return False
        after = self._first_after(journal)
        return after is None or seq <= after

    def _begins_after(self, journal: str) -> int | None:
        return next((said.after for _, said in self._of_journal(journal) if not said.late), None)


def _covering(stretches: Sequence[tuple[int, int]]) -> Callable[[int], bool]:
    """Whether a seq is in one of these, from beyond the first of a pair up to the second; a journal may have many."""
    ordered = sorted(stretches)
    beginnings, furthest = [after for after, _ in ordered], list(accumulate((upto for _, upto in ordered), max))

    def covers(seq: int) -> bool:
        before = bisect_left(beginnings, seq)
        return before > 0 and seq <= furthest[before - 1]

    return covers


def _in_bites(connection: Connection, query: Any) -> Iterator[Row[Any]]:
    """Rows of `evidence_pieces`, in order."""
    last = 0
    while True:
        rows = connection.execute(
            query.where(_PIECES.piece_no > last).order_by(_PIECES.piece_no).limit(AT_ONCE // 10)
        ).all()
        yield from rows
        if len(rows) < AT_ONCE // 10:
            return
        last = rows[-1].piece_no


def _held(piece: Row[Any], journal: str, number: int) -> Stretch:
    try:
        said = segment(
            _packed(piece.entries), _bytes(piece.previous), journal=journal, number=number, after=piece.after,
            upto=piece.upto, digest=piece.digest, ended=bool(piece.ended), late=bool(piece.late),
        )  # fmt: skip
    except ValueError:
        return Stretch(journal, None, "", -piece.piece_no)
    return Stretch(journal, None, text_of(said), -piece.piece_no)


def _readable(held: Stretch) -> Iterator[tuple[Stretch, Segment]]:
    try:
        yield held, segment_of(held.statement)
    except ValueError:
        return


def _found(row: Row[Any]) -> Found:
    """A row as a record; where its other columns do not say the same, with that."""
    try:
        record = to_record(row)
        text, names = content(record), tuple(row[len(COLUMNS) + 1 :])
        again = to_row(record, row.id, *(row[place] for place in _NOS))
        problem = ""
        if again[_DERIVED] != tuple(row[_DERIVED]) or _names(record) != names:
            problem = "what is summed by is not what its own fields say"
        elif again[_DETAIL] != row.detail and not _is_plain_json(row.detail):
            problem = "its JSON has members that are none of a record's, or one twice"
    except (TypeError, ValueError, OverflowError, RecursionError):  # SQLite keeps any kind of value in any column
        return Found(row.id & _SEQ, row.ended_at, str(row.request_id), NO_RECORD)
    return Found(row.id & _SEQ, row.ended_at, row.request_id, text, problem)


def _is_plain_json(detail: str) -> bool:
    """Whether JSON that is written otherwise than now, as by an older version, can be read in one way only."""
    names = [name for name, _ in json.loads(detail, object_pairs_hook=list)]
    return len(set(names)) == len(names) and _DETAIL_NAMES.issuperset(names)


def _names(record: Any) -> tuple[str, ...]:
    return (*series_key(record), *origin_key(record), *class_key(record))


def _bytes(text: str) -> bytes:
    """Of hex; what is none is no bytes, which fit nothing."""
    try:
        return hash_of(text)
    except (TypeError, ValueError):
        return b""


_MADE_OF = {"quarter of an hour": "records", "hour": "quarters of an hour", "day": "hours", "month": "days"}


def _said(wrong: Differing) -> str:
    of = "the finest sums" if wrong.summary and wrong.level == "quarter of an hour" else f"its {_MADE_OF[wrong.level]}"
    sums = "the sums by task, by model and by key" if wrong.summary else "the sums"
    return f"of the {wrong.level} from {shown(wrong.start_s * US)} {sums} are not those of {of}"


def _text(value: Any) -> str:
    """What a column of text holds; where it holds something else, nothing that could be right. So do the next ones."""
    return value if isinstance(value, str) else ""


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _packed(value: Any) -> bytes:
    return value if isinstance(value, bytes) else b"?"


def _named(row: Any) -> str:
    return _text(row.journal_id) or f"#{row.journal_no}"
