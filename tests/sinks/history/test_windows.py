from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.core.errors import BadRequest
from taximeter.sinks.history.schema import DAY_S, HOUR, HOUR_S, LEVELS, QUARTER, QUARTER_S, US
from taximeter.sinks.history.windows import (
    Piece,
    Run,
    boundaries,
    cover,
    level_start_s,
    parted,
    pieces_of,
    rolled_up,
    runs,
    shifted,
    singles,
    snapped,
    without,
)

DAY_US = 86_400 * US
YEARS_20_US = 20 * 366 * 86_400 * US
moments = st.integers(1_600_000_000 * US, 1_600_000_000 * US + YEARS_20_US)
marks_15 = st.integers(1_777_778, 1_800_000).map(lambda quarter: quarter * 900 * US)


def us(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * US


def shown(marks: list[int]) -> list[str]:
    return [datetime.fromtimestamp(mark // US, UTC).strftime("%m-%dT%H:%M") for mark in marks]


def covered(pieces: list[Piece]) -> list[tuple[int, int, int]]:
    """Stretches of time with how often the pieces count them, never 0; neighbours that count alike as one."""
    steps: dict[int, int] = defaultdict(int)
    for piece in pieces:
        steps[piece.start_us] += piece.sign
        steps[piece.end_us] -= piece.sign
    found, count = [], 0
    for (at, step), (until, _) in pairwise(sorted((at, step) for at, step in steps.items() if step)):
        count += step
        if count:
            found.append((at, until, count))
    return found


@given(
    st.one_of(moments, marks_15), st.one_of(moments, marks_15), st.sampled_from([(QUARTER, QUARTER_S), (HOUR, HOUR_S)])
)
def test_pieces_cover_a_range_exactly_with_whole_cells(one, other, finest):
    table, width_s = finest
    start, end = min(one, other), max(one, other)
    pieces = cover(start, end, table)
    assert covered(pieces) == ([(start, end, 1)] if start < end else [])
    for piece in pieces:
        assert piece.start_us < piece.end_us
        if piece.level is None:
            assert piece.end_us - piece.start_us <= max(width_s // 2, min(width_s, (end - start) // US)) * US
        else:
            assert LEVELS.index(table) <= [level.name for level in LEVELS].index(piece.level)
            for edge in (piece.start_us, piece.end_us):
                assert level_start_s(piece.level, edge // US) * US == edge


def test_what_comes_from_roll_ups_is_one_stretch():
    assert rolled_up([Piece(None, 5, 9)]) == (0, 0)


@given(st.one_of(moments, marks_15), st.one_of(moments, marks_15), st.sampled_from([QUARTER, HOUR]))
def test_what_comes_from_roll_ups_and_from_records_is_the_range(one, other, finest):
    start, end = min(one, other), max(one, other)
    pieces = cover(start, end, finest)
    singly = [piece for piece in pieces if piece.level is None]
    assert covered([Piece(None, *rolled_up(pieces)), *singly]) == covered(pieces)


@pytest.mark.parametrize(
    ("start", "end", "cells"),
    [
        ("2026-10-15T10:28:00", "2026-10-15T10:33:00", {None: 1}),  # not an hour less all the rest of it
        ("2026-10-15T05:00:00", "2026-10-15T21:00:00", {"usage_rollup_day": 1, "usage_rollup_hour": 8}),
        ("2026-10-15T08:00:00", "2026-10-15T16:00:00", {"usage_rollup_hour": 8}),
        ("2026-10-14T00:00:00", "2026-10-19T00:00:00", {"usage_rollup_day": 5}),
        ("2026-10-04T00:00:00", "2026-10-30T00:00:00", {"usage_rollup_month": 1, "usage_rollup_day": 5}),
    ],
)
def test_a_range_takes_few_cells(start, end, cells):
    widths_s = {None: 300, "usage_rollup_hour": HOUR_S, "usage_rollup_day": DAY_S, "usage_rollup_month": 31 * DAY_S}
    found: Counter[str | None] = Counter()
    for piece in cover(us(f"{start}+00:00"), us(f"{end}+00:00"), HOUR):
        found[piece.level] += (piece.end_us - piece.start_us) // widths_s[piece.level] // US
    assert found == cells


@given(st.integers(0, 50), st.integers(1, 20), st.integers(1, 9), st.integers(0, 300))
def test_a_run_is_parted_at_a_moment(start, width, count, at):
    run = Run(3, start, width, count)
    parts = parted(run, at)
    windows = [(part.first + n, part.start_us + n * part.width_us) for part in parts for n in range(part.count)]
    assert windows == [(3 + n, start + n * width) for n in range(count)]
    assert all((begin < at) == (part is parts[0] and start < at) for part in parts for begin in [part.start_us])
    kept = without(run, at)
    assert covered([Piece(None, part.start_us, part.end_us) for part in kept]) == covered(
        [Piece(None, max(start, at), run.end_us)] if run.end_us > at else []
    )
    for part in kept:
        for n in range(part.count):
            begin = part.start_us + n * part.width_us
            assert part.first + n == 3 + (begin - start) // width


def test_a_long_range_is_mostly_months_and_what_is_too_much_of_them_is_taken_away():
    pieces = cover(us("2026-01-15T10:20:00+00:00"), us("2026-11-22T09:50:30+00:00"))
    assert [
        (piece.sign, piece.level, *shown([piece.start_us, piece.end_us]))
        for piece in sorted(pieces, key=lambda piece: piece.start_us)
    ] == [
        (1, "usage_rollup_month", "01-01T00:00", "12-01T00:00"),
        (-1, "usage_rollup_day", "01-01T00:00", "01-15T00:00"),
        (-1, "usage_rollup_hour", "01-15T00:00", "01-15T10:00"),
        (-1, "usage_rollup", "01-15T10:00", "01-15T10:15"),
        (-1, None, "01-15T10:15", "01-15T10:20"),
        (-1, "usage_rollup_day", "11-22T00:00", "12-01T00:00"),
        (1, "usage_rollup_hour", "11-22T00:00", "11-22T10:00"),
        (-1, "usage_rollup", "11-22T09:45", "11-22T10:00"),
        (1, None, "11-22T09:45", "11-22T09:50"),
    ]


@given(
    moments,
    moments,
    st.sampled_from(["hour", "day", "month"]),
    st.sampled_from(["UTC", "Asia/Kolkata", "America/New_York"]),
)
def test_runs_hold_every_window_and_their_pieces_cover_them(one, other, window, tz):
    start = min(one, other)
    end = min(max(one, other), start + 90 * 86_400 * US)
    marks = boundaries(start, end, window, tz)
    found = runs(marks)
    rebuilt = [run.start_us + at * run.width_us for run in found for at in range(run.count)]
    assert [*rebuilt, found[-1].end_us] == marks
    assert [run.first for run in found] == [marks.index(run.start_us) for run in found]
    for run in found:
        assert covered(pieces_of(run)) == ([(run.start_us, run.end_us, 1)] if run.width_us else [])
        assert [part.start_us for part in singles(run)] == [run.start_us + at * run.width_us for at in range(run.count)]


@given(
    st.integers(2, 40),
    st.integers(0, 95).map(lambda quarter: us("2026-06-01T00:00:00+00:00") + quarter * 900 * US),
)
def test_days_of_another_zone_are_days_of_utc_with_one_strip_and_without_the_next(count, start):
    run = Run(3, start, DAY_US, count)
    days = shifted(run)
    if start % DAY_US == 0:
        assert days is None
        return
    assert days is not None
    assert (days.days.first, days.days.count, days.strips.first, days.strips.count) == (3, count, 3, count + 1)
    assert days.days.start_us % DAY_US == 0 and days.strips.start_us == min(start, days.days.start_us)
    width = {"usage_rollup": 900, "usage_rollup_hour": 3_600}[days.level]
    assert all(at_s % width == 0 for at_s in days.starts_s)
    held = [
        dict.fromkeys(range(at, at + DAY_US, 900 * US), 1) for at in range(days.days.start_us, days.days.end_us, DAY_US)
    ]
    for at_s in days.starts_s:
        number = (at_s * US - days.strips.start_us) // DAY_US
        for quarter in range(at_s * US, (at_s + width) * US, 900 * US):
            for day, sign in ((number, days.sign), (number - 1, -days.sign)):
                if 0 <= day < count:
                    held[day][quarter] = held[day].get(quarter, 0) + sign
    assert [{at for at, times in day.items() if times} for day in held] == [
        set(range(at, at + DAY_US, 900 * US)) for at in range(start, start + count * DAY_US, DAY_US)
    ]
    assert {times for day in held for times in day.values()} <= {0, 1}


def test_windows_that_are_no_days_or_begin_off_the_quarter_are_not_shifted():
    assert shifted(Run(0, 900 * US, DAY_US, 1)) is None
    assert shifted(Run(0, 900 * US, DAY_US // 24, 5)) is None
    assert shifted(Run(0, 901 * US, DAY_US, 5)) is None


def test_a_day_of_23_and_one_of_25_hours():
    spring = boundaries(us("2026-03-28T00:00:00+01:00"), us("2026-03-31T00:00:00+02:00"), "day", "Europe/Berlin")
    assert [(b - a) // (3_600 * US) for a, b in pairwise(spring)] == [24, 23, 24]
    autumn = boundaries(us("2026-10-24T00:00:00+02:00"), us("2026-10-27T00:00:00+01:00"), "day", "Europe/Berlin")
    assert [(b - a) // (3_600 * US) for a, b in pairwise(autumn)] == [24, 25, 24]


def test_the_hour_a_clock_shows_twice_is_two_windows():
    marks = boundaries(us("2026-10-25T01:00:00+02:00"), us("2026-10-25T04:00:00+01:00"), "hour", "Europe/Berlin")
    assert shown(marks) == ["10-24T23:00", "10-25T00:00", "10-25T01:00", "10-25T02:00", "10-25T03:00"]


def test_hours_of_a_half_hour_zone_start_at_half_past():
    marks = boundaries(us("2026-11-22T00:10:00+00:00"), us("2026-11-22T02:00:00+00:00"), "hour", "Asia/Kolkata")
    assert shown(marks) == ["11-22T00:10", "11-22T00:30", "11-22T01:30", "11-22T02:00"]


def test_a_clock_that_goes_back_half_an_hour_makes_one_long_hour():
    """Lord Howe: at 02:00 on 2026-04-05 the clock goes back to 01:30."""
    marks = boundaries(us("2026-04-04T13:00:00+00:00"), us("2026-04-04T17:00:00+00:00"), "hour", "Australia/Lord_Howe")
    assert shown(marks) == ["04-04T13:00", "04-04T14:00", "04-04T15:30", "04-04T16:30", "04-04T17:00"]


def test_a_day_whose_midnight_does_not_exist_starts_at_the_jump():
    """Cairo: 2026-04-24 begins at 01:00."""
    marks = boundaries(us("2026-04-23T12:00:00+02:00"), us("2026-04-25T12:00:00+03:00"), "day", "Africa/Cairo")
    assert shown(marks) == ["04-23T10:00", "04-23T22:00", "04-24T21:00", "04-25T09:00"]


def test_a_day_a_country_skipped_is_no_window():
    """Samoa had no 2011-12-30."""
    marks = boundaries(us("2011-12-29T00:00:00-10:00"), us("2012-01-01T00:00:00+14:00"), "day", "Pacific/Apia")
    assert shown(marks) == ["12-29T10:00", "12-30T10:00", "12-31T10:00"]


def test_months_of_a_zone():
    marks = boundaries(us("2026-02-10T00:00:00+00:00"), us("2026-05-01T00:00:00+00:00"), "month", "America/New_York")
    assert shown(marks) == ["02-10T00:00", "03-01T05:00", "04-01T04:00", "05-01T00:00"]


def test_minutes():
    marks = boundaries(us("2026-11-22T00:00:30+00:00"), us("2026-11-22T00:03:00+00:00"), "minute", "Asia/Kathmandu")
    assert shown(marks) == ["11-22T00:00", "11-22T00:01", "11-22T00:02", "11-22T00:03"]
    assert marks[0] % (60 * US) == 30 * US


def test_too_many_windows_are_refused():
    start = us("2026-01-01T00:00:00+00:00")
    with pytest.raises(BadRequest, match="50,000 windows"):
        boundaries(start, start + int(timedelta(days=60).total_seconds()) * US, "minute", "UTC")


@pytest.mark.parametrize("tz", ["Mars/Olympus", "", "../../etc/passwd", "Europe"])
def test_an_unknown_zone_is_refused(tz):
    with pytest.raises(BadRequest, match="time zone"):
        boundaries(0, US, "day", tz)


@pytest.mark.parametrize(("finest", "width_us"), [(QUARTER, QUARTER_S * US), (HOUR, HOUR_S * US)])
@given(st.integers(0, 40 * HOUR_S * US), st.integers(0, 40 * HOUR_S * US))
def test_where_records_are_gone_pieces_are_rounded_to_the_cells_that_begin_in_the_range(finest, width_us, one, other):
    start, end = min(one, other), max(one, other)
    pieces = [snapped(piece, finest) if piece.level is None else piece for piece in cover(start, end, finest)]
    first, last = (-(-at // width_us) * width_us for at in (start, end))
    assert covered(pieces) == ([(first, last, 1)] if first < last else [])
    assert all(piece.level is not None for piece in pieces)
