"""The two ends of a WebSocket, as one who handles a message or a transport sees the session between them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from taximeter.core.record import Outcome


class Ends(Protocol):
    """The session, as this side of it sees it."""

    def send(self, data: bytes) -> None:
        """To the upstream."""

    def say(self, payload: bytes) -> None:
        """To the client, as a message of ours."""

    def wait(self, until: Coroutine[None, None, None]) -> None:
        """Read nothing of the client until this is done."""

    def stop(self, code: int, outcome: Outcome) -> None:
        """End it."""

    def stop_if_spent(self) -> None:
        """End it where nothing more may be asked for."""


class HasUpstream(Protocol):
    """A session, as the transport to its upstream sees it."""

    def from_upstream(self, data: bytes) -> None:
        """This has come."""

    def upstream_is_slow(self, *, slow: bool) -> None:
        """It reads more slowly than it is written to, or does so no more."""

    def upstream_lost(self) -> None:
        """It has closed, or is gone."""


class UpstreamEnd(asyncio.Protocol):
    """The upstream's end of a session."""

    __slots__ = ("_session", "transport")

    def __init__(self, session: HasUpstream, transport: asyncio.Transport) -> None:
        self._session = session
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._session.from_upstream(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._session.upstream_lost()

    def pause_writing(self) -> None:
        self._session.upstream_is_slow(slow=True)

    def resume_writing(self) -> None:
        self._session.upstream_is_slow(slow=False)

    def write(self, data: bytes) -> None:
        """To the upstream, if it is still there."""
        if not self.transport.is_closing():
            self.transport.write(data)
