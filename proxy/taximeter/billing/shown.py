"""A statement in words: what tables, pages and PDFs show of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import msgspec
from msgspec import UNSET

from taximeter.billing.statement import Amount, Line, Statement, UnitPrice
from taximeter.core.figures import count
from taximeter.core.times import local, moment_us, zone

UNKNOWN = "unknown"
NONE = "(none)"
_WORDS = {
    "requests": "requests",
    "input_tokens": "input",
    "cached_input_tokens": "cached input",
    "cache_write_input_tokens": "cache write",
    "output_tokens": "output",
    "reasoning_output_tokens": "reasoning",
    "embedding_tokens": "embedding",
    "rerank_tokens": "rerank",
    "search_units": "search units",
    "audio_input_tokens": "audio input",
    "image_input_tokens": "image input",
    "audio_output_tokens": "audio output",
    "audio_ms": "ms of audio",
    "chunks": "chunks",
    "counted_tokens": "tokens counted here",
    "estimated_tokens": "tokens estimated",
}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A line as text."""

    about: str
    used: str
    prices: str
    remarks: str
    """What is unknown, unpriced, uncharged, and why."""
    cost: str
    """Empty: not for this reader."""
    charge: str


def row(line: Line, currency_places: int) -> Row:
    """One line in words; amounts in the statement's currency."""
    return Row(
        about=about(line),
        used=used(line),
        prices="; ".join([*cost_prices(line), *map(unit_price, line.prices)]),
        remarks="; ".join(remarks(line)),
        cost=amount(line.cost, currency_places),
        charge=amount(line.charge, currency_places),
    )


def about(line: Line) -> str:
    """What a line is about."""
    named = ", ".join(value or f"no {name.replace('_', ' ')}" for name, value in line.key.items()) or "all calls"
    if line.quantities.chunks and not line.quantities.requests and not any(line.key.values()):
        named = "chunks"
    return named if line.corrects is None else f"correction of statement {line.corrects}: {named}"


def used(line: Line) -> str:
    """Quantities that are not 0."""
    figures: Mapping[str, int] = msgspec.structs.asdict(line.quantities)
    found = [f"{count(figure)} {_WORDS[name]}" for name, figure in figures.items() if figure]
    found += [f"{count(figure)} {name.replace('_', ' ')}" for name, figure in line.others.items()]
    if line.quantities.requests:
        found[0] = _requests(line.quantities.requests)
    return ", ".join(found) or ("no use, its cost alone" if line.corrects is not None else "nothing")


def _requests(number: int) -> str:
    return f"{count(number)} request{'' if abs(number) == 1 else 's'}"


def unit_price(price: UnitPrice) -> str:
    """`1,234 rag_llm_input at 0.0015 for 1,000`."""
    per = f" for {count(price.per)}" if price.per != 1 else " each"
    if price.usd is not None:
        return f"{count(price.quantity)} {price.code} at USD {price.usd:f}{per}"
    steps = ", ".join(f"from {count(start)}: {usd:f}" for start, usd in price.steps)
    return f"{count(price.quantity)} {price.code} at USD {steps}{per}"


def cost_prices(line: Line) -> list[str]:
    """`cost: 1,200 input tokens at USD 2.5 for 1,000,000`; of what the reader may see."""
    if line.cost_prices is UNSET:
        return []
    return [
        f"cost: {each.quantity:,f} {each.unit.lower()} at USD {each.usd.normalize():f}"
        + (f" for {count(each.per)}" if each.per != 1 else " each")
        for each in line.cost_prices
    ]


def remarks(line: Line) -> list[str]:
    """What is not known of a line, and why."""
    found = []
    if line.unknown_requests:
        found.append(f"{_requests(line.unknown_requests)} of which it is not known what they used")
    if isinstance(line.unpriced_requests, int) and line.unpriced_requests:
        found.append(f"{_requests(line.unpriced_requests)} without a price")
    if line.unpriced_reasons is not UNSET and line.unpriced_reasons:
        found.append(
            "because: " + ", ".join(f"{why.replace('_', ' ')} {count(n)}" for why, n in line.unpriced_reasons.items())
        )
    if line.uncharged_requests:
        found.append(f"{_requests(line.uncharged_requests)} without a charge so far")
    if line.left_out:
        found.append("not charged: " + ", ".join(kind.replace("_", " ") for kind in line.left_out))
    return found


def amount(value: Amount, places: int) -> str:
    """An amount as it is printed; 9 places are exact, so zeros at their end are left out."""
    if value is UNSET:
        return ""
    if not isinstance(value, Decimal):
        return UNKNOWN
    if places == EXACT:
        return f"{value:,f}".rstrip("0").rstrip(".") if value % 1 else f"{value:,.0f}"
    return f"{value:,.{places}f}"


EXACT = 9


def title(statement: Statement) -> str:
    """`Statement 3 of acme`, or what it is before it is closed."""
    number = f"Statement {statement.number}" if statement.number is not None else "Draft statement"
    return f"{number} of {statement.workspace}"


def period(statement: Statement) -> str:
    """The period in its own time zone."""
    place = zone(statement.tz)
    ends = [f"{local(moment_us(at, place, 'from'), place):%Y-%m-%d %H:%M}" for at in (statement.from_, statement.to)]
    return " to ".join(end.removesuffix(" 00:00") for end in ends) + f" ({statement.tz}; the end is not included)"


def words(statement: Statement) -> list[str]:
    """What stands below the lines."""
    total = statement.total
    found = list(statement.notes)
    rates = {line.rate for line in statement.lines} - {Decimal(1)}
    if rates:
        found.append(
            f"One USD is {', '.join(f'{rate:f}' for rate in sorted(rates))} {statement.currency}. Each line is rounded "
            f"to {statement.decimals} decimals, half to even; totals are sums of rounded lines."
        )
    if total.unknown_requests > 0:
        found.append(f"Of {_requests(total.unknown_requests)} it is not known what they used; no amount has them.")
    if isinstance(total.unpriced_requests, int) and total.unpriced_requests > 0:
        found.append(f"Not priced: {_requests(total.unpriced_requests)}; the cost is without them.")
    if total.uncharged_requests > 0:
        found.append(
            f"Without a charge so far: {_requests(total.uncharged_requests)}; no plan says one, or the "
            "provider's price is not known. The charge is without them."
        )
    if statement.closed_at is not None:
        found.append(f"Closed at {statement.closed_at} by {statement.closed_by}.")
    else:
        found.append("Not closed: these figures may still change.")
    return found


class Printed(msgspec.Struct, frozen=True, kw_only=True):
    """A whole statement as text, for pages, PDFs and terminals."""

    title: str
    period: str
    plans: str
    """Names, with commas; empty: none."""
    by: str
    """Head of the column that says what each line is about."""
    currency: str
    own: bool
    """Whether cost and margin are shown."""
    rows: list[Row]
    cost: str
    charge: str
    margin: str
    words: list[str]


def printed(statement: Statement) -> Printed:
    """A statement as text."""
    total, places = statement.total, statement.decimals
    return Printed(
        title=title(statement),
        period=period(statement),
        plans=", ".join(statement.plans),
        by=", ".join(statement.by).replace("_", " ").capitalize() or "All calls",
        currency=statement.currency,
        own=total.cost_usd is not UNSET,
        rows=[row(line, places) for line in statement.lines],
        cost=amount(total.cost, places),
        charge=amount(total.charge, places),
        margin=amount(total.margin, places),
        words=words(statement),
    )
