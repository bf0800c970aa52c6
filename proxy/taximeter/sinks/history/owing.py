"""The owed ledger as the control process uses it: what is to be settled, what is outstanding, what becomes of it.

Synchronous; `sink.History` calls it in its threads. Methods raise HistoryUnavailable.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from taximeter.sinks.history.database import Database
from taximeter.sinks.history.read import owed as reading
from taximeter.sinks.history.read.owed import Owed, OwedStanding, Unsettled
from taximeter.sinks.history.write import owed_upkeep as upkeep
from taximeter.sinks.history.write.owed import OUTSTANDING, gather


class Owing:
    """Of one node."""

    def __init__(self, database: Database, node: str) -> None:
        self._database = database
        self._node = node

    def gather(self) -> int:
        """A bite of `gather`, see there; 0: nothing is left."""
        with self._database.writing() as connection:
            return gather(connection, self._node, 10 * upkeep.BITE)

    def unsettled(self, limit: int) -> list[Unsettled]:
        """Claims of this node without a settlement, the oldest first."""
        with self._database.reading() as connection:
            return reading.unsettled(connection, self._node, limit)

    def listed(self, workspace: str | None, states: Sequence[str], limit: int) -> list[Owed]:
        """Objects in these states, the oldest first."""
        with self._database.reading() as connection:
            return reading.listed(connection, workspace, states, limit)

    def standing(self) -> OwedStanding:
        """How much is owed, by all nodes on the database."""
        with self._database.reading() as connection:
            return reading.standing(connection)

    def write_off(self, before_us: int, now_us: int) -> list[Owed]:
        """Give up some of the objects that were promised before this moment and nobody has told of; each is returned
        once, whichever node does this. [] : none is left."""
        with self._database.writing() as connection:
            old = reading.listed(connection, None, (OUTSTANDING,), upkeep.BITE, before_us)
            return [
                each for each in old if upkeep.write_off(connection, each.workspace, each.provider, each.object, now_us)
            ]

    def take_over(self, nodes: Iterable[str]) -> int:
        """See owed_upkeep.take_over; and what nodes let go of as they ended."""
        with self._database.writing() as connection:
            return upkeep.take_over(connection, [*nodes, upkeep.ANYBODY], self._node)

    def let_go(self) -> int:
        """See owed_upkeep.let_go."""
        with self._database.writing() as connection:
            return upkeep.let_go(connection, self._node)

    def forget(self, before_us: int, strays_us: int) -> int:
        """See owed_upkeep.forget."""
        with self._database.writing() as connection:
            return upkeep.forget(connection, before_us, strays_us)

    def lease(self, name: str, now_us: int, until_us: int) -> bool:
        """See owed_upkeep.lease."""
        with self._database.writing() as connection:
            return upkeep.lease(connection, name, self._node, now_us, until_us)
