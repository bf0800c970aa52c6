"""One HTTP/1.1 connection to an upstream: requests out, answers in, and when it may carry the next one (DESIGN §2.3).

Knows the syntax of answers through `framing`; nothing of providers or metering, nor which requests go where (`pool`).
"""

from __future__ import annotations

import asyncio
import math
import select
import socket
from collections.abc import AsyncIterator
from time import monotonic
from typing import Protocol, cast

from taximeter.core.errors import (
    UpstreamCut,
    UpstreamError,
    UpstreamGarbage,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from taximeter.gateway.upstream.framing import CHUNKED, HEAD, UNTIL_CLOSE, ResponseFraming
from taximeter.gateway.upstream.idleness import before
from taximeter.gateway.upstream.response import Response
from taximeter.gateway.upstream.terms import Terms
from taximeter.gateway.upstream.upload import Upload

WHOLE_BYTES = 64 * 1024
"""Head and body up to this go out in one write: copying them together is cheaper than a second system call."""


class Keeper(Protocol):
    """Who has made a connection, as it sees them."""

    def release(self, connection: WireConnection) -> None:
        """Its answer is complete and clean: it may carry another request."""

    def lost(self, connection: WireConnection) -> None:
        """It has ended; may be called more than once."""

    def closed_idle(self, idle_s: float) -> None:
        """Its upstream has closed it after it had been idle for so long, or under the request that followed."""


class WireConnection(asyncio.Protocol):
    """One connection; one answer at a time."""

    __slots__ = (
        "_closed", "_framing", "_good_until", "_idle_since", "_keeper", "_poller", "_reading", "_response", "_silence",
        "_terms", "_transport", "_upload",
    )  # fmt: skip

    _transport: asyncio.Transport
    _poller: select.poll

    def __init__(self, keeper: Keeper, terms: Terms) -> None:
        self._keeper = keeper
        self._terms = terms
        self._framing = ResponseFraming()
        self._good_until = monotonic() + terms.keep_alive_s
        """Until then its upstream may be expected to keep it, if it is idle."""
        self._idle_since = math.inf
        """Since when it is, or was before the request under way; a new one never was."""
        self._response: Response | None = None
        self._upload: Upload | None = None
        """Sends a request's body that is still coming."""
        self._closed = False
        self._reading = True
        self._silence = 0
        """Beats of the pool's clock since something came."""

    # Carrying a request.

    @property
    def closed(self) -> bool:
        return self._closed

    def keep(self, kept_s: float) -> None:
        """While it is idle: to be used for no longer than this since it is."""
        self._good_until = min(self._good_until, self._idle_since + kept_s)

    def usable(self) -> bool:
        """Whether a request may be written: open, kept by the upstream for a while yet, and nothing (bytes nobody asked
        for, a FIN) waits in the kernel."""
        return (
            not self._closed
            and monotonic() < self._good_until
            and not self._transport.is_closing()
            and not self._poller.poll(0)
        )

    def send(self, head: bytes, body: bytes, head_only: bool) -> Response:
        """Send a whole request; then wait for `response.head()`. With it comes all of the body that came with it."""
        self._framing.begin(head_only)
        self._silence = 0
        self._response = response = Response(self)
        if len(body) <= WHOLE_BYTES:
            self._terms.then(self.write, head + body)
        else:
            self._terms.then(self.write, head)
            self._terms.then(self.write, body)
        return response

    def write(self, data: bytes) -> None:
        """To the upstream, if the connection still stands. For `then`."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def send_streamed(self, head: bytes, body: AsyncIterator[bytes], length: int | None, head_only: bool) -> Response:
        """Send a request whose body is still coming (`length` None: chunked). The answer may overtake the body.

        What `body` raises is raised by the response.
        """
        self._upload = Upload(self._transport, body, length, went=self._went_on, failed=self._fail)
        return self.send(head, b"", head_only)

    def _went_on(self) -> None:
        self._silence = 0

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
        framing = self._framing
        mode = framing.mode
        if mode == CHUNKED:
            piece = framing.feed(data)
            if piece and not (framing.complete or framing.wrong or self._upload is not None):
                self._silence = 0
                response.feed(piece, False)
            else:
                self._read(piece, response)
            return
        if mode == HEAD:
            piece = framing.feed(data)
            if framing.status and not framing.wrong:
                response.headers, response.status = framing.headers, framing.status
            self._read(piece, response)
            return
        self._silence = 0
        if mode == UNTIL_CLOSE:
            response.feed(data, False)
            return
        left = framing.body_left = framing.body_left - len(data)
        if left > 0:
            response.feed(data, False)
        else:
            framing.skip_body()
            self._finish(response, data[:left] if left else data, left == 0)

    def eof_received(self) -> bool:
        self._lost(None)
        self._transport.abort()  # close() would first wait until an unread request body has been flushed
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(exc)
        self._framing.end()

    def pause_writing(self) -> None:
        if self._upload is not None:
            self._upload.pause()

    def resume_writing(self) -> None:
        if self._upload is not None:
            self._upload.resume()

    # From bytes to the answer.

    def _read(self, piece: bytes, response: Response) -> None:
        """What came of a head, or of chunks that are not just some more. What follows the end is never an answer."""
        framing = self._framing
        if framing.wrong:
            if piece:
                response.feed(piece, False)
            what = f"Upstream {self._terms.name!r} answered something that is not safe HTTP: {framing.wrong}."
            self._fail(UpstreamGarbage(what))
        elif framing.complete:
            self._finish(response, piece, framing.clean)
        elif framing.mode != HEAD:
            self._silence = 0
            if self._upload is not None and framing.status >= 300:
                self._upload.stop()  # it has been answered; a success may still want the rest of the body
            if piece:
                response.feed(piece, False)
            else:
                response.wake()

    def _finish(self, response: Response, piece: bytes, clean: bool) -> None:
        """The answer is complete. The connection goes back only if it is clean and the request was fully sent."""
        self._response = None
        upload, self._upload = self._upload, None
        if upload is not None and not upload.complete:
            upload.stop()
            clean = False
        if clean and self._framing.keep_alive and not self._transport.get_write_buffer_size():
            if not self._reading:
                self.resume()
            self._silence = 0
            kept_s, said_s = self._terms.keep_alive_s, self._framing.kept_s
            if said_s is not None:
                kept_s = min(kept_s, before(said_s))
            self._idle_since = now = monotonic()
            self._good_until = now + kept_s
            self._keeper.release(self)
        else:
            self._discard()
        response.feed(piece, True)

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
        name = self._terms.name
        idle_s = monotonic() - self._idle_since
        if idle_s >= 0 and not self._closed and (response is None or not response.status):
            self._keeper.closed_idle(idle_s)
        self._end()
        if response is None:
            return
        error: UpstreamError
        if response.status and self._framing.mode == UNTIL_CLOSE and exc is None:
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
        self._end()
        self._transport.abort()

    def _end(self) -> None:
        self._closed = True
        if self._upload is not None:
            self._upload.stop()
            self._upload = None
        self._keeper.lost(self)

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
        self._keeper.lost(self)
        self._transport.close()

    def abort(self) -> None:
        """Close at once; an answer under way is cut."""
        self._idle_since = math.inf  # it is us who close it
        self._lost(ConnectionAbortedError())
        self._transport.abort()

    def tick(self) -> None:
        """Called at the pool's coarse beat, so that no chunk needs a timer of its own or a look at the clock."""
        self._silence += 1
        terms = self._terms
        if self._response is None:
            if monotonic() >= self._good_until:
                self.close()
        elif not self._reading or (self._upload is not None and self._upload.awaits_client):
            self._silence = 0  # it is not the upstream who is silent
        elif self._framing.mode == HEAD:
            if self._silence > terms.first_byte_ticks:
                self._fail(UpstreamTimeout(f"Upstream {terms.name!r} did not answer in time."))
        elif self._silence > terms.idle_ticks:
            self._fail(UpstreamTimeout(f"Upstream {terms.name!r} fell silent in the middle of its answer."))
