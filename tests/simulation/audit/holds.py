"""What calls in flight hold of budgets, looked at whenever a script has run: not only at rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from simulation.audit.spending import dimension, each, value

SPACE = b"tm:{w0}:"
TALLIES = SPACE + b"tally:"


def wrong(keys: Mapping[bytes, Any], budgets: Sequence[dict[str, Any]], *, exact: bool) -> str:
    """What is; "": nothing, or calls are not decided now. `exact`: nothing was forgotten and no slice is put aside, so
    that what is used, charged and held together is within the limit at every moment."""
    held: dict[bytes, bytes] = keys.get(SPACE + b"held") or {}
    epoch, generation = held.get(b":epoch", b"-"), keys.get(SPACE + b"gen", b"rebuild:")
    if epoch.startswith(b"-") or generation.startswith(b"rebuild:"):
        return ""
    parts: Counter[bytes] = Counter()
    for said in (keys.get(SPACE + b"reserved") or {}).values():
        words = said.split()
        for field, amount in zip(words[::2], words[1::2], strict=True):
            parts[field] += int(amount)
    sums = {field: int(amount) for field, amount in held.items() if not field.startswith(b":")}
    if sums != {field: amount for field, amount in parts.items() if amount}:
        return f"Redis says that {sums} is held, and calls hold {dict(parts)}"
    tallies = [(key, value) for key, value in keys.items() if key.startswith(TALLIES)] if exact else ()
    for n, budget in enumerate(budgets if tallies else ()):
        if budget.get("period", "total") != "total" or budget.get("mode") == "soft":
            continue  # calls of the next period hold their part while sums of this one are there
        of_unit = TALLIES + f"{budget['unit']}:total:0".encode()
        for key, amounts in tallies:
            scope = key.removeprefix(of_unit)
            if scope == key:
                continue
            name, _, of = scope.decode().removeprefix(":").partition("=")
            if name != dimension(budget) or value(budget, {name: of}) is None:
                continue
            holds = sums.get(b"b%d/%b" % (n, of.encode()) if each(budget) else b"b%d" % n, 0)
            spent = int(amounts.get(b"used", 0)) + int(amounts.get(b"charged", 0))
            if spent + holds > budget["limit"]:
                return f"{spent} of {budget} is spent and {holds} more held, of {of or 'w0'}"
    return ""
