"""`POST /quote/…`: the very request of a call, read, counted, bounded, priced and compared with its budgets; not sent.

`/quote` stands before the path (or before `/v1` behind the path's tags): an SDK whose base URL ends in `/quote/v1`
quotes what it would call. Nothing is held, and nothing recorded.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

import msgspec

from taximeter import flavors
from taximeter.budgets.responses import info
from taximeter.core import routes
from taximeter.core.errors import BadRequest, MethodNotAllowed, RequestError
from taximeter.core.record import Open, Outcome, Record, Source
from taximeter.core.tags import DEFAULT_WORKSPACE
from taximeter.core.views import usd
from taximeter.flavors.meter import Prepared
from taximeter.gateway.admission.wanted import held_of
from taximeter.gateway.bounds import demand, readable
from taximeter.gateway.quote import Quote, QuotedBudget, encode, quoted_bound, quoted_budget, refusal_of
from taximeter.gateway.restricted import admit, check_breakers
from taximeter.server.exchange import ClientLeft, Exchange
from taximeter.server.inline import in_task

if TYPE_CHECKING:
    from taximeter.budgets.reservations import Spent
    from taximeter.budgets.rule import Allowance
    from taximeter.core.routes import Route
    from taximeter.flavors.meter import Demand, Flavor
    from taximeter.gateway.admission.admission import Admission
    from taximeter.gateway.admission.budget import BudgetGate
    from taximeter.gateway.admission.wanted import Weighed
    from taximeter.gateway.tagging import Tagging
    from taximeter.gateway.upstream.upstreams import Upstream, Upstreams
    from taximeter.keys.rule import ProxyKey

PREFIX = b"/quote/"
"""What the path of a quote begins with, behind its tags."""


class QuoteAsked(Exception):
    """Raised where a path is found to be a quote's: calls pay nothing for there being quotes."""


class Prices(Protocol):
    """What a call costs (see `taximeter.pricebook`)."""

    def cost(self, record: Record) -> tuple[int | None, str | None]: ...


class _Asked(msgspec.Struct, kw_only=True):
    """A request, as far as it could be read without sending it."""

    exchange: Exchange
    route: Route
    flavor: Flavor
    key: ProxyKey | None
    upstream: Upstream
    opening: Open
    """What its record would begin with; it is written nowhere."""
    prepared: Prepared
    body: bytes
    errors: list[RequestError]
    """What speaks against it, in the order in which a call meets it."""
    notes: list[str]
    clamped: int | None = None
    """To so many tokens its answer would be bounded, to what is left."""


class Quoting:
    """Of one worker."""

    def __init__(
        self, admission: Admission, tagging: Tagging, upstreams: Upstreams, prices: Prices, limit_bytes: int
    ) -> None:
        """`limit_bytes`: the longest body that is read."""
        self._admission = admission
        self._tagging = tagging
        self._upstreams = upstreams
        self._prices = prices
        self._limit_bytes = limit_bytes

    async def answer(self, exchange: Exchange) -> None:
        """Answer a quote. What is wrong with who asks, or with the path, is an error as it would be of the call."""
        try:
            quote = await self._quote(exchange)
        except RequestError as error:
            exchange.answer(error.status, error.headers(), error.body())
        except ClientLeft:
            return
        else:
            body = encode(quote)
            length = (b"content-length", str(len(body)).encode())
            exchange.answer(200, [(b"content-type", b"application/json"), length], body)

    async def _quote(self, exchange: Exchange) -> Quote:
        if exchange.method != b"POST":
            raise MethodNotAllowed("A quote is asked for by POST, with the body of the call.", allowed=b"POST")
        head = dict(exchange.headers)
        key = self._admission.key_of(head)
        route = unquoted(exchange.path)
        body, whole = await exchange.body(self._limit_bytes)
        if not whole:
            raise readable.too_large(self._limit_bytes)
        await in_task()
        asked = self._read(exchange, head, route, key, body)
        try:
            check_breakers(self._admission, asked.opening)
        except RequestError as error:
            asked.errors.append(error)
        gate = self._admission.budgets
        assert gate is not None  # noqa: S101 - a worker has one, be there budgets or not
        wants = self._demand(asked, gate)
        weighed = None if wants is None else await self._weigh(asked, gate, wants)
        return await self._put_together(asked, gate, wants, weighed)

    def _read(
        self, exchange: Exchange, head: dict[bytes, bytes], route: Route, key: ProxyKey | None, body: bytes
    ) -> _Asked:
        flavor = flavors.find(b"POST", route.path)
        try:
            prepared = flavor.prepare(body, route.path, inject=False)
        except Exception:  # as of a call: what cannot be read is not known
            prepared = Prepared(body=body)
        upstream = self._upstreams.choose(route.upstream, prepared.model, head, route.path)
        now_us = time.time_ns() // 1000
        opening = Open(
            request_id="",
            started_at=now_us,
            workspace=DEFAULT_WORKSPACE,
            key_id=None if key is None else key.id,
            upstream=upstream.name,
            provider=upstream.provider,
            api=flavor.api,
            operation=flavor.operation,
            request_model=prepared.model,
        )
        named = self._tagging.named(head)
        self._tagging.of(head, named, route, key, upstream, prepared).mark(opening)
        return _Asked(
            exchange=exchange, route=route, flavor=flavor, key=key, upstream=upstream, opening=opening,
            prepared=prepared, body=body, errors=[], notes=[],
        )  # fmt: skip

    def _demand(self, asked: _Asked, gate: BudgetGate) -> Demand | None:
        """All that it asks for, and whether its key may; None where it could not be read."""
        listed = asked.key is not None and bool(asked.key.models)
        strict = listed or bool(gate.hard_of(asked.opening))
        exchange, path = asked.exchange, asked.route.path
        try:
            if strict:
                readable.check_head(exchange.headers)
            wants = demand.UNBILLED
            if listed or not demand.unbilled(path):
                wants = demand.read(
                    asked.flavor, asked.prepared, exchange.headers, path, exchange.query, asked.body, self._limit_bytes
                )
        except RequestError as error:
            asked.notes.append(error.message)
            if strict:
                asked.errors.append(error)
            return None
        try:
            admit(asked.key, wants, exchange.headers, path, free=False)
        except RequestError as error:
            asked.errors.append(error)
        return wants

    async def _weigh(self, asked: _Asked, gate: BudgetGate, wants: Demand) -> Weighed | None:
        hard = gate.hard_of(asked.opening)
        try:
            weighed = await gate.wanting.weigh(asked.opening, asked.flavor, wants, asked.upstream.settings.tokenizer)
        except BadRequest as error:
            asked.notes.append(error.message)
            if hard:
                asked.errors.append(error)
            return None
        if hard:
            try:
                gate.wanting.check_bounded(weighed.bound)
                gate.wanting.cost(hard, asked.opening, wants, weighed.bound)
            except RequestError as error:
                asked.errors.append(error)
        return weighed

    async def _put_together(
        self, asked: _Asked, gate: BudgetGate, wants: Demand | None, weighed: Weighed | None
    ) -> Quote:
        tokens, source, tokenizer = _input(asked, weighed)
        bound_nusd = None
        if weighed is not None and wants is not None:
            nusd, priced = gate.wanting.price(asked.opening, wants, weighed.bound)
            bound_nusd = nusd if priced or not weighed.bound.tokens else None
            if bound_nusd is None:
                named = ", ".join(wants.models) or "a request that names no model"
                asked.notes.append(f"No price is known for {named} of {asked.opening.provider}.")
        budgets = await _budgets(asked, gate, wants, weighed, bound_nusd)
        input_nusd = None if weighed is None or bound_nusd is None else self._input_nusd(asked, tokens, weighed)
        opening = asked.opening
        return Quote(
            api=opening.api,
            operation=opening.operation.value,
            model=opening.request_model,
            provider=opening.provider,
            upstream=opening.upstream,
            workspace=opening.workspace,
            track=opening.track,
            task=opening.task,
            end_user=opening.end_user,
            key_id=opening.key_id,
            input_tokens=tokens,
            input_source=source,
            tokenizer=tokenizer,
            bound=None if weighed is None else quoted_bound(weighed.bound),
            input_cost_usd=None if input_nusd is None else usd(input_nusd),
            bound_cost_usd=None if bound_nusd is None else usd(bound_nusd),
            budgets=budgets,
            clamped_output_tokens=asked.clamped,
            would_pass=not asked.errors,
            refusal=refusal_of(asked.errors),
            notes=asked.notes,
        )

    def _input_nusd(self, asked: _Asked, tokens: int | None, weighed: Weighed) -> int | None:
        """What the prompt costs by itself; of a rerank call, its searches."""
        if tokens is None:
            return None
        opening = asked.opening
        record = Record(
            request_id="quote",
            started_at=opening.started_at,
            ended_at=opening.started_at,
            workspace=opening.workspace,
            upstream=opening.upstream,
            provider=opening.provider,
            api=opening.api,
            operation=opening.operation,
            request_model=opening.request_model,
            input_tokens=tokens,
            output_tokens=0,
            search_units=weighed.bound.search_units or None,
            outcome=Outcome.OK,
        )
        return self._prices.cost(record)[0]


async def _budgets(
    asked: _Asked, gate: BudgetGate, wants: Demand | None, weighed: Weighed | None, bound_nusd: int | None
) -> list[QuotedBudget]:
    """Every budget the call would count against; what they have against it is added to what is `asked`."""
    found, now_us = [], asked.opening.started_at
    unheld: list[tuple[Allowance, int]] = []
    left: list[tuple[Allowance, int]] = []
    refused: list[tuple[Allowance, Spent, int]] = []
    standing = await gate.standing(asked.opening)
    if any(each is None for _, each in standing):
        asked.notes.append("Redis does not answer: how budgets stand is not known.")
    held = None if weighed is None else held_of(weighed.bound, bound_nusd)
    for allowance, stands in standing:
        budget = allowance.budget
        unknown = held is None or (budget.unit == "usd" and bound_nusd is None)
        amount = None if held is None or unknown else held.of(budget.unit)
        found.append(quoted_budget(info(budget, now_us, stands), amount))
        if stands is None:
            continue
        if budget.mode == "hard":
            left.append((allowance, max(0, budget.limit - stands.spent - stands.charged)))
            unheld.append((allowance, max(0, left[-1][1] - stands.held)))
        if weighed is not None and gate.refusal(allowance, stands, amount or 0) is not None:
            refused.append((allowance, stands, amount or 0))
    later = False
    if refused and not asked.errors and weighed is not None and wants is not None:
        call = weighed, asked.opening, asked.flavor, wants, asked.prepared, asked.exchange.headers
        asked.clamped = gate.shortened(unheld, *call)
        later = asked.clamped is None and gate.shortened(left, *call) is not None
    if asked.clamped is None:
        asked.errors += [error for each in refused if (error := gate.refusal(*each, later=later)) is not None]
    return found


def _input(asked: _Asked, weighed: Weighed | None) -> tuple[int | None, Source, str | None]:
    """The tokens of the prompt, where they come from, and by which tokenizer."""
    if weighed is None:
        return None, Source.NONE, None
    text, counted = weighed.text, weighed.counted
    if text.truncated and not text.tokens and not any(text.texts):
        asked.notes.append("The request holds no text that can be counted here.")
        return None, Source.NONE, None
    if text.truncated:
        asked.notes.append(
            "Images, files, and what the provider keeps are not in the counted input; the bound has them."
        )
        return counted.tokens + text.tokens, Source.ESTIMATED, counted.tokenizer
    return counted.tokens + text.tokens, counted.source, counted.tokenizer


def unquoted(path: bytes) -> Route:
    """Where the call would go. Raises BadTag, BadRequest."""
    route = routes.resolve(path)
    rest = route.path[len(PREFIX) - 1 :]
    return routes.resolve(path[: len(path) - len(route.path)] + rest)
