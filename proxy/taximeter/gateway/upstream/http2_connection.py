"""One HTTP/2 connection to an upstream (RFC 9113): many requests at a time, on `h2`, which reads and makes the frames.

A GOAWAY ends no stream that runs (`goaway`). Knows nothing of providers, nor which requests go where (`http2`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from time import monotonic
from typing import Protocol, cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import NoAvailableStreamIDError, TooManyStreamsError
from h2.settings import SettingCodes, Settings

from taximeter.core.errors import (
    BadRequest,
    UpstreamError,
    UpstreamGarbage,
    UpstreamTimeout,
)
from taximeter.gateway.upstream.framing import HEAD_BYTES, INTERIM_HEADS
from taximeter.gateway.upstream.goaway import Frames, Goaway
from taximeter.gateway.upstream.http2_answers import ERRORS, Headers, of_breach, of_end, of_goaway, of_reset, read_head
from taximeter.gateway.upstream.http2_stream import WINDOW_BYTES, NotProcessed, Stream
from taximeter.gateway.upstream.response import Response
from taximeter.gateway.upstream.terms import Terms

MOST_STREAMS = 1_000
"""On one connection, whatever the upstream allows."""
CONNECTION_BYTES = 64 * 1024 * 1024
"""What may be on its way on a connection: each stream has a bound of its own, so no slow reader holds up another."""
ACKNOWLEDGED_BYTES = 1024 * 1024
"""The upstream is told after so many bytes that it may send as many again."""


class Keeper(Protocol):
    """Who has made a connection, as it sees them."""

    def freed(self) -> None:
        """There is room for one stream more."""

    def changed(self) -> None:
        """There may be room for more than one, or for none; or a connection has ended, or takes no new stream."""


class Http2Connection(asyncio.Protocol):
    """`open` while it is `free`. `ready` is done when the upstream's SETTINGS have come, so it speaks HTTP/2 indeed."""

    _transport: asyncio.Transport

    def __init__(self, keeper: Keeper, terms: Terms) -> None:
        self._keeper = keeper
        self._terms = terms
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None, validate_inbound_headers=False))
        self._frames = Frames()
        self.streams: dict[int, Stream] = {}
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.negotiated = True
        """False: TLS says that something else is spoken, HTTP/1.1."""
        self.retired = False
        """It takes no new stream; those that run go on."""
        self.closed = False
        self._full = False
        """It has refused a stream though it allows more, until something changes."""
        self._said: Goaway | None = None
        self._paused = False
        self._silence = 0
        self._unacknowledged_bytes = 0
        self._idle_since = monotonic()

    # Carrying requests.

    @property
    def free(self) -> bool:
        """Whether a stream may be opened."""
        most = min(MOST_STREAMS, self._h2.remote_settings.max_concurrent_streams)
        return (
            self.ready.done()
            and not (self.retired or self.closed or self._full or self._transport.is_closing())
            and len(self.streams) < most
        )

    def open(self, fields: Headers, body: bytes | AsyncIterator[bytes], length: int | None) -> Response:
        """Send a request; then wait for `response.head()`. Raises BadRequest; NotProcessed, as `head` does too."""
        whole = isinstance(body, bytes)
        try:
            stream_id = self._h2.get_next_available_stream_id()
            self._h2.send_headers(stream_id, fields, end_stream=whole and not body)
        except (NoAvailableStreamIDError, TooManyStreamsError):
            self.retire()
            raise NotProcessed(f"A connection to upstream {self._terms.name!r} takes no further request.") from None
        except ERRORS as error:
            self.retire()  # what its compression remembers may not be what the upstream does
            raise BadRequest("The request cannot be relayed: it is not valid HTTP/2.") from error
        stream = self.streams[stream_id] = Stream(self, stream_id)
        if not isinstance(body, bytes):
            stream.upload(body, length)
        elif body:
            rest = memoryview(body)
            while rest and (room := self.room(stream_id)) > 0:
                self._h2.send_data(stream_id, bytes(rest[:room]), end_stream=room >= len(rest))
                rest = rest[room:]
            if rest:
                stream.go_on(bytes(rest))
        self._flush()
        return stream.response

    def retire(self) -> None:
        """No new streams; the connection is closed behind the last."""
        if not self.retired:
            self.retired = True
            self._keeper.changed()
        if not self.streams:
            self.close()

    def abort(self) -> None:
        """Close it without a word: it is not HTTP/2 that is spoken."""
        self._lost(ConnectionAbortedError())
        self._transport.abort()

    def close(self) -> None:
        """Close it; answers under way are cut."""
        if not self.closed:
            self._lost(ConnectionAbortedError())
            self._h2.close_connection()
            self._flush()
            self._terms.then(self._hang_up, b"")

    def _hang_up(self, _: bytes) -> None:
        self._transport.close()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self.negotiated = False
            return
        settings = {
            SettingCodes.ENABLE_PUSH: 0,
            SettingCodes.INITIAL_WINDOW_SIZE: WINDOW_BYTES,
            SettingCodes.MAX_HEADER_LIST_SIZE: HEAD_BYTES,
        }
        self._h2.local_settings = Settings(client=True, initial_values=settings)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(CONNECTION_BYTES)
        self._flush()

    def data_received(self, data: bytes) -> None:
        if self.closed or not self.negotiated:
            return
        self._silence = 0
        frames, goodbyes = self._frames.feed(data)
        touched: dict[Stream, None] = {}
        breach = self._read(frames, touched) or self._frames.breach
        for stream in touched:
            self._deliver(stream)
        for each in goodbyes:  # now: what has been answered is not sent again, whatever a goodbye says of it
            self._goodbye(each)
        if breach is not None:
            self._broken(breach)
        self._flush()

    def _read(self, frames: list[bytes], touched: dict[Stream, None]) -> Exception | None:
        """Frame by frame, so that what came before a breach of the protocol is not lost with it: returns that."""
        try:
            for frame in frames:
                for event in self._h2.receive_data(frame):
                    self._on(event, touched)
        except ERRORS as error:
            return error
        return None

    def eof_received(self) -> bool:
        self._lost(None)
        self._transport.abort()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(exc)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._room_for_all()

    # From events to answers.

    def _on(self, event: Event, touched: dict[Stream, None]) -> None:
        if isinstance(event, RemoteSettingsChanged):
            self._full = False
            if not self.ready.done():
                self.ready.set_result(None)
            self._room_for_all()
            self._keeper.changed()
        elif isinstance(event, WindowUpdated) and not event.stream_id:
            self._room_for_all()
        stream = self.streams.get(getattr(event, "stream_id", None) or 0)
        if isinstance(event, DataReceived):
            self._acknowledge(event.flow_controlled_length)
        if stream is None:
            return
        if isinstance(event, DataReceived):
            stream.unacknowledged_bytes += event.flow_controlled_length
            stream.gather(event.data)
            touched[stream] = None
        elif isinstance(event, ResponseReceived):
            self._head(stream, event.headers, touched)
        elif isinstance(event, StreamEnded):
            stream.over = True
            touched[stream] = None
        elif isinstance(event, StreamReset):
            self._reset(stream, event)
        elif isinstance(event, WindowUpdated):
            stream.has_room()
        elif isinstance(event, InformationalResponseReceived):
            stream.silence = 0
            stream.interim += 1
            if stream.interim > INTERIM_HEADS:
                self._garbage(stream, "too many interim answers")

    def _head(self, stream: Stream, fields: Headers, touched: dict[Stream, None]) -> None:
        head = read_head(fields)
        if isinstance(head, str):
            self._garbage(stream, head)
            return
        stream.left_bytes = head.length
        stream.response.headers, stream.response.status = head.headers, head.status
        touched[stream] = None

    def _deliver(self, stream: Stream) -> None:
        stream.deliver()
        if stream.over and self.streams.pop(stream.id, None) is not None:
            if stream.stop():  # it has been answered; the rest of its body is not wanted
                self._h2_reset(stream.id, ErrorCodes.NO_ERROR)
            self._ended()

    def _reset(self, stream: Stream, event: StreamReset) -> None:
        del self.streams[stream.id]
        answered = bool(stream.response.status)
        if answered:
            stream.deliver()
        error = of_reset(self._terms.name, event.error_code, answered=answered)
        self._full = isinstance(error, NotProcessed)
        if self._full and not self.streams:
            self.retired = True
        self._fail(stream, error)
        self._ended(full=self._full)

    def _goodbye(self, goaway: Goaway) -> None:
        self._said = goaway
        if not self.retired:
            self.retired = True
            self._keeper.changed()
        for stream in [each for stream_id, each in self.streams.items() if stream_id > goaway.last_stream_id]:
            del self.streams[stream.id]
            answered = bool(stream.response.status)
            name = self._terms.name
            self._fail(stream, of_end(name, goaway, answered=True) if answered else of_goaway(name))
        if not self.streams:
            self.close()

    def _ended(self, *, full: bool = False) -> None:
        """A stream has."""
        self._full = full
        self._idle_since = monotonic()
        if self.retired and not self.streams:
            self.close()
        else:
            self._keeper.freed()

    def _fail(self, stream: Stream, error: Exception) -> None:
        stream.stop()
        if isinstance(error, UpstreamError):
            error.sent = not isinstance(error, NotProcessed)
        stream.response.fail(error)

    def _garbage(self, stream: Stream, why: str) -> None:
        what = f"Upstream {self._terms.name!r} answered something that is not safe HTTP: {why}."
        self.give_up(stream, UpstreamGarbage(what))

    def _broken(self, error: Exception) -> None:
        """The upstream does not keep to the protocol."""
        self._flush()  # says so
        self._end(lambda _: of_breach(self._terms.name, error))
        self._terms.then(self._hang_up, b"")

    def _lost(self, exc: Exception | None) -> None:
        """The connection has ended."""

        def error(stream: Stream | None) -> UpstreamError:
            answered = stream is not None and bool(stream.response.status)
            found = of_end(self._terms.name, self._said, answered=answered)
            found.__cause__ = exc
            return found

        self._end(error)

    def _end(self, error: Callable[[Stream | None], UpstreamError]) -> None:
        """`error(stream)`: what the stream's reader is told; of None: who waited for the connection."""
        if self.closed:
            return
        self.closed = self.retired = True
        streams = list(self.streams.values())
        self.streams.clear()
        if not self.ready.done():
            self.ready.set_exception(error(None))
            self.ready.exception()  # seen, should nobody wait for it any more
        self._keeper.changed()
        for stream in streams:
            self._fail(stream, error(stream))

    # What streams call.

    def room(self, stream_id: int) -> int:
        if self._paused:
            return 0
        return min(self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size)

    def send(self, stream_id: int, data: bytes, *, last: bool) -> None:
        self._h2.send_data(stream_id, data, end_stream=last)
        self._flush()

    def take_more(self, stream_id: int, size: int) -> None:
        if stream_id in self.streams:
            self._h2.increment_flow_control_window(size, stream_id)
            self._flush()

    def give_up(self, stream: Stream, error: Exception | None) -> None:
        if self.streams.pop(stream.id, None) is None:
            return
        stream.stop()
        self._h2_reset(stream.id, ErrorCodes.CANCEL)
        self._flush()
        if error is not None:
            self._fail(stream, error)
        self._ended()

    def _acknowledge(self, size: int) -> None:
        self._unacknowledged_bytes += size
        if self._unacknowledged_bytes >= ACKNOWLEDGED_BYTES:
            self._h2.increment_flow_control_window(self._unacknowledged_bytes)
            self._unacknowledged_bytes = 0

    def _h2_reset(self, stream_id: int, code: ErrorCodes) -> None:
        if not self.closed:
            self._h2.reset_stream(stream_id, code)

    def _room_for_all(self) -> None:
        for stream in tuple(self.streams.values()):
            stream.has_room()

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data:
            self._terms.then(self._write, data)

    def _write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    # What the clock calls.

    def tick(self) -> None:
        """At the coarse beat of who keeps it."""
        self._silence += 1
        terms = self._terms
        for stream in tuple(self.streams.values()):
            stream.silence = stream.silence + 1 if stream.waits_for_upstream() else 0
            begun = bool(stream.response.status)
            if stream.silence > (terms.idle_ticks if begun else terms.first_byte_ticks):
                what = "fell silent in the middle of its answer" if begun else "did not answer in time"
                dead = self._silence >= stream.silence  # nor did anything else come
                self.give_up(stream, UpstreamTimeout(f"Upstream {terms.name!r} {what}."))
                if dead:
                    self.retire()
        idle = self.ready.done() and not self.streams and not self.closed
        if idle and monotonic() >= self._idle_since + terms.keep_alive_s:
            self.close()
