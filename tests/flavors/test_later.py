"""What is answered now and billed later: which answers only promise, and by which id they are told apart."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from answers import known, read, sse
from taximeter.core.usage import Reading

_TOKENS = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
_ZEROS = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}


def _response(status: str, **more: object) -> dict[str, object]:
    return {"id": "resp_1", "object": "response", "model": "gpt-5", "status": status, "output": [], **more}


def _events(*responses: dict[str, object]) -> Reading:
    events = sse(*({"type": f"response.{each['status']}", "response": each} for each in responses))
    return read("/v1/responses", events, content_type=b"text/event-stream")


@pytest.mark.parametrize(
    ("response", "deferred"),
    [
        (_response("queued", background=True, usage=None), "resp_1"),
        (_response("queued"), "resp_1"),
        (_response("in_progress", background=True), "resp_1"),
        (_response("in_progress"), None),  # no background: an answer that was cut short
        (_response("completed", background=True, usage=_TOKENS), None),
        (_response("failed", background=True, error={"code": "server_error"}), None),
        (_response("cancelled", background=True, usage=None), None),
        (_response("queued", id=None), None),
    ],
)
def test_a_response_in_the_background_is_deferred_until_it_has_ended(
    response: dict[str, object], deferred: str | None
) -> None:
    assert read("/v1/responses", response).deferred == deferred
    assert _events(response).deferred == deferred


def test_a_streamed_background_response_is_deferred_only_where_the_stream_was_left() -> None:
    begun = [_response("queued", background=True), _response("in_progress", background=True)]
    ended = _events(*begun, _response("completed", background=True, usage=_TOKENS))
    assert (ended.deferred, known(ended)) == (None, {"input_tokens": 10, "output_tokens": 5})
    assert _events(*begun).deferred == "resp_1"
    assert _events(_response("in_progress", background=False)).deferred is None


@pytest.mark.parametrize(
    ("path", "answer", "deferred"),
    [
        ("/v1/batches", {"id": "batch_1", "status": "validating", "usage": _ZEROS, "model": "gpt-5"}, "batch_1"),
        ("/openai/batches", {"id": "batch_1", "status": "validating"}, "batch_1"),
        ("/v1/batches", {"id": "batch_1", "status": "failed"}, None),
        ("/v1/batches", {"error": {"message": "no such file"}}, None),
        ("/v1/messages/batches", {"id": "msgbatch_1", "processing_status": "in_progress"}, "msgbatch_1"),
        ("/v1beta/models/gemini-2.5-flash:batchGenerateContent", {"name": "batches/1", "metadata": {}}, "batches/1"),
        ("/v1beta/models/e:asyncBatchEmbedContent", {"name": "batches/2"}, "batches/2"),
        ("/v1/batch/jobs", {"id": "job-1", "status": "QUEUED", "object": "batch"}, "job-1"),
        ("/v1/embed-jobs", {"job_id": "ej-1", "meta": {"billed_units": {"input_tokens": 3}}}, "ej-1"),
        ("/v1/projects/p/locations/l/batchPredictionJobs", {"name": "projects/1/batchPredictionJobs/2"},
         "projects/1/batchPredictionJobs/2"),
        ("/v1/videos", {"id": "video_1", "object": "video", "status": "queued", "seconds": "4"}, "video_1"),
        ("/v1/videos/generations", {"request_id": "d97415a1"}, "d97415a1"),
        ("/openai/v1/video/generations/jobs?api-version=preview",
         {"object": "video.generation.job", "id": "task_1", "status": "queued", "n_seconds": 5}, "task_1"),
        ("/v1/videos/video_1/remix", {"id": "video_2", "status": "queued"}, "video_2"),
        ("/v1beta/models/veo-3.0:predictLongRunning", {"name": "models/veo-3.0/operations/o1"},
         "models/veo-3.0/operations/o1"),
        ("/v1/batches/batch_1/cancel", {"id": "batch_1", "status": "cancelling"}, None),
    ],
)  # fmt: skip
def test_the_answer_to_a_job_tells_its_id_and_no_usage(path: str, answer: dict[str, Any], deferred: str | None) -> None:
    reading = read(path, answer)
    assert (reading.deferred, known(reading)) == (deferred, {})
    assert bytes(reading.usage) == b"null"
    refused = read(path, {"error": {"message": "no"}}, status=400)
    assert refused.deferred is None


def test_a_job_that_tells_its_id_behind_much_else_is_known_by_it() -> None:
    answer = {"requests": ["x" * 300_000], "id": "batch_1", "status": "validating"}
    assert read("/v1/batches", msgspec.json.encode(answer)).deferred == "batch_1"
