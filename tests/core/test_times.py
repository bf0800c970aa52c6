from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from present import present
from taximeter.core.errors import BadRequest
from taximeter.core.times import local, moment_us, range_us, shown, zone

UTC, BERLIN = ZoneInfo("UTC"), ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "tz", "means"),
    [
        ("1970-01-01", UTC, "1970-01-01T00:00:00Z"),
        ("2026-11-22", BERLIN, "2026-11-21T23:00:00Z"),
        ("2026-07-01", BERLIN, "2026-06-30T22:00:00Z"),
        ("2026-11-22T10:00:00Z", BERLIN, "2026-11-22T10:00:00Z"),
        ("2026-11-22T10:00:00.000001+00:00", UTC, "2026-11-22T10:00:00.000001Z"),
        ("2026-11-22T10:00:00+02:00", UTC, "2026-11-22T08:00:00Z"),
        ("2026-11-22T10:00:00 02:00", UTC, "2026-11-22T08:00:00Z"),  # the + of a query that was not encoded
        ("2026-11-22T10:00", BERLIN, "2026-11-22T09:00:00Z"),
        ("2026-11-22 10:00", UTC, "2026-11-22T10:00:00Z"),
    ],
)
def test_dates_and_moments(text, tz, means):
    assert shown(moment_us(text, tz, "from")) == means


@pytest.mark.parametrize("text", ["", "today", "2026-02-30", "2026-11-22T25:00", "1e9", "9999-12-31T23:59:59-14:00x"])
def test_what_is_no_time_is_refused_by_the_parameters_name(text):
    with pytest.raises(BadRequest, match="from: ") as refused:
        moment_us(text, UTC, "from")
    assert refused.value.param == "from"


@given(st.datetimes(datetime.fromisoformat("1970-01-02"), datetime.fromisoformat("9999-12-30")))
def test_a_shown_moment_reads_back_exactly(moment):
    us = moment_us(moment.isoformat(), UTC, "t")
    assert moment_us(present(shown(us)), BERLIN, "t") == us
    assert local(us, UTC).replace(tzinfo=None) == moment


@pytest.mark.parametrize("name", ["", "Mars/Olympus", "../etc/passwd", "/etc/passwd", "Europe", "a\0b"])
def test_an_unknown_zone_is_refused(name):
    with pytest.raises(BadRequest, match="IANA"):
        zone(name)


@pytest.mark.parametrize("text", ["1969-12-31", "9999-12-31T23:59:59-14:00"])
def test_a_moment_no_call_can_have_is_refused(text):
    with pytest.raises(BadRequest, match="not between the years 1970 and 9999"):
        moment_us(text, UTC, "to")


def test_a_range_is_read_in_its_zone_and_may_be_open_at_either_end():
    first, last = moment_us("2026-11-01", BERLIN, "t"), moment_us("2026-11-22", BERLIN, "t")
    assert range_us("2026-11-01", "2026-11-22", "Europe/Berlin") == (first, last)
    assert range_us(None, "2026-11-22", "Europe/Berlin") == (None, last)
    assert range_us("2026-11-01", None, "Europe/Berlin") == (first, None)
    assert range_us("2026-11-01", "2026-11-01", "Europe/Berlin") == (first, first)


def test_a_range_that_ends_before_it_begins_is_refused():
    with pytest.raises(BadRequest, match="'from' is after 'to'"):
        range_us("2026-11-22", "2026-11-01", "UTC")


@pytest.mark.parametrize(
    ("us", "text"),
    [(None, None), (0, "1970-01-01T00:00:00Z"), (1, "1970-01-01T00:00:00.000001Z"),
     (2**63, "9999-12-31T23:59:59.999999Z"), (-(2**63), "0001-01-01T00:00:00Z")],
)  # fmt: skip
def test_what_is_beyond_the_calendar_is_shown_as_its_end(us, text):
    assert shown(us) == text
