"""What a statement says, as values: every API, file and page shows these. Pure.

Two amounts stand beside each other and are never mixed: cost, what the provider charges, and charge, what the customer
pays. Each is exact in USD, and rounded once, at the line, in the statement's currency.

Closed statements are read back for ever: what is added here later needs a default, and nothing is renamed.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

Amount = Decimal | None | UnsetType
"""Null: not known. Left out: not for this reader."""


class Quantities(msgspec.Struct, kw_only=True, frozen=True):
    """How much was used. Of a correcting line: by how much more, or less."""

    requests: int = 0
    input_tokens: int = 0
    """Of LLM calls, cached ones and those written into a cache included."""
    cached_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    output_tokens: int = 0
    """Of LLM calls, reasoning included."""
    reasoning_output_tokens: int = 0
    embedding_tokens: int = 0
    rerank_tokens: int = 0
    search_units: int = 0
    audio_input_tokens: int = 0
    image_input_tokens: int = 0
    audio_output_tokens: int = 0
    audio_ms: int = 0
    """Audio billed by time."""
    chunks: int = 0
    """As the statement was told: only who cuts documents knows them."""
    counted_tokens: int = 0
    """How many of the tokens were counted here because the provider reported nothing."""
    estimated_tokens: int = 0
    """How many of them are an estimate from bytes."""


class UnitPrice(msgspec.Struct, kw_only=True, frozen=True):
    """A price of a plan, and how much of a line it is about."""

    plan: str
    code: str
    quantity: int
    per: int
    """The price is for so many."""
    usd: Decimal | None
    """Null: it depends on the quantity; `steps` has them."""
    steps: list[tuple[int, Decimal]]
    """(from this quantity of the statement on, USD for `per`)."""


class CostPrice(msgspec.Struct, kw_only=True, frozen=True):
    """A unit price of the provider, and how much of a line it is about."""

    unit: str
    """What is counted: `Input Tokens`."""
    quantity: Decimal
    per: int
    """The price is for so many; of time, in seconds."""
    usd: Decimal


class Line(msgspec.Struct, kw_only=True, frozen=True):
    """One line; money as exact decimals."""

    corrects: int | None = None
    """Number of the statement whose period this is about: a debit, or (below 0) a credit. Null: of this period."""
    key: dict[str, str | None]
    """What the line is about, by the names grouped by; null: the calls carry none."""
    quantities: Quantities
    others: dict[str, int] = {}
    """What few calls use, by kind and variant (`GET /usage/quantities`), of whole hours; not on lines by track,
    document or end user."""
    unknown_requests: int
    """Calls that may have been billed but of whose usage nothing is known."""
    unpriced_requests: int | UnsetType
    """Calls with known usage and no price; of a correcting line: below 0, they have one now."""
    unpriced_reasons: dict[str, int] | UnsetType
    """How many of both for which reason, of records still kept (`not_told`: none was written down)."""
    uncharged_requests: int
    """Calls whose charge is not known: no plan says anything of them, or they bear a markup and have no price."""
    left_out: list[str]
    """Kinds used for which the plan has prices for others of these calls but none for them: they cost nothing."""
    prices: list[UnitPrice]
    cost_usd: Amount
    """What the provider charges; null: there were calls to price and none of them has a price."""
    charge_usd: Decimal | None
    """What the customer pays; null: no plan says it."""
    rate: Decimal
    """How much of the currency is one USD."""
    cost: Amount
    """The same in the statement's currency, rounded."""
    charge: Decimal | None
    cost_prices: list[CostPrice] | UnsetType = []
    """What the cost is made of, each call's rounded to a nano-dollar; empty: a price did not hold for the whole line,
    or it is not known any more."""


class Total(msgspec.Struct, kw_only=True, frozen=True):
    """Sums of the lines, correcting ones included. Amounts are sums of what is known."""

    quantities: Quantities
    unknown_requests: int
    unpriced_requests: int | UnsetType
    uncharged_requests: int
    cost_usd: Amount
    charge_usd: Decimal | None
    margin_usd: Amount
    """Charge less cost; null where a part of either is not known."""
    cost: Amount
    charge: Decimal | None
    margin: Amount


class Statement(msgspec.Struct, kw_only=True, frozen=True):
    """What a workspace used in a period, what it cost and what it is charged."""

    number: int | None = None
    """Of this workspace, without gaps from 1; null: not closed."""
    workspace: str
    from_: str = msgspec.field(name="from")
    to: str
    tz: str
    currency: str
    decimals: int
    """Places to which each line is rounded, half to even; totals are sums of rounded lines."""
    by: list[str]
    plans: list[str]
    """Names of the plans that lines are charged by."""
    closed_at: str | None = None
    closed_by: str | None = None
    lines: list[Line]
    total: Total
    notes: list[str]
    """What a reader has to know, in words."""


Audience = Literal["operator", "customer"]


def for_customer(statement: Statement) -> Statement:
    """Without what is the operator's own: cost and margin."""
    total = replace(
        statement.total, cost_usd=UNSET, cost=UNSET, margin_usd=UNSET, margin=UNSET, unpriced_requests=UNSET
    )
    lines = [
        replace(line, cost_usd=UNSET, cost=UNSET, unpriced_requests=UNSET, unpriced_reasons=UNSET, cost_prices=UNSET)
        for line in statement.lines
        if line.corrects is None or line.charge_usd or line.quantities != Quantities()
    ]
    return replace(statement, lines=lines, total=total)


class Summary(msgspec.Struct, kw_only=True, frozen=True):
    """A closed statement in a list."""

    number: int
    workspace: str
    from_: str = msgspec.field(name="from")
    to: str
    tz: str
    currency: str
    closed_at: str
    closed_by: str
    cost_usd: Decimal | None
    charge_usd: Decimal | None
    margin_usd: Decimal | None
    cost: Decimal | None
    charge: Decimal | None
    margin: Decimal | None


class Standing(msgspec.Struct, kw_only=True, frozen=True):
    """Statements of a workspace beside what its ledger says: `stated_usd + open_usd = ledger_usd`, always."""

    workspace: str
    statements: list[Summary]
    ledger_usd: Decimal
    """Cost of all that history knows of it."""
    stated_usd: Decimal
    """Cost on its closed statements."""
    open_usd: Decimal
    """On none yet: of periods not closed, and what came later for those that are."""
    open_requests: int


class StandingList(msgspec.Struct, kw_only=True, frozen=True):
    data: list[Standing]


class Margin(msgspec.Struct, kw_only=True, frozen=True):
    """A workspace in a period: what it cost and what it is charged, closed or not, without corrections of others."""

    workspace: str
    requests: int
    unknown_requests: int
    unpriced_requests: int
    uncharged_requests: int
    cost_usd: Decimal | None
    charge_usd: Decimal | None
    margin_usd: Decimal | None
    """Null: a part of cost or charge is not known."""


class MarginList(msgspec.Struct, kw_only=True, frozen=True):
    """Workspaces by name."""

    from_: str = msgspec.field(name="from")
    to: str
    tz: str
    data: list[Margin]
