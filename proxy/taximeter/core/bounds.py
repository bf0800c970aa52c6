"""The bounds of what a record may hold, so that every sink can take it and no sum of it fails."""

from __future__ import annotations

import types
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from taximeter.core.usage import MAX_COUNT

MAX_COST_NUSD = 10**13
"""Largest cost of one call, 10,000 USD; a larger one is cut to it and says so (`cost_note`).

The dearest call there is costs a seventh of that: ten million input tokens (the largest window sold) at 150 USD a
million. A sum holds 461,168 calls at this bound, or 4.6 billion USD (MAX_SUM)."""
MAX_SUM = 2**62 - 1
"""Where a sum stops instead of failing, and its negative. Two of them still add up in 64 bits, so a database can cut a
sum to it with its own arithmetic; a sum that stands at it is at least so much.

With MAX_COUNT and MAX_COST_NUSD that takes 4.6 billion calls of a billion tokens each, or 461,168 of 10,000 USD."""

MAX_DURATION_MS = 10**10
"""Longest time believed of one call: 115 days."""
FOREVER_US = 253_370_764_800_000_000
"""The year 9999: there is no later moment (µs since epoch)."""
MAX_ATTEMPT = 32_767
MAX_SEQ = 2**40 - 1
"""Records of one journal."""
TAG_CHARS, TAG_BYTES = 128, 256
"""Longest tag, and longest request id, in characters and as UTF-8; what the gateway lets in is no longer, and ASCII."""

Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
Moment = Annotated[int, msgspec.Meta(ge=0, lt=FOREVER_US)]
Cost = Annotated[int, msgspec.Meta(ge=-MAX_SUM, le=MAX_SUM)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=MAX_DURATION_MS)]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Tag = Annotated[str, msgspec.Meta(min_length=1, max_length=TAG_CHARS)]
"""What every sink can hold. Checked where a line is read (`journal.lenient`), not where a record is made."""


def types_of(kind: Any) -> tuple[Any, ...]:
    """The types a member of a record may have, without their bounds: of `Count | None` (int, NoneType)."""
    if get_origin(kind) in (types.UnionType, Union):
        return tuple(one for part in get_args(kind) for one in types_of(part))
    return types_of(get_args(kind)[0]) if get_origin(kind) is Annotated else (kind,)
