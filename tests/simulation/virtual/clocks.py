"""Clocks that the product bound as defaults of its functions when these were made: from then on they are looked up.

`clock_s: Callable[[], float] = time.monotonic` is the real clock for ever, whatever stands in `time` later.
"""

from __future__ import annotations

import sys
import time
from typing import Any

_NAMES = ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns")
_LOOKED_UP: dict[Any, Any] = {getattr(time, name): lambda name=name: getattr(time, name)() for name in _NAMES}
_seen: set[str] = set()


def look_up() -> None:
    """In every module of the product that is loaded by now. Nothing else changes, so it is not taken back."""
    for name, module in list(sys.modules.items()):
        if name.startswith("taximeter.") and name not in _seen:
            _seen.add(name)
            for thing in list(vars(module).values()):
                if getattr(thing, "__module__", None) == name:
                    for function in vars(thing).values() if isinstance(thing, type) else [thing]:
                        _of_function(function)


def _of_function(function: Any) -> None:
    by_place = getattr(function, "__defaults__", None)
    if by_place:
        function.__defaults__ = tuple(map(_asked, by_place))
    by_name = getattr(function, "__kwdefaults__", None)
    if by_name:
        function.__kwdefaults__ = {name: _asked(value) for name, value in by_name.items()}


def _asked(value: Any) -> Any:
    return _LOOKED_UP.get(value, value) if callable(value) else value
