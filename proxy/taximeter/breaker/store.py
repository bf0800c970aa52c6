"""Trips in `<data_dir>/trips.json`, which the workers follow; nodes exchange theirs through Redis (`tm:trips`)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from msgspec.structs import replace

from taximeter.breaker import rule
from taximeter.breaker.rule import Trip, Trips
from taximeter.core.errors import NotFound
from taximeter.node.audit import AuditLog
from taximeter.node.stored_list import StoredList


class TripStore(StoredList[Trip, Trips]):
    """All trips of this node, and those of others it has heard of."""

    def __init__(self, data_dir: Path, audit: AuditLog | None = None) -> None:
        """`audit`: where it is written down who let what go on. Raises DataDirError when the file is there and cannot
        be read."""
        self._audit = audit or AuditLog()
        super().__init__(data_dir, "trips", Trip, merge=rule.merge, view=Trips, is_sound=rule.is_stored)

    def open(self) -> list[Trip]:
        """Those in force, oldest first."""
        return [trip for trip in self.stored() if not trip.ended_at]

    def reset(self, ids: Iterable[str], at_us: int) -> list[Trip]:
        """The same by hand: it is written down who did."""
        ended = []
        for each in ids:
            with self._audit.act("breaker.reset", each) as change:
                ended += self.end([each], at_us)
                change.after = {"breaker": ended[-1].breaker, "stopped": ended[-1].place.shown}
        return ended

    def end(self, ids: Iterable[str], at_us: int) -> list[Trip]:
        """Arm breakers again; what is armed stays so. Raises NotFound on an id that never tripped."""
        known = {trip.id: trip for trip in self.stored()}
        ended = []
        for each in ids:
            if each not in known:
                raise NotFound(f"No trip {each[:128]!r}.", param="id")
            trip = known[each]
            ended.append(trip if trip.ended_at else replace(trip, ended_at=max(trip.created_at, at_us)))
        self.absorb(ended)
        return ended
