"""One WebSocket connection: bytes both ways at the pace of who reads, and how it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING

from taximeter.core import errors
from taximeter.core.record import Outcome
from taximeter.gateway.websocket.answers import Answers
from taximeter.gateway.websocket.ends import UpstreamEnd
from taximeter.gateway.websocket.frames import close_frame, text_frame
from taximeter.gateway.websocket.messages import Event
from taximeter.gateway.websocket.requests import BROKEN, Requests
from taximeter.server.switching import Switched

if TYPE_CHECKING:
    from taximeter.gateway.metering.metering import Metering
    from taximeter.gateway.websocket.books import Books
    from taximeter.gateway.websocket.under_way import UnderWay
    from taximeter.server.client import Client

log = logging.getLogger("taximeter.gateway")

RESTART, AWAY, REFUSED, FAILED = 1012, 1001, 1008, 1011
"""Close codes (RFC 6455 §7.4.1; 1012: https://www.iana.org/assignments/websocket)."""


class Session(Switched):
    """The client's end, and what is between the two."""

    __slots__ = (
        "_answers", "_books", "_client", "_metering", "_requests", "_retiring", "_tasks", "_timer", "_unsaved", "_up",
        "_upstream_slow", "ended",
    )  # fmt: skip

    def __init__(
        self, books: Books, metering: Metering, client: Client, upstream: asyncio.Transport, limit_bytes: int
    ) -> None:
        """`limit_bytes`: the longest message that is read whole where there are limits."""
        self._books = books
        self._metering = metering
        self._client = client
        self._up = UpstreamEnd(self, upstream)
        self._requests = Requests(books, metering, self, limit_bytes)
        self._answers = Answers(books)
        self._upstream_slow = False
        self._unsaved: list[bytes] = []
        """What the upstream has sent and the client may have only when its records are on stable storage."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._retiring = False
        """It has lasted as long as it may: it ends when nothing is under way."""
        self._timer: asyncio.TimerHandle | None = None
        self.ended = asyncio.Event()

    def begin(self, from_client: bytes, from_upstream: bytes, lasts_s: float = 0.0) -> None:
        """Pass on what both have sent already, and whatever comes, for `lasts_s`; 0: without an end."""
        if lasts_s:
            self._timer = asyncio.get_running_loop().call_later(lasts_s, self._retire)
        self._up.transport.set_protocol(self._up)
        if from_client:
            self._requests.feed(from_client)
        if from_upstream:
            self.from_upstream(from_upstream)
        self._up.transport.resume_reading()
        self._look_at_pace()

    # ── from the client ──────────────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        self._requests.feed(data)

    def send(self, data: bytes) -> None:
        """See Ends."""
        if data:
            self._client.then(self._up.write, data)

    def say(self, payload: bytes) -> None:
        """See Ends."""
        self._to_client(self._answers.say(text_frame(payload)))

    def wait(self, until: Coroutine[None, None, None]) -> None:
        """See Ends."""
        self._client.pause_reading()
        self._run(self._then_go_on(until))

    async def _then_go_on(self, until: Coroutine[None, None, None]) -> None:
        try:
            await until
        except Exception:  # what waits could not be admitted, and nothing may go on behind it
            log.exception("a WebSocket is closed")
            self.stop(FAILED, Outcome.INTERRUPTED)
            return
        self._requests.go_on()
        self._look_at_pace()

    def _run(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ── from the upstream ────────────────────────────────────────────────────────────────────────────────────

    def from_upstream(self, data: bytes) -> None:
        """Read what came; what it settles is written before it goes on."""
        settled = self._books.settled
        passed, fresh = self._answers.feed(data)
        if self._answers.closing:  # whoever says so first leaves; the other's close is but an answer to it
            self._books.end(Outcome.CLIENT_LEFT if self._requests.closing else Outcome.UPSTREAM_CUT)
        for each in fresh:
            self._run(self._held_late(each))
        if not self._unsaved and (settled == self._books.settled or not self._metering.durable):
            self._to_client(passed)
            self._look_whether_it_ends()
            return
        self._unsaved.append(passed)
        if len(self._unsaved) == 1:
            self._up.transport.pause_reading()
            self._run(self._when_durable())

    def _look_whether_it_ends(self) -> None:
        broken = self._answers.frames.broken
        if broken:
            log.warning("an upstream sent what is no WebSocket frame: %s", broken)
            self.stop(BROKEN, Outcome.UPSTREAM_CUT)
        else:
            self.stop_if_spent()

    async def _when_durable(self) -> None:
        """Pass on what ends a response, and what has come behind it, when its record is on stable storage."""
        try:
            await self._metering.journal.durable()
        except errors.JournalError as error:
            log.error("a WebSocket is closed: %s", error)
            self._unsaved.clear()
            self.stop(RESTART, Outcome.INTERRUPTED)
            return
        unsaved, self._unsaved = b"".join(self._unsaved), []
        self._to_client(unsaved)
        if self._up.transport.is_closing():
            self._client.then(self._client.close, b"")
        elif not self._client.paused:
            self._up.transport.resume_reading()
        self._look_whether_it_ends()

    async def _held_late(self, under_way: UnderWay) -> None:
        """A response the server began by itself: it is counted, whether there is room for it or not; then the
        connection ends with it."""
        try:
            await self._books.hold(under_way, begun=True)
        except errors.RequestError as error:
            log.warning("%s began although its budget has no room: %s", under_way.call.record.request_id, error)
            self.stop_if_spent()

    def _to_client(self, data: bytes) -> None:
        if data:
            self._client.then(self._client.write, data)

    # ── pace ─────────────────────────────────────────────────────────────────────────────────────────────────

    def pause_writing(self) -> None:
        self._client.pause_writing()
        if not self._up.transport.is_closing():
            self._up.transport.pause_reading()

    def resume_writing(self) -> None:
        self._client.resume_writing()
        if not self._up.transport.is_closing() and not self._unsaved:
            self._up.transport.resume_reading()

    def upstream_is_slow(self, *, slow: bool) -> None:
        """The upstream reads more slowly than it is written to, or does so no more."""
        self._upstream_slow = slow
        self._look_at_pace()

    def _look_at_pace(self) -> None:
        if self._client.transport.is_closing():
            return
        if self._requests.busy or self._upstream_slow:
            self._client.pause_reading()
        else:
            self._client.resume_reading()

    # ── how it ends ──────────────────────────────────────────────────────────────────────────────────────────

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._books.end(Outcome.CLIENT_LEFT)
        self._client.lost()
        self._up.transport.close()
        self._over()

    def upstream_lost(self) -> None:
        """The upstream has closed, or is gone."""
        self._books.end(Outcome.CLIENT_LEFT if self._requests.closing else Outcome.UPSTREAM_CUT)
        if not self._unsaved:
            self._client.then(self._client.close, b"")
        self._over()

    def stop(self, code: int, outcome: Outcome) -> None:
        """End it: both are told, where the frame that is passing has ended."""
        if self.ended.is_set():
            return
        self._books.end(outcome)
        if self._answers.frames.between_frames:
            self._to_client(close_frame(code))
        self._client.then(self._client.close, b"")
        if self._requests.frames.between_frames:
            self._up.write(close_frame(AWAY if code == RESTART else code, masked=True))
        self._up.transport.close()
        self._over()

    def stop_if_spent(self) -> None:
        """See Ends: also where it has lasted as long as it may."""
        if not self._books.idle or self._unsaved or self._answers.closing:
            return
        if self._books.spent is not None:
            self.say(self._books.refusal(Event(), self._books.spent))
            self.stop(REFUSED, Outcome.INTERRUPTED)
        elif self._retiring and not self._requests.busy:
            self.stop(AWAY, Outcome.INTERRUPTED)

    def _retire(self) -> None:
        self._retiring = True
        self.stop_if_spent()

    def shutdown(self) -> None:
        """See Switched."""
        self.stop(RESTART, Outcome.INTERRUPTED)

    def end_if_idle(self, since_s: float) -> None:
        """See Switched."""
        if self._books.idle and not self._requests.busy:
            self.stop(RESTART, Outcome.INTERRUPTED)

    def _over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._requests.clear()
        self.ended.set()
