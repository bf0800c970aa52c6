"""What one workspace used, by group -> the sums the counter script adds: which keys, which fields, how much. Pure."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from taximeter.budgets.rule import CHARGED
from taximeter.core.record import Record
from taximeter.core.totals import COST, FIELDS, TOTAL, add, empty, saturated
from taximeter.sinks.batch import Group
from taximeter.sinks.ledger import Cell
from taximeter.sinks.redis import keys

_K = TypeVar("_K")
_Where = tuple[int, str, str, str | None]
"""Hours since epoch, provider, model, task."""


_TOTALS = len(FIELDS)
"""How much of a group's cell is counted here."""

_FIELDS = f"{len(FIELDS) + len(CHARGED)} {' '.join((*FIELDS, *CHARGED))} "


class Cells(NamedTuple):
    """The cells' part of a script call."""

    keys: list[str]
    words: str
    """The last argument of `counters.lua`."""
    expiries: dict[str, int]
    """key -> when it expires (s since epoch), of the keys this call sets an expiry on."""


def cells(
    prefix: str,
    groups: Sequence[Group],
    known: Mapping[str, int],
    scopes: Collection[str] = frozenset(),
    budgeted_records: Iterable[Record] = (),
) -> Cells:
    """Sum a workspace's groups and lay the sums out for `counters.lua`; `known`: key -> expiry it already has.

    `scopes`: keys and tasks (`key:<id>`, `task:<name>`) to be summed apart, because a budget is about them;
    `budgeted_records`: those of the records that may be charged for what is not known.
    """
    fine: dict[_Where, Cell] = {}
    tracks: dict[str, Cell] = {}
    last_us: dict[str, int] = {}
    for group in groups:
        record = group.record
        _merge(fine, (group.quarter_s // 3_600, record.provider, record.model, record.task), group.cell[:_TOTALS])
        if record.track is not None:
            _tracks(tracks, last_us, group.records)
    out = _Out([], [], {})
    _periods(out, prefix, fine, known)
    models: dict[tuple[str, str], Cell] = {}
    tasks: dict[str, Cell] = {}
    for (_, provider, served, task), cell in fine.items():
        _merge(models, (provider, served), cell)
        if task is not None:
            _merge(tasks, task, cell)
    for (provider, served), cell in models.items():
        _put(out, cell, [(prefix + keys.model(provider, served), "m")])
    for task, cell in tasks.items():
        _put(out, cell, [(prefix + keys.task(task), "t")])
    for track, cell in tracks.items():
        key, expires = prefix + keys.track(track), keys.track_expires_s(last_us[track] // keys.HOUR_US)
        _put(out, cell, [_expiring(out, known, key, expires)])
    if scopes:
        _scopes(out, prefix, groups, known, scopes)
    _charges(out, prefix, budgeted_records, known, scopes)
    return Cells(out.keys, _FIELDS + " ".join(map(str, out.words)), out.expiries)


class _Out(NamedTuple):
    keys: list[str]
    words: list[str | int]
    expiries: dict[str, int]


def _periods(out: _Out, prefix: str, fine: Mapping[_Where, Cell], known: Mapping[str, int]) -> None:
    hours: dict[int, Cell] = {}
    for (hour, *_), cell in fine.items():
        _merge(hours, hour, cell)
    total: dict[str, Cell] = {}
    months: dict[str, Cell] = {}
    days: dict[tuple[str, int], Cell] = {}
    for hour, cell in hours.items():
        in_month, in_day, in_hour, day_expires, hour_expires = keys.periods(hour)
        of_day = _expiring(out, known, prefix + in_day, day_expires)
        of_hour = _expiring(out, known, prefix + in_hour, hour_expires)
        if len(hours) == 1:  # nearly every batch: the same sums go to all four
            _put(out, cell, [(prefix + "total", 0), (prefix + in_month, 0), of_day, of_hour])
            return
        _merge(total, "total", cell)
        _merge(months, in_month, cell)
        _merge(days, of_day, cell)
        _put(out, cell, [of_hour])
    for key, cell in (total | months).items():
        _put(out, cell, [(prefix + key, 0)])
    for of_day, cell in days.items():
        _put(out, cell, [of_day])


def _tracks(tracks: dict[str, Cell], last_us: dict[str, int], records: Iterable[Record]) -> None:
    for record in records:
        track = record.track
        if track is not None:
            cell = tracks.get(track)
            if cell is None:
                cell = tracks[track] = empty()
            add(cell, record)
            if record.ended_at >= last_us.get(track, 0):
                last_us[track] = record.ended_at


def _scopes(out: _Out, prefix: str, groups: Iterable[Group], known: Mapping[str, int], scopes: Collection[str]) -> None:
    sums: dict[tuple[str, int], Cell] = {}
    for group in groups:
        for scope in (f"key:{group.record.key_id}", f"task:{group.record.task}"):
            if scope in scopes:
                _merge(sums, (scope, group.quarter_s // 3_600), group.cell[:_TOTALS])
    for (scope, hour), cell in sums.items():
        in_month, in_day, _, day_expires, _ = keys.periods(hour)
        of_day = _expiring(out, known, prefix + keys.scope(scope, in_day), day_expires)
        _put(out, budgeted(cell), [*((prefix + keys.scope(scope, at), 0) for at in ("total", in_month)), of_day])


def _charges(
    out: _Out, prefix: str, records: Iterable[Record], known: Mapping[str, int], scopes: Collection[str]
) -> None:
    """What budgets are charged for calls of which it is not known what they used."""
    sums: dict[tuple[str, int], Cell] = {}
    for record in records:
        amounts = [record.charged_tokens or 0, record.charged_cost_nusd or 0]
        if any(amounts):
            hour = record.ended_at // keys.HOUR_US
            for scope in ("", f"key:{record.key_id}", f"task:{record.task}"):
                if not scope or scope in scopes:
                    _merge(sums, (scope, hour), amounts)
    for (scope, hour), amounts in sums.items():
        in_month, in_day, _, day_expires, _ = keys.periods(hour)
        total, month, day = (prefix + (keys.scope(scope, at) if scope else at) for at in ("total", in_month, in_day))
        _put(out, [*empty(), *amounts], [(total, 0), (month, 0), _expiring(out, known, day, day_expires)])


def budgeted(cell: Cell) -> Cell:
    """Of a cell what budgets are measured by."""
    kept = empty()
    kept[COST], kept[TOTAL] = cell[COST], cell[TOTAL]
    return kept


def _expiring(out: _Out, known: Mapping[str, int], key: str, expires: int) -> tuple[str, int]:
    """The key with the expiry to set: 0 where it has it already, so that few calls pay for EXPIREAT."""
    if known.get(key) == expires:
        return key, 0
    out.expiries[key] = expires
    return key, expires


def _put(out: _Out, cell: Cell, targets: list[tuple[str, int]] | list[tuple[str, str]]) -> None:
    sums: list[int] = []
    for field, amount in enumerate(saturated(cell), 1):
        if amount:
            sums += (field, amount)
    if not sums:
        return
    words = out.words
    words.append(len(targets))
    for key, mode in targets:
        out.keys.append(key)
        words.append(mode)
    words.append(len(sums) // 2)
    words += sums


def _merge(into: dict[_K, Cell], key: _K, cell: Cell) -> None:
    so_far = into.get(key)
    into[key] = list(cell) if so_far is None else list(map(operator.add, so_far, cell))
