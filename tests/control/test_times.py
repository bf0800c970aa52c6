from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from present import present
from taximeter.core.errors import BadRequest
from taximeter.core.times import local, moment_us, shown, zone

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
