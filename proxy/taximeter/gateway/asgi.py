"""The data plane's ASGI application: a request's path, top to bottom, is `Gateway.__call__`.

head → route → tags → body → flavor → upstream → key → open line → relay (upstream, meter, close line)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from taximeter import flavors
from taximeter.core import errors, routes, tags
from taximeter.core.record import Open, Operation, Outcome
from taximeter.flavors.meter import Flavor, Prepared
from taximeter.gateway.admission import KEY_HEADER
from taximeter.gateway.call import Call, Prices, new_request_id
from taximeter.gateway.client import ClientLeft, Receive, Scope, Send, Watches, read_baggage, read_body, read_tags
from taximeter.gateway.relay import Relay

if TYPE_CHECKING:
    from taximeter.config import Settings
    from taximeter.core.keys import ProxyKey
    from taximeter.gateway.admission import Admission
    from taximeter.gateway.counting import Counting
    from taximeter.gateway.upstream import Upstream, Upstreams
    from taximeter.journal import Journal

log = logging.getLogger("taximeter.gateway")

NO_TAGS: dict[str, str] = {}


class Gateway:
    """The ASGI application of one worker; everything it works with is passed in."""

    def __init__(
        self,
        settings: Settings,
        *,
        journal: Journal,
        upstreams: Upstreams,
        prices: Prices,
        tokenizers: Counting,
        admission: Admission,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self.settings = settings
        self.journal = journal
        self.upstreams = upstreams
        self.prices = prices
        self.tokenizers = tokenizers
        self.admission = admission
        self.now_us = now_us
        self.tag_headers = tag_headers(settings)
        self.weak_tags = settings.tags.baggage or settings.tags.body
        self.durable = settings.journal.fsync == "always"
        self.no_stream_usage = {u.name for u in settings.upstream if u.stream_usage == "off"}
        """Upstreams that get no `stream_options` from us: told so, or they answered 400 to it."""
        self.watches = Watches()
        self.silent: set[tuple[str, str]] = set()
        """(upstream, api) whose last whole answer carried no usage: their prompts will have to be counted."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A request's path, top to bottom."""
        if scope["type"] != "http":
            raise RuntimeError(f"ASGI scope {scope['type']!r} is not served here")
        seen = Seen(self.now_us())
        try:
            head = dict(scope["headers"])
            self.admission.check_origin(head)
            route = routes.resolve(scope["raw_path"])
            seen.named = named = read_tags(head, self.tag_headers)
            seen.key = key = self.admission.key_of(head)
            seen.flavor = flavor = flavors.find(scope["method"].encode(), route.path)

            body, whole = await self._read_body(head, receive)
            seen.prepared = prepared = _prepare(flavor, body if whole else b"", route.path, seen.request_id)
            seen.upstream = upstream = self.upstreams.choose(route.upstream, prepared.model)
            if prepared.injected and upstream.name in self.no_stream_usage:
                prepared.body, prepared.injected = body, False
            seen.tags = whose = tags.resolve(
                key_workspace=None if key is None else key.workspace,
                headers=named,
                path=route.tags,
                weak=self._weak_tags(head, prepared) if self.weak_tags else None,
                upstream_workspace=upstream.settings.workspace,
            )
            if key is not None:
                self.admission.admit(key, prepared.model, body)

            opening = _opening(seen, whose, flavor, prepared, upstream, body)
            if whose.workspace in self.admission.budgeted:
                self.admission.mark(opening)
            call = Call(self.journal, self.prices, opening, seen.started_ns)
            query: bytes = scope["query_string"]
            path = route.path + b"?" + query if query else route.path
            relay = Relay(self, call, flavor, prepared, upstream, receive, send)
            await relay.run(scope["method"].encode(), path, scope["headers"], body, whole)
        except errors.RequestError as error:  # refused: nothing has been sent
            self._record_unsent(seen, Outcome.REFUSED, error.code)
            await _answer(error, seen, send)
        except errors.JournalError as error:
            log.error("%s refused: %s", seen.request_id, error)
            await _answer(errors.JournalUnavailable(), seen, send)
        except ClientLeft:
            self._record_unsent(seen, Outcome.CLIENT_LEFT, None)

    async def _read_body(self, head: dict[bytes, bytes], receive: Receive) -> tuple[bytes, bool]:
        """(body, whole). JSON is read whole to learn model and stream; anything else streams through."""
        length = head.get(b"content-length")
        if length is None:
            if b"transfer-encoding" not in head:
                return b"", True
        elif length == b"0":
            return b"", True
        limit_bytes = self.settings.limits.json_body_bytes
        kind = head.get(b"content-type")
        if (kind is not None and b"json" not in kind) or b"content-encoding" in head:
            return b"", False
        if length is not None and int(length) > limit_bytes:
            return b"", False
        return await read_body(receive, limit_bytes)

    def _weak_tags(self, head: dict[bytes, bytes], prepared: Prepared) -> dict[str, object]:
        """Tags from where end users can write, only where switched on; baggage before body."""
        weak: dict[str, object] = {}
        if self.settings.tags.body:
            weak.update({name: value for name, value in prepared.metadata.items() if name in tags.FIELDS})
        if self.settings.tags.baggage and b"baggage" in head:
            weak.update(read_baggage(head[b"baggage"]))
        return weak

    def _record_unsent(self, seen: Seen, outcome: Outcome, code: str | None) -> None:
        """A record of a request that never left, with what is known of it."""
        try:
            call = Call(self.journal, self.prices, seen.opening(), seen.started_ns)
        except errors.JournalError:
            return  # it was refused for another reason already; nothing was used
        call.settle(outcome, time.perf_counter_ns(), error_code=code)


class Seen:
    """What is known of a request so far; should it be refused, this is its record."""

    __slots__ = ("flavor", "key", "named", "prepared", "request_id", "started_ns", "started_us", "tags", "upstream")

    def __init__(self, started_us: int) -> None:
        self.started_ns = time.perf_counter_ns()
        self.started_us = started_us
        self.request_id = new_request_id(started_us)
        self.named: dict[str, str] = NO_TAGS
        self.key: ProxyKey | None = None
        self.flavor: Flavor | None = None
        self.prepared: Prepared | None = None
        self.upstream: Upstream | None = None
        self.tags: tags.Tags | None = None

    def opening(self) -> Open:
        """The `open` line of a request that is refused."""
        key, flavor, prepared, upstream = self.key, self.flavor, self.prepared, self.upstream
        named = self.named.get("workspace") if key is None else key.workspace
        whose = self.tags or tags.Tags(workspace=named or tags.DEFAULT_WORKSPACE, track=self.named.get("track"))
        return Open(
            request_id=self.request_id,
            started_at=self.started_us,
            workspace=whose.workspace,
            track=whose.track,
            document=whose.document,
            task=whose.task,
            end_user=whose.end_user,
            key_id=None if key is None else key.id,
            upstream="none" if upstream is None else upstream.name,
            provider="none" if upstream is None else upstream.provider,
            api="other" if flavor is None else flavor.api,
            operation=Operation.OTHER if flavor is None else flavor.operation,
            request_model=None if prepared is None else prepared.model,
        )


def tag_headers(settings: Settings) -> dict[bytes, str]:
    """Our tag headers and those added in config: lower-case name -> tag."""
    named = dict(tags.TAG_HEADERS)
    named.update((name.lower().encode(), tag) for name, tag in settings.tags.headers.items())
    return named


def dropped_headers(settings: Settings) -> frozenset[bytes]:
    """Header names that never reach an upstream: tags and the proxy key's own."""
    return frozenset({*tag_headers(settings), KEY_HEADER})


def _prepare(flavor: Flavor, body: bytes, path: bytes, request_id: str) -> Prepared:
    try:
        return flavor.prepare(body, path, inject=True)
    except Exception:  # metering never breaks the relay
        log.exception("%s: flavor %s could not read the request", request_id, flavor.api)
        return Prepared(body=body)


def _opening(seen: Seen, whose: tags.Tags, flavor: Flavor, prepared: Prepared, upstream: Upstream, body: bytes) -> Open:
    return Open(
        request_id=seen.request_id,
        started_at=seen.started_us,
        workspace=whose.workspace,
        track=whose.track,
        document=whose.document,
        task=whose.task,
        end_user=whose.end_user,
        key_id=None if seen.key is None else seen.key.id,
        tags={"ignored": ",".join(whose.notes)} if whose.notes else NO_TAGS,
        upstream=upstream.name,
        provider=upstream.provider,
        api=flavor.api,
        operation=flavor.operation,
        stream=prepared.stream,
        request_model=prepared.model,
        request_bytes=len(body),
    )


async def _answer(error: errors.RequestError, seen: Seen, send: Send) -> None:
    """An error of ours, in OpenAI's shape."""
    headers = [*error.headers(), (b"x-taximeter-request-id", seen.request_id.encode())]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": error.body(), "more_body": False})
