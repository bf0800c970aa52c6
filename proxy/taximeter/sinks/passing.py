"""Where a sink is that keeps nothing: it begins where another says, takes each record once, and starts over with its
process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

from taximeter.sinks.batch import Batch

Start = Callable[[Iterable[str]], Awaitable[dict[str, int]]]
"""Where to begin, by journal id."""


class Passing:
    """Its cursors, in memory."""

    def __init__(self, start: Start | None = None) -> None:
        """`start` None: from the first record."""
        self._start = start
        self._cursors: dict[str, int] = {}

    async def cursors(self, journal_ids: Iterable[str]) -> dict[str, int]:
        """See `Sink.cursors`. Raises what `start` does; then nothing has changed."""
        ids = list(journal_ids)
        unknown = [each for each in ids if each not in self._cursors]
        if unknown:
            begun = await self._start(unknown) if self._start is not None else {}
            self._cursors |= {each: begun.get(each, 0) for each in unknown}
        return {each: self._cursors[each] for each in ids}

    def fresh(self, batches: Sequence[Batch]) -> Iterator[Batch]:
        """Those that go on where it is; each counts as taken when it is given. All their journals must be known."""
        for batch in batches:
            if self._cursors[batch.journal_id] == batch.after:
                self._cursors[batch.journal_id] = batch.upto
                yield batch
