"""What settles a call that was billed later, and what becomes of what somebody said meanwhile."""

import msgspec
import pytest
from msgspec.structs import replace

from ledger import call
from taximeter.core.correction import correction
from taximeter.core.deferred import TOLD, as_charged_now, settlement, unsaid
from taximeter.core.holds import BUDGETS
from taximeter.core.record import Outcome, Record, Source

NOTHING = dict.fromkeys(("input_tokens", "output_tokens", "total_tokens", "cost_nusd", "price_ref"))


def asked(**more) -> Record:
    return call(
        **NOTHING
        | {"request_id": "req-1", "deferred": "b1", "track": "t1", "tags": {BUDGETS: "bud_1"}, "charged_tokens": 500}
        | more
    )


def told(**more) -> Record:
    return call(kind=TOLD, request_id="req-2", track="poller", deferred="b1", **{"line": "", "cost_nusd": None} | more)


def test_an_object_is_settled_for_who_asked_and_lets_go_what_was_charged():
    settled = settlement(asked(), told(service_tier="flex", object_state="completed"))
    assert (settled.kind, settled.request_id, settled.attempt, settled.track) == ("usage", "req-1", 2, "t1")
    assert (settled.charged_tokens, settled.charged_cost_nusd, settled.total_tokens) == (-500, None, 120)
    assert (settled.service_tier, settled.tags, settled.object_state) == ("flex", {BUDGETS: "bud_1"}, None)


def test_what_lets_go_is_of_the_model_that_was_charged_and_a_line_of_its_own():
    batch = asked(request_model=None)
    assert settlement(batch, told(response_model="m")).request_model is None
    assert settlement(batch, told(line="a", response_model="m")).request_model == "m"
    assert settlement(asked(request_model="n"), told(line="a", response_model="m")).request_model == "n"


def test_a_line_is_at_the_batch_price_and_lets_go_nothing():
    settled = settlement(asked(tags={}), told(line="a"))
    assert (settled.service_tier, settled.charged_tokens, settled.tags) == ("batch", None, {})


def test_what_failed_used_nothing_and_what_ended_well_without_a_figure_is_unknown_and_stays_charged():
    failed = settlement(asked(), told(**NOTHING, outcome=Outcome.UPSTREAM_ERROR))
    assert (failed.kind, failed.charged_tokens) == ("correction", -500)
    unknown = settlement(asked(), told(**NOTHING, input_source=Source.NONE))
    assert (unknown.kind, unknown.charged_tokens) == ("usage", None)


@pytest.mark.parametrize(("said", "left", "cost_nusd"), [(None, 500, None), (300, 300, -70)])
def test_what_somebody_said_it_used_is_taken_back(said, left, cost_nusd):
    call_ = asked()
    records = [call_]
    if said is not None:
        records.append(replace(correction(call_, 70, None), charged_tokens=said - 500))
    records.append(replace(settlement(call_, told()), cost_nusd=9))  # another attempt, and a line
    assert as_charged_now(call_, records).charged_tokens == left
    back = unsaid(call_, records)
    assert (None if back is None else back.cost_nusd) == cost_nusd
    assert as_charged_now(call_, []) == call_
    assert msgspec.json.encode(call_) == msgspec.json.encode(asked())
