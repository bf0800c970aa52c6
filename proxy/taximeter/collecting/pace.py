"""When what is looked at again: sooner at first, then ever more seldom, and later where it is refused. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

FIRST_S, LONGEST_S = 15.0, 3_600.0
"""An answer in the background takes seconds or minutes, a batch hours."""
REFUSED_S = 60.0
"""How long an upstream is left alone that refused or did not answer; doubled each time."""


class Pace:
    """The waits of objects, and of the upstreams they are at."""

    def __init__(self) -> None:
        self._waits: dict[Hashable, tuple[float, float]] = {}
        """By object or upstream: from when on it may be asked again, and how long it waited for that."""

    def due(self, name: Hashable, now_s: float) -> bool:
        """Whether it may be asked now."""
        return self._waits.get(name, (now_s, 0.0))[0] <= now_s

    def later(self, name: Hashable, now_s: float, first_s: float = FIRST_S, least_s: float = 0.0) -> None:
        """It was asked and goes on: twice as long as before until the next time."""
        wait_s = min(LONGEST_S, max(first_s, 2 * self._waits.get(name, (0.0, 0.0))[1], least_s))
        self._waits[name] = now_s + wait_s, wait_s

    def soon(self, name: Hashable) -> None:
        """It answered; from now on as if never asked."""
        self._waits.pop(name, None)

    def keep(self, names: Iterable[Hashable]) -> None:
        """Forget all others."""
        kept = set(names)
        self._waits = {name: wait for name, wait in self._waits.items() if name in kept}
