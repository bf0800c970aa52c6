"""What a hard budget is charged when it is not known what a call used."""

import pytest

from taximeter.budgets.charges import Held, charge
from taximeter.core.record import Operation, Outcome, Record, Source


def ended(**more):
    return Record(**{
        "request_id": "r", "started_at": 0, "ended_at": 1, "workspace": "w", "upstream": "u", "provider": "p",
        "api": "chat", "operation": Operation.LLM, "outcome": Outcome.OK, "status": 200, **more,
    })  # fmt: skip


def charged(record, *, sent=True, cost=9_000):
    charge(record, Held(100, cost, sent))
    return record.charged_tokens, record.charged_cost_nusd


KNOWN = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15, "cost_nusd": 1_000}
HEAD_ONLY = {"partial": True, "output_tokens": 0, "total_tokens": 10}
NOTHING, ALL = (None, None), (100, 9_000)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (KNOWN, NOTHING),
        ({}, ALL),  # an answer that said nothing of its use, and of which nothing could be counted
        ({"outcome": Outcome.TIMEOUT, "status": None}, ALL),
        ({"outcome": Outcome.UPSTREAM_CUT, "status": None}, ALL),
        ({"outcome": Outcome.CLIENT_LEFT, "status": None}, ALL),
        ({"outcome": Outcome.INTERRUPTED, "status": None}, ALL),
        ({"outcome": Outcome.UPSTREAM_UNREACHABLE, "status": None}, NOTHING),
        ({"outcome": Outcome.REFUSED, "status": None}, NOTHING),
        ({"outcome": Outcome.UPSTREAM_ERROR, "status": 500}, NOTHING),
        ({"outcome": Outcome.UPSTREAM_ERROR, "status": 429}, NOTHING),
        ({"outcome": Outcome.UPSTREAM_ERROR, "status": 504}, ALL),
        ({"outcome": Outcome.UPSTREAM_ERROR, "status": 524}, ALL),
        # An answer cut in the middle: what came of it was counted, or told on the way; of the rest nobody knows.
        ({**KNOWN, "outcome": Outcome.CLIENT_LEFT, "partial": True, "output_source": Source.COUNTED}, (85, 8_000)),
        ({**KNOWN, "outcome": Outcome.UPSTREAM_CUT, "partial": True, "output_source": Source.REPORTED}, (85, 8_000)),
        # The client left, and the provider told all the same (`on_client_left = "drain"`).
        ({**KNOWN, "outcome": Outcome.CLIENT_LEFT}, NOTHING),
        # Only its head had come; how much had been thought by then nobody knows.
        ({**KNOWN, **HEAD_ONLY, "outcome": Outcome.CLIENT_LEFT}, (90, 8_000)),
        # Its process died: the last tick is a second old, and the prompt was never counted.
        ({"outcome": Outcome.INTERRUPTED, "partial": True, "output_tokens": 30, "total_tokens": 30}, (70, 9_000)),
        ({**KNOWN, "outcome": Outcome.INTERRUPTED, "partial": True}, (85, 8_000)),
        ({**KNOWN, "outcome": Outcome.UPSTREAM_ERROR, "partial": True, "output_tokens": 0}, (85, 8_000)),
        ({"input_tokens": 300, "total_tokens": 300}, (None, 9_000)),  # more than was held is known already
        ({**KNOWN, "cost_nusd": None}, (None, 9_000)),  # the model that answered has no price
        ({"operation": Operation.EMBEDDING, "input_tokens": 4, "total_tokens": 4, "cost_nusd": 2}, NOTHING),
        ({"operation": Operation.EMBEDDING}, ALL),
        ({"operation": Operation.RERANK, "search_units": 1, "cost_nusd": 2}, NOTHING),
        ({"operation": Operation.RERANK}, ALL),
    ],
)  # fmt: skip
def test_what_may_have_been_billed_is_charged_at_its_bound(more, expected):
    assert charged(ended(**more)) == expected


def test_what_was_never_sent_is_not_charged_and_without_a_price_no_money_is():
    assert charged(ended(outcome=Outcome.CLIENT_LEFT, status=None), sent=False) == NOTHING
    assert charged(ended(), cost=None) == (100, None)
