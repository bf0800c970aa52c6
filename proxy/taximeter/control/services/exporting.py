"""Files by month, brought to what history has once a day: `[[export]]`, and what `taximeter export --monthly` makes."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from threading import Event
from typing import BinaryIO

from msgspec.structs import replace

from taximeter.config.settings import ExportSettings
from taximeter.control.answers import rows
from taximeter.core.errors import TaximeterError
from taximeter.core.prices import Card
from taximeter.core.record import Record
from taximeter.exports import monthly
from taximeter.exports.focus import Corrections, Focus, FocusFile, corrections
from taximeter.exports.monthly import Done, Kind, Source, Writer, Writers
from taximeter.exports.places import CannotExport, place
from taximeter.sinks.query import Filters, Group

log = logging.getLogger("taximeter.export")

DAY_S = 86_400
AFTER_MIDNIGHT_S = 600
"""UTC: by then what ended before is in history, however busy it is."""
RETRY_S = 900.0
CHANGED_S = 2.0
"""How soon what a reload changed is seen."""
MONTHS_BACK = 2
"""Months before this one that are looked at: batches settle and prices are corrected late."""
CardOf = Callable[[Record], Card | None]


def writers(source: Source, card: CardOf) -> Writers:
    """What each kind of file is written with."""

    def make(kind: Kind, file: BinaryIO, asked: Filters) -> Writer:
        if kind == "parquet":
            return rows.ParquetWriter(file)
        if kind != "focus":
            return rows.LinesWriter(file, kind)
        so_far: Corrections = {}
        for records in source.export(replace(asked, kind="correction")):
            corrections(records, so_far)
        return FocusFile(file, Focus(card), so_far)

    return make


class _Ending:
    """A source that tells no more once `ended` is set: what reads it in a thread is not stopped otherwise."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.ended = Event()

    def usage(self, filters: Filters) -> list[Group]:
        return self._source.usage(filters)

    def export(self, filters: Filters) -> Iterator[list[Record]]:
        with closing(self._source.export(filters)) as lists:  # type: ignore[type-var]
            for records in lists:
                if self.ended.is_set():
                    raise CannotExport("this node ends; the next start goes on")
                yield records


class Exporter:
    """Brings every `[[export]]` to what history has: at the start, when a reload has changed them, and a while after
    each midnight of UTC."""

    def __init__(
        self,
        settings: Callable[[], Sequence[ExportSettings]],
        source: Source,
        card: Callable[[], CardOf],
        notes: dict[str, str],
        *,
        environ: Callable[[], Mapping[str, str]] = lambda: os.environ,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """`settings`, `card`, `environ`: those in force, asked each time. `notes`: what fails stands there, for
        /readyz."""
        self._settings = settings
        self._source = _Ending(source)
        self._card = card
        self._notes = notes
        self._environ = environ
        self._now_s = now_s

    async def run(self) -> None:
        """Until cancelled; a file that is being made is then left, so that no end of a node waits for it."""
        try:
            asked, next_s = None, 0.0
            while True:
                if self._settings() != asked or self._now_s() >= next_s:
                    asked = self._settings()
                    next_s = self._next_s(well=await self.look())
                await asyncio.sleep(CHANGED_S)
        finally:
            self._source.ended.set()

    def _next_s(self, *, well: bool) -> float:
        now_s = self._now_s()
        midnight_s = (now_s - AFTER_MIDNIGHT_S) // DAY_S * DAY_S + DAY_S + AFTER_MIDNIGHT_S
        return midnight_s if well else min(now_s + RETRY_S, midnight_s)

    async def look(self) -> bool:
        """Once. False: one of them failed, and stands in the notes until it goes well."""
        well = True
        for one in self._settings():
            name = f"exporting to {one.to}"
            try:
                done = await asyncio.to_thread(self._bring, one)
            except Exception as error:  # a fault of ours in making a file ends no control process, start after start
                ours = not isinstance(error, TaximeterError)
                told = f"a fault of Taximeter's own: {type(error).__name__}: {error}" if ours else str(error)
                well = False
                if name not in self._notes:
                    log.error("%s: %s", name, told, exc_info=ours)
                self._notes[name] = told
                continue
            if self._notes.pop(name, None) is not None:
                log.info("%s: works again", name)
            for each in done:
                if each.what == "written":
                    log.info("%s: %s written, %d records", name, each.name, each.records)
                elif each.what == "gone":
                    log.warning("%s: %s is left as it is: history no longer has all of its records", name, each.name)
                elif each.what == "busy":
                    well = False
                    log.warning("%s: %s is left as it is: more came each time that it was made", name, each.name)
        return well

    def _bring(self, one: ExportSettings) -> list[Done]:
        end_us = int(self._now_s()) * monthly.US
        first_us = monthly.months_before(end_us, MONTHS_BACK)
        made = writers(self._source, self._card())
        to = place(one.to, self._environ())
        now_us = self._until_s() * monthly.US
        return list(monthly.export(self._source, to, made, one.formats, Filters(), first_us, end_us, now_us=now_us))

    def _until_s(self) -> int:
        """Until when this month's files go. After midnight that is midnight: nodes that write the same files then write
        the same, and one's manifest beside another's file is right."""
        now_s = int(self._now_s())
        midnight_s = now_s // DAY_S * DAY_S
        return midnight_s if now_s - midnight_s < AFTER_MIDNIGHT_S + RETRY_S else now_s
