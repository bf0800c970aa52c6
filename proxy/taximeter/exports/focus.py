"""Calls as charges of FOCUS, the FinOps Open Cost and Usage Specification: one row a day, SKU price and scope. Pure.

Version 1.2 (https://focus.finops.org/focus-specification/v1-2/), whose rules the official validator ships with, or 1.4,
which has ServiceProviderName and HostProviderName instead of ProviderName and PublisherName. Tokens as the
specification's examples of AI billing have them: each kind of token a SKU with its SkuMeter, ConsumedUnit `Tokens`,
PricingUnit `1000000 Tokens`.

Costs are those of the ledger to the nano-dollar: what the rounding of each call's cost leaves is a row of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import BinaryIO, Literal, NamedTuple

import msgspec

from taximeter.core.errors import BadRequest
from taximeter.core.prices import Card
from taximeter.core.record import Operation, Record
from taximeter.exports import itemised
from taximeter.exports.itemised import CALLS, Line
from taximeter.exports.lines import csv_line

Version = Literal["1.2", "1.4"]
VERSIONS: tuple[Version, ...] = ("1.2", "1.4")
SPLITS = ("workspace", "key_id", "task", "track", "document", "end_user")
"""What charges can be told apart by, beside what they are for; SubAccount is the workspace."""
USUAL = ("workspace", "key_id", "task")
Cell = str | int | Decimal | None
Row = dict[str, Cell]

_ENTITIES = {"1.2": ("ProviderName", "PublisherName"), "1.4": ("HostProviderName", "ServiceProviderName")}
_SERVICES = {
    Operation.LLM: ("LLM Inference", "Generative AI"),
    Operation.EMBEDDING: ("Embeddings", "Natural Language Processing"),
    Operation.RERANK: ("Reranking", "Natural Language Processing"),
    Operation.OTHER: ("Other AI Calls", "Other (AI and Machine Learning)"),
}
_COSTS = ("BilledCost", "ContractedCost", "EffectiveCost", "ListCost", "PricingCurrencyEffectiveCost")
_PRICES = (
    "ContractedUnitPrice", "ListUnitPrice", "PricingCurrencyContractedUnitPrice", "PricingCurrencyListUnitPrice",
)  # fmt: skip
_OWN = ("x_Workspace", "x_KeyId", "x_Task", "x_Track", "x_Document", "x_EndUser")
_COLUMNS = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart",
    "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart",
    "CommitmentDiscountStatus", "ConsumedQuantity", "ConsumedUnit", "ContractedCost", "ContractedUnitPrice",
    "EffectiveCost", "InvoiceId",
    "InvoiceIssuerName", "ListCost", "ListUnitPrice", "PricingCategory", "PricingCurrency",
    "PricingCurrencyContractedUnitPrice", "PricingCurrencyEffectiveCost", "PricingCurrencyListUnitPrice",
    "PricingQuantity", "PricingUnit", "RegionId", "RegionName", "ServiceCategory", "ServiceName", "ServiceSubcategory",
    "SkuId", "SkuMeter", "SkuPriceDetails", "SkuPriceId", "SubAccountId", "SubAccountName", "Tags",
)  # fmt: skip
_CUSTOM = (
    *_OWN, "x_Model", "x_Operation", "x_ServiceTier", "x_TokenType", "x_QuantitySource", "x_Calls", "x_PriceReference",
    "x_UnpricedReason",
)  # fmt: skip
_EXACT = Context(prec=60)
"""Sums and products of what a day can hold lose no digit."""
_PICO = Decimal(10) ** 12
_NANO = Decimal(10) ** 9
_DAY_US = 86_400_000_000
_AS_RECORDED = "as recorded"
"""In place of a price reference: the call was not priced by the rates there are now."""


def columns(version: Version) -> tuple[str, ...]:
    """Their order: FOCUS' by name, then ours."""
    return (*sorted((*_COLUMNS, *_ENTITIES[version])), *_CUSTOM)


class Scope(NamedTuple):
    """Whose and what for: all that the lines of one call have in common."""

    upstream: str
    provider: str
    model: str
    operation: Operation
    service_tier: str | None
    region: str | None
    owners: tuple[str | None, ...]
    """In the order of SPLITS; None where charges are not told apart by it, or a call has none."""


class Sku(NamedTuple):
    """One kind of line of a scope."""

    line: Line
    """Its meter and rate; its quantities are 0."""
    source: str
    reference: str
    reason: str | None


class Amount(msgspec.Struct):
    """What came together."""

    calls: int = 0
    used: itemised.Number = 0
    priced: itemised.Number = 0
    nusd: int = 0
    """Of calls that are told as they were recorded."""


class Focus:
    """Adds calls up, day by day. Records have to come in the order in which they ended."""

    def __init__(
        self,
        card: Callable[[Record], Card | None],
        *,
        splits: Collection[str] = USUAL,
        version: Version = "1.2",
        unpriced: bool = False,
    ) -> None:
        """`card`: the price of a call. `unpriced`: only the calls without a cost; FOCUS has no place for them, as its
        costs cannot be null, and their rows have none."""
        self._card = card
        self._splits = frozenset(splits)
        self._version = version
        self._unpriced = unpriced
        self.columns = columns(version)
        self._day = -1
        self._amounts: dict[tuple[Scope, Sku], Amount] = {}
        self._ledger: dict[Scope, int] = {}
        self.charges = 0
        """Rows given so far."""

    def add(self, records: Iterable[Record], corrections: Corrections) -> Iterator[Row]:
        """Rows of the days that are over with these records."""
        for record in records:
            if record.kind != "usage":
                continue
            day = record.ended_at // _DAY_US
            if day != self._day:
                yield from self.end()
                self._day = day
            self._add(record, corrections.get((record.request_id, record.attempt, record.line)))

    def end(self) -> Iterator[Row]:
        """Rows of the day that was being added up."""
        told: dict[Scope, Decimal] = {}
        for (scope, sku), amount in self._amounts.items():
            yield _pointed(self._row(scope, sku, amount))
            if scope in self._ledger and sku.line.rate is not None:
                told[scope] = _EXACT.add(told.get(scope, Decimal(0)), _cost(sku, amount))
        for scope, nusd in self._ledger.items():
            if left := _EXACT.subtract(_usd(nusd), told[scope]):
                yield _pointed(self._rounding(scope, left))
        self._amounts, self._ledger = {}, {}

    def _add(self, record: Record, corrected_nusd: int | None) -> None:
        known = [part for part in (record.cost_nusd, corrected_nusd) if part is not None]
        if self._unpriced:
            if not known and record.unpriced_reason is not None:
                self._count(record, itemised.unpriced(record), "", 0)
            return
        if not known:
            return
        nusd = sum(known)
        card = self._card(record)
        found = [] if card is None else itemised.lines(card, record)
        if card is None or itemised.sum_nusd(found) != nusd:
            self._count(record, [Line(CALLS, 1, 1, None)], _AS_RECORDED, nusd)
        else:
            self._count(record, found or [Line(CALLS, 1, 1, 0)], card.ref, 0)
            self._ledger[self._scope(record)] = self._ledger.get(self._scope(record), 0) + nusd

    def _count(self, record: Record, found: Sequence[Line], reference: str, nusd: int) -> None:
        scope = self._scope(record)
        for line in found:
            told = itemised.source(line, record).value
            sku = Sku(
                line._replace(used=0, priced=0), told, reference, record.unpriced_reason if self._unpriced else None
            )
            amount = self._amounts.setdefault((scope, sku), Amount())
            amount.calls += 1
            amount.used += line.used
            amount.priced += line.priced
            amount.nusd += nusd

    def _scope(self, record: Record) -> Scope:
        owners = tuple(getattr(record, name) if name in self._splits else None for name in SPLITS)
        return Scope(
            record.upstream, record.provider, record.model, record.operation, record.service_tier, record.region, owners
        )

    def _row(self, scope: Scope, sku: Sku, amount: Amount) -> Row:
        meter, rate = sku.line.meter, sku.line.rate
        per, priced = _quantity(sku, amount)
        cost = None if self._unpriced else _cost(sku, amount)
        price = _unit_price(sku, amount)
        sku_id = f"{scope.provider}/{scope.model}/{meter.name}"
        return (
            self._common(scope, cost)
            | dict.fromkeys(_PRICES, price)
            | {
                "ChargeCategory": "Usage",
                "ChargeDescription": f"{scope.model}: {meter.name}",
                "ConsumedQuantity": Decimal(amount.used),
                "ConsumedUnit": meter.unit,
                "PricingCategory": None if self._unpriced else "Standard" if sku.reference != _AS_RECORDED else "Other",
                "PricingQuantity": None if self._unpriced else priced,
                "PricingUnit": None if self._unpriced else _pricing_unit(sku, per),
                "SkuId": sku_id,
                "SkuMeter": meter.name,
                "SkuPriceDetails": None
                if self._unpriced
                else _json({"x_Model": scope.model, "x_TokenType": meter.kind}),
                "SkuPriceId": None if self._unpriced else f"{sku_id}@{_AS_RECORDED if rate is None else rate}",
                "x_TokenType": meter.kind or None,
                "x_QuantitySource": sku.source,
                "x_Calls": amount.calls,
                "x_PriceReference": sku.reference or None,
                "x_UnpricedReason": sku.reason,
            }
        )

    def _rounding(self, scope: Scope, left: Decimal) -> Row:
        return self._common(scope, left) | {
            "ChargeCategory": "Adjustment",
            "ChargeDescription": f"{scope.model}: rounding of each call's cost to a nano-dollar",
        }

    def _common(self, scope: Scope, cost: Decimal | None) -> Row:
        self.charges += 1
        day = datetime.fromtimestamp(self._day * 86_400, UTC)
        month = day.replace(day=1)
        owner = dict(zip(SPLITS, scope.owners, strict=True))
        tags = {name: value for name, value in owner.items() if value is not None}
        service, subcategory = _SERVICES[scope.operation]
        row: Row = dict.fromkeys(self.columns)
        row |= dict.fromkeys(_COSTS, cost)
        row |= dict.fromkeys((*_ENTITIES[self._version], "InvoiceIssuerName"), scope.provider)
        row |= dict(zip(_OWN, scope.owners, strict=True))
        return row | {
            "BillingAccountId": scope.upstream,
            "BillingAccountName": scope.upstream,
            "BillingCurrency": "USD",
            "BillingPeriodStart": _at(month),
            "BillingPeriodEnd": _at((month + timedelta(days=32)).replace(day=1)),
            "ChargeFrequency": "Usage-Based",
            "ChargePeriodStart": _at(day),
            "ChargePeriodEnd": _at(day + timedelta(days=1)),
            "PricingCurrency": "USD",
            "RegionId": scope.region,
            "RegionName": scope.region,
            "ServiceCategory": "AI and Machine Learning",
            "ServiceName": service,
            "ServiceSubcategory": subcategory,
            "SubAccountId": owner["workspace"],
            "SubAccountName": owner["workspace"],
            "Tags": _json(tags) if tags else None,
            "x_Model": scope.model,
            "x_Operation": scope.operation.value,
            "x_ServiceTier": scope.service_tier,
        }


Corrections = dict[tuple[str, int, str | None], int]
"""(request id, attempt, line of a batch) -> what corrections of its cost add up to, in nano-USD."""


def corrections(records: Iterable[Record], found: Corrections) -> Corrections:
    """Add records of kind `correction` to what is found so far."""
    for record in records:
        if record.cost_nusd is not None:
            key = record.request_id, record.attempt, record.line
            found[key] = found.get(key, 0) + record.cost_nusd
    return found


def _quantity(sku: Sku, amount: Amount) -> tuple[int, Decimal]:
    """(of how many the price is, how many of these were billed)."""
    per = sku.line.meter.per
    return per, _EXACT.quantize(_EXACT.divide(Decimal(amount.priced), Decimal(per)), Decimal("1e-9"))


def _unit_price(sku: Sku, amount: Amount) -> Decimal | None:
    """USD for PricingUnit; of calls told as they were recorded: on average."""
    rate, meter = sku.line.rate, sku.line.meter
    if rate is not None:
        return Decimal(rate) * (1 if meter is itemised.AUDIO_TIME else meter.per) / _PICO
    return _EXACT.quantize(_usd(amount.nusd) / amount.calls, Decimal("1e-18")) if sku.reference else None


def _cost(sku: Sku, amount: Amount) -> Decimal:
    if sku.line.rate is None:
        return _usd(amount.nusd)
    return _EXACT.multiply(_unit_price(sku, amount) or Decimal(0), _quantity(sku, amount)[1])


def _pricing_unit(sku: Sku, per: int) -> str:
    if sku.line.meter is itemised.AUDIO_TIME:
        return "Hours"
    return sku.line.meter.unit if per == 1 else f"{per} {sku.line.meter.unit}"


def _usd(nusd: int) -> Decimal:
    return Decimal(nusd) / _NANO


def _at(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _json(pairs: dict[str, str]) -> str:
    return msgspec.json.encode({name: value for name, value in pairs.items() if value}, order="sorted").decode()


def _pointed(row: Row) -> Row:
    """With a point in every decimal: a column of whole ones is one of integers to whoever reads the file otherwise."""
    return {name: _point(value) if isinstance(value, Decimal) else value for name, value in row.items()}


def _point(value: Decimal) -> Decimal:
    short = value.normalize(_EXACT)
    exponent = short.as_tuple().exponent
    return short.quantize(Decimal("0.1"), context=_EXACT) if isinstance(exponent, int) and exponent > -1 else short


def chosen(version: str, splits: Sequence[str]) -> tuple[Version, frozenset[str]]:
    """What was asked for. Raises BadRequest where there is no such thing."""
    named = next((each for each in VERSIONS if each == version), None)
    if named is None:
        raise BadRequest(
            f"The version of FOCUS is one of {', '.join(VERSIONS)}, not {version[:20]!r}.", param="version"
        )
    for name in splits:
        if name not in SPLITS:
            raise BadRequest(f"Charges are told apart by {', '.join(SPLITS)}, not by {name[:40]!r}.", param="per")
    return named, frozenset(splits or USUAL)


class FocusFile:
    """Charges of records, written to a file as they come: an exports.monthly.Writer."""

    def __init__(self, file: BinaryIO, making: Focus, corrections: Corrections) -> None:
        """`corrections`: of all these records."""
        self._file = file
        self._making = making
        self._corrections = corrections
        file.write(csv_line(making.columns))

    def write(self, records: Iterable[Record]) -> None:
        """In the order in which they ended."""
        self._rows(self._making.add(records, self._corrections))

    def close(self) -> None:
        """Write the last day's; the file stays open."""
        self._rows(self._making.end())

    def _rows(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self._file.write(csv_line(row[name] for name in self._making.columns))
