"""Calls of pages in browsers, and calls by a Host not seen before: whether they pass, and what pages may read."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from taximeter.core import origins
from taximeter.gateway.metering.call import new_request_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taximeter.core.hosts import Hosts
    from taximeter.server.exchange import Exchange


class Pages:
    """Of one worker. `listed`: the origins of `cors.allowed_origins`, to which we ourselves answer as CORS wants it.

    Other accepted ones (this host, loopback, `control.allowed_hosts`) get the upstream's own CORS headers.
    """

    def __init__(self, hosts: Hosts, listed: Sequence[str]) -> None:
        self._hosts = hosts
        self._listed = origins.Origins(listed)

    def admit(self, exchange: Exchange, head: dict[bytes, bytes], started_us: int) -> bool:
        """Whether a request goes on; False: it was a preflight, and is answered. Raises BadRequest, Forbidden."""
        origin = head.get(origins.ORIGIN)
        if origin is None or origin not in self._listed:
            self._hosts.check(head.get(b"host"), origin)
            if origin is not None:
                exchange.dress = partial(origins.readable_if_ours, origin)
            return True
        self._hosts.check(head.get(b"host"))
        if exchange.method == b"OPTIONS" and origins.is_preflight(head):
            named = (b"x-taximeter-request-id", new_request_id(started_us).encode())
            exchange.answer(204, [*origins.permission(head), named], b"")
            return False
        exchange.dress = partial(origins.readable, origin)
        exchange.say_instead([field for field in exchange.headers if field[0] != origins.ORIGIN])
        return True
