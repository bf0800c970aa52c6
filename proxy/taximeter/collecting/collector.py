"""The collector: one node of all on a database fetches objects that are outstanding, and the files of their results.

With the upstream's own credential alone, over the upstream's own connections, and read by the very code that reads what
clients fetch. What it tells is a record each in the control process's journal; no call, in no sum.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from taximeter.collecting import places
from taximeter.collecting.pace import LONGEST_S, REFUSED_S, Pace
from taximeter.config import Settings
from taximeter.core import loops
from taximeter.core.deferred import FILE, TOLD
from taximeter.core.errors import TaximeterError
from taximeter.core.record import Open, Record
from taximeter.flavors.meter import Answer, Meter, Prepared
from taximeter.flavors.polls import poll
from taximeter.flavors.told import Told, place_of
from taximeter.gateway.metering.call import new_request_id
from taximeter.gateway.metering.polls import told_record
from taximeter.gateway.upstream.response import Response
from taximeter.gateway.upstream.upstreams import Upstream, Upstreams
from taximeter.sinks.history.read.owed import Owed

log = logging.getLogger("taximeter.collecting")

LEASE = "collect"
LEASE_S = 120.0
"""How long a node that stands still keeps others from collecting. Two that collect at once double no figure."""
MOST_AT_ONCE = 5
"""Fetched at a look, of which control has one every five seconds: at most one a second in all."""
LISTED = 10_000
FETCH_S = 600.0
"""A file of results may take so long."""


class Outstanding(Protocol):
    """What is asked of history."""

    async def owed(self, workspace: str | None, states: Sequence[str], limit: int) -> list[Owed]: ...

    async def lease(self, name: str, now_us: int, until_us: int) -> bool: ...


class Collector:
    """Looks now and then. Holds connections; `close` ends them."""

    def __init__(
        self,
        history: Outstanding,
        upstreams: Upstreams,
        write: Callable[[Record], None],
        *,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        """`upstreams`: whose `collect` is on; `write` puts what was told into the journal (raises JournalError)."""
        self._history = history
        self._upstreams = {each.name: each for each in upstreams.all if each.key and each.settings.collect}
        self._all = upstreams
        self._write = write
        self._now_us = now_us
        self._pace = Pace()

    async def look(self) -> int:
        """Fetch what is due, if it is this node's turn; returns how many were fetched. Raises HistoryUnavailable,
        JournalError; what an upstream does is told in the log."""
        now_us = self._now_us()
        if not await self._history.lease(LEASE, now_us, now_us + round(LEASE_S * 1e6)):
            return 0
        there = [each for each in await self._history.owed(None, ("outstanding",), LISTED) if self._is_ours(each)]
        self._pace.keep([*map(_name, there), *self._upstreams])
        fetched = 0
        for each in there:
            now_s = self._now_us() / 1e6
            upstream = self._upstreams[each.asked.upstream]
            if fetched >= MOST_AT_ONCE or not (
                self._pace.due(_name(each), now_s) and self._pace.due(upstream.name, now_s)
            ):
                continue
            fetched += 1
            self._pace.later(_name(each), now_s)
            await self._fetch(each, upstream, now_s)
        return fetched

    def _is_ours(self, owed: Owed) -> bool:
        if owed.asked.upstream not in self._upstreams or owed.asked.provider != owed.provider:
            return False
        return bool(owed.unread) or (not owed.told and places.of_object(owed.asked) is not None)

    async def _fetch(self, owed: Owed, upstream: Upstream, now_s: float) -> None:
        asked = owed.asked
        path = places.of_file(asked, owed.unread[0]) if owed.unread else places.of_object(asked)
        if path is None:
            return
        try:
            async with asyncio.timeout(FETCH_S):
                answer = await upstream.send(b"GET", path, places.headers_of(asked), b"")
                status = answer.status
                try:
                    await self._read(answer, path, owed, upstream)
                finally:
                    answer.abort()
        except (TaximeterError, TimeoutError) as error:
            self._pace.later(upstream.name, now_s, REFUSED_S)
            log.warning("%s could not be fetched from %s: %s", owed.object, upstream.name, error or "it took too long")
            return
        if status in (401, 403, 408, 429) or status >= 500:
            self._pace.later(upstream.name, now_s, REFUSED_S, _retry_after_s(answer))
            log.warning("%s could not be fetched from %s: it answers %d", owed.object, upstream.name, status)
            return
        self._pace.soon(upstream.name)
        if status != 200:
            log.info("%s answers %d for %s", upstream.name, status, owed.object)

    async def _read(self, answer: Response, path: bytes, owed: Owed, upstream: Upstream) -> None:
        """Have the answer tell what it tells, as it passes. Raises what `write` does."""
        teller = _Teller(self._write, _opening(owed, upstream, self._now_us()), self._now_us)
        place = place_of(path)
        if place is None:
            return
        kind = next((value for name, value in answer.headers if name == b"content-type"), b"")
        told = Answer(status=answer.status, content_type=kind, headers=answer.headers)
        meter: Meter = poll(place, path, teller, teller.came_whole).meter(Prepared(body=b""), told, upstream.provider)

        def read(data: bytes) -> bool:
            meter.feed(data)
            return True

        while not await answer.pipe(read):
            pass
        meter.finish()  # only of a whole one: a cut one has raised

    async def close(self) -> None:
        """Drop every connection."""
        for each in self._all.all:
            await each.close()


def collector_of(
    settings: Settings, environ: Mapping[str, str], node: str, history: Outstanding, write: Callable[[Record], None]
) -> Collector | None:
    """The collector of a node; None where nothing is collected. Raises ConfigError."""
    wanted = [each for each in settings.upstream if each.collect]
    if not wanted:
        return None
    return Collector(history, Upstreams(wanted, environ=environ, mark=loops.mark(node)), write)


class _Teller:
    """What one answer tells, for the workspace that asked."""

    def __init__(self, write: Callable[[Record], None], record: Open, now_us: Callable[[], int]) -> None:
        self._write, self._record, self._now_us = write, record, now_us

    def __call__(self, told: Told) -> None:
        self._write(told_record(self._record, told, self._now_us()))

    def came_whole(self, file: str) -> None:
        """No call brought it, whose record would say so: a record that tells, of the file itself."""
        self._write(told_record(self._record, Told(id=file, in_file=True), self._now_us()))


def _opening(owed: Owed, upstream: Upstream, now_us: int) -> Open:
    return Open(
        kind=TOLD,
        request_id=new_request_id(now_us),
        started_at=now_us,
        workspace=owed.workspace,
        upstream=upstream.name,
        provider=owed.provider,
        region=owed.asked.region or upstream.region,
        api="other",
    )


def _name(owed: Owed) -> tuple[str, str, str]:
    return owed.workspace, owed.provider, f"{FILE}{owed.unread[0]}" if owed.unread else owed.object


def _retry_after_s(answer: Response) -> float:
    """What it asks for, at most `LONGEST_S`."""
    value = next((value for name, value in answer.headers if name == b"retry-after"), b"")
    return min(float(value), LONGEST_S) if value.isdigit() else 0.0
