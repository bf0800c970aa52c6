"""A response on a WebSocket from its open line to its close line, and what all of one connection have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from taximeter.flavors.meter import Answer

if TYPE_CHECKING:
    from taximeter.core.routes import Route
    from taximeter.flavors.meter import Flavor
    from taximeter.gateway.admission.admission import Admission
    from taximeter.gateway.metering.call import Call
    from taximeter.gateway.metering.metering import Metering
    from taximeter.gateway.restricted import Restrictions
    from taximeter.gateway.tagging import Tagging
    from taximeter.gateway.upstream.upstreams import Upstream
    from taximeter.gateway.websocket.messages import Event
    from taximeter.keys.rule import ProxyKey
    from taximeter.server.exchange import Exchange

AS_EVENTS = Answer(status=200, content_type=b"text/event-stream")
"""Events of a WebSocket are read as those of a stream."""


class Whose(NamedTuple):
    """What all responses of a connection have in common."""

    metering: Metering
    admission: Admission
    restrictions: Restrictions
    tagging: Tagging
    exchange: Exchange
    head: dict[bytes, bytes]
    named: dict[str, str]
    route: Route
    key: ProxyKey | None
    upstream: Upstream
    flavor: Flavor
    model: str | None
    """As the query names it."""


class UnderWay:
    """A response from its open line to its close line."""

    __slots__ = ("begun", "call", "event_id", "id", "over", "stream_id")

    def __init__(self, call: Call, event: Event) -> None:
        self.call = call
        self.id: str | None = None
        """None: asked for, and not begun; or its API has no ids."""
        self.begun = False
        """The server has said something of it (APIs without ids)."""
        self.over = False
        """All was said but what it used."""
        self.event_id = event.event_id
        self.stream_id = event.stream_id

    def learn(self, event: Event) -> None:
        """What the end of a long message has told."""
        self.event_id, self.stream_id = event.event_id, event.stream_id
        if event.model is not None:
            self.call.record.request_model = self.call.prepared.model = event.model


def in_a_line(payload: bytes) -> bytes:
    """JSON without its line breaks, which mean nothing."""
    if b"\n" in payload or b"\r" in payload:
        payload = payload.replace(b"\n", b" ").replace(b"\r", b" ")
    return payload
