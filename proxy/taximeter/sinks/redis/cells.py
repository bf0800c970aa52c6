"""What one workspace used, by group -> the sums the counter script adds: which keys, which fields, how much. Pure."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from taximeter.budgets.tally import AMOUNTS
from taximeter.core.record import Record
from taximeter.core.totals import FIELDS, add, empty, saturated
from taximeter.sinks.batch import Group
from taximeter.sinks.ledger import Cell
from taximeter.sinks.redis import keys

_K = TypeVar("_K")
_Where = tuple[int, str, str, str | None]
"""Hours since epoch, provider, model, task."""

TOTALS = len(FIELDS)
"""How much of a group's cell is counted here."""

_FIELDS = f"{len(FIELDS) + len(AMOUNTS)} {' '.join((*FIELDS, *AMOUNTS))} "


class Sums:
    """The sums of one script call, laid out for `counters.lua`."""

    def __init__(self, prefix: str, known: Mapping[str, int]) -> None:
        """`prefix`: of the workspace's keys; `known`: key -> expiry it already has."""
        self.prefix = prefix
        self.keys: list[str] = []
        self.expiries: dict[str, int] = {}
        """key -> when it expires (s since epoch), of the keys this call sets an expiry on."""
        self._known = known
        self._words: list[str | int] = []

    def words(self) -> str:
        """The last argument of the script."""
        return _FIELDS + " ".join(map(str, self._words))

    def add(self, groups: Sequence[Group]) -> None:
        """Sum groups by everything that has a key of its own."""
        fine: dict[_Where, Cell] = {}
        tracks: dict[str, Cell] = {}
        last_us: dict[str, int] = {}
        for group in groups:
            record = group.record
            merge(fine, (group.quarter_s // 3_600, record.provider, record.model, record.task), group.cell[:TOTALS])
            if record.track is not None:
                _add_tracks(tracks, last_us, group.records)
        self._add_periods(fine)
        models: dict[tuple[str, str], Cell] = {}
        tasks: dict[str, Cell] = {}
        for (_, provider, served, task), cell in fine.items():
            merge(models, (provider, served), cell)
            if task is not None:
                merge(tasks, task, cell)
        for (provider, served), cell in models.items():
            self.put(cell, [(self.prefix + keys.model(provider, served), "m")])
        for task, cell in tasks.items():
            self.put(cell, [(self.prefix + keys.task(task), "t")])
        for track, cell in tracks.items():
            expires = keys.track_expires_s(last_us[track] // keys.HOUR_US)
            self.put(cell, [self.expiring(keys.track(track), expires)])

    def expiring(self, key: str, expires: int) -> tuple[str, int]:
        """The key with the expiry to set: 0 where it has it already, so that few calls pay for EXPIREAT, or none."""
        key = self.prefix + key
        if not expires or self._known.get(key) == expires:
            return key, 0
        return key, expires

    def put(self, cell: Cell, targets: list[tuple[str, int]] | list[tuple[str, str]]) -> None:
        """Add a cell to each of the keys, which come with their expiry, or with `m` or `t` for a model or a task."""
        sums: list[int] = []
        for field, amount in enumerate(saturated(cell), 1):
            if amount:
                sums += (field, amount)
        if not sums:
            return
        words = self._words
        words.append(len(targets))
        for key, mode in targets:
            self.keys.append(key)
            words.append(mode)
            if mode.__class__ is int and mode:  # not of a key that nothing is added to: it may not be there
                self.expiries[key] = mode
        words.append(len(sums) // 2)
        words += sums

    def _add_periods(self, fine: Mapping[_Where, Cell]) -> None:
        hours: dict[int, Cell] = {}
        for (hour, *_), cell in fine.items():
            merge(hours, hour, cell)
        lasting: dict[str, Cell] = {}
        days: dict[tuple[str, int], Cell] = {}
        for hour, cell in hours.items():
            in_month, in_day, in_hour, day_expires, hour_expires = keys.periods(hour)
            of_day, of_hour = self.expiring(in_day, day_expires), self.expiring(in_hour, hour_expires)
            if len(hours) == 1:  # nearly every batch: the same sums go to all four
                self.put(cell, [(self.prefix + "total", 0), (self.prefix + in_month, 0), of_day, of_hour])
                return
            merge(lasting, "total", cell)
            merge(lasting, in_month, cell)
            merge(days, of_day, cell)
            self.put(cell, [of_hour])
        for key, cell in lasting.items():
            self.put(cell, [(self.prefix + key, 0)])
        for of_day, cell in days.items():
            self.put(cell, [of_day])


def _add_tracks(tracks: dict[str, Cell], last_us: dict[str, int], records: Iterable[Record]) -> None:
    for record in records:
        track = record.track
        if track is not None:
            cell = tracks.get(track)
            if cell is None:
                cell = tracks[track] = empty()
            add(cell, record)
            if record.ended_at >= last_us.get(track, 0):
                last_us[track] = record.ended_at


def merge(into: dict[_K, Cell], key: _K, cell: Cell) -> None:
    """Add a cell to the one under a key."""
    so_far = into.get(key)
    into[key] = list(cell) if so_far is None else list(map(operator.add, so_far, cell))
