from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from ledger_fake import traffic
from present import present
from taximeter.budgets.periods import AHEAD_S, FIXED, PARTS, period_of
from taximeter.budgets.rule import MOST, Budget, Budgets, checked, is_stored, merge, shown_amount
from taximeter.budgets.tally import DIMENSIONS, NO_REQUESTS, Tally, charged, matched, parse, used, used_of_cell
from taximeter.core.errors import BadRequest
from taximeter.core.record import Outcome, Record
from taximeter.core.totals import add, empty


def at(year, month, day, hour=0, minute=0, second=0, tz=UTC):
    return int(datetime(year, month, day, hour, minute, second, tzinfo=tz).timestamp())


def budget(**more):
    return Budget(**{"id": "bud_00000000000a", "workspace": "acme", "limit": 5, **more})


def call(workspace="acme", **says):
    return Record(
        request_id="r", started_at=0, ended_at=0, workspace=workspace, upstream=says.pop("upstream", "openai"),
        provider="openai", api="chat", outcome=Outcome.OK, **says,
    )  # fmt: skip


def test_a_call_counts_against_every_budget_that_is_about_it():
    all_of, key, task = budget(id="w"), budget(id="k", key_id="key_1"), budget(id="t", task="query")
    ended, other = budget(id="e", ended_at=1), budget(id="o", workspace="beta")
    budgets = Budgets([all_of, key, task, ended, other])

    def of(*given, **says):
        return [each.budget.id for each in budgets.of(call(*given, **says))]

    assert of(key_id="key_1", task="query") == ["w", "k", "t"]
    assert of() == ["w"] and of(key_id="key_2", task="query") == ["w", "t"]
    assert of("gamma", key_id="key_1") == [] and set(budgets.workspaces) == {"acme", "beta"}


def test_a_star_gives_each_value_an_allowance_and_a_call_without_one_has_none():
    each = budget(end_user="*", model="gpt-4o", upstream="openai")
    alice = present(each.allowance(call(end_user="alice", request_model="gpt-4o")))
    assert alice.values == ("alice", "gpt-4o", "openai") and alice.own == ("alice",)
    assert alice.named == "end user 'alice', model 'gpt-4o', upstream 'openai' of workspace 'acme'"
    assert each.sole is None and present(budget(task="query").sole).values == ("query",)
    for says in ({"request_model": "gpt-4o"}, {"end_user": "alice"}, {"end_user": "bob", "request_model": "gpt-5"}):
        assert each.allowance(call(**says)) is None


def test_what_is_added_up_for_budgets_is_added_up_once():
    alice, everyone, day = budget(end_user="alice"), budget(end_user="*"), budget(end_user="alice", period="day")
    found = Budgets([alice, everyone, day, budget(id="more", end_user="*", limit=9)]).tallies("acme")
    assert found == {everyone.tally, day.tally} and alice.tally.widest == everyone.tally
    assert {parse(tally.text) for tally in found} == found
    assert parse('{"unit":"usd","period":"eon","tz":"UTC","scope":[]}') is None and parse("x") is None


BERLIN, KOLKATA, LORD_HOWE = "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe"


@pytest.mark.parametrize(
    ("text", "tz", "now", "name", "starts", "resets"),
    [
        ("day", "UTC", at(2026, 11, 22, 23, 59), "day:2026-11-22", at(2026, 11, 22), at(2026, 11, 23)),
        ("month", "UTC", at(2026, 12, 31), "month:2026-12", at(2026, 12, 1), at(2027, 1, 1)),
        ("month", "UTC", at(2028, 1, 31), "month:2028-01", at(2028, 1, 1), at(2028, 2, 1)),
        ("total", "UTC", at(2026, 11, 22), "total", 0, None),
        ("minute", "UTC", at(2026, 11, 22, 9, 31, 59), "minute:2026-11-22T09:31", at(2026, 11, 22, 9, 31),
         at(2026, 11, 22, 9, 32)),
        ("hour", "UTC", at(2026, 11, 22, 9, 31), "hour:2026-11-22T09", at(2026, 11, 22, 9), at(2026, 11, 22, 10)),
        ("week", "UTC", at(2026, 11, 29, 23), "week:2026-W48", at(2026, 11, 23), at(2026, 11, 30)),
        ("day", BERLIN, at(2026, 11, 22, 23, 59), "day:2026-11-23", at(2026, 11, 22, 23), at(2026, 11, 23, 23)),
        ("day", BERLIN, at(2026, 10, 25, 12), "day:2026-10-25", at(2026, 10, 24, 22), at(2026, 10, 25, 23)),  # 25 hours
        ("month", BERLIN, at(2026, 3, 31, 22, 30), "month:2026-04", at(2026, 3, 31, 22), at(2026, 4, 30, 22)),
        ("hour", KOLKATA, at(2026, 11, 22, 9, 31), "hour:2026-11-22T15", at(2026, 11, 22, 9, 30),
         at(2026, 11, 22, 10, 30)),
        # Clocks go back half an hour at 02:00 local, which is 15:00 UTC: the hour from 01:00 is cut in two.
        ("hour", LORD_HOWE, at(2026, 4, 4, 14, 59), "hour:2026-04-05T01", at(2026, 4, 4, 14), at(2026, 4, 4, 15)),
        ("hour", LORD_HOWE, at(2026, 4, 4, 15, 20), "hour:2026-04-05T01", at(2026, 4, 4, 15), at(2026, 4, 4, 15, 30)),
        # A midnight that clocks skip.
        ("day", "Africa/Cairo", at(2026, 4, 24, 12), "day:2026-04-24", at(2026, 4, 23, 22), at(2026, 4, 24, 21)),
    ],
)  # fmt: skip
def test_periods_begin_and_end_in_their_zone(text, tz, now, name, starts, resets):
    when = period_of(text, tz)
    assert (when.name(now), when.starts_s(now)[0], when.resets_at_s(now)) == (name, starts, resets)
    assert when.starts_s(now)[1:] == ([] if resets is None or now + AHEAD_S < resets else [resets])


moments = st.integers(at(2020, 1, 1), at(2050, 1, 1))
zones = st.sampled_from(["UTC", BERLIN, KOLKATA, LORD_HOWE, "America/New_York", "Africa/Cairo", "Asia/Kathmandu",
                         "America/Havana", "Pacific/Apia", "America/St_Johns"])  # fmt: skip


@given(st.sampled_from(FIXED[:-1]), zones, moments)
@example("hour", LORD_HOWE, at(2026, 4, 4, 15, 29))
def test_every_moment_is_in_one_bucket_and_the_next_begins_where_it_ends(text, tz, now):
    when = period_of(text, tz)
    start = when.start_s(now)
    end = present(when.end_s(start))
    assert start <= now < end and when.start_s(start) == start == when.start_s(end - 1) and when.start_s(end) == end
    kept = when.kept_s(now)
    assert kept[-1] == (start if now + AHEAD_S < end else end) and all(
        present(when.end_s(a)) == b for a, b in pairwise(kept)
    )
    local = datetime.fromtimestamp(start, ZoneInfo(tz))
    before = datetime.fromtimestamp(start - 1, ZoneInfo(tz))
    if text in ("day", "week", "month"):
        assert local.date() > before.date() and (text != "week" or local.weekday() == 0)
        assert text != "month" or local.day == 1


@given(st.integers(1, 366 * 1440), moments, st.integers(0, 10**6))
def test_a_rolling_window_counts_all_of_itself_and_at_most_a_24th_more(minutes, now, before):
    when = period_of(f"rolling {minutes}m")
    assert when.window_s == minutes * 60 and when.grain_s * PARTS <= when.window_s
    starts, ended = when.starts_s(now), now - before
    assert len(starts) <= 63 and {b - a for a, b in pairwise(starts)} == {when.grain_s}
    if ended > now - when.window_s:
        assert when.start_s(ended) in starts
    if ended <= now - when.window_s - when.grain_s:
        assert when.start_s(ended) not in starts
    # A bucket outlives every moment that asks for it.
    assert present(when.expires_s(starts[0])) > now


@pytest.mark.parametrize("text", ["", "year", "rolling", "rolling 0h", "rolling 1", "rolling 1s", "rolling 367d",
                                  "rolling 1h ", "Rolling 1h", "rolling -1h"])  # fmt: skip
def test_what_is_no_period_is_refused(text):
    with pytest.raises(BadRequest):
        period_of(text)


@pytest.mark.parametrize(
    "bad",
    [{"workspace": ""}, {"workspace": "a b"}, {"workspace": "**"}, {"key_id": "a/b"}, {"task": "é"}, {"track": "**"},
     {"model": "gpt*"}, {"model": "a\nb"}, {"model": "x" * 201}, {"period": "rolling 30d", "tz": BERLIN},
     {"tz": "../etc/passwd"}, {"tz": "Nowhere/Land"}, {"limit": 0}, {"limit": -1}, {"limit": MOST + 1}],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(bad):
    with pytest.raises(BadRequest):
        checked(budget(**bad))
    assert not is_stored(budget(**bad))
    assert is_stored(budget()) and not is_stored(budget(id="x"))
    assert is_stored(budget(key_id="k", task="t", model="org/model 3", end_user="*", tz=BERLIN))


def test_a_budget_stored_before_there_were_scopes_is_read_as_it_was():
    old = b'{"id":"bud_00000000000a","workspace":"acme","task":"query","unit":"tokens","period":"day","limit":5}'
    assert msgspec.json.decode(old, type=Budget) == budget(task="query", unit="tokens", period="day")


@given(st.integers(0, 40))
def test_what_records_use_adds_up_to_what_the_counters_say(seed):
    records = traffic(seed, 30)
    cell = empty()
    for record in records:
        add(cell, record)
    for unit in ("usd", "tokens", "input_tokens", "output_tokens"):
        assert sum(map(used(unit), records)) == used_of_cell(unit, cell, 0)
    let_through = [record for record in records if record.outcome not in NO_REQUESTS]
    cell = empty()
    for record in let_through:
        add(cell, record)
    assert sum(map(used("requests"), records)) == used_of_cell("requests", cell, 0)


def test_a_call_whose_worker_died_is_a_request_where_it_may_have_been_sent():
    unsent, sent = call(), call(charged_tokens=60)
    for each in (unsent, sent):
        each.outcome = Outcome.INTERRUPTED
    assert [(used("requests")(each), charged("requests")(each)) for each in (unsent, sent)] == [(0, 0), (0, 1)]
    sent.kind = "correction"
    assert charged("requests")(sent) == 0 == charged("requests")(call(charged_tokens=60))


@given(st.integers(0, 40), st.sampled_from(DIMENSIONS))
def test_the_values_of_a_dimension_and_the_calls_without_one_are_the_whole(seed, dimension):
    records = traffic(seed, 30)
    tally = Tally("tokens", "total", "UTC", ((dimension, "*"),))
    by_value: dict[tuple[str, ...] | None, int] = {}
    for record in records:
        values = tally.values(record)
        by_value[values] = by_value.get(values, 0) + used("tokens")(record)
    assert sum(by_value.values()) == sum(map(used("tokens"), records))
    for values, amount in by_value.items():
        if values is not None:
            mine = [record for record in records if matched(((dimension, values[0]),), record)]
            assert amount == sum(map(used("tokens"), mine))


@pytest.mark.parametrize(
    ("amount", "unit", "text"),
    [(2_500_000_000, "usd", "$2.5"), (10**12, "usd", "$1,000"), (1_500, "tokens", "1,500 tokens"),
     (1_500, "seconds", "1.5 seconds of audio"), (7, "output_tokens", "7 output tokens")],
)  # fmt: skip
def test_amounts_as_sentences_have_them(amount, unit, text):
    assert shown_amount(amount, unit) == text


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


def test_what_is_kept_just_before_a_period_is_an_hour_of_it():
    when = period_of("minute")
    now = at(2026, 11, 22, 9, 31, 30)
    assert when.kept_s(now)[0] <= now - 3_600 and len(when.kept_s(now)) == 61
    assert period_of("day").kept_s(at(2026, 11, 22, 0, 30)) == [at(2026, 11, 21), at(2026, 11, 22)]
