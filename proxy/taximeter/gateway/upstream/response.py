"""An upstream's answer on its way to the client: status, headers, and a bounded buffer between producer and reader.

Knows nothing of sockets or HTTP syntax. The producer (`wire`, `httpx_upstream`) calls `feed` and `fail`;
the gateway either pulls with `read()` or has the bytes pushed to it with `pipe()`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from taximeter.gateway.inline import Signal

HIGH_BYTES = 256 * 1024
"""Held for a reader that does not keep up; one read of a socket gives at most this much more."""


class Source(Protocol):
    """Where an answer's bytes come from."""

    def pause(self) -> None:
        """Stop reading from the upstream."""

    def resume(self) -> None:
        """Read again."""

    def drop(self, response: Response) -> None:
        """Nobody wants the rest of this answer. The connection must not serve another one."""


class Response(Signal):
    """One answer. `headers`: lower-case names, hop-by-hop ones gone, `content-length` rebuilt: ready to be relayed.

    Pull: `await read()` until it returns b"". Push: `pipe()`. Not both. Whoever has a Response ends it: by reading
    it to its end, or with `abort()` (which is harmless after the end).
    """

    __slots__ = (
        "_chunks", "_ended", "_error", "_held_bytes", "_on_data", "_on_end", "_paused", "_source", "headers",
        "status",
    )  # fmt: skip

    def __init__(self, source: Source) -> None:
        self._waiter = None
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._source: Source | None = source
        self._chunks: list[bytes] = []
        self._held_bytes = 0
        self._ended = False
        self._paused = False
        self._error: Exception | None = None
        self._on_data: Callable[[bytes], bool] | None = None
        self._on_end: Callable[[Exception | None], None] | None = None

    # The gateway's side.

    async def read(self) -> bytes:
        """All bytes that have arrived, waiting only when there are none; b"" at the end of a complete body.

        Raises UpstreamCut, UpstreamTimeout or UpstreamGarbage when the body ended early, after what came before it
        has been read.
        """
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._ended:
                return b""
            await self.wait()
        return self.take()

    def take(self) -> bytes:
        """What has arrived and is not yet read, without waiting; b"" when there is nothing."""
        chunks = self._chunks
        if not chunks:
            return b""
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._held_bytes = 0
        if self._paused:
            self._paused = False
            if self._source is not None:
                self._source.resume()
        return data

    def at_end(self) -> bool:
        """Whether the body is complete and all of it has been read (in `pipe`: handed to `on_data`)."""
        return self._ended and not self._chunks

    def pipe(self, on_data: Callable[[bytes], bool], on_end: Callable[[Exception | None], None]) -> None:
        """Push instead of pull: no task switch between the socket and the gateway.

        `on_data(data)` is called in the loop turn in which the bytes arrived, once for all frames that came
        together, and at once for what is already here. During the call with the last bytes `at_end()` is already
        true if the end came with them. It returns False to be left alone until `resume()`; at most one more read
        of the socket is held meanwhile. `on_end(None)` follows a complete body, `on_end(error)` one that ended
        early (the errors `read` raises); exactly one of them, once, unless `abort()` comes first. Neither may raise.
        """
        self._on_data = on_data
        self._on_end = on_end
        if self._paused:
            self.resume()
        elif self._chunks or self._ended or self._error is not None:
            self._push()

    def resume(self) -> None:
        """After `on_data` returned False (never from inside it): hand on what is held, and read again."""
        if self._paused:
            self._paused = False
            self._push()
            if not self._paused and self._source is not None:
                self._source.resume()

    def abort(self) -> None:
        """Give up the rest; the connection is dropped unless the answer is complete already."""
        self._on_data = self._on_end = None
        self._error = None  # once raised, its traceback holds this
        source, self._source = self._source, None
        if source is not None:
            source.drop(self)

    async def close(self) -> None:
        """The same as `abort`, for those who close what they opened."""
        self.abort()

    # The producer's side.

    async def head(self) -> Response:
        """Wait until status and headers are here. Raises what `fail` was given; whatever it raises, it has aborted."""
        try:
            while not self.status:
                if self._error is not None:
                    raise self._error
                await self.wait()
        except BaseException:
            self.abort()
            raise
        return self

    def wake(self) -> None:
        """The head has arrived."""
        self.fire()

    def feed(self, data: bytes, last: bool) -> None:
        """Bytes of the body; `last`: the body is complete with them."""
        if last:
            self._ended = True
            self._source = None
        on_data = self._on_data
        if on_data is None or self._paused:
            if data:
                self._chunks.append(data)
                self._held_bytes += len(data)
                if self._held_bytes > HIGH_BYTES:
                    self._pause()
            self.fire()
            return
        try:
            if data and not on_data(data) and not last:
                self._pause()
        finally:
            if last:
                self._tell_end(None)

    def fail(self, error: Exception) -> None:
        """The answer ended early; what was fed before can still be read."""
        if self._ended or self._error is not None:
            return
        self._error = error
        self._source = None
        if not self._paused:
            self._tell_end(error)
        self.fire()

    def _pause(self) -> None:
        if not self._paused and self._source is not None:
            self._paused = True
            self._source.pause()

    def _push(self) -> None:
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._held_bytes = 0
        if data and self._on_data is not None and not self._on_data(data) and self._source is not None:
            self._paused = True
            self._source.pause()
        elif self._ended or self._error is not None:
            self._tell_end(self._error)

    def _tell_end(self, error: Exception | None) -> None:
        """Once; the reader is let go of, as it holds this."""
        on_end = self._on_end
        self._on_data = self._on_end = None
        if on_end is not None:
            on_end(error)
