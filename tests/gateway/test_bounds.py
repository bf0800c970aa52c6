import json

import pytest

from taximeter.core.record import Open, Operation
from taximeter.gateway.bounds import Bound, bound, cost_nusd


def most(body, operation=Operation.LLM, counted=100):
    return bound(operation, counted, json.dumps(body).encode() if not isinstance(body, bytes) else body, 1_000)


@pytest.mark.parametrize(
    ("body", "output"),
    [
        ({}, 1_000),
        ({"max_tokens": 50}, 50),
        ({"max_tokens": 0}, 0),
        ({"max_completion_tokens": 70, "max_tokens": 50}, 70),
        ({"max_output_tokens": 60}, 60),
        ({"max_tokens": 50, "n": 3}, 150),
        ({"max_tokens": 50, "best_of": 4, "n": 2}, 200),
        ({"options": {"num_predict": 9}}, 9),
        ({"options": {"num_predict": -1}}, 1_000),
        ({"generationConfig": {"maxOutputTokens": 8, "candidateCount": 2}}, 16),
        ({"inferenceConfig": {"maxTokens": 11}}, 11),
        ({"max_tokens": "many"}, 1_000),
        ({"max_tokens": None}, 1_000),
        (b"not json", 1_000),
        (b"[" * 100_000, 1_000),
    ],
)
def test_an_answer_is_bounded_by_what_the_request_says_else_by_the_setting(body, output):
    assert most(body) == Bound(100 + 5 + 16, output)


def test_embeddings_and_rerank_have_no_output_and_other_paths_nothing():
    assert most({}, Operation.EMBEDDING) == Bound(121, 0)
    assert most({"max_tokens": 5}, Operation.RERANK) == Bound(121, 0)
    assert most({}, Operation.OTHER) == Bound(0, 0)


class Priced:
    def cost(self, record):
        if record.request_model == "unknown":
            return None, None
        dear = (record.reasoning_output_tokens or 0) * 7 + (record.cache_write_input_tokens or 0) * 2
        return record.input_tokens + record.output_tokens * 3 + dear + (10**6 if record.service_tier else 0), "x"


def test_the_highest_of_the_rates_that_may_apply_is_taken():
    def opening(model="m"):
        return Open(request_id="r", started_at=1, workspace="w", upstream="u", provider="p", api="chat",
                    operation=Operation.LLM, request_model=model)  # fmt: skip

    assert cost_nusd(Priced(), opening(), Bound(10, 5)) == 10 + 15 + 35
    assert cost_nusd(Priced(), opening(), Bound(100, 5)) == 100 + 15 + 200
    assert cost_nusd(Priced(), opening(), Bound(1, 0, "auto")) == 3
    assert cost_nusd(Priced(), opening(), Bound(1, 0, "priority")) == 10**6 + 3
    assert cost_nusd(Priced(), opening("unknown"), Bound(1, 1)) is None
