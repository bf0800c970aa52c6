import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.core import totals
from taximeter.core.bounds import MAX_SUM
from taximeter.core.record import Operation, Outcome, Record, Source
from taximeter.core.totals import Totals

count = st.none() | st.integers(0, 10**6)


@st.composite
def records(draw):
    return Record(
        request_id="req",
        attempt=draw(st.integers(1, 2)),
        kind=draw(st.sampled_from(["usage", "usage", "correction"])),
        started_at=0,
        ended_at=1,
        workspace="w",
        upstream="u",
        provider="p",
        api="chat",
        operation=draw(st.sampled_from(list(Operation))),
        outcome=draw(st.sampled_from(list(Outcome))),
        input_source=draw(st.sampled_from(list(Source))),
        output_source=draw(st.sampled_from(list(Source))),
        input_tokens=draw(count),
        output_tokens=draw(count),
        search_units=draw(st.none() | st.integers(0, 9)),
        cost_nusd=draw(count),
    )


def record(**more):
    known = {"request_id": "r", "started_at": 0, "ended_at": 1, "workspace": "w", "upstream": "u", "provider": "p"}
    return Record(**{**known, "api": "chat", "operation": Operation.LLM, "outcome": Outcome.OK, **more})


def summed(*items):
    cell = totals.empty()
    for item in items:
        totals.add(cell, item)
    return Totals(**dict(zip(totals.FIELDS, cell, strict=True)))


@given(st.lists(records(), max_size=8), st.integers(0, 8))
def test_the_sum_of_parts_is_the_total(items, cut):
    whole, left, right = totals.empty(), totals.empty(), totals.empty()
    for i, item in enumerate(items):
        totals.add(whole, item)
        totals.add(left if i < cut else right, item)
    assert whole == [a + b for a, b in zip(left, right, strict=True)]


@given(st.lists(records(), max_size=8))
def test_requests_and_tokens_are_the_sum_of_their_kinds(items):
    t = summed(*items)
    assert t.requests == t.llm_requests + t.embedding_requests + t.rerank_requests + t.other_requests
    assert t.total_tokens == t.llm_input_tokens + t.llm_output_tokens + t.embedding_tokens + t.rerank_tokens
    assert t.counted_tokens + t.estimated_tokens <= t.total_tokens


def test_a_chat_call_adds_up():
    one = record(
        input_tokens=300,
        cached_input_tokens=64,
        output_tokens=96,
        reasoning_output_tokens=32,
        input_source=Source.REPORTED,
        output_source=Source.COUNTED,
        cost_nusd=1234,
    )
    assert summed(one) == Totals(
        requests=1,
        llm_requests=1,
        llm_input_tokens=300,
        llm_cached_input_tokens=64,
        llm_output_tokens=96,
        llm_reasoning_output_tokens=32,
        total_tokens=396,
        counted_tokens=96,
        cost_nusd=1234,
    )


def test_unknown_usage_is_counted_as_unknown_and_not_as_zero_tokens():
    assert summed(record()) == Totals(requests=1, llm_requests=1, unknown_requests=1)


def test_what_never_left_or_was_refused_by_the_provider_is_not_unknown():
    refused = record(outcome=Outcome.REFUSED)
    failed = record(outcome=Outcome.UPSTREAM_ERROR, status=500)
    assert summed(refused, failed) == Totals(requests=2, errors=2, llm_requests=2)


def test_a_second_attempt_is_not_a_second_request_but_its_tokens_count():
    first = record(outcome=Outcome.UPSTREAM_ERROR)
    second = record(attempt=2, input_tokens=5, output_tokens=1, input_source=Source.REPORTED, cost_nusd=0)
    second.output_source = Source.REPORTED
    t = summed(first, second)
    assert (t.requests, t.errors, t.total_tokens, t.unpriced_requests) == (1, 1, 6, 0)


def test_a_correction_changes_cost_only():
    assert summed(record(kind="correction", cost_nusd=-7, input_source=Source.NONE)) == Totals(cost_nusd=-7)
    first = record(kind="correction", cost_nusd=7)  # the call had no price before
    assert summed(record(cost_nusd=None), first).unpriced_requests == 0


def test_rerank_by_search_units_is_known_usage():
    one = record(operation=Operation.RERANK, search_units=2)
    assert summed(one) == Totals(requests=1, rerank_requests=1, search_units=2, unpriced_requests=1)


def test_a_cell_beyond_what_can_be_stored_is_cut_to_it():
    cell = totals.empty()
    assert totals.saturated(cell) is cell
    cell[0], cell[1], cell[2] = MAX_SUM + 1, -MAX_SUM - 1, 7
    assert list(totals.saturated(cell))[:3] == [MAX_SUM, -MAX_SUM, 7]


@pytest.mark.parametrize("used", ["seconds", "images", "input_characters", "pages", "video_seconds"])
def test_what_is_billed_by_the_piece_and_has_no_price_counts_as_unpriced(used):
    for known, unpriced in (({}, 0), ({used: 2}, 1), ({used: 2, "cost_nusd": 5}, 0)):
        assert summed(record(operation=Operation.OTHER, **known)).unpriced_requests == unpriced, known
