"""One WebSocket connection: bytes both ways at the pace of who reads, and what has to be written before they go on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING

import msgspec

from taximeter.core import errors
from taximeter.core.record import Outcome
from taximeter.flavors.responses import REALTIME
from taximeter.gateway.websocket.books import ASKS
from taximeter.gateway.websocket.frames import CLOSE, TEXT, Frames, Malformed, Piece, close_frame, text_frame
from taximeter.gateway.websocket.messages import Event, Messages, said, scanning
from taximeter.server.switching import Switched

if TYPE_CHECKING:
    from taximeter.flavors.framing.scan import TopMembers
    from taximeter.flavors.meter import Flavor
    from taximeter.gateway.metering.metering import Metering
    from taximeter.gateway.websocket.books import Books, UnderWay
    from taximeter.server.client import Client

log = logging.getLogger("taximeter.gateway")

RESTART, AWAY, BROKEN = 1012, 1001, 1002


class UpstreamEnd(asyncio.Protocol):
    """The upstream's end of a session."""

    __slots__ = ("_session", "transport")

    def __init__(self, session: Session, transport: asyncio.Transport) -> None:
        self._session = session
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._session.from_upstream(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._session.upstream_lost()

    def pause_writing(self) -> None:
        self._session.upstream_is_slow(slow=True)

    def resume_writing(self) -> None:
        self._session.upstream_is_slow(slow=False)

    def write(self, data: bytes) -> None:
        """To the upstream, if it is still there."""
        if not self.transport.is_closing():
            self.transport.write(data)


class Session(Switched):
    """The client's end, and what is between the two."""

    __slots__ = (
        "_asked",
        "_books",
        "_busy",
        "_client",
        "_closing",
        "_flavor",
        "_from_client",
        "_from_upstream",
        "_held",
        "_inward",
        "_late",
        "_limit_bytes",
        "_metering",
        "_outward",
        "_queue",
        "_tasks",
        "_unsaved",
        "_up",
        "_upstream_slow",
        "ended",
    )  # fmt: skip

    def __init__(
        self,
        books: Books,
        flavor: Flavor,
        metering: Metering,
        client: Client,
        upstream: asyncio.Transport,
        limit_bytes: int,
    ) -> None:
        """`limit_bytes`: the longest `response.create` that is read where it has limits."""
        self._books = books
        self._flavor = flavor
        self._metering = metering
        self._client = client
        self._up = UpstreamEnd(self, upstream)
        self._limit_bytes = limit_bytes
        self._inward, self._outward = Frames(masked=True), Frames(masked=False)
        self._from_client, self._from_upstream = Messages(), Messages()
        self._held: list[Piece] = []
        """What waits until it is known what its message is."""
        self._asked: list[bytes] = []
        """What a message asks for that must be read whole."""
        self._late: tuple[UnderWay, TopMembers] | None = None
        """What a long message asks for, of which the rest is still coming."""
        self._queue: list[Piece] = []
        """What has come behind a message that waits."""
        self._busy = False
        self._upstream_slow = False
        self._unsaved: list[bytes] = []
        """What the upstream has sent and the client may have only when its records are on stable storage."""
        self._closing = False
        """The client has said that it leaves."""
        self._tasks: set[asyncio.Task[None]] = set()
        self.ended = asyncio.Event()

    def begin(self, from_client: bytes, from_upstream: bytes) -> None:
        """Pass on what both have sent already, and whatever comes."""
        self._up.transport.set_protocol(self._up)
        if from_client:
            self.data_received(from_client)
        if from_upstream:
            self.from_upstream(from_upstream)
        self._up.transport.resume_reading()
        if not self._busy:
            self._client.resume_reading()

    # ── from the client ──────────────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        try:
            pieces = self._inward.feed(data)
        except Malformed:
            self.stop(BROKEN, Outcome.CLIENT_LEFT)
            return
        if self._busy:
            self._queue += pieces
        else:
            self._pass_on(pieces)

    def _pass_on(self, pieces: list[Piece]) -> None:
        for number, piece in enumerate(pieces):
            self._take(piece)
            if self._busy:
                self._queue += pieces[number + 1 :]
                return

    def _take(self, piece: Piece) -> None:
        if piece.opcode == CLOSE:
            self._closing = True
        if self._asked or (piece.opcode == TEXT and not self._from_client.over):
            self._held.append(piece)
            if piece.opcode == TEXT:
                self._read(piece)
        elif self._held:
            self._held.append(piece)  # a ping between the frames of a message keeps its place
        else:
            if piece.opcode == TEXT:
                self._rest(piece)
            self._send(piece.raw)

    def _rest(self, piece: Piece) -> None:
        """The rest of a long message, which goes on as it comes; what it asks for may be named behind all else."""
        payload = self._from_client.take(piece)
        if self._late is not None:
            under_way, scan = self._late
            scan.feed(payload)
            if piece.last:
                under_way.learn(said(scan))
                self._late = None
        if piece.last:
            self._from_client.over = False

    def _read(self, piece: Piece) -> None:
        """A piece of a message that is not yet known, or must be read whole."""
        body = self._from_client.take(piece)
        event = self._from_client.event
        if event is None:
            return
        if event.type != ASKS:
            self._release()
        elif not self._from_client.over:
            self._ask(event, body, whole=True)
        elif not self._books.must_read:
            self._ask(event, body, whole=False)
        else:
            self._gather(event, piece, body)
        if piece.last:
            self._from_client.over = False

    def _gather(self, event: Event, piece: Piece, body: bytes) -> None:
        """A long one, whose limits can be asked only when all of it is there."""
        self._asked.append(body)
        if not piece.last and sum(map(len, self._asked)) <= self._limit_bytes:
            return
        if not piece.last:
            self.stop(1009, Outcome.CLIENT_LEFT)  # too big
            return
        asked, self._asked = b"".join(self._asked), []
        self._ask(msgspec.structs.replace(event, response=_inner(asked)), asked, whole=True)

    def _ask(self, event: Event, body: bytes, *, whole: bool) -> None:
        """The client asks for a response."""
        try:
            under_way = self._books.open(event, body, whole=whole)
        except errors.RequestError as error:
            self._refuse(event, error)
            return
        if not whole:
            scan = scanning()
            scan.feed(body)
            self._late = under_way, scan
        if self._books.limited(under_way) or self._metering.durable:
            self._wait(self._admitted(under_way, event))
        else:
            self._release()

    async def _admitted(self, under_way: UnderWay, event: Event) -> None:
        try:
            if self._books.limited(under_way):
                await self._books.hold(under_way)
            if self._metering.durable:
                await self._metering.journal.durable()
        except errors.RequestError as error:
            self._refuse(event, error)
        except errors.JournalError as error:
            log.error("%s refused: %s", under_way.call.record.request_id, error)
            unwritten = errors.JournalUnavailable()
            self._books.settle(under_way, Outcome.REFUSED, unwritten.code)
            self._refuse(event, unwritten)
        else:
            self._release()

    def _refuse(self, event: Event, error: errors.RequestError) -> None:
        """In place of what was asked for the client gets an error, as the API itself sends it."""
        held, self._held = b"".join([piece.raw for piece in self._held if piece.control]), []
        self._send(held)
        said = msgspec.json.decode(error.body())["error"]
        answer: dict[str, object] = {"type": "error"}
        if self._flavor is REALTIME:
            answer |= {"event_id": "event_taximeter", "error": {**said, "event_id": event.event_id}}
        else:
            answer |= {"status": error.status, "error": said}
            if event.stream_id is not None:
                answer["stream_id"] = event.stream_id
        self._to_client(text_frame(msgspec.json.encode(answer)))

    def _release(self) -> None:
        """What was held goes on."""
        held, self._held = b"".join([piece.raw for piece in self._held]), []
        self._send(held)

    def _send(self, data: bytes) -> None:
        if data:
            self._client.then(self._up.write, data)

    def _wait(self, until: Coroutine[None, None, None]) -> None:
        """Read nothing of the client until this is done."""
        self._busy = True
        self._client.pause_reading()
        self._run(self._then_go_on(until))

    async def _then_go_on(self, until: Coroutine[None, None, None]) -> None:
        try:
            await until
        finally:
            self._busy = False
        queue, self._queue = self._queue, []
        self._pass_on(queue)
        self._look_at_pace()

    def _run(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ── from the upstream ────────────────────────────────────────────────────────────────────────────────────

    def from_upstream(self, data: bytes) -> None:
        """Read what came; what it settles is written before it goes on."""
        try:
            pieces = self._outward.feed(data)
        except Malformed:
            self._to_client(data)
            self._up.transport.abort()
            return
        settled = self._books.settled
        for piece in pieces:
            if piece.opcode == TEXT:
                self._heard(piece)
        if not self._unsaved and (settled == self._books.settled or not self._metering.durable):
            self._to_client(data)
            return
        self._unsaved.append(data)
        if len(self._unsaved) == 1:
            self._up.transport.pause_reading()
            self._run(self._when_durable())

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

    def _heard(self, piece: Piece) -> None:
        messages, books = self._from_upstream, self._books
        going_on = messages.over and not piece.first
        payload = messages.take(piece)
        if going_on:
            books.goes_on(payload, last=piece.last)
        elif messages.event is not None and payload:
            fresh = books.server_says(messages.event, payload, whole=piece.last)
            if fresh is not None:
                self._run(self._held_late(fresh))

    async def _held_late(self, under_way: UnderWay) -> None:
        """A response the server began by itself: it is counted, whether there is room for it or not."""
        try:
            await self._books.hold(under_way, begun=True)
        except errors.RequestError as error:
            log.warning("%s began although its budget has no room: %s", under_way.call.record.request_id, error)

    def _to_client(self, data: bytes) -> None:
        client = self._client
        client.then(client.write, data)

    # ── pace ─────────────────────────────────────────────────────────────────────────────────────────────────

    def pause_writing(self) -> None:
        self._client.pause_writing()
        if not self._up.transport.is_closing():
            self._up.transport.pause_reading()

    def resume_writing(self) -> None:
        self._client.resume_writing()
        if not self._up.transport.is_closing():
            self._up.transport.resume_reading()

    def upstream_is_slow(self, *, slow: bool) -> None:
        """The upstream reads more slowly than it is written to, or does so no more."""
        self._upstream_slow = slow
        self._look_at_pace()

    def _look_at_pace(self) -> None:
        if self._client.transport.is_closing():
            return
        if self._busy or self._upstream_slow:
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
        self._books.end(Outcome.CLIENT_LEFT if self._closing else Outcome.UPSTREAM_CUT)
        if not self._unsaved:
            self._client.then(self._client.close, b"")
        self._over()

    def stop(self, code: int, outcome: Outcome) -> None:
        """End it: both are told."""
        self._books.end(outcome)
        self._to_client(close_frame(code))
        self._client.then(self._client.close, b"")
        self._up.write(close_frame(AWAY if code == RESTART else code, masked=True))
        self._up.transport.close()
        self._over()

    def shutdown(self) -> None:
        """See Switched."""
        self.stop(RESTART, Outcome.INTERRUPTED)

    def end_if_idle(self, since_s: float) -> None:
        """See Switched."""
        if not self._books.under_way and not self._busy:
            self.stop(RESTART, Outcome.INTERRUPTED)

    def _over(self) -> None:
        self._held.clear()
        self._queue.clear()
        self.ended.set()


def _inner(asked: bytes) -> msgspec.Raw:
    """The `response` member of a message."""
    try:
        return msgspec.json.decode(asked, type=Event).response
    except (ValueError, RecursionError):
        return msgspec.Raw(b"")
