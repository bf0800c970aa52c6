"""Rates of some seeds: requests and tokens in a window, and calls at once; with windows as short as a simulation is."""

from __future__ import annotations

import random
from typing import Any

WINDOWS = (
    "taximeter.budgets.rates:WINDOW_S",
    "taximeter.budgets.rate_windows:WINDOW_S",
    "taximeter.gateway.admission.rates:WINDOW_S",
)


def draw(seed: int, calls: int, over_s: float) -> tuple[list[dict[str, Any]], int, str]:
    """The rates, how long their windows are (s), and what becomes of calls while Redis is away. Of about every third
    seed."""
    drawn = random.Random(f"{seed}/rates")
    if drawn.random() > 0.35:
        return [], 60, ""
    window_s = drawn.choice((2, 3, 5))
    begin = max(3, int(calls * window_s / over_s))
    """So many calls begin in a window."""
    found: list[dict[str, Any]] = []
    for kind in ("requests_per_minute", "tokens_per_minute", "concurrent"):
        if drawn.random() < 0.6:
            most = {"requests_per_minute": begin, "tokens_per_minute": 40 * begin, "concurrent": 6}[kind]
            rate = {"name": f"r-{kind}", kind: drawn.randrange(max(1, most // 4), most)}
            rate |= drawn.choice(({}, {"workspace": "w0"}, {"track": "*"}, {"workspace": "w0", "track": "t1"}))
            found.append(rate)
    away = drawn.choice(("refuse", "refuse", "slice", "allow"))
    return found, window_s if found else 60, away if found else ""
