"""A request's body that is still coming, on its way to an upstream: never far ahead of what the socket takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from taximeter.core.errors import BadRequest


class Upload:
    """One body. It begins in the loop's next turn, behind the head."""

    __slots__ = ("_failed", "_length", "_stopped", "_task", "_transport", "_went", "_writable", "awaits_client")

    def __init__(
        self,
        transport: asyncio.Transport,
        body: AsyncIterator[bytes],
        length: int | None,
        *,
        went: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """`length` None: chunked. `went()`: a piece has been written. `failed(error)`: what `body` has raised, or
        BadRequest where it is not as long as it should be."""
        self._transport = transport
        self._length = length
        self._went = went
        self._failed = failed
        self._writable: asyncio.Future[None] | None = None
        """Set while the transport wants no more bytes."""
        self._stopped = False
        self.awaits_client = True
        """It is not the upstream who is silent."""
        self._task: asyncio.Task[None] | None = asyncio.get_running_loop().create_task(self._send(body))

    @property
    def complete(self) -> bool:
        """All of it has been written."""
        return self._task is not None and self._task.done() and not self._task.cancelled()

    def stop(self) -> None:
        """The rest is not wanted."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()

    def pause(self) -> None:
        """The transport wants no more bytes."""
        self._writable = asyncio.get_running_loop().create_future()

    def resume(self) -> None:
        """It takes some again."""
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    async def _send(self, body: AsyncIterator[bytes]) -> None:
        """Write the body piece by piece, never more than the transport's high-water mark ahead."""
        length = left = self._length
        try:
            async for piece in body:
                if self._stopped:
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
            if left is None and not self._stopped:
                self._transport.write(b"0\r\n\r\n")
        except Exception as error:
            self._task = None
            self._failed(error)
        finally:
            self.awaits_client = False

    async def _drain(self) -> None:
        self._went()
        if self._writable is not None and not self._stopped:
            self.awaits_client = False
            await self._writable
            self.awaits_client = True


def length_of(headers: list[tuple[bytes, bytes]]) -> int | None:
    """The client's content-length, which its server has checked to be one number."""
    for name, value in headers:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return None
