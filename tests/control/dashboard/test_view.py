from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.control.api.parameters import UsageParameters, split, written
from taximeter.control.dashboard.view import (
    HOUR_US,
    PERIODS,
    label,
    last_days,
    path,
    same_time_before,
    view,
    window_name,
)
from taximeter.core.errors import BadRequest
from taximeter.core.times import moment_us, shown
from taximeter.sinks.query import Filters

UTC = ZoneInfo("UTC")
BERLIN = ZoneInfo("Europe/Berlin")
NOW_US = moment_us("2026-11-22T13:30:00Z", UTC, "now")


def asked(period=None, tz="UTC", params=None, **filters):
    return view(UsageParameters(filters=Filters(**filters), tz=tz), period, NOW_US, params or {})


def test_periods_are_whole_local_days():
    shown_view = asked("7d", "Europe/Berlin")
    assert shown(shown_view.from_us) == "2026-11-15T23:00:00Z"
    assert shown(shown_view.to_us) == "2026-11-22T23:00:00Z"
    assert shown_view.title == "7 days" and shown_view.window == "day" and len(shown_view.marks()) == 8


def test_without_anything_it_is_the_last_30_days():
    assert asked().period == "30d" and len(asked().marks()) == 31


def test_a_given_range_wins():
    given_view = asked("7d", from_us=moment_us("2026-11-01", UTC, "from"), to_us=moment_us("2026-11-03", UTC, "to"))
    assert given_view.period is None and given_view.title == "1 Nov 2026 – 2 Nov 2026" and given_view.window == "hour"


def test_an_unknown_period_names_the_known():
    with pytest.raises(BadRequest, match="today, 7d, 30d, 90d, 365d"):
        asked("fortnight")


def test_a_day_that_changes_the_clock_ends_at_midnight():
    noon_us = moment_us("2026-10-25T12:00:00", BERLIN, "now")  # 25 hours long
    start_us, end_us = last_days(noon_us, BERLIN, 1)
    assert end_us - start_us == 25 * 3_600_000_000
    assert shown(same_time_before(noon_us, BERLIN)) == "2026-10-24T10:00:00Z"


def test_links_keep_the_question_but_for_what_is_said():
    kept = asked(
        "7d", params={"period": ["7d"], "model": ["gpt-4o", "o/1"], "tz": ["Europe/Berlin"]}, tz="Europe/Berlin"
    )
    link = urlsplit(kept.within(kept.from_us, kept.to_us, task=""))
    assert link.path == "/dashboard/records"
    assert parse_qs(link.query, keep_blank_values=True) == {
        "model": ["gpt-4o", "o/1"], "tz": ["Europe/Berlin"], "task": [""],
        "from": ["2026-11-15T23:00:00Z"], "to": ["2026-11-22T23:00:00Z"],
    }  # fmt: skip
    assert [chip[:2] for chip in kept.chips()] == [("model", "gpt-4o"), ("model", "o/1")]
    assert parse_qs(urlsplit(kept.chips()[0][2]).query)["model"] == ["o/1"]


@given(st.sampled_from(list(PERIODS)), st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia"]))
def test_windows_cover_the_range_without_gap(period, tz):
    each = asked(period, tz)
    marks = each.marks()
    assert (marks[0], marks[-1]) == (each.from_us, each.to_us) and marks == sorted(set(marks))
    assert each.from_us <= each.now_us < each.to_us


def test_names_in_paths_hold_anything():
    assert path("workspaces", "a/b?c", "tracks", "x:y@z") == "/dashboard/workspaces/a%2Fb%3Fc/tracks/x:y@z"


def test_window_names():
    names = [window_name(NOW_US, window, BERLIN) for window in ("hour", "day", "month")]
    assert names == ["Sun 14:30", "22 Nov", "Nov 2026"]


def test_an_axis_names_the_day_at_its_midnight_only():
    midnight = 1_795_305_600_000_000
    place = ZoneInfo("UTC")
    assert [label(midnight + hour * HOUR_US, "hour", place) for hour in (0, 4, 24)] == ["Sun", "04:00", "Mon"]
    assert [label(midnight, "day", place), label(midnight, "month", place)] == ["22 Nov", "Nov 2026"]


@given(
    st.lists(
        st.text(st.sampled_from("ab,\\ \n\t\u3000é"), max_size=6) | st.text(max_size=6),
        min_size=1,
        max_size=5,
        unique=True,
    )
)
def test_any_name_can_be_a_filter_beside_any_other(names):
    assert split([",".join(map(written, names))]) == names
    assert split([written(each) for each in names]) == names
    assert split(asked(params={"model": names}).hidden["model"]) == names


def test_values_are_separated_by_commas_and_a_lone_backslash_is_itself():
    assert split(["a, b ,a", "c\\d"]) == ["a", "b", "c\\d"] and split([" a\\,b , c\\ "]) == ["a,b", "c "]
