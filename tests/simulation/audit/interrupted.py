"""What a dead writer's calls are recorded with: what their last line told before it died, no more and no less."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TOLD = ("response_bytes", "input_tokens", "output_tokens")


def expected(tick: Mapping[str, Any] | None) -> dict[str, Any]:
    """Of the record of a call whose last tick was this one (None: it had none), by docs/design.md and docs/limits.md:
    what is known, and what budgets are charged for the rest. Prices aside, as no budget here is in money."""
    found: dict[str, Any] = dict.fromkeys(
        (*TOLD, "partial", "total_tokens", "charged_tokens", "charged_input_tokens", "charged_output_tokens")
    )
    if tick is None:
        return found
    found |= {name: tick.get(name) for name in TOLD}
    found["partial"] = True if found["response_bytes"] else None
    known = [tokens for name in TOLD[1:] if (tokens := tick.get(name)) is not None]
    found["total_tokens"] = sum(known) if known else None
    bound = tick.get("bound_tokens")
    if bound is None:
        return found
    went = tick.get("bound_output_tokens")
    found["charged_tokens"] = _rest(bound, sum(known))
    if found["charged_tokens"] is not None:
        found["charged_output_tokens"] = _rest(bound if went is None else went, tick.get("output_tokens"))
        found["charged_input_tokens"] = _rest(bound - (went or 0), tick.get("input_tokens"))
    return found


def _rest(bound: int, known: int | None) -> int | None:
    return max(0, bound - (known or 0)) or None


def wrong(said: Mapping[str, Any], tick: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the record should say otherwise."""
    return {name: due for name, due in expected(tick).items() if (said.get(name) or None) != (due or None)}
