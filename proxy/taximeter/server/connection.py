"""uvicorn's HTTP/1.1 connection with a stricter edge, for both ports.

uvicorn with httptools refuses bad framing, but bounds neither the size of a head nor the time it takes, drops the body
of a request that asks for an upgrade, lets chunk trailers join the headers and takes any method. `Guard` closes these.
It serves ASGI applications (the control plane); the data plane's `Edge` serves the gateway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from taximeter.core.errors import (
    BadRequest,
    MethodNotAllowed,
    Overloaded,
    PayloadTooLarge,
    RequestError,
)
from taximeter.server.heads import without_upgrade
from taximeter.server.readers import ReaderClock
from taximeter.server.uploads import BodyClock, Held

if TYPE_CHECKING:
    from asyncio import TimerHandle

    from taximeter.config import Limits

LINGER_S = 2.0
"""How long a refused client may go on sending before its connection is closed."""
MAX_PIPELINED = 32
"""Requests that may wait on a connection behind the one being answered."""
METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS")
"""All that APIs use. CONNECT asks for a tunnel, and its parser takes what follows for one; TRACE would hand the
operator's credential back to the client; WebDAV's and others mean nothing here and at no provider."""
_CLOSE = (b"connection", b"close")


Then = Callable[[Callable[[bytes], None], bytes], None]


def at_once(act: Callable[[bytes], None], data: bytes) -> None:
    """Where nothing has to be written before."""
    act(data)


class Guard(HttpToolsProtocol):
    """One client connection. Refuses, in OpenAI's error shape, what cannot be relayed safely, then closes."""

    limits: Limits  # set on the subclass that `Server` makes
    held: Held
    then: Then = staticmethod(at_once)
    """How bytes leave: see `Journal.after_written`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = False
        self._head_bytes = 0
        """Bytes of an unfinished head in earlier reads."""
        self._read_bytes = 0
        """Upper bound of the size of a head that ends in the current read."""
        self._fresh: Any = None
        """A request that is handed on when all that came with its head has been read."""
        self._idle_since: float | None = None
        """Loop time since when the connection waits for its next request."""
        self._version = ""
        self._hosts = 0
        self._codings = 0
        self._odd_coding = False
        self._upgrades = False
        self._refusal: RequestError | None = None
        self._last_words: RequestError | None = None
        """To be said when the requests that were accepted are answered."""
        self._head_timer: TimerHandle | None = None
        self._body_clock: BodyClock | None = None
        self._reader_clock: ReaderClock | None = None
        self.body_bytes = 0
        """Of bodies on this connection, read so far."""
        self._in_body = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset_head_timer()
        if self._body_clock is not None:
            self._body_clock.stop()
            self._body_clock = None  # it holds this
        self._unset_reader_clock()
        self.connections.discard(self)
        self._idle_since = None
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        if self.cycle is not None:
            self._give_up()
        self.flow.resume_writing()
        if exc is None:
            self.transport.close()
        self.parser = None  # type: ignore[assignment]  # it holds this

    def data_received(self, data: bytes) -> None:
        self._idle_since = None
        self._read_bytes = self._head_bytes + len(data)
        try:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self._go_on_without_upgrade(memoryview(data)[upgrade.args[0] :])
        except httptools.HttpParserError:
            if self._last_words is None:
                self._refuse(self._refusal or BadRequest("The request is not valid HTTP/1.1."))
                return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.head_bytes:
                self._refuse(self._too_large())
            elif self._head_timer is None:
                self._expect_head()
        elif self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_head()  # blank lines between requests: they must not hold a connection for ever
        if self._fresh is not None:
            fresh, self._fresh = self._fresh, None
            self._start(fresh)

    # Parser callbacks

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = self._hosts = self._codings = 0
        self._odd_coding = self._upgrades = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a chunk trailer: it must not become a header after the headers were judged
        name = name.lower()
        if name == b"host":
            self._hosts += 1
        elif name == b"transfer-encoding":
            self._codings += 1
            self._odd_coding = self._codings > 1 or value.strip(b" \t").lower() != b"chunked"
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._unset_head_timer()
        refusal = self._judge_head()
        if refusal is not None:
            self._refusal = refusal
            raise refusal  # stops the parser; data_received answers
        if self.parser.should_upgrade():
            self._upgrades = True  # the parser ends here; data_received feeds the request again without it
            return
        self._begin_cycle()

    def _begin_cycle(self) -> None:
        """Hand the request to the application, or queue it behind the one in progress (pipelining)."""
        scope, parser, version = self.scope, self.parser, self._version
        raw_path, _, query = self.url.partition(b"?")
        scope["method"] = parser.get_method().decode("ascii")
        scope["http_version"] = version
        scope["path"] = unquote(raw_path.decode("latin-1")) if b"%" in raw_path else raw_path.decode("latin-1")
        scope["raw_path"] = raw_path
        scope["query_string"] = query
        self._in_body = True
        before = self.cycle
        self.cycle = cycle = RequestResponseCycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        if before is None or before.response_complete:
            self._fresh = cycle
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft(cycle)  # type: ignore[arg-type]

    def on_body(self, body: bytes) -> None:
        self.body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._upgrades:
            self._in_body = False
            super().on_message_complete()

    def _judge_head(self) -> RequestError | None:
        self._version = version = self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            return BadRequest("Only HTTP/1.1 and HTTP/1.0 are spoken here.")
        if self.parser.get_method() not in METHODS:
            return MethodNotAllowed("This method is not served here.", allowed=b", ".join(METHODS))
        if self.url[:1] != b"/":
            return BadRequest("The request target must be a path: use Taximeter as a base URL, not as an HTTP proxy.")
        if b"#" in self.url:
            return BadRequest("The request target must not contain #.")
        if self._hosts != 1 and (self._hosts or version == "1.1"):
            return BadRequest("A request needs exactly one Host header.", param="host")
        if self._odd_coding:
            return BadRequest("The only Transfer-Encoding accepted is chunked, once.", param="transfer-encoding")
        if version == "1.0" and any(name == b"transfer-encoding" for name, _ in self.headers):
            return BadRequest("HTTP/1.0 has no Transfer-Encoding.", param="transfer-encoding")
        limit = self.limits.head_bytes
        if len(self.headers) > self.limits.head_fields or (self._read_bytes > limit and self._head_size() > limit):
            return self._too_large()
        if len(self.pipeline) >= MAX_PIPELINED:
            self._last_words = Overloaded(
                f"More than {MAX_PIPELINED} requests were sent on one connection before their answers. Those before "
                "this one are answered; send the rest again.",
                retry_after_s=1,
            )
        return self._last_words

    def _head_size(self) -> int:
        return len(self.url) + sum([len(name) + len(value) + 4 for name, value in self.headers])

    def _too_large(self) -> RequestError:
        limits = self.limits
        return PayloadTooLarge(f"The head is over {limits.head_bytes} bytes or {limits.head_fields} header fields.")

    def _go_on_without_upgrade(self, rest: memoryview) -> None:
        """Serve a request that offers an upgrade (Java's HttpClient offers h2c) as if it had not, body included.

        `rest` is what follows its head; requests pipelined there may offer one too. Each round takes a head off it,
        and the head that is read again offers nothing. Raises HttpParserError.
        """
        while True:
            version = self.parser.get_http_version().encode()
            head = without_upgrade(self.parser.get_method(), self.url, version, self.headers)
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
            self.parser.feed_data(head)
            if not rest:
                return
            try:
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                rest = rest[upgrade.args[0] :]
            else:
                return

    # Refusing and timing

    def _refuse(self, error: RequestError) -> None:
        """Answer, where an answer can still be told from another's, and close."""
        cycle = self.cycle
        self._unset_head_timer()
        if cycle is not None and not cycle.response_complete:
            mixed = cycle.response_started or self._in_head or error is self._refusal or bool(self.pipeline)
            self._give_up()
        else:
            mixed = False
        if mixed:
            self.then(self.close, b"")
            return
        lines = b"".join([b"%b: %b\r\n" % field for field in (*error.headers(), _CLOSE)])
        self.then(self.linger, STATUS_LINE[error.status] + lines + b"\r\n" + error.body())

    def write(self, data: bytes) -> None:
        """To the client, if it is still there. For `then`."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def close(self, _: bytes = b"") -> None:
        """Let what was written leave, and close. For `then`."""
        self.transport.close()
        if self._reader_clock is None and self.transport.get_write_buffer_size():
            self._reader_clock = ReaderClock(self)

    def linger(self, last: bytes) -> None:
        """Close behind `last`, but in a way that it is read by a client that is still sending. For `then`."""
        if not self.transport.is_closing():
            self.transport.write(last)
            self.transport.set_protocol(_Lingering(self))

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(self.limits.head_timeout_s, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.cycle is None or self.cycle.response_complete:
            self.close()

    def _start(self, cycle: Any) -> None:
        """Hand a request to the application: it is the first, or the answer before it is complete."""
        if self._in_body:
            self.expect_body()
        self._start_asgi_task(cycle, self.app)

    _start_queued = _start

    def _give_up(self) -> None:
        """Nothing more can be read from the client: a request under way will not be completed."""
        self._fresh = None
        if not self.cycle.response_complete:
            self.cycle.disconnected = True
        self.cycle.message_event.set()

    # A body that does not come with its head has to go on.

    def expect_body(self) -> None:
        """From now on the client has `limits.body_timeout_s` for more of its body."""
        if self._body_clock is None:
            self._body_clock = BodyClock(self)
        else:
            self._body_clock.begin_span()

    def awaits_body(self) -> bool:
        return self._in_body

    def body_is_late(self, error: RequestError) -> None:
        if self.cycle.response_complete:  # answered before it was read, as where its key is unknown
            self.then(self.close, b"")
        else:
            self._refuse(error)

    # An answer that its client does not take

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._reader_clock is None:
            self._reader_clock = ReaderClock(self)

    def resume_writing(self) -> None:
        self._unset_reader_clock()
        super().resume_writing()

    def _unset_reader_clock(self) -> None:
        if self._reader_clock is not None:
            self._reader_clock.stop()
            self._reader_clock = None  # it holds this

    # One lazy timer a connection, instead of one made and cancelled for each request

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.flow.read_paused and self._last_words is None:
            self.flow.resume_reading()
        if self.pipeline:
            self._start_queued(self.pipeline.pop())
            return
        if self._last_words is not None:
            self._refuse(self._last_words)
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has been idle for long enough; else look again when it may have been."""
        self.timeout_keep_alive_task = None
        if self._idle_since is None:  # busy: the next complete answer sets the timer again
            return
        left_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left_s, self.timeout_keep_alive_handler)
        elif not self.transport.is_closing():
            self.close()

    def _unset_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class _Lingering(asyncio.Protocol):
    """A refused connection: discards what the client still sends, so that its kernel does not discard our answer."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._timer = guard.loop.call_later(LINGER_S, guard.close)
        guard.transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._guard.connection_lost(exc)
