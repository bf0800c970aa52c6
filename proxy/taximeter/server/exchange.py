"""One request of a client and its answer, as a handler sees them: what has come, what to send, is anybody there.

Writes HTTP/1.1 to the client; reading it is `framing`'s. Knows nothing of upstreams, meters, journals or ASGI.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from taximeter.core.errors import AnswerCut, InternalError, Overloaded, RequestError, TaximeterError
from taximeter.server.client import Client, Then
from taximeter.server.head import Head
from taximeter.server.inline import InlineRun, Signal
from taximeter.server.repeated import Heads

if TYPE_CHECKING:
    from taximeter.config import LimitSettings

log = logging.getLogger("taximeter.server")

Headers = list[tuple[bytes, bytes]]
Handler = Callable[["Exchange"], Coroutine[Any, Any, None]]
"""Answers one exchange. What it raises closes the connection: the client sees that its answer was cut."""

JOINED_BYTES = 64 * 1024
"""A body up to this is joined with its head: copying is cheaper than a second system call."""
HELD_BYTES = 64 * 1024
"""Of a request body that nobody reads so much is held before its client has to wait."""
RETRY_AFTER_S = 2
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
STATUS_LINE = {status: f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\n".encode() for status in range(100, 600)}
_NO_BODY = (204, 304)
_as_line = b": ".join


class ClientLeft(Exception):
    """The client closed its connection before its request was complete."""


class Service:
    """What all connections of one server share."""

    __slots__ = ("handler", "heads", "held_bytes", "limits", "runs", "stopping", "then", "upgrades", "websockets")

    def __init__(self, handler: Handler, limits: LimitSettings, then: Then, websockets: Handler | None = None) -> None:
        self.handler = handler
        self.websockets = websockets or handler
        self.upgrades = websockets is not None  # else who offers one is answered as if it had not
        self.limits = limits
        self.then = then
        self.heads = Heads(limits.json_body_bytes)
        self.runs: set[InlineRun] = set()
        """Handlers in progress."""
        self.held_bytes = 0
        """Of request bodies that are read whole."""
        self.stopping = False
        """Each answer is its connection's last."""


class Carrier(Protocol):
    """A connection, as its exchanges see it."""

    def expect_body(self) -> None:
        """From now on it is the client who has to go on with its body."""

    def answered(self) -> None:
        """The answer is complete."""

    def become(self, protocol: asyncio.Protocol) -> bytes:
        """See Connection."""


class Exchange:
    """Made when a request's head is complete, maybe with all of its `body`; names in `headers` are in lower case."""

    __slots__ = (
        "_bodiless", "_chunked", "_expects_continue", "_head", "_held_bytes", "_kept_bytes", "_left_bytes", "_news",
        "_parts", "_refusal", "_service", "carrier", "client", "complete", "dress", "headers", "keep_alive", "left",
        "memo", "method", "on_left", "path", "query", "query_mark", "response_complete", "response_started", "run",
        "upgrades", "version",
    )  # fmt: skip

    def __init__(
        self, service: Service, client: Client, carrier: Carrier, head: Head, body: bytes | None = None
    ) -> None:
        self._service = service
        self.client = client
        self.carrier = carrier
        self.run: InlineRun | None = None
        """What handles it; to be cancelled."""
        self.method = head.method
        self.path, self.query_mark, self.query = head.target.partition(b"?")
        """Raw: still percent-encoded; the mark also where nothing follows it."""
        self.headers = head.headers
        """To be changed by `say_instead`."""
        self.memo = head.memo
        """What has been learned of these headers, the method and the target: of requests that repeat them, too."""
        self.version = head.version
        """1.1 or 1.0."""
        self.upgrades = head.upgrades
        """It asks for a WebSocket (see `switching`)."""
        self.complete = body is not None
        """The whole request has arrived."""
        self.left = False
        """The client has gone before its answer was complete."""
        self.on_left: Callable[[], None] | None = None
        """Called at that moment."""
        self.dress: Callable[[Headers], Headers] | None = None
        """Makes of the headers of its answer, whoever gives it, those that are sent."""
        self.response_started = False
        """The answer's head is written."""
        self.response_complete = False
        """The answer is complete."""
        self.keep_alive = head.keep_alive
        self._parts: list[bytes] = [] if body is None else [body]
        self._held_bytes = 0
        self._kept_bytes = 0
        """Of its body, as counted in the service's `held_bytes`."""
        self._refusal: RequestError | None = None
        self._expects_continue = head.expects_continue
        self._news: Signal | None = None
        self._head = b""
        self._chunked = self._bodiless = False
        self._left_bytes: int | None = None

    def address(self, whose: str) -> tuple[str, int] | None:
        """Host and port of the client's ("peername") or of our end ("sockname"); None: gone, or not TCP."""
        found = self.client.transport.get_extra_info(whose)
        return (str(found[0]), int(found[1])) if isinstance(found, (tuple, list)) else None

    # The request, for its handler.

    def say_instead(self, headers: Headers) -> None:
        """From now on these are its headers."""
        self.headers, self.memo = headers, {}

    def take(self) -> bytes:
        """What has arrived of the body and was not yet taken."""
        parts = self._parts
        if not parts:
            return b""
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        if self._held_bytes > HELD_BYTES:
            self.client.resume_reading()
            if not self.complete:
                self.carrier.expect_body()  # until now it was us who did not read
        self._held_bytes = 0
        return data

    async def part(self) -> bytes:
        """The next part of the body; b"" after the last.

        Raises ClientLeft: a body cut short is never complete; RequestTimeout where it does not go on.
        """
        while not self._parts and not self.complete:
            if self.left:
                raise ClientLeft
            if self._refusal is not None:
                refusal, self._refusal = self._refusal, None
                try:
                    raise refusal
                finally:
                    del refusal  # its traceback holds this frame: together they would wait for the collector
            if self._expects_continue and not self.response_started:
                self._expects_continue = False
                self._send(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._news = self._news or Signal()
            await self._news.wait()
        return self.take()

    async def body(self, limit_bytes: int) -> tuple[bytes, bool]:
        """The body as far as it fits, and whether that is all of it. What `part` raises; Overloaded."""
        parts, size_bytes = [await self._keep()], 0
        while not self.complete or self._parts:
            size_bytes += len(parts[-1])
            if size_bytes > limit_bytes:
                return b"".join(parts), False
            parts.append(await self._keep())
        return b"".join(parts), True

    async def _keep(self) -> bytes:
        """The next part, which stays in memory until the exchange ends. Raises Overloaded where there is no room."""
        part = await self.part()
        service = self._service
        service.held_bytes += len(part)
        self._kept_bytes += len(part)
        if self._kept_bytes > HELD_BYTES and service.held_bytes > service.limits.held_bytes:
            raise Overloaded("The bodies of other requests leave no room for this one.", retry_after_s=RETRY_AFTER_S)
        return part

    # The request, for its connection.

    def feed(self, data: bytes) -> None:
        """A part of the body."""
        if self.response_complete:
            return  # nobody will read it
        self._parts.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > HELD_BYTES:
            self.client.pause_reading()
        if self._news is not None:
            self._news.fire()

    def end_request(self) -> None:
        """The body is complete."""
        self.complete = True
        if self._news is not None:
            self._news.fire()

    def refuse(self, error: RequestError) -> None:
        """The rest of the body is not waited for: whoever does is told so. The connection ends with the answer."""
        self._refusal = error
        self.keep_alive = False
        if self._news is not None:
            self._news.fire()

    def leave(self) -> None:
        """The client is gone, or what it sends cannot be read any more."""
        if self.response_complete or self.left:
            return
        self.left = True
        if self._news is not None:
            self._news.fire()
        if self.on_left is not None:
            self.on_left()

    def ended(self, run: InlineRun, error: BaseException | None) -> None:
        """Its handler has returned or raised: an answer that is not complete is cut."""
        service, client = self._service, self.client
        self.run = self.on_left = None  # no cycle is left for the collector
        service.runs.discard(run)
        if self._kept_bytes:
            service.held_bytes -= self._kept_bytes
            self._kept_bytes = 0
        if error is None and (self.response_complete or self.left):
            return
        if not _is_expected(error):
            log.error("A request's handler failed", exc_info=error)
        if self.left or self.response_complete:
            return
        if not self.response_started:
            self.keep_alive = False
            failed = InternalError("Taximeter failed to handle this request.")
            self.answer(failed.status, failed.headers(), failed.body())
        elif self._chunked or self._left_bytes is not None:
            self._flush()
            client.then(client.close, b"")
        else:
            client.reset()

    @property
    def idle(self) -> bool:
        """Whether its client has been cut off, as it went on neither with its body nor with its answer."""
        return self.client.idle

    @property
    def awaits_continue(self) -> bool:
        """Whether its client may wait for leave to send its body."""
        return self._expects_continue and not self.response_started

    # The answer. Silent once the client has gone; RuntimeError where its own framing is broken, so that a body can
    # never be taken for another one's.

    @property
    def paused(self) -> bool:
        """The client reads more slowly than it is written to: `await drain()` before the next write."""
        return self.client.paused and not self.left

    async def drain(self) -> None:
        """Wait until the client has read on, or has left."""
        await self.client.drain()

    def start(self, status: int, headers: Headers) -> None:
        """The answer's head. It waits at most until the loop's next turn for a body to go with it.

        `headers`: names in lower case, none that belongs to the connection.
        """
        if not self.left:
            self._head = self._framed(status, headers)
            asyncio.get_running_loop().call_soon(self._flush)

    def write(self, data: bytes) -> bool:
        """A part of the body. False where it is `paused` after it."""
        if not data or self.left:
            return True
        client = self.client
        if self._chunked and not (self._head or self.response_complete):  # the usual chunk of a stream
            client.then(client.write, b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self._write(data, b"")
        return not client.paused

    def end(self, data: bytes = b"") -> None:
        """The last part, maybe an empty one."""
        if self.left:
            return
        self._write(data, b"0\r\n\r\n")
        self._complete()

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer, in one write. `headers` as `start` takes them."""
        if self.left:
            return
        head = self._framed(status, headers)
        if self._left_bytes != len(body) or self._bodiless or len(body) > JOINED_BYTES:
            self._head = head
            self._write(body, b"0\r\n\r\n")
        else:  # the usual one
            self._left_bytes = 0
            client = self.client
            client.then(client.write, head + body)
        self._complete()

    def _framed(self, status: int, headers: Headers) -> bytes:
        if self.response_started:
            raise RuntimeError("a second head")
        if self.dress is not None:
            headers = self.dress(headers)
        length = dict(headers).get(b"content-length")
        self._left_bytes = None if length is None else int(length)
        self._bodiless = self.method == b"HEAD" or status in _NO_BODY
        self._chunked = length is None and not self._bodiless and self.version == "1.1"
        if self._service.stopping:
            self.keep_alive = False
        fields = b"\r\n".join(map(_as_line, headers))
        if fields:
            fields += b"\r\n"
        if fields.count(b"\n") != len(headers) or fields.count(b"\r") != len(headers):
            raise RuntimeError("a header holds a line break")
        framing = b"transfer-encoding: chunked\r\n" if self._chunked else b""
        ending = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        head = STATUS_LINE[status] + fields + framing + ending
        self.response_started = True
        return head

    def _send(self, data: bytes) -> None:
        client = self.client
        client.then(client.write, data)

    def _flush(self) -> None:
        """Nothing came to go with the head: it goes alone."""
        if self._head and not self.left:
            head, self._head = self._head, b""
            self._send(head)

    def _write(self, body: bytes, end: bytes) -> None:
        if self.response_complete or not self.response_started:
            raise RuntimeError("a body before its head, or after the end of the answer")
        head, self._head = self._head, b""
        if head and len(body) > JOINED_BYTES:
            self._send(head)
            head = b""
        if self._bodiless:
            data = head
        elif self._chunked:
            data = b"%b%x\r\n%b\r\n%b" % (head, len(body), body, end) if body else head + end
        else:
            if self._left_bytes is not None:
                self._left_bytes -= len(body)
                if self._left_bytes < 0:
                    raise RuntimeError("the body is longer than its content-length")
            data = head + body if head else body
        if data:
            client = self.client
            client.then(client.write, data)

    def _complete(self) -> None:
        if self._left_bytes and not self._bodiless:
            raise RuntimeError("the body is shorter than its content-length")
        self.response_complete = True
        self.on_left = None
        self._parts.clear()  # of an answer that came early; the connection keeps this until its next request
        if not self.keep_alive:
            client = self.client
            client.then(client.close if self.complete else client.linger, b"")
        self.carrier.answered()


def _is_expected(error: BaseException | None) -> bool:
    """An upstream's cut is signalled by raising, a stop by cancelling."""
    if isinstance(error, Exception) and isinstance(error.__cause__, AnswerCut):  # Litestar wraps what cuts an answer
        error = error.__cause__
    return isinstance(error, (TaximeterError, asyncio.CancelledError))
