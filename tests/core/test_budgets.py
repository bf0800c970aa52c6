from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from taximeter.budgets.rule import MOST, Budget, Budgets, checked, is_stored, merge, period_name, resets_at_us
from taximeter.core.errors import BadRequest


def at(year, month, day, hour=0, minute=0, second=0):
    return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()) * 1_000_000


def budget(**more):
    return Budget(**{"id": "bud_00000000000a", "workspace": "acme", "limit": 5, **more})


def test_a_call_counts_against_every_budget_that_is_about_it():
    all_of, key, task = budget(id="w"), budget(id="k", key_id="key_1"), budget(id="t", task="query")
    ended, other = budget(id="e", ended_at=1), budget(id="o", workspace="beta")
    budgets = Budgets([all_of, key, task, ended, other])
    assert [b.id for b in budgets.of("acme", "key_1", "query")] == ["w", "k", "t"]
    assert [b.id for b in budgets.of("acme", None, None)] == ["w"]
    assert [b.id for b in budgets.of("acme", "key_2", "query")] == ["w", "t"]
    assert budgets.of("gamma", "key_1", "query") == () and set(budgets.workspaces) == {"acme", "beta"}
    assert budgets.scopes("acme") == {"key:key_1", "task:query"} and budgets.scopes("beta") == set()


@pytest.mark.parametrize(
    ("period", "now", "name", "resets"),
    [
        ("day", at(2026, 11, 22, 23, 59), "day:2026-11-22", at(2026, 11, 23)),
        ("month", at(2026, 12, 31), "month:2026-12", at(2027, 1, 1)),
        ("month", at(2028, 1, 31), "month:2028-01", at(2028, 2, 1)),
        ("total", at(2026, 11, 22), "total", None),
    ],
)
def test_periods_are_utc_and_named_as_the_counters_do(period, now, name, resets):
    assert (period_name(period, now), resets_at_us(period, now)) == (name, resets)


@pytest.mark.parametrize(
    "bad",
    [{"workspace": ""}, {"workspace": "a b"}, {"key_id": "a/b"}, {"task": "é"}, {"key_id": "k", "task": "t"},
     {"limit": 0}, {"limit": -1}, {"limit": MOST + 1}],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(bad):
    with pytest.raises(BadRequest):
        checked(budget(**bad))
    assert not is_stored(budget(**bad))
    assert is_stored(budget()) and not is_stored(budget(id="x"))


copies = st.lists(
    st.builds(
        lambda n, ended: budget(id=f"bud_{n:012x}", created_at=n, ended_at=ended), st.integers(0, 3), st.integers(0, 2)
    )
)


@given(copies, copies, copies)
def test_copies_merge_in_any_order_and_an_end_wins(one, two, three):
    merged = merge(one, two, three)
    assert merged == merge(three, merge(two, one)) == merge(merged, merged)
    assert merge(merged, [replace(each, ended_at=9) for each in merged if not each.ended_at]) == [
        replace(each, ended_at=each.ended_at or 9) for each in merged
    ]
