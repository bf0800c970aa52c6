"""One HTTP/1.1 connection to an upstream: `httptools` for the syntax, asyncio for the bytes, the rules of DESIGN §2.3.

Knows nothing of providers or metering, nor which requests go where (`pool`, `upstream`). llhttp itself refuses bare LF,
obs-fold, bad field names, a doubled or bad Content-Length and one beside Transfer-Encoding; what it lets pass is
guarded here: other versions, other transfer codings, a HEAD's missing body, sizes, bytes after the end.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, cast

import httptools

from taximeter.core.errors import (
    BadRequest,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbage,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from taximeter.gateway.response import Response

if TYPE_CHECKING:
    from taximeter.gateway.pool import Pool

HEAD_BYTES = 64 * 1024
HEAD_FIELDS = 200
INTERIM_HEADS = 32
"""1xx answers before the real one."""
WHOLE_BYTES = 64 * 1024
"""Head and body up to this go out in one write: copying them together is cheaper than a second system call."""

HOP_BY_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization",
        b"te", b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
"""Headers of one connection, not of the message (RFC 9110 §7.6.1): never relayed, in either direction."""

_FRAMING = HOP_BY_HOP | {b"content-length"}
_ORDINARY_CONNECTION = frozenset({b"keep-alive", b"close", b"Keep-Alive", b"Close"})

_HEAD, _LENGTH, _CHUNKED, _UNTIL_CLOSE = range(4)
"""What the next bytes are: a head, a body of known length, chunks, or everything until the connection closes."""


class _Stop(Exception):
    """Raised in a parser callback to stop the parser at that byte."""


class Connection(asyncio.Protocol):
    """One connection; one answer at a time. Made by `pool.Pool`."""

    __slots__ = (
        "_awaits_client", "_barren_bytes", "_body_left", "_closed", "_complete", "_fields", "_framing", "_head_bytes",
        "_head_only", "_interim", "_interim_bytes", "_keep_alive", "_length", "_mode", "_parser", "_pieces", "_poller", "_pool", "_pump",
        "_reading", "_refusal", "_response", "_silence", "_transport", "_writable", "on_body", "requests",
    )  # fmt: skip

    _transport: asyncio.Transport
    _poller: select.poll

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append  # straight from the parser into the list, without a Python frame
        self._parser = httptools.HttpResponseParser(self)
        self._response: Response | None = None
        self._pump: asyncio.Task[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._closed = False
        self._reading = True
        self._awaits_client = False
        self._silence = 0
        self._mode = _HEAD
        self._head_only = self._complete = False
        self._keep_alive = True
        self._fields: list[tuple[bytes, bytes]] = []
        self._framing: list[tuple[bytes, bytes]] = []
        self._length: int | None = None
        self._body_left = self._head_bytes = self._barren_bytes = self._interim = self._interim_bytes = 0
        self._refusal = ""
        self.requests = 0
        """Requests this connection has carried."""

    # Carrying a request.

    @property
    def closed(self) -> bool:
        return self._closed

    def usable(self) -> bool:
        """Whether a request may be written: open, and nothing (bytes nobody asked for, a FIN) waits in the kernel."""
        return not self._closed and not self._transport.is_closing() and not self._poller.poll(0)

    def send(self, head: bytes, body: bytes, head_only: bool) -> Response:
        """Send a whole request; then wait for `response.head()`. With it comes all of the body that came with it."""
        response = self._begin(head_only)
        if len(body) <= WHOLE_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)
        return response

    def send_streamed(self, head: bytes, body: AsyncIterator[bytes], length: int | None, head_only: bool) -> Response:
        """Send a request whose body is still coming (`length` None: chunked). The answer may overtake the body.

        What `body` raises is raised by the response.
        """
        response = self._begin(head_only)
        self._transport.write(head)
        self._pump = self._pool.loop.create_task(self._send_body(body, length))
        return response

    def _begin(self, head_only: bool) -> Response:
        self._response = response = Response(self, self._pool.loop)
        self._mode = _HEAD
        self._head_only = head_only
        self._complete = False
        self._keep_alive = True
        self._fields = []
        self._framing = []
        self._length = None
        self._refusal = ""
        self._head_bytes = self._barren_bytes = self._interim = self._interim_bytes = self._silence = 0
        self.requests += 1
        return response

    async def _send_body(self, body: AsyncIterator[bytes], length: int | None) -> None:
        """Write the body piece by piece, never more than the transport's high-water mark ahead."""
        left = length
        self._awaits_client = True
        try:
            async for piece in body:
                if self._closed:
                    return
                if not piece:
                    continue
                if left is None:
                    self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                else:
                    left -= len(piece)
                    if left < 0:
                        break
                    self._transport.write(piece)
                await self._drain()
            if left:
                raise BadRequest(f"The request body does not have the {length} bytes its Content-Length says.")
            if left is None and not self._closed:
                self._transport.write(b"0\r\n\r\n")
        except Exception as error:
            self._pump = None
            self._fail(error)
        finally:
            self._awaits_client = False

    async def _drain(self) -> None:
        self._silence = 0
        if self._writable is not None and not self._closed:
            self._awaits_client = False
            await self._writable
            self._awaits_client = True

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        raw: socket.socket = transport.get_extra_info("socket")
        self._poller = select.poll()
        self._poller.register(raw.fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None:  # nobody asked for these bytes: whose answer would they be?
            self._discard()
            return
        mode = self._mode
        if mode == _CHUNKED or mode == _HEAD:  # noqa: PLR1714, SIM109 -- per chunk, and a tuple costs more
            self._parse(data, response)
            return
        self._silence = 0
        if mode == _UNTIL_CLOSE:
            response.feed(data, False)
            return
        left = self._body_left = self._body_left - len(data)
        if left > 0:
            response.feed(data, False)
        else:
            self._parser = httptools.HttpResponseParser(self)  # the old one still waits for the body it did not see
            self._finish(response, data[:left] if left else data, left == 0)

    def eof_received(self) -> bool:
        self._lost(None)
        self._transport.abort()  # close() would first wait until an unread request body has been flushed
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(exc)

    def pause_writing(self) -> None:
        self._writable = self._pool.loop.create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._complete:
            raise _Stop

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in _FRAMING:
            self._framing.append((name, value))
        else:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        parser, response = self._parser, self._response
        if response is None or self._mode != _HEAD:
            return
        status = parser.get_status_code()
        if 100 <= status < 200:
            self._skip_interim(status)
            return
        version = parser.get_http_version()
        if version != "1.1":
            self._keep_alive = False
            if version != "1.0":
                self._refuse(f"HTTP version {version}")
        if not 200 <= status < 600:
            self._refuse(f"status {status:03}")
        if len(self._fields) + len(self._framing) > HEAD_FIELDS:
            self._refuse(f"more than {HEAD_FIELDS} header fields")
        self._mode = _UNTIL_CLOSE
        for name, value in self._framing:
            self._frame(name, value)
        if status in (204, 304):  # no body, whatever the framing says; some servers send one nevertheless
            self._keep_alive = self._keep_alive and self._mode == _UNTIL_CLOSE
        elif self._length is not None:
            self._fields.append((b"content-length", b"%d" % self._length))
        response.headers = self._fields
        response.status = status
        if self._head_only:
            self._complete = True
            self._keep_alive = False  # the parser cannot be told, so what follows cannot be told apart
            raise _Stop

    def on_message_complete(self) -> None:
        if self._mode != _HEAD:
            self._complete = True

    def _skip_interim(self, status: int) -> None:
        self._interim += 1
        if status == 101:
            self._refuse("a switch of protocols nobody asked for")
        if self._interim > INTERIM_HEADS:
            self._refuse(f"more than {INTERIM_HEADS} interim answers")
        self._interim_bytes += _size(self._fields)
        self._fields = []
        self._framing = []

    def _frame(self, name: bytes, value: bytes) -> None:
        """Read one header that belongs to the connection; `_mode` and `_length` follow from it."""
        if name == b"content-length":
            self._length = self._body_left = int(value)
            self._mode = _LENGTH
        elif name == b"transfer-encoding":
            if self._mode != _UNTIL_CLOSE or value.strip(b" \t").lower() != b"chunked":
                self._refuse("a transfer coding other than chunked")
            self._mode = _CHUNKED
        elif name == b"connection":
            named = {token.strip(b" \t").lower() for token in value.split(b",")}
            if b"close" in named:
                self._keep_alive = False
            if not named <= _ORDINARY_CONNECTION:
                self._fields = [field for field in self._fields if field[0] not in named]

    def _refuse(self, what: str) -> None:
        self._refusal = what
        raise _Stop

    # From bytes to the answer.

    def _parse(self, data: bytes, response: Response) -> None:
        """Feed the parser and act on what it found. Bytes after the end never count as an answer."""
        parser, pieces, in_head = self._parser, self._pieces, self._mode == _HEAD
        wrong = None
        if in_head and not self._head_bytes and data[0] != 0x48:  # llhttp would skip CR and LF before the H
            wrong = "Expected HTTP/"
        else:
            try:
                parser.feed_data(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
                wrong = "" if self._complete else self._refusal or str(error)
        piece = b"" if not pieces else pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if in_head and wrong is None:
            wrong = self._check_head_size(data)
        if wrong:
            if in_head:  # nobody has seen the head yet
                response.status, piece = 0, b""
            self._garbage(response, piece, wrong)
        elif self._complete:
            clean = wrong is None and self._nothing_follows(data, piece, in_head)
            self._finish(response, piece, clean)
        elif self._mode == _LENGTH:
            self._body_left -= len(piece)
            self._arrived(response, piece)
        elif piece or in_head:
            if self._mode != _HEAD:
                self._arrived(response, piece)
        else:
            self._barren_bytes += len(data)
            if self._barren_bytes > HEAD_BYTES:  # chunk extensions or trailers without end
                self._garbage(response, b"", "too much between two chunks")

    def _arrived(self, response: Response, piece: bytes) -> None:
        """Part of the body, or the head alone."""
        self._silence = self._barren_bytes = 0
        if self._pump is not None and response.status >= 300 and not self._pump.done():
            self._pump.cancel()  # it has been answered; a success may still want the rest of the body
        if piece:
            response.feed(piece, False)
        else:
            response.wake()

    def _check_head_size(self, data: bytes) -> str | None:
        if self._mode == _HEAD:
            self._head_bytes += len(data)
            size = self._head_bytes
        elif not self._head_bytes and not self._interim:
            size = data.find(b"\r\n\r\n")
        else:
            size = self._interim_bytes + _size(self._fields)
        return f"a head of more than {HEAD_BYTES} bytes" if size > HEAD_BYTES else None

    def _nothing_follows(self, data: bytes, piece: bytes, in_head: bool) -> bool:
        """Whether the answer ends where `data` ends. llhttp takes CR and LF after an answer for nothing at all."""
        if self._mode == _CHUNKED:
            return data.endswith(b"0\r\n\r\n")
        if not in_head or self._head_bytes or self._interim:
            return False  # cannot be told cheaply; rare, and costs a connection, not a customer's privacy
        return data.find(b"\r\n\r\n") + 4 + len(piece) == len(data)

    def _finish(self, response: Response, piece: bytes, clean: bool) -> None:
        """The answer is complete. The connection goes back only if it is clean and the request was fully sent."""
        self._response = None
        pump, self._pump = self._pump, None
        if pump is not None and not pump.done():
            pump.cancel()
            clean = False
        if clean and self._keep_alive and not self._transport.get_write_buffer_size():
            if not self._reading:
                self.resume()
            self._silence = 0
            self._pool.release(self)
        else:
            self._discard()
        response.feed(piece, True)

    def _garbage(self, response: Response, piece: bytes, what: str) -> None:
        if piece:
            response.feed(piece, False)
        self._fail(UpstreamGarbage(f"Upstream {self._pool.name!r} answered something that is not safe HTTP: {what}."))

    def _fail(self, error: Exception) -> None:
        response = self._response
        self._discard()
        if response is not None:
            if isinstance(error, UpstreamError):
                error.sent = True
            response.fail(error)

    def _lost(self, exc: Exception | None) -> None:
        """The connection has ended; an answer that had no other end is complete."""
        response = self._response
        self._response = None
        name = self._pool.name
        self._end(exc)
        if response is None:
            return
        error: UpstreamError
        if response.status and self._mode == _UNTIL_CLOSE and exc is None:
            response.feed(b"", True)
            return
        if response.status:
            error = UpstreamCut(f"Upstream {name!r} closed the connection in the middle of its answer.")
        else:
            error = UpstreamUnreachable(f"Upstream {name!r} closed the connection before it answered.")
        error.__cause__ = exc
        error.sent = True
        response.fail(error)

    def _discard(self) -> None:
        self._response = None
        self._end(None)
        self._transport.abort()

    def _end(self, exc: Exception | None) -> None:
        self._closed = True
        self.resume_writing()
        if self._pump is not None:
            self._pump.cancel()
            self._pump = None
        self._pool.lost(self)

    # What the answer's reader and the pool's clock call.

    def pause(self) -> None:
        if self._reading and not self._transport.is_closing():
            self._reading = False
            self._transport.pause_reading()

    def resume(self) -> None:
        if not self._reading:
            self._reading = True
            self._silence = 0
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def drop(self, response: Response) -> None:
        if self._response is response:
            self._discard()

    def close(self) -> None:
        """Close an idle connection politely."""
        self._closed = True
        self._pool.lost(self)
        self._transport.close()

    def abort(self) -> None:
        """Close at once; an answer under way is cut."""
        self._lost(ConnectionAbortedError())
        self._transport.abort()

    def tick(self) -> None:
        """Called at the pool's coarse beat, so that no chunk needs a timer of its own or a look at the clock."""
        self._silence += 1
        pool = self._pool
        if self._response is None:
            if self._silence > pool.keep_alive_ticks:
                self.close()
        elif self._awaits_client or not self._reading:
            self._silence = 0  # it is not the upstream who is silent
        elif self._mode == _HEAD:
            if self._silence > pool.first_byte_ticks:
                self._fail(UpstreamTimeout(f"Upstream {pool.name!r} did not answer in time."))
        elif self._silence > pool.idle_ticks:
            self._fail(UpstreamTimeout(f"Upstream {pool.name!r} fell silent in the middle of its answer."))


def _size(fields: list[tuple[bytes, bytes]]) -> int:
    """Bytes of header fields on the wire."""
    return sum(len(name) + len(value) + 4 for name, value in fields)
