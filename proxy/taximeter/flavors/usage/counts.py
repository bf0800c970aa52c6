"""Reading JSON that others wrote: members, counts and money, each unknown (None) rather than wrong.

Nothing here raises on any input. It must not know any API's names.
"""

from __future__ import annotations

import re
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation

import msgspec

from taximeter.flavors.usage.usual import NAME_CHARS, UNREADABLE

Fields = dict[str, object]
"""A decoded JSON object."""

Members = dict[str, msgspec.Raw]
"""A JSON object's members, each still as its bytes."""

_members = msgspec.json.Decoder(Members)
_decode = msgspec.json.Decoder()

_NANO = Decimal(10**9)
_TICKS_PER_NANO_USD = 10
_MAX_USD = 1_000_000
_MAX_TICKS = _MAX_USD * 10**10
_MAX_DIGITS = 40


def members(data: bytes | msgspec.Raw) -> Members | None:
    """The members of a JSON object; None where `data` is no readable object."""
    try:
        return _members.decode(data)
    except UNREADABLE:
        return None


def decode(data: bytes | msgspec.Raw) -> object:
    """Any JSON value; None where unreadable."""
    try:
        return _decode.decode(data)
    except UNREADABLE:
        return None


def fields(value: object) -> Fields:
    """`value` where it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[object]:
    """`value` where it is a JSON array, else an empty one."""
    return value if isinstance(value, list) else []


def text(value: object) -> str | None:
    """A non-empty string, else None."""
    return value if isinstance(value, str) and value else None


def raw_text(raw: msgspec.Raw | None) -> str | None:
    """The non-empty string in a raw member, else None."""
    return None if raw is None else text(decode(raw))


def short_text(raw: msgspec.Raw | None) -> str | None:
    """As `raw_text`, for names and ids: at most NAME_CHARS of it are kept."""
    found = raw_text(raw)
    return found if found is None else found[:NAME_CHARS]


def encode(value: object) -> bytes:
    """A decoded JSON value as compact JSON again; `null` where it nests too deep."""
    try:
        return msgspec.json.encode(value)
    except RecursionError:
        return b"null"


def count(value: object) -> int | None:
    """A whole number from 0 on. Integral floats count (Bedrock guardrails report `28.0`); anything else is unknown.

    It may be larger than any call can have: `core.usage.believable` judges a reading when all of it is read, as
    figures are added up and compared before.
    """
    if type(value) is int:
        return value if value >= 0 else None
    if type(value) is float and value.is_integer() and value >= 0:
        return int(value)
    return None


def header_count(value: bytes) -> int | None:
    """A count in a header."""
    value = value.strip()
    return int(value) if value.isdigit() and len(value) <= _MAX_DIGITS else None


def first(source: Fields, *names: str) -> int | None:
    """The first of `names` that holds a count."""
    for name in names:
        found = count(source.get(name))
        if found is not None:
            return found
    return None


def added(*parts: int | None) -> int | None:
    """The sum of what is known; None where nothing is."""
    known = [part for part in parts if part is not None]
    return sum(known) if known else None


def duration_s(value: object) -> float | None:
    """Seconds, from 0 on (see `count`), also as text (whisper-1 was documented so); anything else is unknown."""
    if isinstance(value, str) and _is_decimal(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        return None
    return float(min(value, 10**18))


_is_decimal = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?").fullmatch


def usd_to_nusd(value: object) -> int | None:
    """USD as a JSON number (or a decimal string) to integer nano-USD, rounded half to even, without float drift.

    `repr` of a float gives back the decimal digits the provider wrote, so 3.4e-07 becomes exactly 340.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        amount = Decimal(value if isinstance(value, str) else repr(value)[:40])
        if not 0 <= amount <= _MAX_USD:  # also refuses NaN and infinity, with InvalidOperation for NaN
            return None
        return int((amount * _NANO).to_integral_value(ROUND_HALF_EVEN))
    except (InvalidOperation, ValueError):
        return None


def ticks_to_nusd(value: object) -> int | None:
    """xAI's `cost_in_usd_ticks` (1 USD = 10**10 ticks) to integer nano-USD, rounded half to even."""
    ticks = count(value)
    if ticks is None or ticks > _MAX_TICKS:
        return None
    whole, rest = divmod(ticks, _TICKS_PER_NANO_USD)
    return whole + (1 if rest > 5 or (rest == 5 and whole % 2) else 0)
