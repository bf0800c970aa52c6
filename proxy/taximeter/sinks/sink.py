"""The one interface of all sinks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from taximeter.core.record import Record
from taximeter.sinks.batch import Batch


class Sink(Protocol):
    """Applies batches exactly once. Any exception means: nothing is known; ask `cursors` again before the next try.

    One that is about the records themselves (sinks.unfit) leads to the one record at fault, which is set aside.
    """

    name: str
    durable: bool
    """Its effects outlive the process: a journal file is kept until every durable sink has passed its end."""

    async def cursors(self, journal_ids: Iterable[str]) -> dict[str, int]:
        """Where the sink is in each journal: last `seq` applied, 0 where it knows nothing of it."""

    async def deliver(self, batches: Sequence[Batch]) -> dict[str, int]:
        """Apply each batch whose `after` is the sink's cursor; returns the actual cursors of these journals."""

    async def close(self) -> None:
        """Release connections and files."""


@runtime_checkable
class Retaker(Protocol):
    """A sink that can take a record its cursor has passed."""

    async def retake(self, records: Sequence[Record]) -> None:
        """Take records that were set aside, each once however often it is offered; all of them, or raise."""


class JournalState(msgspec.Struct, kw_only=True, frozen=True):
    """What a `JournalKeeper` keeps of a journal for ever."""

    seq: int
    """The cursor."""
    digest: str
    """`Batch.digest` of the batch that brought the cursor to `seq`."""
    ended: bool


@runtime_checkable
class JournalKeeper(Protocol):
    """A sink that also keeps journals, so that one restored from a copy is recognised (history)."""

    async def journals(self, journal_ids: Iterable[str]) -> dict[str, JournalState]:
        """Those of these journals it has ever seen."""

    async def beyond(self, journal_id: str, seq: int, since_us: int) -> list[Record] | None:
        """What it has of a journal behind a seq, in its order; none of it ended before `since_us`.

        None: it has forgotten single records of that time, and cannot tell.
        """
