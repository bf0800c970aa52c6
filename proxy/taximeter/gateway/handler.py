"""The data plane's handler of requests: a request's path, top to bottom, is `Gateway.__call__`.

head → route, flavor → key → body → upstream → tags → restrictions → open line → relay (upstream, meter, close line)
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from taximeter.core import errors
from taximeter.core.record import Open, Outcome
from taximeter.core.tags import DEFAULT_WORKSPACE
from taximeter.flavors.dialects import UNMETERED
from taximeter.flavors.meter import Flavor, Prepared
from taximeter.gateway.ending import record_unsent, refuse
from taximeter.gateway.known import Heads, Known
from taximeter.gateway.listing import relay_of
from taximeter.gateway.metering.call import Call, new_request_id
from taximeter.gateway.odd_bodies import fit, read_ahead
from taximeter.gateway.quoting import QuoteAsked, Quoting
from taximeter.gateway.relay import Relay
from taximeter.gateway.restricted import Restrictions
from taximeter.gateway.tagging import Tagging
from taximeter.server.exchange import ClientLeft, Exchange

if TYPE_CHECKING:
    from taximeter.config import Settings
    from taximeter.gateway.admission.admission import Admission
    from taximeter.gateway.metering.metering import Metering
    from taximeter.gateway.upstream.upstreams import Upstreams

log = logging.getLogger("taximeter.gateway")


class Gateway:
    """What one worker does with each exchange; everything it works with is passed in."""

    def __init__(self, settings: Settings, *, metering: Metering, upstreams: Upstreams, admission: Admission) -> None:
        self.settings = settings
        self.metering = metering
        self.upstreams = upstreams
        self.admission = admission
        self._json_body_bytes = settings.limits.json_body_bytes
        self._tagging = Tagging(settings)
        self._heads = Heads(settings, metering.journal, upstreams, admission, self._tagging)
        self._restrictions = Restrictions(admission, self._tagging, upstreams, self._json_body_bytes)
        self._quoting = Quoting(admission, self._tagging, upstreams, metering.prices, self._json_body_bytes)

    async def __call__(self, exchange: Exchange) -> None:
        """A request's path, top to bottom. `record` gathers what is known of it, whatever becomes of it."""
        started_us, started_ns = time.time_ns() // 1000, time.perf_counter_ns()
        record = Open(
            request_id=new_request_id(started_us),
            started_at=started_us,
            workspace=DEFAULT_WORKSPACE,
            upstream="none",
            provider="none",
            api="other",
        )
        try:
            known: Known | None = exchange.memo.get(self._heads)
            if known is None or known.keys is not self.admission.keys:
                known = self._heads.read(exchange, record)
                if known is None:
                    return
            elif known.named:
                known.mark(record)
            head, route, flavor, named, key = known.head, known.route, known.flavor, known.named, known.key
            if key is not None:
                record.key_id, record.workspace = key.id, key.workspace
            record.api, record.operation = flavor.api, flavor.operation

            reading = form = None
            if known.streams_through:
                if self._restrictions.need_body(key, named, route, head):
                    body, reading = await self._restrictions.read_odd(exchange, head)
                    whole = True
                else:
                    ahead = await read_ahead(exchange, head, self._json_body_bytes)
                    body, whole, reading, form = ahead.body, ahead.whole, ahead.reading, ahead.form
            elif exchange.complete:
                body, whole = exchange.take(), True
            else:
                body, whole = await exchange.body(self._json_body_bytes)
            prepared = _prepare(flavor, reading or (body if whole else b""), route.path, record.request_id)
            prepared.form = form
            if prepared.uses_nothing:
                flavor, record.api, record.operation = UNMETERED, UNMETERED.api, UNMETERED.operation
            record.request_model, record.stream = prepared.model, prepared.stream
            record.request_bytes = len(body)

            upstream = self.upstreams.choose(route.upstream, prepared.model, head, route.path)
            record.upstream, record.provider = upstream.name, upstream.provider
            record.region = route.region or upstream.region
            if prepared.injected and (flavor.api, prepared.model) in upstream.usage.refused:
                prepared.body, prepared.injected = reading or body, False
            if reading is not None and reading is not body:
                body = fit(exchange, prepared, body, reading)
            if named or route.tags or self._tagging.weak:
                self._tagging.of(head, named, route, key, upstream, prepared).mark(record)
            elif key is None:
                record.workspace = upstream.settings.workspace or DEFAULT_WORKSPACE
            if record.workspace in self.admission.watched or (key is not None and key.models):
                sound = body if whole else None
                self._restrictions.check(key, record, exchange, flavor, route.path, prepared, sound)

            text = (prepared.reading or body) if whole else None
            call = Call(
                self.metering, record, started_ns, flavor, prepared, text=text, tokenizer=upstream.settings.tokenizer
            )
            path = route.path + b"?" + exchange.query if exchange.query_mark else route.path
            relay = Relay if key is None or not key.models else relay_of(key, exchange.method, route.path)
            await relay(self.metering, self.admission, exchange, call, upstream).run(path, body, whole=whole)
        except errors.RequestError as error:  # refused: nothing has been sent
            record_unsent(self.metering, record, started_ns, Outcome.REFUSED, error.code)
            refuse(exchange, error, record.request_id)
        except errors.JournalError as error:
            log.error("%s refused: %s", record.request_id, error)
            refuse(exchange, errors.JournalUnavailable(), record.request_id)
        except ClientLeft:
            record_unsent(self.metering, record, started_ns, Outcome.CLIENT_LEFT, None)
        except QuoteAsked:
            await self._quoting.answer(exchange)


def _prepare(flavor: Flavor, body: bytes, path: bytes, request_id: str) -> Prepared:
    try:
        return flavor.prepare(body, path, inject=True)
    except Exception:  # metering never breaks the relay
        log.exception("%s: flavor %s could not read the request", request_id, flavor.api)
        return Prepared(body=body)
