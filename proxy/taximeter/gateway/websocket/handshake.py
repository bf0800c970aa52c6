"""A request for a WebSocket, top to bottom: whose it is, where it leads, the upstream's own answer, then the session.

The upgrade uses nothing: it has no record of its own, only what is asked for on the connection has.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from taximeter.core import errors, loops, routes
from taximeter.core.record import Outcome
from taximeter.flavors.generate import LIVE
from taximeter.flavors.responses import REALTIME, RESPONSES
from taximeter.gateway.admission.admission import presented
from taximeter.gateway.ending import refuse
from taximeter.gateway.metering.call import new_request_id
from taximeter.gateway.pages import Pages
from taximeter.gateway.restricted import Restrictions
from taximeter.gateway.tagging import Tagging
from taximeter.gateway.upstream.credentials import PROXY_KEY
from taximeter.gateway.websocket.books import Books
from taximeter.gateway.websocket.live import LiveBooks
from taximeter.gateway.websocket.openai import OpenAIBooks
from taximeter.gateway.websocket.opening import Opening, what_is_wrong
from taximeter.gateway.websocket.session import RESTART, Session
from taximeter.gateway.websocket.under_way import Whose
from taximeter.server.fields import HOP_BY_HOP
from taximeter.server.switching import Switched, switch

if TYPE_CHECKING:
    from taximeter.config import Settings
    from taximeter.flavors.meter import Flavor
    from taximeter.gateway.admission.admission import Admission
    from taximeter.gateway.metering.metering import Metering
    from taximeter.gateway.upstream.upstreams import Upstream, Upstreams
    from taximeter.gateway.websocket.opening import Headers, Opened
    from taximeter.server.exchange import Exchange

log = logging.getLogger("taximeter.gateway")

KEY_PROTOCOLS = (b"openai-insecure-api-key.", b"xai-client-secret.")
"""How a browser, which can set no header, sends its key: as one of the protocols it offers
(https://platform.openai.com/docs/guides/realtime-websocket, https://docs.x.ai/docs/guides/voice)."""
_SPOKEN: tuple[tuple[re.Pattern[bytes], Flavor, type[Books]], ...] = (
    (re.compile(rb"(?i)/realtime$"), REALTIME, OpenAIBooks),  # OpenAI, Azure, xAI
    (re.compile(rb"(?i)/responses$"), RESPONSES, OpenAIBooks),
    (re.compile(rb"(?i)[./]BidiGenerateContent(Constrained)?$"), LIVE, LiveBooks),  # Google AI, Vertex
)
_MODEL_PARAMETERS = ("model", "deployment")
"""Query parameters that name the model: OpenAI's; Azure's."""
_RETRY_AFTER_S = 5
_NOT_SPOKEN = "No WebSocket is served at this path: those of /realtime, /responses and …BidiGenerateContent are."


class WebSockets:
    """What one worker does with each request for a WebSocket."""

    def __init__(self, settings: Settings, *, metering: Metering, upstreams: Upstreams, admission: Admission) -> None:
        self._limits = settings.limits
        self._metering = metering
        self._upstreams = upstreams
        self._admission = admission
        self._pages = Pages(admission.hosts, settings.cors.allowed_origins)
        self._tagging = Tagging(settings)
        self._restrictions = Restrictions(admission, self._tagging, upstreams, settings.limits.json_body_bytes)
        self._opening = Opening(upstreams.mark)
        self.sessions: set[Switched] = set()
        self._asked_for = 0
        """Sessions, and requests for one that an upstream has not answered yet."""

    async def __call__(self, exchange: Exchange) -> None:
        """Until the session has ended."""
        exchange.client.pause_reading()  # what comes next is no HTTP
        if 0 < self._limits.websocket_sessions <= self._asked_for:
            full = errors.Overloaded("So many WebSockets are open as may be here.", retry_after_s=_RETRY_AFTER_S)
            refuse(exchange, full, new_request_id(time.time_ns() // 1000))
            return
        self._asked_for += 1
        try:
            await self._until_ended(exchange)
        finally:
            self._asked_for -= 1

    async def _until_ended(self, exchange: Exchange) -> None:
        request_id = new_request_id(time.time_ns() // 1000)
        try:
            opened, session = await self._open(exchange)
        except errors.RequestError as error:
            refuse(exchange, error, request_id)
            return
        if session is None:
            headers = [each for each in opened.headers if each[0] not in HOP_BY_HOP and each[0] != b"content-length"]
            opened.transport.abort()
            exchange.answer(opened.status, [*headers, (b"content-length", b"%d" % len(opened.body))], opened.body)
            return
        if exchange.left:
            opened.transport.abort()
            return
        theirs = [field for field in opened.headers if field[0] not in HOP_BY_HOP]
        self.sessions.add(session)
        session.begin(switch(exchange, theirs, session), opened.rest, self._limits.websocket_session_s)
        try:
            await session.ended.wait()
        except asyncio.CancelledError:
            session.stop(RESTART, Outcome.INTERRUPTED)
            raise
        finally:
            self.sessions.discard(session)

    async def _open(self, exchange: Exchange) -> tuple[Opened, Session | None]:
        """The upstream's answer, and the session where it is an upgrade. Raises RequestError."""
        offered = _offered(exchange.headers)
        head = dict(exchange.headers)
        _find_key(offered, exchange.query, head)
        self._pages.admit(exchange, head, time.time_ns() // 1000)
        if loops.HEADER in head:
            loops.check(exchange.headers, self._upstreams.mark)
        route = routes.resolve(exchange.path)
        spoken = next((each for each in _SPOKEN if each[0].search(routes.canonical(route.path))), None)
        if spoken is None:
            raise errors.NotFound(_NOT_SPOKEN)
        _, flavor, kept_in = spoken
        if b"sec-websocket-key" not in head:
            raise errors.BadRequest("A request for a WebSocket needs Sec-WebSocket-Key.", param="sec-websocket-key")
        named = self._tagging.named(head)
        key = self._admission.key_of(head)
        model = _model_of(exchange.query)
        upstream = self._upstreams.choose(route.upstream, model, head, route.path)
        if key is not None and key.models and model is not None and not key.allows(model):
            raise errors.Forbidden(f"This key may not call the model {model!r}.", param="model")
        whose = Whose(
            self._metering, self._admission, self._restrictions, self._tagging, exchange, head, named, route, key,
            upstream, flavor, model,
        )  # fmt: skip
        books = kept_in(whose)
        await books.check_room()  # also a bad tag is told before anything is opened
        path = route.path + b"?" + exchange.query if exchange.query_mark else route.path
        headers = [field for field in exchange.headers if field[0] != b"sec-websocket-protocol"]
        opened = await self._opening.ask(upstream, path, headers, _passed_on(offered, upstream))
        if opened.status != 101:
            return opened, None
        wrong = what_is_wrong(opened.headers, head[b"sec-websocket-key"])
        if wrong is not None:
            opened.transport.abort()
            raise errors.UpstreamGarbage(f"The answer of upstream {upstream.name!r} to an upgrade {wrong}.")
        limit_bytes = self._limits.json_body_bytes
        return opened, Session(books, self._metering, exchange.client, opened.transport, limit_bytes)


def _offered(headers: Headers) -> list[bytes]:
    """The protocols a client offers, in its order."""
    values = [value for name, value in headers if name == b"sec-websocket-protocol"]
    return [each for value in values for each in (part.strip(b" \t") for part in value.split(b",")) if each]


def _find_key(offered: list[bytes], query: bytes, head: dict[bytes, bytes]) -> None:
    """The key of a browser, into the head where others have it: from a protocol it offers; or, a proxy key only, from
    `key=` in the query, where Google's clients put theirs (the upstream never sees it)."""
    keys = [each.partition(b".")[2] for each in offered if each.startswith(KEY_PROTOCOLS)]
    if keys and b"authorization" not in head:
        head[b"authorization"] = b"Bearer " + keys[0]
    elif b"key=" + PROXY_KEY in query and presented(head) is None:
        head[b"x-goog-api-key"] = dict(parse_qsl(query.decode("latin-1"))).get("key", "").encode("latin-1", "replace")


def _passed_on(offered: list[bytes], upstream: Upstream) -> list[bytes]:
    """Those that the upstream is offered: a key among them only where it might go on in a header."""
    told = [
        (b"authorization", b"Bearer " + each.partition(b".")[2])
        if each.startswith(KEY_PROTOCOLS)
        else (b"sec-websocket-protocol", each)
        for each in offered
    ]
    return [each for each, field in zip(offered, told, strict=True) if upstream.kept([field])]


def _model_of(query: bytes) -> str | None:
    """The model that a query names."""
    told = dict(parse_qsl(query.decode("latin-1"), encoding="utf-8", errors="replace"))
    return next((told[name] for name in _MODEL_PARAMETERS if told.get(name)), None)
