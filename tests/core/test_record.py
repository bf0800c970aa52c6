"""A record: what it takes over from a reading, what the next attempt begins with, what a correction changes."""

from typing import Any

import msgspec
import pytest

from taximeter.core.bounds import FOREVER_US
from taximeter.core.correction import correction
from taximeter.core.holds import reservation_of
from taximeter.core.record import IMPOSSIBLE, Open, Operation, Outcome, Record, Source, outcome_of, possible, seq_of
from taximeter.core.usage import COUNTS, Reading
from taximeter.gateway.metering.call import take

CALL = Open(
    request_id="r", started_at=5, workspace="w", track="t", document="d", task="q", end_user="u", key_id="k",
    tags={"ignored": "task"}, upstream="up", provider="p", api="chat", operation=Operation.LLM, stream=True,
    request_model="asked", request_bytes=9,
)  # fmt: skip
DETAILS = (
    "cached_input_tokens", "cache_write_input_tokens", "cache_write_input_tokens_5m", "cache_write_input_tokens_1h",
    "audio_input_tokens", "image_input_tokens", "reasoning_output_tokens", "audio_output_tokens",
    "accepted_prediction_tokens", "rejected_prediction_tokens", "search_units", "rerank_documents", "embedding_inputs",
    "web_search_requests", "file_search_requests", "code_interpreter_sessions", "maps_requests", "image_generations",
    "video_input_tokens", "cached_audio_input_tokens", "cached_image_input_tokens", "image_output_tokens",
    "video_output_tokens", "images", "input_characters", "pages", "annotated_pages",
)  # fmt: skip


def ended(**members) -> Record:
    return msgspec.structs.replace(CALL, ended_at=7, outcome=Outcome.OK, **members)


@pytest.mark.parametrize(
    ("reported", "total", "sources"),
    [
        ({}, None, (Source.NONE, Source.NONE)),
        ({"input_tokens": 3}, 3, (Source.REPORTED, Source.NONE)),
        ({"output_tokens": 4}, 4, (Source.NONE, Source.REPORTED)),
        ({"input_tokens": 3, "output_tokens": 4}, 7, (Source.REPORTED, Source.REPORTED)),
        ({"input_tokens": 0, "output_tokens": 0}, 0, (Source.REPORTED, Source.REPORTED)),
    ],
)
def test_the_total_is_of_what_was_reported_and_unknown_without(reported, total, sources):
    record = ended()
    take(record, Reading(**reported, bare=True, response_model="m", service_tier="flex", upstream_request_id="x"))
    assert (record.total_tokens, record.input_source, record.output_source) == (total, *sources)
    assert (record.input_tokens, record.output_tokens) == (reported.get("input_tokens"), reported.get("output_tokens"))
    assert (record.response_model, record.service_tier, record.upstream_request_id) == ("m", "flex", "x")


def test_every_detail_of_a_reading_is_written_down():
    made: dict[str, Any] = {"video_seconds": 4.5, "media_size": "720x1280", "media_quality": "hd"}
    reading = Reading(seconds=1.5, inconsistent=True, upstream_cost_nusd=8, **made)
    for number, name in enumerate(DETAILS):
        setattr(reading, name, number)
    record = ended()
    take(record, reading)
    assert [getattr(record, name) for name in DETAILS] == list(range(len(DETAILS)))
    assert (record.seconds, record.inconsistent, record.upstream_cost_nusd, record.cost_note) == (1.5, True, 8, None)
    assert {name: getattr(record, name) for name in made} == made
    assert {*DETAILS, "input_tokens", "output_tokens"} == set(COUNTS)


def test_an_impossible_figure_is_noted_where_the_cost_would_be():
    record = ended()
    take(record, Reading(impossible=True))
    assert record.cost_note == IMPOSSIBLE


def test_the_next_attempt_is_the_same_call_begun_later():
    tried = msgspec.structs.replace(CALL, status=500, response_model="m")
    assert tried.again(8) == msgspec.structs.replace(CALL, attempt=2, started_at=8)
    assert reservation_of(tried.again(8)) == "r#2"


def test_a_correction_changes_the_cost_of_its_call_and_nothing_else():
    record = ended(cost_nusd=100, input_tokens=3, response_model="m", service_tier="flex")
    made = correction(record, -40, "new prices")
    assert (made.kind, made.cost_nusd, made.price_ref) == ("correction", -40, "new prices")
    about = ("request_id", "attempt", "started_at", "ended_at", "workspace", "track", "document", "task", "end_user",
             "key_id", "upstream", "provider", "api", "operation", "request_model", "response_model", "service_tier",
             "outcome")  # fmt: skip
    assert all(getattr(made, name) == getattr(record, name) for name in about)
    assert (made.input_tokens, made.total_tokens, made.duration_ms, made.event_id) == (None, None, None, "")


def test_the_model_is_the_served_one_else_the_one_asked_for():
    assert ended(response_model="served").model == "served"
    assert ended().model == "asked"
    assert ended(request_model=None).model == "unknown"


@pytest.mark.parametrize(("at_us", "nearest"), [(-1, 0), (5, 5), (FOREVER_US, FOREVER_US - 1), (2**70, FOREVER_US - 1)])
def test_a_moment_beyond_the_calendar_is_its_nearest_end(at_us, nearest):
    assert possible(at_us) == nearest


def test_an_event_ids_number_is_what_stands_last():
    assert seq_of("0123:ab:17") == 17
    with pytest.raises(ValueError, match="x"):
        seq_of("0123:x")


def test_how_a_whole_answer_ended_is_its_status_and_whether_its_client_was_there():
    assert [outcome_of(status, left=left) for status in (200, None, 429) for left in (False, True)] == [
        Outcome.OK, Outcome.CLIENT_LEFT, Outcome.OK, Outcome.CLIENT_LEFT, Outcome.UPSTREAM_ERROR, Outcome.UPSTREAM_ERROR
    ]  # fmt: skip
