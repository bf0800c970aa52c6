"""The data plane's handler of requests: a request's path, top to bottom, is `Gateway.__call__`.

head → route → tags → key → flavor → body → upstream → open line → relay (upstream, meter, close line)
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from taximeter import flavors
from taximeter.core import errors, routes, tags
from taximeter.core.record import Open, Outcome
from taximeter.flavors.meter import Flavor, Prepared
from taximeter.gateway.admission.admission import KEY_HEADER
from taximeter.gateway.bounds import demand, readable
from taximeter.gateway.metering.call import Call, new_request_id
from taximeter.gateway.relay import Relay, refuse
from taximeter.server.exchange import ClientLeft, Exchange

if TYPE_CHECKING:
    from taximeter.config import Settings
    from taximeter.core.routes import Route
    from taximeter.gateway.admission.admission import Admission
    from taximeter.gateway.metering.call import Metering
    from taximeter.gateway.upstream.upstreams import Upstreams
    from taximeter.keys.rule import ProxyKey

log = logging.getLogger("taximeter.gateway")


class Gateway:
    """What one worker does with each exchange; everything it works with is passed in."""

    def __init__(self, settings: Settings, *, metering: Metering, upstreams: Upstreams, admission: Admission) -> None:
        self.settings = settings
        self.metering = metering
        self.upstreams = upstreams
        self.admission = admission
        self.tag_headers = tag_headers(settings)
        self.weak_tags = settings.tags.baggage or settings.tags.body

    async def __call__(self, exchange: Exchange) -> None:
        """A request's path, top to bottom. `record` gathers what is known of it, whatever becomes of it."""
        started_us, started_ns = time.time_ns() // 1000, time.perf_counter_ns()
        record = Open(
            request_id=new_request_id(started_us),
            started_at=started_us,
            workspace=tags.DEFAULT_WORKSPACE,
            upstream="none",
            provider="none",
            api="other",
        )
        try:
            head = dict(exchange.headers)
            self.admission.hosts.check(head.get(b"host"), head.get(b"origin"))
            route = routes.resolve(exchange.path)
            named = tags.from_headers(head, self.tag_headers)
            if named:
                record.workspace, record.track = named.get("workspace", record.workspace), named.get("track")
            key = self.admission.key_of(head)
            if key is not None:
                record.key_id, record.workspace = key.id, key.workspace
            flavor = flavors.find(exchange.method, route.path)
            record.api, record.operation = flavor.api, flavor.operation

            reading = None
            if self._streams_through(head):
                body, whole = b"", False
                if self._restricts(key, named, route, head):
                    body, reading = await self._read_odd(exchange, head)
                    whole = True
            elif exchange.complete:
                body, whole = exchange.take(), True
            else:
                body, whole = await exchange.body(self.settings.limits.json_body_bytes)
            prepared = _prepare(flavor, (reading or body) if whole else b"", route.path, record.request_id)
            if reading is not None and reading is not body:
                prepared.reading, prepared.body, prepared.injected = reading, body, False
            record.request_model, record.stream = prepared.model, prepared.stream
            record.request_bytes = len(body)

            upstream = self.upstreams.choose(route.upstream, prepared.model)
            record.upstream, record.provider = upstream.name, upstream.provider
            if prepared.injected and not upstream.takes_stream_options:
                prepared.body, prepared.injected = body, False
            whose = tags.resolve(
                key_workspace=None if key is None else key.workspace,
                headers=named,
                path=route.tags,
                weak=self._weak_tags(head, prepared) if self.weak_tags else None,
                upstream_workspace=upstream.settings.workspace,
            )
            whose.mark(record)
            if whose.workspace in self.admission.budgeted or (key is not None and key.models):
                self._restrict(key, record, exchange, flavor, route.path, prepared, body if whole else None)

            text = (prepared.reading or body) if whole else None
            call = Call(
                self.metering, record, started_ns, flavor, prepared, text=text, tokenizer=upstream.settings.tokenizer
            )
            path = route.path + b"?" + exchange.query if exchange.query_mark else route.path
            await Relay(self.metering, self.admission, exchange, call, upstream).run(path, body, whole=whole)
        except errors.RequestError as error:  # refused: nothing has been sent
            self._record_unsent(record, started_ns, Outcome.REFUSED, error.code)
            refuse(exchange, error, record.request_id)
        except errors.JournalError as error:
            log.error("%s refused: %s", record.request_id, error)
            refuse(exchange, errors.JournalUnavailable(), record.request_id)
        except ClientLeft:
            self._record_unsent(record, started_ns, Outcome.CLIENT_LEFT, None)

    def _streams_through(self, head: dict[bytes, bytes]) -> bool:
        """JSON is read whole to learn model and stream; any other body, and one that is too long, is not held."""
        length = head.get(b"content-length")
        kind = head.get(b"content-type")
        if (kind is not None and b"json" not in kind) or b"content-encoding" in head:
            return length != b"0" if length is not None else b"transfer-encoding" in head
        return length is not None and int(length) > self.settings.limits.json_body_bytes

    def _restricts(self, key: ProxyKey | None, named: dict[str, str], route: Route, head: dict[bytes, bytes]) -> bool:
        """Whether a body that would stream through has to be read, because of an allow-list or a hard budget."""
        if key is not None and key.models:
            return True
        if not self.admission.budgeted or demand.unbilled(route.path):
            return False
        whose = tags.resolve(
            key_workspace=None if key is None else key.workspace,
            headers=named,
            path=route.tags,
            weak=self._weak_tags(head, Prepared(body=b"")) if self.weak_tags else None,
            upstream_workspace=self.upstreams.choose(route.upstream, None).settings.workspace,
        )
        return whose.workspace in self.admission.budgeted

    async def _read_odd(self, exchange: Exchange, head: dict[bytes, bytes]) -> tuple[bytes, bytes]:
        """A body that would stream through, and its reading. Raises BadRequest, PayloadTooLarge, ClientLeft."""
        limit_bytes = self.settings.limits.json_body_bytes
        if int(head.get(b"content-length", b"0")) > limit_bytes:
            raise readable.too_large(limit_bytes)
        body, whole = await exchange.body(limit_bytes)
        if not whole:
            raise readable.too_large(limit_bytes)
        return body, readable.read(exchange.headers, body, limit_bytes)

    def _restrict(
        self,
        key: ProxyKey | None,
        record: Open,
        exchange: Exchange,
        flavor: Flavor,
        path: bytes,
        prepared: Prepared,
        body: bytes | None,
    ) -> None:
        """Let an allow-list or a hard budget hold for a call. `body`: None where it was not read whole.

        Raises Forbidden, BadRequest or PayloadTooLarge where it does not let the call through, or cannot tell.
        """
        if not self.admission.restricts(key, record):
            return
        readable.check_head(exchange.headers)
        listed = key is not None and bool(key.models)
        free = demand.free(exchange.method, body)
        asked = demand.UNBILLED
        if listed or not (free or demand.unbilled(path)):
            limit_bytes = self.settings.limits.json_body_bytes
            if body is None:
                raise readable.too_large(limit_bytes)
            asked = demand.read(flavor, prepared, exchange.headers, path, exchange.query, body, limit_bytes)
            self.admission.admit(key, asked, exchange.headers, path, free=free)
        if not free:
            prepared.demand = asked
            self.admission.mark(record)

    def _weak_tags(self, head: dict[bytes, bytes], prepared: Prepared) -> dict[str, object]:
        """Tags from where end users can write, only where switched on; baggage before body."""
        weak: dict[str, object] = {}
        if self.settings.tags.body:
            weak.update({name: value for name, value in prepared.metadata.items() if name in tags.FIELDS})
        if self.settings.tags.baggage and b"baggage" in head:
            weak.update(tags.from_baggage(head[b"baggage"]))
        return weak

    def _record_unsent(self, record: Open, started_ns: int, outcome: Outcome, code: str | None) -> None:
        """A record of a request that never left, with what is known of it."""
        try:
            call = Call(self.metering, record, started_ns)
        except errors.JournalError:
            return  # it was refused for another reason already; nothing was used
        call.settle(outcome, time.perf_counter_ns(), error_code=code)


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
