"""Runs of evaluations tell what several models used; videos what was made: told once they have ended."""

from __future__ import annotations

import json
from typing import Any

import pytest

from answers import known, read
from taximeter.core.deferred import settlement
from taximeter.core.record import Open, Outcome, Record
from taximeter.flavors.told import Place, Told, What, object_told, place_of
from taximeter.gateway.metering.polls import told_record

ROWS = [
    {"model_name": "gpt-4o-mini", "invocation_count": 2, "prompt_tokens": 100, "completion_tokens": 10,
     "total_tokens": 110, "cached_tokens": 40},
    {"model_name": "gpt-5", "invocation_count": 2, "prompt_tokens": 50, "completion_tokens": 5, "total_tokens": 55,
     "cached_tokens": 0},
]  # fmt: skip
RUN = {"object": "eval.run", "id": "evalrun_1", "eval_id": "eval_1", "status": "completed", "model": "gpt-4o-mini"}
ASKED = Open(
    request_id="r", started_at=1, ended_at=2, workspace="w", upstream="u", provider="openai", api="evals",
    outcome=Outcome.OK, deferred="evalrun_1",
)  # fmt: skip


def told_of(body: object, path: str) -> list[Told]:
    place = place_of(path.encode())
    assert place is not None
    assert place.what is What.OBJECT
    return object_told(json.dumps(body).encode(), place, "openai")


@pytest.mark.parametrize(
    ("answer", "deferred", "figures", "model"),
    [
        ({**RUN, "status": "queued", "per_model_usage": None}, "evalrun_1", {}, None),
        ({**RUN, "status": "in_progress", "per_model_usage": []}, "evalrun_1", {}, None),
        ({**RUN, "status": "failed"}, None, {}, None),
        ({"error": {"message": "no"}}, None, {}, None),
        (
            {**RUN, "per_model_usage": ROWS},
            None,
            {"input_tokens": 150, "output_tokens": 15, "cached_input_tokens": 40},
            None,
        ),
        (
            {**RUN, "per_model_usage": ROWS[1:]},
            None,
            {"input_tokens": 50, "output_tokens": 5, "cached_input_tokens": 0},
            "gpt-5",
        ),
        ({**RUN, "per_model_usage": [{"prompt_tokens": 4}, 5, {"model_name": "m"}]}, None, {}, None),
    ],
)
def test_a_run_is_billed_later_or_tells_its_sums(
    answer: object, deferred: str | None, figures: dict[str, int], model: str | None
) -> None:
    reading = read("/v1/evals/eval_1/runs", answer)
    assert (reading.deferred, known(reading), reading.response_model) == (deferred, figures, model)


def test_each_model_of_a_run_settles_it_at_its_own_price() -> None:
    *lines, end = told_of({**RUN, "per_model_usage": ROWS}, "/v1/evals/eval_1/runs/evalrun_1")
    assert (end.state, end.reading, end.line) == ("completed", None, None)
    settled = [settlement(ASKED, told_record(ASKED, each, 3)) for each in lines]
    assert [_figures(one) for one in settled] == [
        ("gpt-4o-mini", "gpt-4o-mini", 100, 40, 10, None), ("gpt-5", "gpt-5", 50, 0, 5, None),
    ]  # fmt: skip
    assert told_of({**RUN, "status": "in_progress", "per_model_usage": ROWS}, "/v1/evals/eval_1/runs/evalrun_1") == []
    failed = told_of({**RUN, "status": "failed", "per_model_usage": ROWS[:1]}, "/v1/evals/eval_1/runs/evalrun_1")
    assert [(each.line, each.state) for each in failed] == [("gpt-4o-mini", ""), (None, "failed")]


def _figures(record: Record) -> tuple[Any, ...]:
    return (
        record.line, record.response_model, record.input_tokens, record.cached_input_tokens, record.output_tokens,
        record.service_tier,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("status", "told"),
    [("completed", (8.0, "1280x720", "sora-2")), ("queued", None), ("failed", None), ("done", (None, None, "sora-2"))],
)
def test_a_video_that_is_finished_tells_how_long_it_is(status: str, told: object) -> None:
    # https://platform.openai.com/docs/api-reference/videos/object
    video = {
        "id": "video_1",
        "object": "video",
        "model": "sora-2",
        "status": status,
        "seconds": "8",
        "size": "1280x720",
    }
    found = told_of(video, "/v1/videos/video_1")
    used = [(one.video_seconds, one.media_size, one.response_model) for each in found if (one := each.reading)]
    assert used == ([] if told is None else [told])
    assert read("/v1/videos", {**video, "status": "queued"}).video_seconds is None
    untold = {name: value for name, value in video.items() if name != "seconds"}
    unknown = [one.video_seconds for each in told_of(untold, "/v1/videos/video_1") if (one := each.reading)]
    assert unknown == ([None] if told else [])  # it used something that nobody tells; what failed used nothing


def test_a_place_of_a_run() -> None:
    assert place_of(b"/v1/evals/e/runs/evalrun_1?x=1") == Place(What.OBJECT, "evalrun_1")
    assert place_of(b"/v1/evals/e/runs/evalrun_1/output_items") is None
