"""The addresses of one upstream's host: looked up in a thread of its own, remembered, and renewed behind its callers.

The loop's own resolver is a few threads that all names share: two lookups of a name server that does not answer would
keep the calls to every other upstream waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
from socket import getaddrinfo
from threading import Thread
from time import monotonic
from typing import Any

log = logging.getLogger("taximeter.upstream")

Addresses = list[tuple[Any, ...]]
"""As `socket.getaddrinfo` returns them."""
RETRY_S = 5.0
"""How long after a renewal that failed the next one is begun; the addresses known so far stay in use."""


class Lookup:
    """Of one host. At most one lookup is under way at a time, however many wait for it."""

    def __init__(self, host: str, port: int, lifetime_s: float) -> None:
        """`lifetime_s`: how long addresses are taken for right. After it they are used on while they are renewed."""
        self._host = host
        self._port = port
        self._lifetime_s = lifetime_s
        self._known: Addresses = []
        self._fresh_until = -math.inf
        self._under_way: asyncio.Future[OSError | UnicodeError | None] | None = None
        with contextlib.suppress(OSError, UnicodeError):  # a name
            self._known = getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
            self._fresh_until = math.inf

    async def addresses(self) -> Addresses:
        """Raises OSError or UnicodeError where none are known and the lookup fails."""
        if monotonic() >= self._fresh_until:
            under_way = self._under_way or self._begin()
            if not self._known:
                error = await asyncio.shield(under_way)
                if error is not None:
                    raise error.with_traceback(None)
        return self._known

    def doubt(self) -> None:
        """None of them could be connected to: they may have moved."""
        if self._fresh_until != math.inf:
            self._fresh_until = -math.inf

    def _begin(self) -> asyncio.Future[OSError | UnicodeError | None]:
        loop = asyncio.get_running_loop()
        self._under_way = under_way = loop.create_future()
        # No pool of threads: its threads are joined at exit, and a lookup may take a minute.
        Thread(target=self._ask, args=(loop,), name=f"lookup {self._host}", daemon=True).start()
        return under_way

    def _ask(self, loop: asyncio.AbstractEventLoop) -> None:
        found: Addresses = []
        failure: OSError | UnicodeError | None = None
        try:
            found = getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(self._told, found, failure)

    def _told(self, found: Addresses, failure: OSError | UnicodeError | None) -> None:
        under_way, self._under_way = self._under_way, None
        if failure is None:
            self._known, self._fresh_until = found, monotonic() + self._lifetime_s
        elif self._known:
            self._fresh_until = monotonic() + RETRY_S
            log.warning("%s cannot be looked up anew (%s): its addresses of before are used", self._host, failure)
        if under_way is not None and not under_way.done():
            under_way.set_result(failure)
