"""The cap of a run that its calls bring with them: `x-taximeter-budget: 2.50 usd`. Pure."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from taximeter.budgets.responses import limit_of
from taximeter.budgets.rule import CAP_UNITS, MOST
from taximeter.core.errors import BadRequest

if TYPE_CHECKING:
    from taximeter.budgets.tally import Unit
    from taximeter.gateway.bounds.readable import Headers

CAP_HEADER = "x-taximeter-budget"
HEADER = CAP_HEADER.encode()


def cap_said(headers: Headers) -> tuple[Unit, int] | None:
    """The cap that a request names: unit and limit, as it is counted; None: none. Raises BadRequest."""
    values = [value for name, value in headers if name == HEADER]
    if not values:
        return None
    amount, _, unit = values[0].strip().decode("latin-1").partition(" ")
    wanted = next((each for each in CAP_UNITS if each == unit.strip().lower()), None)
    if wanted is None or len(values) > 1:
        raise BadRequest(f"{CAP_HEADER} says one amount, such as '2.50 usd' or '100000 tokens'.", param=CAP_HEADER)
    try:
        limit = limit_of(Decimal(amount), wanted)
    except (InvalidOperation, BadRequest):
        raise BadRequest(f"{CAP_HEADER}: {amount[:40]!r} is no amount of {wanted}.", param=CAP_HEADER) from None
    if not 0 < limit <= MOST:
        raise BadRequest(f"{CAP_HEADER}: the limit must be more than 0, and at most 2^53.", param=CAP_HEADER)
    return wanted, limit
