"""OpenCost's allocations: what workloads cost in a window (https://www.opencost.io/docs/integrations/api). Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

import msgspec

from taximeter.core.errors import BadRequest

KINDS = {"total": "totalCost", "gpu": "gpuCost"}
_SHOWN = 12


class Allocated(NamedTuple):
    """What one name was allocated."""

    usd: Decimal
    start: datetime
    end: datetime


class _Window(msgspec.Struct):
    start: datetime
    end: datetime


class _Allocation(msgspec.Struct, rename="camel"):
    window: _Window
    total_cost: Decimal
    gpu_cost: Decimal = Decimal(0)


class _Answer(msgspec.Struct):
    """`data` has a set of allocations for each step of the window."""

    code: int
    data: list[dict[str, _Allocation] | None] | None = None
    message: str = ""


_decode = msgspec.json.Decoder(_Answer, float_hook=Decimal).decode


def allocations(body: bytes, kind: str) -> dict[str, Allocated]:
    """The answer of `/allocation` (also `/allocation/compute`, also Kubecost's), by name; steps are added up.

    `kind`: a key of KINDS. Raises BadRequest on anything else.
    """
    try:
        answer = _decode(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"That is no answer of OpenCost's /allocation: {error}.") from None
    if answer.code != 200 or answer.data is None:
        raise BadRequest(f"OpenCost answered {answer.code}: {answer.message[:200] or 'without data'}.")
    found: dict[str, Allocated] = {}
    for step in answer.data:
        for name, one in (step or {}).items():
            usd = one.total_cost if kind == "total" else one.gpu_cost
            start, end = one.window.start.astimezone(UTC), one.window.end.astimezone(UTC)
            so_far = found.get(name)
            if so_far is not None:
                usd, start, end = usd + so_far.usd, min(start, so_far.start), max(end, so_far.end)
            found[name] = Allocated(usd, start, end)
    return found


def of_name(found: dict[str, Allocated], name: str) -> Allocated:
    """What this name was allocated. Raises BadRequest where there is none, with those that there are."""
    if name not in found:
        names = ", ".join(sorted(found)[:_SHOWN]) or "none"
        raise BadRequest(f"OpenCost allocated nothing to {name!r} in that time. There are: {names}.", param="model")
    return found[name]
