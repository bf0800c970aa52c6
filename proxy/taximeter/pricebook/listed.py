"""prices.toml: the operator's own dated prices. Its format is declared here, read, checked and made into rate cards."""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec

from taximeter.core.errors import ConfigError
from taximeter.core.prices import Card, Rates, Schedule, Sized, Span
from taximeter.pricebook.catalog import Declared, Listed
from taximeter.pricebook.changes import Fee, Region
from taximeter.pricebook.local import LocalTable, local_card
from taximeter.pricebook.names import provider_name

Usd = Decimal


class _Table(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Rates in USD; tokens and characters per million, counts per thousand, audio per hour, video per second."""

    input_usd_per_mtok: Usd | None = None
    cached_input_usd_per_mtok: Usd | None = None
    cache_write_usd_per_mtok: Usd | None = None
    cache_write_1h_usd_per_mtok: Usd | None = None
    audio_input_usd_per_mtok: Usd | None = None
    image_input_usd_per_mtok: Usd | None = None
    output_usd_per_mtok: Usd | None = None
    reasoning_output_usd_per_mtok: Usd | None = None
    audio_output_usd_per_mtok: Usd | None = None
    image_output_usd_per_mtok: Usd | None = None
    requests_usd_per_1k: Usd | None = None
    search_units_usd_per_1k: Usd | None = None
    web_searches_usd_per_1k: Usd | None = None
    file_searches_usd_per_1k: Usd | None = None
    code_interpreter_sessions_usd_per_1k: Usd | None = None
    maps_usd_per_1k: Usd | None = None
    image_generations_usd_per_1k: Usd | None = None
    images_usd_per_1k: Usd | None = None
    characters_usd_per_1m: Usd | None = None
    pages_usd_per_1k: Usd | None = None
    annotated_pages_usd_per_1k: Usd | None = None
    video_usd_per_second: Usd | None = None
    audio_usd_per_hour: Usd | None = None


class Above(_Table, kw_only=True):
    """[[price.above]]: these rates apply to all tokens once the input exceeds `input_tokens`."""

    input_tokens: int


class SizedTable(_Table, kw_only=True):
    """[[price.sized]]: these rates apply to what is made in one of these sizes and qualities; the first that fits
    counts, and what none fits has no price."""

    sizes: list[str] = []
    """Names or patterns with `*`; "" is a call that names none. No `sizes`: any."""
    qualities: list[str] = []
    """Likewise."""


class Price(_Table, kw_only=True):
    """[[price]]: what a model costs from a day on, until a later entry for the same model and tier."""

    provider: str
    model: str
    """Its name, or a pattern with `*`; any case."""
    since: datetime.date = msgspec.field(name="from")
    """First UTC day."""
    service_tier: str = ""
    """The tier as the provider reports it (batch, flex, priority …); empty: the list price."""
    hours_utc: str = ""
    """Part of the day, "16:30-00:30"; empty: all of it."""
    free: bool = False
    """Costs nothing: a local server."""
    same_as: str = ""
    """Costs what `provider/model` costs, by the list prices; `provider/*` keeps the model's name."""
    above: list[Above] = []
    sized: list[SizedTable] = []
    source: str
    """Where the price is published, or whose decision it is."""


class RegionTable(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """[[region]]: what tokens cost in a region, in percent of the list price."""

    provider: str
    model: str
    """A pattern with `*`; of several that match, the first in the file counts."""
    region: str
    """Its name as in a path, a host or an answer, or a pattern with `*`."""
    since: datetime.date = msgspec.field(name="from")
    percent: Annotated[int, msgspec.Meta(ge=1, le=10_000)]
    source: str


class FeeTable(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """[[fee]]: what uses of the provider's tools cost with models whose list price does not say."""

    provider: str
    model: str
    since: datetime.date = msgspec.field(name="from")
    web_searches_usd_per_1k: Usd | None = None
    file_searches_usd_per_1k: Usd | None = None
    code_interpreter_sessions_usd_per_1k: Usd | None = None
    maps_usd_per_1k: Usd | None = None
    image_generations_usd_per_1k: Usd | None = None
    source: str


class PriceFile(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    price: list[Price] = []
    region: list[RegionTable] = []
    fee: list[FeeTable] = []
    local: list[LocalTable] = []


class Dated(NamedTuple):
    """A card, and when it applies."""

    since: datetime.date
    hours_utc: str
    card: Card


class Stated(NamedTuple):
    """What a price file says."""

    models: list[Declared]
    """In matching order: exact names first, then patterns, the longest first."""
    regions: list[Region]
    fees: list[Fee]


NOTHING = Stated([], [], [])


_PER = {"mtok": 10**6, "1m": 10**6, "1k": 10**9, "second": 10**12, "hour": 10**12}
"""USD per unit -> pico-USD for one (a rate for audio stays per hour)."""
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


def read_prices(path: Path) -> Stated:
    """A price file.

    Raises ConfigError with file, entry, what is wrong and what is allowed.
    """
    try:
        table = tomllib.loads(path.read_text("utf-8"), parse_float=Decimal)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    try:
        stated = msgspec.convert(table, PriceFile, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}. {_allowed(str(error))}") from None
    groups: dict[tuple[str, str], dict[str, list[Dated]]] = {}
    for entry, card in _cards(path, stated):
        key = (provider_name(entry.provider), entry.model.lower())
        tier, hours = (entry.service_tier.lower(), entry.hours_utc) if isinstance(entry, Price) else ("", "")
        groups.setdefault(key, {}).setdefault(tier, []).append(Dated(entry.since, hours, card))
    declared = [
        Declared(
            provider=provider,
            listed=Listed(model=model, tiers={tier: _schedule(cards) for tier, cards in tiers.items()}),
        )
        for (provider, model), tiers in groups.items()
    ]
    declared.sort(key=lambda entry: ("*" in entry.listed.model, -len(entry.listed.model)))
    return Stated(declared, list(map(_region, stated.region)), _fees(path, stated.fee))


def _cards(path: Path, stated: PriceFile) -> Iterator[tuple[Price | LocalTable, Card]]:
    """What is stated of models, and its card. Of two entries from the same day the one in [[price]] counts."""
    for number, local in enumerate(stated.local):
        try:
            yield local, local_card(local)
        except ValueError as error:
            raise ConfigError(f"{path}: $.local[{number}] ({local.provider}/{local.model}): {error}") from None
    for number, price in enumerate(stated.price):
        try:
            yield price, _card(price)
        except ValueError as error:
            raise ConfigError(f"{path}: $.price[{number}] ({price.provider}/{price.model}): {error}") from None


def _region(table: RegionTable) -> Region:
    return Region(
        provider=provider_name(table.provider),
        model=table.model.lower(),
        region=table.region.lower(),
        from_us=_us(table.since),
        percent=table.percent,
    )


def _fees(path: Path, tables: list[FeeTable]) -> list[Fee]:
    fees = []
    for number, table in enumerate(tables):
        ref = f"fee:{provider_name(table.provider)}/{table.model}@{table.since.isoformat()}"
        try:
            rates = Rates(**_figures(table))
        except ValueError as error:
            raise ConfigError(f"{path}: $.fee[{number}] ({table.provider}/{table.model}): {error}") from None
        fees.append(
            Fee(
                provider=provider_name(table.provider),
                model=table.model.lower(),
                from_us=_us(table.since),
                rates=rates,
                ref=ref,
            )
        )
    return fees


def _us(day: datetime.date) -> int:
    """The day's first moment, UTC."""
    return int(datetime.datetime.combine(day, datetime.time(), datetime.UTC).timestamp()) * 1_000_000


def _allowed(message: str) -> str:
    kinds: dict[str, type[msgspec.Struct]] = {
        "$.price": Price, "$.region": RegionTable, "$.fee": FeeTable, "$.local": LocalTable,
    }  # fmt: skip
    kind = next((kind for place, kind in kinds.items() if place in message), None)
    if kind is None:
        return "A price file has [[price]], [[region]], [[fee]] and [[local]] entries only."
    if ".above[" in message:
        kind = Above
    if ".sized[" in message:
        kind = SizedTable
    names = [field.encode_name for field in msgspec.structs.fields(kind)]
    return f"Allowed: {', '.join(names)}; from is a date (2026-01-31), prices are numbers."


def _card(price: Price) -> Card:
    rates = _rates(price)
    ref = f"prices.toml:{provider_name(price.provider)}/{price.model}@{price.since.isoformat()}"
    if price.service_tier:
        ref += f"#{price.service_tier.lower()}"
    if not price.source.strip():
        raise ValueError("source must say where the price is published, or whose decision it is")
    if price.hours_utc and not _HOURS.fullmatch(price.hours_utc.strip()):
        raise ValueError(f"hours_utc: {price.hours_utc!r} is not a part of the day, as in 16:30-00:30")
    if sum((price.free, bool(price.same_as), rates != Rates() or bool(price.sized))) != 1:
        raise ValueError("exactly one of these must be given: rates, free = true, same_as")
    if price.free:
        return Card(ref=ref, rates=Rates(), free=True)
    if price.same_as:
        provider, slash, model = price.same_as.partition("/")
        if not (provider and slash and model):
            raise ValueError(f"same_as: {price.same_as!r} is not provider/model, as in openai/gpt-4o or openai/*")
        return Card(ref=ref, rates=Rates(), same_as=(provider_name(provider), model.lower()))
    above = []
    for tier in sorted(price.above, key=lambda tier: tier.input_tokens):
        changed = {key: value for key, value in _figures(tier).items() if value is not None}
        above.append((tier.input_tokens, msgspec.structs.replace(rates, **changed)))
    return Card(ref=ref, rates=rates, above=tuple(above), sized=tuple(_sized(rates, one) for one in price.sized))


def _sized(rates: Rates, table: SizedTable) -> Sized:
    changed = {key: value for key, value in _figures(table).items() if value is not None}
    if not changed or not (table.sizes or table.qualities):
        raise ValueError("sized: an entry needs a price, and sizes or qualities it is about")
    sizes, qualities = (tuple(name.strip().lower() for name in listed) for listed in (table.sizes, table.qualities))
    return Sized(sizes, qualities, msgspec.structs.replace(rates, **changed))


def _rates(table: _Table) -> Rates:
    return Rates(**_figures(table))


def _figures(table: _Table | FeeTable) -> dict[str, int | None]:
    """`input_usd_per_mtok = 0.15` -> {"input": 150000}, for each rate."""
    figures: dict[str, int | None] = {}
    for field in _Table.__struct_fields__ if isinstance(table, _Table) else _FEES:
        name, _, unit = field.rpartition("_usd_per_")
        usd: Decimal | None = getattr(table, field)
        figures[_RATE_NAMES.get(name, name)] = None if usd is None else _pico(field, usd, _PER[unit])
    return figures


_FEES = tuple(name for name in FeeTable.__struct_fields__ if "_usd_per_" in name)
_RATE_NAMES = {
    "requests": "request",
    "search_units": "search_unit",
    "web_searches": "web_search",
    "file_searches": "file_search",
    "code_interpreter_sessions": "code_interpreter",
    "audio": "audio_hour",
    "images": "image",
    "image_generations": "image_generation",
    "characters": "character",
    "pages": "page",
    "annotated_pages": "annotated_page",
    "video": "video_second",
}


def _pico(field: str, usd: Decimal, per: int) -> int:
    if not usd.is_finite() or usd < 0:
        raise ValueError(f"{field}: {usd} is not a price; a number of USD, 0 or more, is")
    pico = usd * per
    if pico != int(pico):
        raise ValueError(f"{field}: {usd} has more decimals than can be priced exactly (1e-12 USD a unit)")
    return int(pico)


def _schedule(cards: list[Dated]) -> Schedule:
    """Spans from each day on which something changes; on equal terms the later entry of the file counts."""
    spans = []
    for day in sorted({dated.since for dated in cards}):
        whole: Card | None = None
        parts: list[tuple[int, int, Card]] = []
        for since, hours_utc, card in sorted(cards, key=lambda dated: dated.since):
            if since > day:
                break
            if hours_utc:
                parts.append((*_hours(hours_utc), card))
            else:
                whole, parts = card, []  # a price for the whole day replaces what was before it
        starts = sorted({0} | {edge for start, end, _ in parts for edge in (start, end)})
        cards_of_day = []
        for start in starts:
            inside = [card for begin, end, card in parts if _within(start, begin, end)]
            cards_of_day.append(inside[-1] if inside else whole)
        spans.append(Span(from_us=_us(day), cards=tuple(cards_of_day), starts_s=tuple(starts)))
    return tuple(spans)


def _hours(text: str) -> tuple[int, int]:
    """Seconds of the day; `text` has been checked."""
    start_h, start_m, end_h, end_m = map(int, re.findall(r"\d\d", text))
    return start_h * 3600 + start_m * 60, end_h * 3600 + end_m * 60


def _within(second: int, start: int, end: int) -> bool:
    return start <= second < end if start < end else second >= start or second < end
