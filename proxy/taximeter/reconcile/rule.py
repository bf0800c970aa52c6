"""What two sides say of the same days, models and keys, and how far apart they are. Pure.

A day is one of UTC. Figures are compared by model and key over all days together, so that a call that one side books
a day earlier is no difference, while what one model lacks is not made up for by another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple, get_args

import msgspec

from taximeter.core.errors import TaximeterError

FigureName = Literal["input_tokens", "cached_input_tokens", "cache_write_input_tokens", "output_tokens", "cost_nusd"]
FIGURES: tuple[FigureName, ...] = get_args(FigureName)
"""What is compared. Requests are shown beside: what a provider counts as one differs."""
State = Literal["agrees", "differs", "nothing"]
DAY_S = 86_400
LAST_S = 253_402_300_800
"""The end of the year 9999: moments in milliseconds are beyond it."""


class PullFailed(TaximeterError):
    """What a provider says could not be had."""


class Place(NamedTuple):
    """What a figure is about."""

    day: str
    """2026-11-22"""
    model: str
    """As our records name it, where the settings say what a name of theirs is here; "": not told apart."""
    key: str = ""
    """Ours, or theirs where it is none of ours; "": not told apart."""


class Figures(msgspec.Struct):
    """Sums of one place; None: not told, or not known."""

    input_tokens: int | None = None
    """Cached ones, and those written to a cache, included."""
    cached_input_tokens: int | None = None
    output_tokens: int | None = None
    requests: int | None = None
    cache_write_input_tokens: int | None = None
    cost_nusd: int | None = None

    def add(self, other: Mapping[str, int | None]) -> None:
        """None adds nothing."""
        for name, value in other.items():
            if value is not None:
                setattr(self, name, (getattr(self, name) or 0) + value)


class Ours(Figures):
    """Ours, with what is not known of them. A figure of which nothing is known is None, never 0."""

    unknown_requests: int = 0
    """Calls that may have been billed and of whose use nothing is known: they are in none of the figures."""
    unpriced_requests: int = 0
    """Calls that are in the tokens and not in the cost."""
    own_count_tokens: int = 0
    """How many of the tokens were counted or estimated here, the provider having reported none."""


class Cell(msgspec.Struct):
    """Both sides of one place."""

    day: str
    model: str
    key: str
    ours: Ours | None
    """None: no call of this passed here."""
    theirs: Figures | None
    """None: they say nothing of this."""


class Compared(msgspec.Struct, kw_only=True):
    """One figure over all places."""

    figure: FigureName
    ours: int
    theirs: int
    apart: int
    """The differences of all models and keys, whichever side has more."""
    larger: int
    """The larger side of each, added up: what `apart` is a part of. (Of a credit and a cost: what is between them.)"""
    billed: int
    """`theirs` without credits, which are amounts below 0: what could have passed here."""
    never_passed: int
    """What they billed more than we have: it never passed here."""
    not_known: int
    """What they say of places of which nothing is known here: in none of the others."""

    @property
    def difference(self) -> int:
        """ours - theirs"""
        return self.ours - self.theirs

    @property
    def ratio(self) -> float:
        """How far apart the sides are: 0, nothing differs; 1, nothing agrees."""
        return self.apart / self.larger if self.larger else 0.0

    @property
    def coverage(self) -> float | None:
        """The part of what they billed that passed here; None: they billed nothing."""
        return (self.billed - self.never_passed) / self.billed if self.billed else None


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """How one comparison stands, for metrics."""

    name: str
    done_s: int
    """When it last went well, in seconds since epoch; 0: never."""
    tolerance: float
    apart: Mapping[str, float]
    """Figure -> how far apart the sides are (0 to 1), of those that are judged."""
    passed: Mapping[str, float]
    """Figure -> the part of theirs that passed here."""
    failures: int
    """Comparisons that failed on this node, since its control process began."""


def cells(theirs: Mapping[Place, Figures], ours: Mapping[Place, Ours]) -> list[Cell]:
    """Both sides in order, without places of calls that used nothing: no provider lists these."""
    wanted = {place for place, each in ours.items() if _used(each)} | set(theirs)
    return [Cell(*place, ours.get(place), theirs.get(place)) for place in sorted(wanted)]


def _used(each: Ours) -> bool:
    return bool(each.unknown_requests) or any(getattr(each, name) for name in FIGURES)


def compare(found: Sequence[Cell]) -> list[Compared]:
    """Every figure that they tell anywhere; where they tell it, a place without it has none of it.

    Where they tell nothing at all, they say that nothing was billed, and every figure that we have differs.
    """
    told = [name for name in FIGURES if any(getattr(each.theirs, name, None) is not None for each in found)]
    told = told or [name for name in FIGURES if any(getattr(each.ours, name, None) for each in found)]
    return [_compared(found, name) for name in told]


def _compared(found: Sequence[Cell], name: FigureName) -> Compared:
    sums: dict[tuple[str, str], tuple[int, int]] = {}
    not_known = 0
    for each in found:
        their = getattr(each.theirs, name, None) or 0
        our = 0 if each.ours is None else getattr(each.ours, name)
        if our is None:
            not_known += their
            continue
        before = sums.get((each.model, each.key), (0, 0))
        sums[each.model, each.key] = before[0] + our, before[1] + their
    pairs = sums.values()
    return Compared(
        figure=name,
        ours=sum(our for our, _ in pairs),
        theirs=sum(their for _, their in pairs),
        apart=sum(abs(our - their) for our, their in pairs),
        larger=sum(max(abs(our), abs(their), abs(our - their)) for our, their in pairs),
        billed=sum(max(0, their) for _, their in pairs),
        never_passed=sum(max(0, their - max(0, our)) for our, their in pairs),
        not_known=not_known,
    )


def worst(compared: Iterable[Compared], judged: Sequence[str] = ()) -> Compared | None:
    """The figure that is furthest apart, of those named (none named: of all); None: there is none, or of all that they
    tell nothing is known here."""
    asked = [each for each in compared if not judged or each.figure in judged]
    asked = [each for each in asked if each.larger or not each.not_known]
    return max(asked, key=lambda each: each.ratio, default=None)


def state(compared: Sequence[Compared], judged: Sequence[str], tolerance: float) -> State:
    """`tolerance`: how far apart (0 to 1) is no difference yet."""
    furthest = worst(compared, judged)
    if furthest is None:
        return "nothing"
    return "differs" if furthest.ratio > tolerance else "agrees"


def by_model(found: Iterable[Cell]) -> list[Cell]:
    """The cells of each model and key as one, whatever the day, in order."""
    merged: dict[tuple[str, str], Cell] = {}
    for each in found:
        into = merged.setdefault((each.model, each.key), Cell("", each.model, each.key, None, None))
        if each.ours is not None:
            into.ours = into.ours or Ours()
            into.ours.add(msgspec.structs.asdict(each.ours))
        if each.theirs is not None:
            into.theirs = into.theirs or Figures()
            into.theirs.add(msgspec.structs.asdict(each.theirs))
    return [merged[key] for key in sorted(merged)]


def told_day(at_s: int) -> str:
    """The day (UTC) of a moment that somebody told. Raises PullFailed on one that cannot be."""
    if not 0 <= at_s < LAST_S:
        raise PullFailed(f"a moment is {at_s}, which is not in seconds since 1970")
    return day_of(at_s)


def day_of(at_s: int) -> str:
    """The day (UTC) of a moment."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d")


def start_s(day: str) -> int:
    """The first second of a day."""
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp())


def days(from_s: int, to_s: int) -> Iterator[str]:
    """Each day of a range of whole days."""
    return map(day_of, range(from_s, to_s, DAY_S))


def settled(now_us: int, lag_s: float, most_days: int) -> tuple[int, int]:
    """The last so many days that have been over for `lag_s`, in seconds: half-open, whole days."""
    to_s = int(now_us / 1_000_000 - lag_s) // DAY_S * DAY_S
    return to_s - most_days * DAY_S, to_s


def last_due_us(now_us: int, at: str) -> int:
    """When it was last time for what is to be done daily at `at` (`HH:MM`, UTC)."""
    hours, minutes = at.split(":")
    into_day_us = (int(hours) * 60 + int(minutes)) * 60_000_000
    day_us = DAY_S * 1_000_000
    return (now_us - into_day_us) // day_us * day_us + into_day_us
