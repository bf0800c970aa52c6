"""What polls tell of calls that are billed later, written into the journal as it passes: before the answer's end does.

A record each, which counts nowhere; history lets one of those that tell the same become the settlement
(core.deferred).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from taximeter.core.deferred import FILE, TOLD
from taximeter.core.record import Open, Outcome, Record
from taximeter.flavors.polls import Poll, poll
from taximeter.flavors.told import Told, place_of
from taximeter.gateway.metering.call import new_request_id, take

if TYPE_CHECKING:
    from taximeter.flavors.meter import Flavor
    from taximeter.journal import Journal


class Teller:
    """What one poll tells. `record` is the poll's own, whose workspace and upstream are known when it is answered."""

    __slots__ = ("_journal", "_record")

    def __init__(self, journal: Journal, record: Open) -> None:
        self._journal, self._record = journal, record

    def __call__(self, told: Told) -> None:
        """Write it down, before what told it leaves."""
        self._journal.add(told_record(self._record, told, time.time_ns() // 1_000))

    def came_whole(self, file: str) -> None:
        """Write down with the poll's own record which file of results it brought: whole, where it ended well."""
        self._record.files = (file,)


def told_record(asked: Record, told: Told, now_us: int) -> Record:
    """The record of what a poll told."""
    record = Record(
        kind=TOLD,
        request_id=new_request_id(now_us),  # the poll is open under its own
        started_at=asked.started_at,
        ended_at=now_us,
        workspace=asked.workspace,
        key_id=asked.key_id,
        upstream=asked.upstream,
        provider=asked.provider,
        region=asked.region,
        api=told.api,
        operation=told.operation,
        status=200,
        outcome=Outcome.OK if told.reading is not None else Outcome.UPSTREAM_ERROR,
    )
    if told.reading is not None:
        told.reading.deferred = None
        take(record, told.reading)
    record.deferred = f"{FILE}{told.id}" if told.in_file else told.id
    record.line = told.line or ""
    record.object_state = told.state or None
    record.files = told.files
    return record


def flavor_of(method: bytes, path: bytes, journal: Journal, record: Open, otherwise: Flavor) -> Flavor | Poll:
    """The flavor of a request that asks for nothing to be done: `otherwise`, but where it gives back what was
    promised."""
    place = place_of(path, method)
    if place is None:
        return otherwise
    teller = Teller(journal, record)
    return poll(place, path, teller, teller.came_whole)
