"""How figures are written for people: counts, money, shares, changes, lengths of time. For terminal and pages."""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Decimal

UNKNOWN = "—"


def count(number: int | None) -> str:
    """1247 -> 1,247; not known -> an em dash."""
    return UNKNOWN if number is None else f"{number:,}"


def places(amounts: Iterable[Decimal | None]) -> int:
    """How many decimals a column of money has: cents where its largest is ten dollars, six digits where it is cents."""
    largest = max((abs(usd) for usd in amounts if usd is not None), default=Decimal(0))
    return 2 if largest >= 10 or not largest else 4 if largest >= Decimal("0.1") else 6


def money(usd: Decimal | None, decimals: int | None = None) -> str:
    """Cents from a dollar on, up to four digits from a cent on, up to six below; no price -> an em dash.

    `decimals`: so many, as in a column all have; what is there but less says so.
    """
    if usd is None:
        return UNKNOWN
    sign, size = ("-", -usd) if usd < 0 else ("", usd)
    if decimals is not None:
        least = Decimal(1).scaleb(-decimals)
        return f"{sign}<${least:f}" if 0 < size < least else f"{sign}${size:,.{decimals}f}"
    if size == 0 or size >= 1:
        return f"{sign}${size:,.2f}"
    if size < Decimal("0.000001"):
        return f"{sign}<$0.000001"
    whole, _, fraction = f"{size:.{4 if size >= Decimal('0.01') else 6}f}".partition(".")
    return f"{sign}${whole}.{fraction.rstrip('0'):0<2}"


def short(number: float) -> str:
    """For axes: 1500 -> 1.5k, 2_000_000 -> 2M; below a thousand up to two decimals, below 1 up to three digits."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{unit}"
    if number == int(number):
        return f"{int(number)}"
    decimals = 2 if abs(number) >= 1 else 2 - math.floor(math.log10(abs(number)))
    return f"{number:.{decimals}f}".rstrip("0").rstrip(".")


def change(now: Decimal | int | None, before: Decimal | int | None) -> str:
    """How much more or less than before: `+12 %`, `−3 %`, `×4.2` from threefold on; "" where there is no before."""
    if now is None or not before:
        return ""
    ratio = float(now) / float(before)
    if ratio >= 3:
        return f"×{ratio:,.1f}" if ratio < 100 else f"×{ratio:,.0f}"
    percent = round((ratio - 1) * 100)
    if percent == -100 and ratio:
        return "−99 %"  # something is left
    return "±0 %" if percent == 0 else f"{'+' if percent > 0 else '−'}{abs(percent)} %"


def share(part: Decimal | int | None, whole: Decimal | int | None) -> str:
    """`12 %`; `<1 %` for what is there but less; an em dash where there is no whole."""
    if part is None or not whole:
        return UNKNOWN
    percent = float(part) / float(whole) * 100
    return "<1 %" if 0 < percent < 1 else f"{percent:.0f} %"


def rate(part: float | None) -> str:
    """A part of few as a percentage with one decimal: `0.3 %`; `<0.1 %` for what is there but less."""
    if part is None:
        return UNKNOWN
    return "<0.1 %" if 0 < part < 0.001 else f"{part * 100:.1f} %"


def milliseconds(ms: float | None) -> str:
    """12.3 -> 12 ms, 1500 -> 1.5 s, 90_000 -> 1 min 30 s; not known -> an em dash."""
    if ms is None:
        return UNKNOWN
    if ms < 1_000:
        return f"{ms:.0f} ms"
    if ms < 60_000:
        return f"{ms / 1_000:.1f} s"
    minutes, seconds = divmod(round(ms / 1_000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def size(number: int) -> str:
    """Bytes in binary units: 1536 -> 1.5 KiB."""
    amount = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
