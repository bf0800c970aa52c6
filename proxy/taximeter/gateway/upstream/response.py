"""An upstream's answer on its way to the client: status, headers, and a bounded buffer between producer and reader.

Knows nothing of sockets or HTTP syntax. The producer (`wire`, `httpx_client`) calls `wake`, `feed` and `fail`; the
gateway has the bytes pushed to it with `pipe()`, or pulls the few it wants to look at first with `read()`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from taximeter.server.inline import Signal

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


class Response:
    """One answer. `headers`: lower-case names, hop-by-hop ones gone, `content-length` rebuilt: ready to be relayed.

    Whoever has a Response ends it: by taking it to its end, or with `abort()` (which is harmless after the end).
    """

    __slots__ = (
        "_chunks", "_error", "_held_bytes", "_news", "_on_data", "_paused", "_source", "ended", "headers", "status",
    )  # fmt: skip

    def __init__(self, source: Source) -> None:
        self._news = Signal()
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.ended = False
        """The body is complete; what of it was not taken yet is held."""
        self._source: Source | None = source
        self._chunks: list[bytes] = []
        self._held_bytes = 0
        self._paused = False
        self._error: Exception | None = None
        self._on_data: Callable[[bytes], bool] | None = None

    # The gateway's side.

    async def pipe(self, on_data: Callable[[bytes], bool]) -> bool:
        """Have the body pushed: no switch of coroutines between the socket and the gateway. True at its end.

        `on_data(data)` is called in the loop turn in which the bytes arrived, once for all frames that came together,
        and at once for what is already here. During the call with the last bytes `ended` is already true if the end
        came with them. Where it returns False before the end, it is left alone and this returns False; at most one
        more read of the socket is held until the next `pipe`.

        Raises what `on_data` raises; UpstreamCut, UpstreamTimeout or UpstreamGarbage when the body ended early, after
        what came before it has been handed on.
        """
        data = self.take()
        if data and not on_data(data) and not self.ended:
            self._pause()
            return False
        self._on_data = on_data
        try:
            while not self.ended:
                if self._error is not None:
                    raise self._error
                await self._news.wait()
                if self._on_data is None and self._error is None:
                    return self.ended
        finally:
            self._on_data = None
        return True

    async def read(self) -> bytes:
        """All bytes that have arrived, waiting only when there are none; b"" at the end of a complete body.

        Raises what `pipe` raises when the body ended early, after what came before it has been read.
        """
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self.ended:
                return b""
            await self._news.wait()
        return self.take()

    def take(self) -> bytes:
        """What has arrived and is not yet read, without waiting; b"" when there is nothing."""
        chunks = self._chunks
        data = b"" if not chunks else chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._held_bytes = 0
        if self._paused:
            self._paused = False
            if self._source is not None:
                self._source.resume()
        return data

    def abort(self) -> None:
        """Give up the rest; the connection is dropped unless the answer is complete already."""
        self._on_data = None
        self._error = None  # once raised, its traceback holds this
        source, self._source = self._source, None
        if source is not None:
            source.drop(self)

    # The producer's side.

    async def head(self) -> Response:
        """Wait until status and headers are here. Raises what `fail` was given; whatever it raises, it has aborted."""
        try:
            while not self.status:
                if self._error is not None:
                    raise self._error
                await self._news.wait()
        except BaseException:
            self.abort()
            raise
        return self

    def wake(self) -> None:
        """The head has arrived."""
        self._news.fire()

    def feed(self, data: bytes, last: bool) -> None:
        """Bytes of the body; `last`: the body is complete with them."""
        if last:
            self.ended = True
            self._source = None
        on_data = self._on_data
        if on_data is None:
            if data:
                self._chunks.append(data)
                self._held_bytes += len(data)
                if self._held_bytes > HIGH_BYTES:
                    self._pause()
        elif data:
            try:
                if on_data(data) and not last:
                    return
                self._on_data = None
                self._pause()
            except Exception as error:  # told to whoever awaits `pipe`; the upstream's protocol must not see it
                self._on_data = None
                self._error = error
        self._news.fire()

    def fail(self, error: Exception) -> None:
        """The answer ended early; what was fed before can still be read."""
        if self.ended or self._error is not None:
            return
        self._error = error
        self._source = None
        self._news.fire()

    def _pause(self) -> None:
        if not self._paused and self._source is not None:
            self._paused = True
            self._source.pause()
