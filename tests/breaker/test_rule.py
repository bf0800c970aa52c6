from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.breaker import rule
from taximeter.breaker.rule import Place, Trip, Trips, trip_id
from taximeter.config import Settings
from taximeter.config.checks import check
from taximeter.core.errors import ConfigError

MINUTE = 60_000_000


def trip(**more):
    place = Place(more.get("workspace", "acme"), more.get("key_id", ""), more.get("track", ""))
    told: dict[str, Any] = {
        "id": trip_id(more.get("breaker", "runaway"), place), "breaker": "runaway", "workspace": "acme",
        "rate": 3_200_000_000, "usual": 80_000_000, "limit": 800_000_000, "created_at": 1, "until": MINUTE,
    }  # fmt: skip
    return Trip(**(told | more))


def test_the_usual_is_what_nine_of_ten_hours_do_not_exceed_and_one_bad_hour_does_not_move_it():
    hours = [60 * n for n in range(1, 21)]
    assert rule.usual_of(hours) == 19
    assert rule.usual_of([*hours[:-1], 10**12]) == 19
    assert rule.usual_of([0, 0, 120, 60, 0, 180]) == 3
    assert rule.usual_of([60, 60]) is None and rule.usual_of([]) is None


@pytest.mark.parametrize(
    ("usual", "ceiling", "limit"),
    [(None, None, None), (None, 500, 500), (5, None, 100), (20, None, 200), (20, 150, 150), (0, None, 100)],
)
def test_it_trips_at_many_times_the_usual_but_never_below_the_floor(usual, ceiling, limit):
    assert rule.limit_of(usual, times=10, floor=100, ceiling=ceiling) == limit


def test_a_trip_stops_its_place_until_its_time_and_no_other():
    trips = Trips([trip(track="t1"), trip(workspace="beta"), trip(workspace="gone", ended_at=5)])
    assert trips.of("acme", None, "t1", 0) is not None and trips.of("acme", "k", "t1", MINUTE - 1) is not None
    assert trips.of("acme", None, "t1", MINUTE) is None
    assert trips.of("acme", None, "t2", 0) is None and trips.of("acme", None, None, 0) is None
    assert trips.of("beta", "any", "any", 0) is not None and trips.of("gone", None, None, 0) is None


def test_who_is_stopped_is_told_why_and_until_when():
    error = rule.refusal(trip(track="run-7"), 1)
    assert (error.status, error.code, error.retry, error.retry_after_s) == (429, "breaker_open", False, 60)
    assert error.message.startswith(
        "Track 'run-7' of workspace 'acme' is stopped until 1970-01-01 00:01:00 UTC: it used $3.2 a minute, 40 times "
        "its usual $0.08 (breaker 'runaway')."
    )
    assert "taximeter breaker reset trip_" in error.message
    new = rule.refusal(trip(usual=None, unit="tokens", rate=5_000_000), 1)
    assert "it used 5,000,000 tokens a minute, more than the ceiling of 800,000,000 tokens" in new.message


trips = st.lists(
    st.builds(
        lambda name, created, length, ended: trip(
            track=name, created_at=created, until=created + length, ended_at=created + 1 if ended else 0
        ),
        st.sampled_from(["a", "b", "c"]), st.integers(1, 4), st.integers(1, 3), st.booleans(),
    ),
    max_size=6,
)  # fmt: skip


@given(trips, trips, trips)
def test_copies_merge_in_any_order_to_the_same(one, two, three):
    merged = rule.merge(rule.merge(one, two), three)
    assert merged == rule.merge(three, rule.merge(two, one)) == rule.merge(merged, one, merged)
    assert len({each.id for each in merged}) == len(merged)


def test_what_is_over_stays_over_and_a_later_trip_replaces_it():
    old, over, later = trip(), trip(ended_at=9), trip(created_at=10, until=99)
    assert rule.merge([over], [old]) == [over]
    assert rule.merge([over], [old], [later]) == [later]
    many = [trip(track=f"t{n}", created_at=n, ended_at=n + 1) for n in range(1, rule.KEPT + 5)]
    assert len(rule.merge(many)) == rule.KEPT


def test_a_trip_that_another_node_cannot_have_made_is_none():
    assert rule.is_stored(trip(track="t"))
    for odd in (
        trip(id="trip_000000000000"), trip(id="x"), msgspec.structs.replace(trip(), track="t"),
        trip(workspace="no good"), trip(key_id="k", track="t"), trip(created_at=9, until=8),
    ):  # fmt: skip
        assert not rule.is_stored(odd)


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ({"floor": ""}, "breaker[0].floor"),
        ({"floor": -1}, "breaker[0].floor"),
        ({"floor": "much"}, "breaker[0].floor"),
        ({"floor": 0.5, "unit": "tokens"}, "breaker[0].floor"),
        ({"floor": 5, "ceiling": 4}, "breaker[0].ceiling"),
        ({"floor": 5, "name": "no good"}, "breaker[0].name"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused(wrong, path):
    settings = msgspec.convert({"breaker": [{"name": "runaway", **wrong}]}, Settings)
    with pytest.raises(ConfigError) as caught:
        check(settings, lambda path: "t.toml")
    assert path in str(caught.value)


def test_two_breakers_of_one_name_are_refused():
    twice = [{"name": "a", "floor": 1}, {"name": "a", "floor": 2}]
    with pytest.raises(ConfigError, match="two breakers have this name"):
        check(msgspec.convert({"breaker": twice}, Settings), lambda path: "t.toml")
