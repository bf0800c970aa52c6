"""What a model on hardware of one's own costs: the hour of its GPUs over what it does in an hour. Pure.

As a table of a price file (`[[local]]`), where both are stated; and as an entry of one, where the cost of a window and
what passed here in it are known.
"""

from __future__ import annotations

import datetime
import json
from decimal import ROUND_HALF_EVEN, Decimal

import msgspec

from taximeter.core.prices import Card, Rates
from taximeter.pricebook.names import provider_name

PICO = 10**12
MTOK = 10**6
_SIX = Decimal("0.000001")
"""Rates are written with six decimals: whole pico-USD a token, as they are priced."""

Usd = Decimal
PerHour = Decimal
"""How much of something is done in an hour at the load that it is priced at."""


class LocalTable(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """[[local]]: what a model on GPUs of one's own costs from a day on, by what they do in an hour."""

    provider: str
    model: str
    """Its name, or a pattern with `*`; any case."""
    since: datetime.date = msgspec.field(name="from")
    """First UTC day."""
    gpu_usd_per_hour: Usd
    """Of one GPU with all that it needs: machine, power, the hours it is idle."""
    gpus: int = 1
    tokens_per_hour: PerHour | None = None
    """Measured: input and output together."""
    input_tokens_per_hour: PerHour | None = None
    """Or apart, each when nothing but that is done; embedding models have no output."""
    output_tokens_per_hour: PerHour | None = None
    audio_hours_per_hour: PerHour | None = None
    """Hours of audio transcribed."""
    images_per_hour: PerHour | None = None
    source: str
    """How it was measured, or whose decision it is."""


def local_card(table: LocalTable) -> Card:
    """Its rates. Raises ValueError with what is wrong."""
    if not table.source.strip():
        raise ValueError("source must say how it was measured, or whose decision it is")
    if not table.gpu_usd_per_hour.is_finite() or table.gpu_usd_per_hour < 0:
        raise ValueError(f"gpu_usd_per_hour: {table.gpu_usd_per_hour} is not a price; a number of USD, 0 or more, is")
    if table.gpus < 1:
        raise ValueError(f"gpus: {table.gpus} is no number of GPUs; 1 or more is")
    apart = table.input_tokens_per_hour is not None
    stated = (
        table.tokens_per_hour is not None,
        apart,
        table.audio_hours_per_hour is not None,
        table.images_per_hour is not None,
    )
    if sum(stated) != 1 or (table.output_tokens_per_hour is not None and not apart):
        raise ValueError(
            "exactly one of these must be given: tokens_per_hour; input_tokens_per_hour, with output_tokens_per_hour "
            "where it generates; audio_hours_per_hour; images_per_hour"
        )
    into, out = table.input_tokens_per_hour, table.output_tokens_per_hour
    if table.tokens_per_hour is not None:
        into = out = table.tokens_per_hour
    hour_usd = table.gpu_usd_per_hour * table.gpus
    rates = Rates(
        input=_each(hour_usd, "tokens_per_hour", into),
        output=_each(hour_usd, "tokens_per_hour", out),
        audio_hour=_each(hour_usd, "audio_hours_per_hour", table.audio_hours_per_hour),
        image=_each(hour_usd, "images_per_hour", table.images_per_hour),
    )
    return Card(ref=f"local:{provider_name(table.provider)}/{table.model}@{table.since.isoformat()}", rates=rates)


def _each(hour_usd: Decimal, name: str, per_hour: Decimal | None) -> int | None:
    """pico-USD of one, of which so many take an hour."""
    if per_hour is None:
        return None
    if not per_hour.is_finite() or per_hour <= 0:
        raise ValueError(f"{name}: {per_hour} is not what is done in an hour; a number above 0 is")
    return int((hour_usd * PICO / per_hour).to_integral_value(ROUND_HALF_EVEN))


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What a model cost in a window, and what it did in it."""

    provider: str
    model: str
    since: datetime.date
    """From which UTC day the price that follows holds."""
    usd: Decimal
    input_tokens: int
    output_tokens: int
    output_weight: Decimal
    """What an output token costs, where an input token costs 1."""
    source: str

    @property
    def input_usd_per_mtok(self) -> Decimal:
        """Such that the window's tokens cost what the window did. Raises ValueError where there were none."""
        weighed = self.input_tokens + self.output_tokens * self.output_weight
        if not weighed:
            raise ValueError(
                f"no tokens of {self.provider}/{self.model} passed in that time: there is nothing to price"
            )
        return self.usd * MTOK / weighed

    def entry(self) -> str:
        """As an entry of a price file. Raises ValueError."""
        into = self.input_usd_per_mtok
        rates = {"input": into, "output": into * self.output_weight}
        lines = ["[[price]]", f"provider = {_text(self.provider)}", f"model = {_text(self.model)}"]
        lines += [f"from = {self.since.isoformat()}"]
        lines += [f"{name}_usd_per_mtok = {usd.quantize(_SIX, ROUND_HALF_EVEN):f}" for name, usd in rates.items()]
        return "\n".join([*lines, f"source = {_text(self.source)}"]) + "\n"


def _text(text: str) -> str:
    """As TOML has it; JSON's escapes are among its own."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
