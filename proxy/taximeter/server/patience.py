"""How long a client may take over a request's body that did not come with its head: a lazy timer, which is not touched
by what comes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from taximeter.core.errors import ClientIdle, RequestTimeout
from taximeter.server.client import LOOKS

if TYPE_CHECKING:
    from taximeter.config import LimitSettings
    from taximeter.server.client import Client
    from taximeter.server.exchange import Exchange


class Sender(Protocol):
    """A connection, as a body's clock sees it."""

    client: Client
    body_bytes: int
    """Of bodies, read so far."""

    def leave(self) -> None:
        """No request under way will be completed."""


class Patience:
    """Of one connection."""

    __slots__ = (
        "_exchange", "_limits", "_loop", "_mark_bytes", "_seen_bytes", "_sender", "idle_at", "late_at", "timer",
    )  # fmt: skip

    def __init__(self, sender: Sender, limits: LimitSettings) -> None:
        self._sender = sender
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self.timer: asyncio.TimerHandle | None = None

    def begin(self, exchange: Exchange) -> None:
        """From now on the client has `limits.body_timeout_s` for the next `limits.body_min_bytes` of its body, and
        `limits.client_idle_s` for any of it."""
        now = self._loop.time()
        self._exchange = exchange
        self._mark_bytes = self._seen_bytes = self._sender.body_bytes
        self.late_at = now + self._limits.body_timeout_s
        self.idle_at = now + self._limits.client_idle_s
        if self.timer is None:
            self._look_later(now)

    def end(self) -> None:
        """The connection has ended."""
        if self.timer is not None:
            self.timer.cancel()

    def _look_later(self, now: float) -> None:
        self.timer = self._loop.call_at(min(self.late_at, now + self._limits.client_idle_s / LOOKS), self._look)

    def _look(self) -> None:
        self.timer = None
        exchange, limits, now = self._exchange, self._limits, self._loop.time()
        if exchange.complete:
            return
        read_bytes = self._sender.body_bytes
        if read_bytes != self._seen_bytes:
            self._seen_bytes = read_bytes
            self.idle_at = now + limits.client_idle_s
        if self._sender.client.reading_paused or exchange.awaits_continue:
            self.begin(exchange)  # it is us who do not read, or have not asked for it
        elif now >= self.idle_at:
            self._give_up(ClientIdle(f"Nothing of the request's body came in {limits.client_idle_s:g} s."))
        elif now < self.late_at:
            self._look_later(now)
        elif read_bytes - self._mark_bytes >= limits.body_min_bytes:
            self.begin(exchange)
        else:
            said = f"Less than {limits.body_min_bytes} bytes of the request's body came in {limits.body_timeout_s:g} s."
            self._give_up(RequestTimeout(said))

    def _give_up(self, error: RequestTimeout) -> None:
        """The rest of a body is not waited for."""
        client = self._sender.client
        client.idle = True
        if self._exchange.response_started:  # answered before it was read, as where its key is unknown
            self._sender.leave()
            client.then(client.close, b"")
        else:
            self._exchange.refuse(error)
