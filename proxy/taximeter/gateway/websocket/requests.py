"""What a client sends on a WebSocket: each message goes on when it is known what it is, and when what it asks for is
written down and held. A refused one does not go on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from taximeter.core import errors
from taximeter.core.record import Outcome
from taximeter.gateway.websocket.frames import CLOSE, Frames, Piece
from taximeter.gateway.websocket.messages import Messages, event_of, said, scanning

if TYPE_CHECKING:
    from taximeter.gateway.metering.metering import Metering
    from taximeter.gateway.websocket.books import Books
    from taximeter.gateway.websocket.ends import Ends
    from taximeter.gateway.websocket.messages import Event
    from taximeter.gateway.websocket.under_way import UnderWay

log = logging.getLogger("taximeter.gateway")

BROKEN, TOO_BIG, TRY_LATER = 1002, 1009, 1013
_TAIL_BYTES = 1024
_FRAMING_BYTES = 1024 * 1024
"""Most that the frames of a message which waits may take beside what it says: they may be of a byte, or empty."""


class _Late:
    """A long message that goes on as it comes, and is not known whole."""

    __slots__ = ("_scan", "_tail", "under_way")

    def __init__(self, under_way: UnderWay | None, body: bytes) -> None:
        """`under_way`: what it asks for; None: it is not known yet whether it does. `body`: its beginning."""
        self.under_way = under_way
        self._scan = scanning()
        self._tail = b""
        self.feed(body)

    def feed(self, payload: bytes) -> None:
        self._scan.feed(payload)
        self._tail = (self._tail + payload)[-_TAIL_BYTES:]

    def end(self) -> tuple[Event, bytes]:
        """What it has said of itself, and its last bytes."""
        return said(self._scan), self._tail


class Requests:
    """Of one connection."""

    __slots__ = (
        "_books", "_dropping", "_ends", "_gathered", "_gathers", "_held", "_late", "_limit_bytes", "_messages",
        "_metering", "_over", "_partly", "_queue", "_said_bytes", "busy", "closing", "frames",
    )  # fmt: skip

    def __init__(self, books: Books, metering: Metering, ends: Ends, limit_bytes: int) -> None:
        """`limit_bytes`: the longest message that is read whole where there are limits."""
        self._books = books
        self._metering = metering
        self._ends = ends
        self._limit_bytes = limit_bytes
        self.frames = Frames(masked=True)
        self._messages = Messages()
        self._held = bytearray()
        """What waits until it is known what its message is: frames as they came."""
        self._said_bytes = 0
        """So much of that is what it says."""
        self._gathered = bytearray()
        self._gathers = False
        """The message that is coming must be read whole: what it has said so far is gathered."""
        self._late: _Late | None = None
        self._dropping = False
        """The message that is coming has been refused at its beginning."""
        self._partly = False
        """All but the end of the message that asks has gone on already."""
        self._queue: list[Piece] = []
        """What has come behind a message that waits."""
        self._over = False
        self.busy = False
        self.closing = False
        """The client has said that it leaves."""

    def feed(self, data: bytes) -> None:
        """What has come."""
        pieces = self.frames.feed(data)
        if self.busy:
            self._queue += pieces
        else:
            self._pass_on(pieces)
        if self.frames.broken:
            self._ends.stop(BROKEN, Outcome.CLIENT_LEFT)

    def go_on(self) -> None:
        """What a message waited for is done."""
        self.busy = False
        if self._over:
            return
        queue, self._queue = self._queue, []
        self._pass_on(queue)

    def clear(self) -> None:
        """The session is over: nothing more is asked for."""
        self._over = True
        self._held.clear()
        self._queue.clear()
        self._gathered.clear()

    def _pass_on(self, pieces: list[Piece]) -> None:
        for number, piece in enumerate(pieces):
            self._take(piece)
            if self._over:
                return
            if self.busy:
                self._queue += pieces[number + 1 :]
                return

    def _take(self, piece: Piece) -> None:
        if piece.opcode == CLOSE:
            self.closing = True
        if piece.control:
            self._ends.send(piece.raw)  # it waits for no message, also where it stands within one (RFC 6455 §5.4)
        elif self._gathers or not self._messages.over:
            self._hold(piece)
            if not self._over:
                self._read(piece)
        else:
            self._rest(piece)

    def _hold(self, piece: Piece) -> None:
        self._held += piece.raw
        self._said_bytes += len(piece.body)
        if len(self._held) - self._said_bytes > _FRAMING_BYTES:
            self._ends.stop(TOO_BIG, Outcome.CLIENT_LEFT)

    def _rest(self, piece: Piece) -> None:
        """The rest of a long message, which goes on as it comes; what it asks for may be named behind all else."""
        late = self._late
        if late is not None:
            late.feed(piece.payload)
        if piece.last:
            self._messages.over, self._late = False, None
        if self._dropping:
            self._dropping = not piece.last
            return
        if late is not None and piece.last:
            event, tail = late.end()
            if late.under_way is not None:
                late.under_way.learn(event)
            elif self._books.asks_at_its_end(event, tail):
                self._held += piece.raw
                self._partly = True
                self._ask(event, b"", whole=True)
                return
        self._ends.send(piece.raw)

    def _read(self, piece: Piece) -> None:
        """A piece of a message that is not yet known, or must be read whole."""
        body, books = self._messages.take(piece), self._books
        event = self._messages.event
        if event is None:
            return
        over = self._messages.over
        if over and (self._gathers or (books.must_read and books.matters(event))):
            self._gather(piece, body)
        else:
            self._know(event, body, whole=not over)
        if piece.last:
            self._messages.over = False

    def _gather(self, piece: Piece, body: bytes) -> None:
        """A long one, whose limits can be asked only when all of it is there."""
        self._gathers = True
        self._gathered += body
        if not piece.last:
            if len(self._gathered) > self._limit_bytes:
                self._ends.stop(TOO_BIG, Outcome.CLIENT_LEFT)
            return
        whole, self._gathers = bytes(self._gathered), False
        self._gathered = bytearray()
        self._know(event_of(whole, whole=True), whole, whole=True)

    def _know(self, event: Event, body: bytes, *, whole: bool) -> None:
        """It is known what a message is."""
        try:
            asks = self._books.asks(event, whole=whole)
        except errors.RequestError as error:
            self._refuse(event, error)
            return
        if asks:
            self._ask(event, body, whole=whole)
            return
        if asks is None:
            self._late = _Late(None, body)
        self._release()

    def _ask(self, event: Event, body: bytes, *, whole: bool) -> None:
        """The client asks for a response. `body`: b"" where its message was not kept."""
        try:
            under_way = self._books.open(event, body, whole=whole and bool(body))
        except errors.RequestError as error:
            self._dropping = not whole
            self._refuse(event, error)
            return
        if not whole:
            self._late = _Late(under_way, body)
        if self._books.limited(under_way) or self._metering.durable:
            self.busy = True
            self._ends.wait(self._admitted(under_way, event))
        else:
            self._release()

    async def _admitted(self, under_way: UnderWay, event: Event) -> None:
        try:
            if self._books.limited(under_way):
                await self._books.hold(under_way)
            if self._metering.durable:
                await self._metering.journal.durable()
        except errors.RequestError as error:
            self._dropping = self._messages.over
            self._refuse(event, error)
        except errors.JournalError as error:
            log.error("%s refused: %s", under_way.call.record.request_id, error)
            unwritten = errors.JournalUnavailable()
            self._books.settle(under_way, Outcome.REFUSED, unwritten.code)
            self._dropping = self._messages.over
            self._refuse(event, unwritten)
        else:
            self._release()

    def _refuse(self, event: Event, error: errors.RequestError) -> None:
        """In place of what was asked for the client gets an error, as the API itself sends it."""
        self._take_held()
        if self._books.spent is not error:
            self._ends.say(self._books.refusal(event, error))
        if self._partly:  # the upstream has the beginning of a message that will have no end
            self._ends.stop(TRY_LATER, Outcome.INTERRUPTED)
        self._ends.stop_if_spent()

    def _release(self) -> None:
        """What was held goes on."""
        self._partly = False
        self._ends.send(self._take_held())

    def _take_held(self) -> bytes:
        held, self._held, self._said_bytes = bytes(self._held), bytearray(), 0
        return held
