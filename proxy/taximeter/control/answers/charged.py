"""The second amount of a usage answer: what the customer is charged, beside what the provider charges. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from taximeter.billing.charging import BETWEEN, VOLUME, Charge, Piece, summed
from taximeter.control.answers.responses import UsageAggregateResponse, UsageGroup
from taximeter.core.times import moment_us, zone
from taximeter.core.views import usd

Place = tuple[int, tuple[str | None, ...]]
"""(beginning of a window in µs, what was grouped by)."""


def put(answer: UsageAggregateResponse, group_by: Sequence[str], pieces: Sequence[Piece] | None) -> None:
    """Write charges into the answer, its groups and its series; None: they could not be reckoned."""
    answer.charge_note = note(pieces)
    if pieces is None:
        parts: list[UsageAggregateResponse | UsageGroup] = [answer, *answer.groups, *answer.series]
        for each in parts:
            each.charge_usd, each.uncharged_requests = None, each.usage.requests
        return
    _put(answer, (piece.charge for piece in pieces))
    groups = by_names(pieces, group_by)
    for group in answer.groups:
        _put(group, groups[_key(group, group_by)])
    starts = [_start_us(window) for window in answer.series]
    windows = _by_window(pieces, group_by, sorted(set(starts)))
    for start_us, window in zip(starts, answer.series, strict=True):
        _put(window, windows[start_us, _key(window, group_by)])


def note(pieces: Sequence[Piece] | None) -> str | None:
    """Why a charge is not known that a plan says."""
    if pieces is None:
        return BETWEEN
    return VOLUME if any(piece.by_volume for piece in pieces) else None


def by_names(pieces: Iterable[Piece], names: Sequence[str]) -> Mapping[tuple[str | None, ...], list[Charge]]:
    """The charges of each group."""
    found: dict[tuple[str | None, ...], list[Charge]] = defaultdict(list)
    for piece in pieces:
        found[tuple(piece.key[name] for name in names)].append(piece.charge)
    return found


def _by_window(pieces: Iterable[Piece], names: Sequence[str], starts: Sequence[int]) -> Mapping[Place, list[Charge]]:
    """The same by window; where a plan begins inside one, it has pieces of both sides."""
    found: dict[Place, list[Charge]] = defaultdict(list)
    for piece in pieces:
        if piece.start_us is not None and starts:
            start_us = starts[max(0, bisect_right(starts, piece.start_us) - 1)]
            found[start_us, tuple(piece.key[name] for name in names)].append(piece.charge)
    return found


def _put(part: UsageAggregateResponse | UsageGroup, charges: Iterable[Charge]) -> None:
    charge = summed(charges)
    part.charge_usd = None if charge.nusd is None else usd(charge.nusd)
    part.uncharged_requests = charge.uncharged


def _key(part: UsageGroup, names: Sequence[str]) -> tuple[str | None, ...]:
    return tuple(getattr(part, name) for name in names)


def _start_us(window: UsageGroup) -> int:
    return moment_us(str(window.start), zone("UTC"), "start")
