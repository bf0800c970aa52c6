"""What passes on a GET of something promised, API by API: the bytes as they came, and what they tell."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flavors.test_told import CHAT, GEMINI, MESSAGE, RESPONSE, jsonl, openai_line
from taximeter.flavors.meter import Answer, Prepared
from taximeter.flavors.polls import poll
from taximeter.flavors.told import Told, place_of

JSON = b"application/json"


def passing(
    path: str, data: bytes, provider: str = "openai", cuts: list[int] | None = None, status: int = 200,
    kind: bytes = JSON,
) -> tuple[list[Told], list[str]]:  # fmt: skip
    """What an answer to this GET tells, and the files it brought, fed in these pieces."""
    told: list[Told] = []
    files: list[str] = []
    place = place_of(path.encode())
    assert place is not None
    meter = poll(place, path.encode(), told.append, files.append).meter(
        Prepared(body=b""), Answer(status=status, content_type=kind), provider
    )
    passed, start = b"", 0
    for cut in [*sorted(cuts or []), len(data)]:
        passed += meter.feed(data[start:cut])
        start = cut
    passed += meter.finish() + meter.finish()  # an end that is told twice tells nothing twice
    assert passed == data and not meter.reading().reported and meter.output().truncated
    return told, files


def short(told: list[Told]) -> list[tuple[Any, ...]]:
    used = [(each, each.reading) for each in told]
    return [
        (each.id, each.line, each.state, each.files, None if one is None else (one.input_tokens, one.output_tokens))
        for each, one in used
    ]


FILE = jsonl(openai_line("a", CHAT), openai_line("b", CHAT, 500))
BATCH = {"id": "b1", "object": "batch", "status": "completed", "output_file_id": "f1", "error_file_id": "f2"}
INLINED = {
    "name": "batches/1",
    "metadata": {"state": "BATCH_STATE_SUCCEEDED", "text": 'odd "inlinedResponses": [ \\" {'},
    "done": True,
    "response": {
        "inlinedResponses": {
            "inlinedResponses": [
                {"response": {**GEMINI, "text": "x\\"}, "metadata": {"key": "k"}},
                {"response": GEMINI},
                {"error": {"code": 3}},
                {"response": {**GEMINI, "text": "}]" * 200_000}},
            ]
        }
    },
}
SMALL = {**INLINED, "response": {"inlinedResponses": {"inlinedResponses": [
    {"response": GEMINI, "metadata": {"key": "k"}}]}}}  # fmt: skip
MISTRAL = {
    "id": "j1", "object": "batch", "metadata": {"name": "mine"}, "status": "SUCCESS", "output_file": "o",
    "outputs": [openai_line("a", CHAT), openai_line("a", CHAT), openai_line("b", CHAT, 500)],
}  # fmt: skip
ALL = [
    ("batches/1", "k", "", (), (8, 1)), ("batches/1", "#1", "", (), (8, 1)), ("batches/1", "#3", "", (), (8, 1)),
    ("batches/1", None, "succeeded", (), None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("provider", "path", "data", "told", "files"),
    [
        ("openai", "/v1/responses/resp_1", json.dumps(RESPONSE).encode(),
         [("resp_1", None, "completed", (), (7, 3))], []),
        ("openai", "/v1/responses/resp_1", json.dumps({"id": "resp_1", "status": "queued"}).encode(), [], []),
        ("openai", "/v1/responses/resp_1", json.dumps({**RESPONSE, "background": True}).encode(),
         [("resp_1", None, "completed", (), (7, 3))], []),
        ("openai", "/v1/responses/resp_1", json.dumps({**RESPONSE, "background": False}).encode(), [], []),
        ("openai", "/v1/responses/resp_1", json.dumps({**RESPONSE, "status": "failed", "usage": None}).encode(),
         [("resp_1", None, "failed", (), None)], []),
        ("openai", "/v1/responses/resp_1", json.dumps({**RESPONSE, "status": "cancelled", "usage": None}).encode(),
         [("resp_1", None, "cancelled", (), (None, None))], []),
        ("openai", "/v1/batches/b1", json.dumps(BATCH).encode(), [("b1", None, "completed", ("f1",), None)], []),
        ("azure", "/openai/v1/batches/b1", json.dumps(BATCH).encode(), [("b1", None, "completed", ("f1",), None)], []),
        ("groq", "/v1/files/f1/content", FILE, [("f1", "a", "", (), (10, 5))], ["f1"]),
        ("azure", "/openai/files/f1/content", FILE, [("f1", "a", "", (), (10, 5))], ["f1"]),
        ("openai", "/v1/files/f1/content", jsonl({"messages": []}), [], []),
        ("anthropic", "/v1/messages/batches/m1/results",
         jsonl({"custom_id": "a", "result": {"type": "succeeded", "message": MESSAGE}},
               {"custom_id": "b", "result": {"type": "errored"}}),
         [("m1", "a", "", (), (6, 2)), ("m1", None, "ended", ("m1/results",), None)], ["m1/results"]),
        ("mistral", "/v1/batch/jobs/j1", json.dumps({"id": "j1", "status": "SUCCESS", "output_file": "o"}).encode(),
         [("j1", None, "success", ("o",), None)], []),
        ("mistral", "/v1/files/o/content", FILE, [("o", "a", "", (), (10, 5))], ["o"]),
        ("google", "/download/v1beta/files/g:download?alt=media", jsonl({"key": "a", "response": GEMINI}),
         [("g", "a", "", (), (8, 1))], ["g"]),
        ("google", "/v1beta/batches/1", json.dumps(INLINED).encode(), ALL, []),
        ("google", "/v1beta/batches/1", json.dumps({**INLINED, "name": ""}).encode(),
         [("1", *each[1:]) for each in ALL], []),
        ("openai", "/v1/videos/v1", json.dumps({"id": "v1", "object": "video", "status": "completed"}).encode(),
         [("v1", None, "completed", (), (None, None))], []),
        ("azure", "/openai/v1/video/generations/jobs/task_1?api-version=preview",
         json.dumps({"object": "video.generation.job", "id": "task_1", "status": "succeeded", "n_seconds": 5}).encode(),
         [("task_1", None, "succeeded", (), (None, None))], []),
        ("xai", "/v1/videos/d97415a1", json.dumps({"status": "pending"}).encode(), [], []),
        ("xai", "/v1/videos/d97415a1", json.dumps({"status": "done", "video": {"duration": 8}}).encode(),
         [("d97415a1", None, "done", (), (None, None))], []),
        ("openai", "/v1/batches/b1", b"[]", [], []),
        ("mistral", "/v1/batch/jobs/j1?inline=true", json.dumps(MISTRAL).encode(),
         [("j1", "a", "", (), (10, 5)), ("j1", "a#1", "", (), (10, 5)), ("j1", None, "success", ("o",), None)], ["o"]),
        ("openai", "/v1/batches?limit=3",
         json.dumps({"object": "list", "data": [BATCH, {**BATCH, "status": "in_progress"}, {"status": "done"},
                                                {**BATCH, "id": "b3", "text": "x" * 300_000}]}).encode(),
         [("b1", None, "completed", ("f1",), None)], []),
        ("anthropic", "/v1/messages/batches",
         json.dumps({"data": [{"id": "m1", "processing_status": "ended", "results_url": "https://x"}]}).encode(),
         [("m1", None, "ended", ("m1/results",), None)], []),
        ("google", "/v1beta/batches", json.dumps({"operations": [SMALL, {**SMALL, "name": ""}]}).encode(),
         [("batches/1", "k", "", (), (8, 1)), ("batches/1", None, "succeeded", (), None)], []),
    ],
)  # fmt: skip
def test_what_each_api_gives_back_is_told_line_by_line(provider, path, data, told, files):
    found, brought = passing(path, data, provider)
    assert (short(found), brought) == (told, files)
    assert passing(path, data, provider, status=404) == ([], [])


def test_a_response_that_is_streamed_is_told_when_it_has_ended():
    events = [{"type": "response.created", "response": {**RESPONSE, "status": "in_progress", "usage": None}},
              {"type": "response.completed", "response": RESPONSE}]  # fmt: skip
    data = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in events)
    found, _ = passing("/v1/responses/resp_1?stream=true", data, kind=b"text/event-stream")
    assert short(found) == [("resp_1", None, "completed", (), (7, 3))]


DATA = json.dumps(INLINED).encode()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 1_600), max_size=12), st.lists(st.integers(0, len(DATA)), max_size=6))
def test_it_does_not_matter_how_an_object_with_answers_in_it_is_cut(near: list[int], anywhere: list[int]) -> None:
    assert short(passing("/v1beta/batches/1", DATA, "google", [*near, *anywhere])[0]) == ALL


def test_an_object_with_answers_in_it_takes_bounded_memory_and_is_told_byte_by_byte():
    small = {**INLINED, "response": {"inlinedResponses": {"inlinedResponses": [{"response": GEMINI}, None, [1]]}}}
    data = json.dumps(small).encode()
    assert short(passing("/v1beta/batches/1", data, "google", list(range(len(data))))[0]) == [
        ("batches/1", "#0", "", (), (8, 1)), ("batches/1", None, "succeeded", (), None)
    ]  # fmt: skip
