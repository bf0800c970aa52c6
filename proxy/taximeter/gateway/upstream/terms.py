"""What holds for every connection of one upstream."""

from __future__ import annotations

import math

import msgspec

from taximeter.server.client import Then, at_once


class Terms(msgspec.Struct):
    """What holds for every connection of one upstream. Ticks are beats of the pool's clock."""

    name: str
    first_byte_ticks: int
    idle_ticks: int
    keep_alive_s: float
    """How long an idle connection may be used."""
    then: Then = at_once
    """How bytes leave: no request before its line is written."""


def terms_of(
    name: str, first_byte_timeout_s: float, idle_timeout_s: float, keep_alive_s: float, then: Then
) -> tuple[Terms, float]:
    """The terms, and the seconds of a beat."""
    beat_s = min(1.0, max(0.01, min(first_byte_timeout_s, idle_timeout_s, keep_alive_s) / 10))
    first_byte_ticks, idle_ticks = math.ceil(first_byte_timeout_s / beat_s), math.ceil(idle_timeout_s / beat_s)
    return Terms(name, first_byte_ticks, idle_ticks, keep_alive_s, then), beat_s
