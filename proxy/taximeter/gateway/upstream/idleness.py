"""How long an upstream keeps an idle connection, learned from when it closes them. Pure.

Many servers close idle connections after a few seconds and do not say so (uvicorn, and so vLLM: 5 s, gunicorn: 2 s). A
call that is sent in that very moment is lost, and must not be sent again (docs/decisions/0018). So the bound that shows
itself is kept below: two closings that agree, the one's idle time all after the other, and not long after. A restart
closes many connections in one moment, which counts as one, and the next restart is far away. Who learns wrongly
connects more often, and loses no call.
"""

from __future__ import annotations

import math

EARLIER_S = 1.0
"""So long before its upstream would close it a connection is not used any more; at most a fifth of its time."""
AGREE = 0.2
"""Of the longer of two times: by so much they may differ."""
NEAR_S, NEAR_TIMES = 60.0, 10
"""Two closings are near each other within so long and so many idle times more."""


def before(closes_after_s: float) -> float:
    """How long an idle connection may be used that is closed after `closes_after_s`."""
    return closes_after_s - min(EARLIER_S, closes_after_s / 5)


class Idleness:
    """Of one upstream."""

    __slots__ = ("_after_s", "_closed_at")

    def __init__(self) -> None:
        self._closed_at = -math.inf
        self._after_s = 0.0

    def closed(self, now_s: float, idle_s: float) -> float | None:
        """The upstream has closed a connection that was idle for `idle_s`. Returns how long one may be used from now
        on, None where nothing was learned. `now_s`: any clock that only goes on."""
        if now_s - idle_s < self._closed_at:
            return None
        near = now_s - self._closed_at <= NEAR_S + NEAR_TIMES * idle_s
        after_s, self._after_s, self._closed_at = self._after_s, idle_s, now_s
        if not near or abs(after_s - idle_s) > AGREE * max(after_s, idle_s):
            return None
        return before(min(after_s, idle_s))
