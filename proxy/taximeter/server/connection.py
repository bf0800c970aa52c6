"""A client's HTTP/1.1 connection, of both ports: its requests one after the other, their bounds, and what is refused.

`framing` reads the bytes, `client` sends them, an `Exchange` is one request and its answer; a request is handled by a
coroutine that is no task while it waits for signals only (`inline`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import cast

from taximeter.core.errors import Overloaded, RequestError, TooManyOpenFiles
from taximeter.node.descriptors import OPEN_FILES
from taximeter.server.client import Client
from taximeter.server.exchange import STATUS_LINE, Exchange, Service
from taximeter.server.framing import RequestFraming
from taximeter.server.head import Head
from taximeter.server.inline import InlineRun
from taximeter.server.patience import Patience

MAX_PIPELINED = 32
"""Requests that may wait on a connection behind the one being answered."""
TOO_MANY = (
    f"More than {MAX_PIPELINED} requests were sent on one connection before their answers. Those before this one are "
    "answered; send the rest again."
)
TOO_MANY_FILES = "Taximeter has as many connections as it may have open files. Try again later."


class Connection(asyncio.Protocol):
    """Refuses, in OpenAI's error shape, what cannot be relayed safely, then closes."""

    __slots__ = (
        "_connections", "_framing", "_head_timer", "_idle_since", "_idle_timer", "_last_words", "_loop", "_patience",
        "_reading", "_running", "_service", "_waiting", "body_bytes", "client",
    )  # fmt: skip

    client: Client

    def __init__(self, service: Service, connections: set[Connection]) -> None:
        """`connections`: where it stands among its server's as long as it lasts."""
        self._service = service
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        limits = service.limits
        self._framing = RequestFraming(limits.head_bytes, limits.head_fields, service.upgrades, service.heads)
        self._reading: Exchange | None = None
        """The request read last."""
        self._running: Exchange | None = None
        """Being answered."""
        self._waiting: deque[Exchange] = deque()
        self._last_words: RequestError | None = None
        """To be said when the requests that were accepted are answered."""
        self._idle_since: float | None = None
        """Loop time since when the connection waits for its next request."""
        self._idle_timer: asyncio.TimerHandle | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._patience: Patience | None = None
        self.body_bytes = 0
        """Of bodies on this connection, read so far."""

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        service = self._service
        self.client = Client(cast(asyncio.Transport, transport), service.then, service.limits.client_idle_s)
        self._connections.add(self)
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.fileno() >= OPEN_FILES.turned_away_from:
            self._turn_away(raw.fileno())
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        if self not in self._connections:
            return
        self._connections.discard(self)
        self._idle_since = None
        for timer in (self._head_timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
        if self._patience is not None:
            self._patience.end()
            self._patience = None
        self.leave()
        self.client.lost()
        if exc is None:
            self.client.transport.close()
        self._framing.end()
        self._reading = self._running = None  # no cycle of references is left
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        if self._last_words is not None or self.client.lingering:
            return
        self._idle_since = None
        framing = self._framing
        again = framing.again(data)
        if again is not None:
            self.body_bytes += len(again[1])
            if (fresh := self._begin(*again)) is not None:
                self._start(fresh)
            return
        framing.feed(data)
        fresh = None
        for event in framing.events:
            if isinstance(event, Head):
                fresh = self._begin(event) or fresh
            elif self._last_words is not None or self._reading is None:
                break
            elif event:
                self.body_bytes += len(event)
                self._reading.feed(event)
            else:
                self._reading.end_request()
        framing.events.clear()
        if framing.refusal is not None and self._last_words is None:
            self._refuse(framing.refusal)
            return
        if self._head_timer is None and (framing.in_head or self._reading is None or self._reading.response_complete):
            self._expect_head()  # also behind blank lines between requests: they must not hold a connection for ever
        if fresh is not None:  # all that came with its head has been read
            self._start(fresh)

    def pause_writing(self) -> None:
        self.client.pause_writing()

    def resume_writing(self) -> None:
        self.client.resume_writing()

    # From one request to the next.

    def _begin(self, head: Head, body: bytes | None = None) -> Exchange | None:
        """Returns the request if it can be handled now; else it waits, or will never be. `body`: all of it."""
        if self._head_timer is not None:
            self._unset_head_timer()
        before = self._reading
        exchange = Exchange(self._service, self.client, self, head, body)
        if before is None or before.response_complete:
            self._reading = exchange
            return exchange if before is None or before.keep_alive else None  # that answer was the connection's last
        self.client.pause_reading()
        if len(self._waiting) >= MAX_PIPELINED:
            self._last_words = Overloaded(TOO_MANY, retry_after_s=1)
        else:
            self._reading = exchange
            self._waiting.append(exchange)
        return None

    def _start(self, exchange: Exchange) -> None:
        """Hand a request on: it is the first, or the answer before it is complete."""
        if exchange.left or self.client.transport.is_closing():
            return  # nobody would have its answer
        if not exchange.complete:
            self.expect_body()
        self._running = exchange
        service = self._service
        handler = service.websockets if exchange.upgrades else service.handler
        exchange.run = run = InlineRun(handler(exchange), exchange.ended)
        service.runs.add(run)
        run.step()

    def answered(self) -> None:
        """The answer in progress is complete."""
        client = self.client
        if client.transport.is_closing():
            return
        if client.reading_paused and self._last_words is None:
            client.resume_reading()
        if self._waiting:
            running, following = self._running, self._waiting.popleft()
            if running is not None and not running.keep_alive:
                return  # that answer was the connection's last
            self._running = following  # should its client leave before it starts
            self._loop.call_soon(self._start, following)  # not on top of the one just completed
        elif self._last_words is not None:
            self._refuse(self._last_words)
        else:
            self._idle_since = self._loop.time()
            if self._idle_timer is None:
                self._idle_timer = self._loop.call_later(self._service.limits.keep_alive_s, self._look_if_idle)

    def become(self, protocol: asyncio.Protocol) -> bytes:
        """From now on the connection is this protocol's (see `switching`); returns what came behind its request."""
        rest, self._reading, self._running = self._framing.rest or b"", None, None
        self.client.transport.set_protocol(protocol)
        self.connection_lost(ConnectionError())  # but it stays open
        return rest

    def shutdown(self) -> None:
        """The server is stopping: end behind the answer in progress."""
        if self._reading is None or self._reading.response_complete:
            self.client.then(self.client.close, b"")
        else:
            self._reading.keep_alive = False

    def end_if_idle(self, since_s: float) -> None:
        """The server is stopping: close where no request has come since then (loop time), and none is coming."""
        if self.unread and (self._idle_since or 0.0) <= since_s and not self._framing.in_head:
            self.client.then(self.client.close, b"")

    @property
    def unread(self) -> bool:
        """Whether a request may be on its way."""
        return self._reading is None or self._reading.response_complete

    def _turn_away(self, fd: int) -> None:
        """There are too many connections: say so as long as there is room for that, and close."""
        OPEN_FILES.tell("A client was turned away")
        if fd < OPEN_FILES.cut_off_from:
            self._last_words = TooManyOpenFiles(TOO_MANY_FILES, retry_after_s=1)
            self._refuse(self._last_words)
        else:
            self.client.transport.abort()

    def leave(self) -> None:
        """Nothing more can be read from the client: no request under way will be completed."""
        for exchange in (self._running, self._reading, *self._waiting):
            if exchange is not None:
                exchange.leave()

    def _refuse(self, error: RequestError) -> None:
        """Answer, where an answer can still be told from another's, and close."""
        self._unset_head_timer()
        exchange, client = self._reading, self.client
        if exchange is not None and not exchange.response_complete:
            mixed = exchange.complete or exchange.response_started or bool(self._waiting)
            self.leave()
            if mixed:
                client.then(client.close, b"")
                return
        lines = b"".join([b"%b: %b\r\n" % field for field in (*error.headers(), (b"connection", b"close"))])
        client.then(client.linger, STATUS_LINE[error.status] + lines + b"\r\n" + error.body())

    # A head has to come in time. One lazy timer a connection for idle ones, instead of one made and cancelled for each.

    def _expect_head(self) -> None:
        self._head_timer = self._loop.call_later(self._service.limits.head_timeout_s, self._head_is_late)

    def _unset_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.unread:
            self.client.close()

    def _look_if_idle(self) -> None:
        """Close a connection that has been idle for long enough; else look again when it may have been."""
        self._idle_timer = None
        if self._idle_since is None:  # busy: the next complete answer sets the timer again
            return
        left_s = self._idle_since + self._service.limits.keep_alive_s - self._loop.time()
        if left_s > 0:
            self._idle_timer = self._loop.call_later(left_s, self._look_if_idle)
        elif not self.client.transport.is_closing():
            self.client.close()

    def expect_body(self) -> None:
        """From now on it is the client who has to go on with the body of the request read last."""
        if self._reading is not None:
            if self._patience is None:
                self._patience = Patience(self, self._service.limits)
            self._patience.begin(self._reading)
