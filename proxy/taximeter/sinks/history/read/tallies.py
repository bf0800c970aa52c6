"""What budgets' tallies come to, from one snapshot: what is used from roll-ups where they tell, else from records; what
is charged from the few calls that are. Queries only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection

from taximeter.budgets.tally import DIMENSIONS, EACH, NO_REQUESTS, Tally, TallySum, charged, used_of_cell
from taximeter.core.bounds import FOREVER_US
from taximeter.core.record import Outcome, Record
from taximeter.sinks.cells import FIELDS
from taximeter.sinks.history.read import charges
from taximeter.sinks.history.read.combining import cells
from taximeter.sinks.history.schema import US
from taximeter.sinks.query import Filters

_COLUMNS = {name: name for name in DIMENSIONS} | {"model": "request_model"}
_FILTERED = frozenset(DIMENSIONS).difference(("model", "upstream"))
_LET_THROUGH = tuple(outcome.value for outcome in Outcome if outcome not in NO_REQUESTS)
_AUDIO_MS = FIELDS.index("audio_ms")

Place = tuple[int, tuple[str, ...]]
"""Start of the bucket (s since epoch), values."""


def sums(connection: Connection, workspace: str, tallies: Sequence[Tally], now_us: int) -> Iterator[TallySum]:
    """Every sum that is not 0, of the buckets that may still be asked for."""
    now_s = now_us // US
    known: list[Record] = []
    if tallies:
        first_s = min(tally.when.kept_s(now_s)[0] for tally in tallies)
        known = charges.records(connection, workspace, first_s * US)
    for tally in tallies:
        starts_s = tally.when.kept_s(now_s)
        found: dict[Place, list[int]] = {}
        for place, amount in _used(connection, workspace, tally, starts_s):
            found.setdefault(place, [0, 0])[0] += amount
        for place, amount in _charged(known, tally, frozenset(starts_s)):
            found.setdefault(place, [0, 0])[1] += amount
        for (start_s, values), (used, owed) in found.items():
            if used or owed:
                yield TallySum(tally, start_s, values, used, owed, now_s)


def _used(connection: Connection, workspace: str, tally: Tally, starts_s: Sequence[int]) -> Iterator[tuple[Place, int]]:
    given: dict[str, Any] = {name: wanted for name, wanted in tally.scope if name in _FILTERED and wanted != EACH}
    outcome = _LET_THROUGH if tally.unit == "requests" else None
    filters = Filters(workspace=workspace, outcome=outcome, **given)
    end_s = tally.when.end_s(starts_s[-1])
    marks = [*(start_s * US for start_s in starts_s), FOREVER_US if end_s is None else end_s * US]
    names = tuple(_COLUMNS[name] for name, _ in tally.scope if name not in given)
    for window, key, cell in cells(connection, filters, names, marks):
        told = iter(key)
        values = tuple(given.get(name) or next(told) for name, _ in tally.scope)
        if all(said and wanted in (EACH, said) for (_, wanted), said in zip(tally.scope, values, strict=True)):
            yield (starts_s[window], tuple(map(str, values))), used_of_cell(tally.unit, cell, cell[_AUDIO_MS])


def _charged(known: Iterable[Record], tally: Tally, starts_s: frozenset[int]) -> Iterator[tuple[Place, int]]:
    amount_of, when = charged(tally.unit), tally.when
    for record in known:
        amount, values = amount_of(record), tally.values(record)
        start_s = when.start_s(record.ended_at // US)
        if amount and values is not None and start_s in starts_s:
            yield (start_s, values), amount
