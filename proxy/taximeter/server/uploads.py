"""What bounds request bodies: each has to go on, and together they hold so much memory and no more.

Only a body that does not come with its head is looked at: the usual call needs neither timer nor count.
"""

from __future__ import annotations

from asyncio import TimerHandle
from typing import TYPE_CHECKING, Protocol

from taximeter.core.errors import RequestTimeout

if TYPE_CHECKING:
    import asyncio

    from uvicorn.protocols.http.flow_control import FlowControl

    from taximeter.config import Limits


class Held:
    """What the request bodies of one server's connections hold together."""

    __slots__ = ("now_bytes",)

    def __init__(self) -> None:
        self.now_bytes = 0


class Uploading(Protocol):
    """A connection, as its clock sees it."""

    limits: Limits
    loop: asyncio.AbstractEventLoop
    flow: FlowControl
    body_bytes: int
    """Of bodies, read so far."""

    def awaits_body(self) -> bool:
        """Whether a request has begun whose body has not ended."""

    def body_is_late(self, error: RequestTimeout) -> None:
        """End it."""


class BodyClock:
    """Of one connection. In each span of `body_timeout_s` at least `body_min_bytes` come, or the body ends.

    One lazy timer, which is not touched by what comes.
    """

    __slots__ = ("_connection", "_mark_bytes", "_span_ends", "_timer")

    def __init__(self, connection: Uploading) -> None:
        self._connection = connection
        self._timer: TimerHandle | None = None
        self.begin_span()

    def begin_span(self) -> None:
        """From now on the client has `body_timeout_s` for the next `body_min_bytes`."""
        connection = self._connection
        timeout_s = connection.limits.body_timeout_s
        self._mark_bytes = connection.body_bytes
        self._span_ends = connection.loop.time() + timeout_s
        if self._timer is None:
            self._timer = connection.loop.call_later(timeout_s, self._look)

    def stop(self) -> None:
        """The connection has ended."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        connection = self._connection
        if not connection.awaits_body():
            return
        limits = connection.limits
        left_s = self._span_ends - connection.loop.time()
        if left_s > 0:
            self._timer = connection.loop.call_later(left_s, self._look)
        elif connection.flow.read_paused or connection.body_bytes - self._mark_bytes >= limits.body_min_bytes:
            self.begin_span()  # it is us who do not read, or the client goes on
        else:
            said = f"Less than {limits.body_min_bytes} bytes of the request's body came in {limits.body_timeout_s:g} s."
            connection.body_is_late(RequestTimeout(said))
