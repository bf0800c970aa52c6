"""Calls that an allow-list, a hard budget or a breaker is about: what of them has to be read, and may they go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taximeter.breaker.rule import refusal
from taximeter.core.errors import Forbidden
from taximeter.flavors.meter import Prepared
from taximeter.gateway.bounds import demand, readable
from taximeter.gateway.bounds.models import check_choice, check_name

if TYPE_CHECKING:
    from taximeter.core.record import Open
    from taximeter.core.routes import Route
    from taximeter.flavors.meter import Demand, Flavor
    from taximeter.gateway.admission.admission import Admission
    from taximeter.gateway.bounds.readable import Headers
    from taximeter.gateway.tagging import Tagging
    from taximeter.gateway.upstream.upstreams import Upstreams
    from taximeter.keys.rule import ProxyKey
    from taximeter.server.exchange import Exchange


class Restrictions:
    """Of one worker. `limit_bytes`: the longest body that is read."""

    def __init__(self, admission: Admission, tagging: Tagging, upstreams: Upstreams, limit_bytes: int) -> None:
        self._admission = admission
        self._tagging = tagging
        self._upstreams = upstreams
        self._limit_bytes = limit_bytes

    def need_body(self, key: ProxyKey | None, named: dict[str, str], route: Route, head: dict[bytes, bytes]) -> bool:
        """Whether a body that would stream through has to be read, because of an allow-list or a hard budget."""
        if key is not None and key.models:
            return True
        if not self._admission.limited or demand.unbilled(route.path):
            return False
        upstream = self._upstreams.choose(route.upstream, None, head, route.path)
        whose = self._tagging.of(head, named, route, key, upstream, None)
        budgets = self._admission.budgets
        return budgets is not None and budgets.reads(whose.workspace)

    async def read_odd(self, exchange: Exchange, head: dict[bytes, bytes]) -> tuple[bytes, bytes]:
        """A body that would stream through, and its reading. Raises BadRequest, PayloadTooLarge, ClientLeft."""
        limit_bytes = self._limit_bytes
        if int(head.get(b"content-length", b"0")) > limit_bytes:
            raise readable.too_large(limit_bytes)
        body, whole = await exchange.body(limit_bytes)
        if not whole:
            raise readable.too_large(limit_bytes)
        return body, readable.read(exchange.headers, body, limit_bytes)

    def check(
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

        Raises Forbidden, BadRequest or PayloadTooLarge where it does not let the call through, or cannot tell;
        BreakerOpen where a breaker stops it.
        """
        free = demand.free(exchange.method, body)
        if not free and record.workspace in self._admission.stopped.workspaces:
            check_breakers(self._admission, record)
        listed = key is not None and bool(key.models)
        budgets = self._admission.budgets
        if budgets is not None:
            budgets.check_cap(record, exchange.headers)
        if listed or (budgets is not None and budgets.weighs(record)):
            readable.check_head(exchange.headers)
            asked = demand.UNBILLED
            if listed or not (free or demand.unbilled(path)):
                limit_bytes = self._limit_bytes
                if body is None:
                    raise readable.too_large(limit_bytes)
                asked = demand.read(flavor, prepared, exchange.headers, path, exchange.query, body, limit_bytes)
                admit(key, asked, exchange.headers, path, free=free)
            if not free:
                prepared.demand = asked
        if budgets is not None and budgets.mark(record, free=free) and free:
            prepared.demand = demand.UNBILLED

    def check_models(self, key: ProxyKey, exchange: Exchange, flavor: Flavor, path: bytes, said: bytes) -> None:
        """Let an allow-list hold for what calls nothing yet, but says which models later calls will use.

        Raises Forbidden, BadRequest.
        """
        prepared, headers, query = Prepared(body=said), exchange.headers, exchange.query
        asked = demand.read(flavor, prepared, headers, path, query, said, self._limit_bytes)
        admit(key, asked, headers, path, free=True)


def check_breakers(admission: Admission, opening: Open) -> None:
    """Raise BreakerOpen where a breaker stops this call."""
    trip = admission.stopped.of(opening.workspace, opening.key_id, opening.track, opening.started_at)
    if trip is not None:
        raise refusal(trip, opening.started_at)


def admit(key: ProxyKey | None, asked: Demand, headers: Headers, path: bytes, *, free: bool) -> None:
    """Whether this key may call every model a request names. Raises Forbidden, BadRequest.

    With an allow-list a call must name one, unless it is `free`, and what it starts must name all it calls.
    """
    if key is None or not key.models:
        return
    check_choice(headers, path)
    for model in asked.models:
        check_name(model)
        if not key.allows(model):
            raise Forbidden(f"This key may not call the model {model!r}.", param="model")
    if asked.endless and not free:
        raise Forbidden(f"This key may call some models only, and cannot be held to them: {asked.endless[0]}.")
    if not asked.models and not free:
        raise Forbidden("This key may call some models only, and the request names none.", param="model")
