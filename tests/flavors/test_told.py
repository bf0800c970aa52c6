"""What finished objects and files of results tell, in whatever pieces they come."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taximeter.core.usage import Reading
from taximeter.flavors.results import NAMES_MAX, LinesTeller
from taximeter.flavors.told import Place, Told, What, object_told, place_of

CHAT = {
    "object": "chat.completion",
    "model": "gpt-4o-mini",
    "choices": [{"message": {"content": "x"}}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
}
RESPONSE = {
    "object": "response",
    "id": "resp_1",
    "model": "gpt-5",
    "status": "completed",
    "output": [],
    "usage": {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10},
}
EMBEDDING = {"object": "list", "model": "e", "data": [], "usage": {"prompt_tokens": 4, "total_tokens": 4}}
MESSAGE = {"type": "message", "model": "claude", "usage": {"input_tokens": 6, "output_tokens": 2}}
GEMINI = {
    "candidates": [],
    "modelVersion": "gemini-2.5-flash",
    "usageMetadata": {"promptTokenCount": 8, "candidatesTokenCount": 1, "totalTokenCount": 9},
}
FILE = Place(What.FILE, "file-1")


def openai_line(name: str, body: object, status: int = 200) -> dict[str, object]:
    return {"id": "r", "custom_id": name, "response": {"status_code": status, "body": body}, "error": None}


def jsonl(*lines: object) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def told_by(data: bytes, cuts: list[int] | None = None, place: Place = FILE) -> list[Told]:
    told: list[Told] = []
    teller, start = LinesTeller(place, "openai", told.append), 0
    for cut in [*sorted(cuts or []), len(data)]:
        teller.feed(data[start:cut])
        start = cut
    teller.finish()
    return told


def figures(told: list[Told]) -> list[tuple[str | None, str, int | None, int | None]]:
    return [
        (each.line, each.api, used.input_tokens, used.output_tokens)
        for each in told
        for used in (each.reading or Reading(),)
    ]


LINES = (
    openai_line("a", CHAT),
    openai_line("b", RESPONSE),
    openai_line("c", EMBEDDING),
    openai_line("d", {"error": {"message": "no"}}, 400),
    {"custom_id": "e", "result": {"type": "succeeded", "message": MESSAGE}},
    {"custom_id": "f", "result": {"type": "expired"}},
    {"key": "g", "response": GEMINI},
    {"response": GEMINI},
    openai_line("h", {**CHAT, "choices": [{"message": {"content": "y" * 300_000}}]}),
)
TOLD = [
    ("a", "chat", 10, 5),
    ("b", "responses", 7, 3),
    ("c", "embeddings", 4, None),
    ("e", "messages", 6, 2),
    ("g", "generate", 8, 1),
    ("#7", "generate", 8, 1),
    ("h", "chat", 10, 5),
]


def test_each_line_of_results_tells_what_it_used_whatever_api_it_is_of() -> None:
    told = told_by(jsonl(*LINES))
    assert figures(told) == TOLD
    assert {(each.id, each.in_file) for each in told} == {("file-1", True)}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, len(jsonl(*LINES[:-1]))), max_size=8))
def test_it_does_not_matter_how_the_file_is_cut(cuts: list[int]) -> None:
    assert figures(told_by(jsonl(*LINES[:-1]), cuts)) == TOLD[:-1]


def test_lines_of_other_apis_and_lines_that_are_none() -> None:
    text = {"object": "text_completion", "model": "m", "usage": {"prompt_tokens": 2, "completion_tokens": 1}}
    cohere = {"embeddings": [[0.1]], "meta": {"billed_units": {"input_tokens": 3}}}
    told = told_by(jsonl(openai_line("a", text), openai_line("b", cohere), openai_line("c", [1])))
    assert figures(told) == [("a", "completions", 2, 1), ("b", "embeddings", 3, None)]
    assert told_by(jsonl({"text": "y" * 300_000})) == []


def test_a_file_that_is_cut_short_tells_its_whole_lines_and_other_files_tell_nothing() -> None:
    data = jsonl(*LINES[:2])
    assert figures(told_by(data[:-20])) == TOLD[:1]
    assert figures(told_by(data[:-1])) == TOLD[:2]  # only the last line's end is missing
    assert told_by(jsonl({"messages": []}, {"custom_id": "x", "body": {"model": "m"}}, ["a"], "b")) == []
    assert told_by(b"\x00\xff\n{\n\n[" * 10) == []


@pytest.mark.parametrize(
    ("body", "place", "told"),
    [
        ({"id": "b1", "object": "batch", "status": "in_progress"}, "b1", []),
        (
            {"id": "b1", "object": "batch", "status": "completed", "output_file_id": "file-1",
             "error_file_id": "file-2", "usage": {"input_tokens": 9, "output_tokens": 9}},
            "b1",
            [Told(id="b1", state="completed", files=("file-1",))],
        ),
        ({"id": "b1", "object": "batch", "status": "expired", "output_file_id": "file-1"}, "b1",
         [Told(id="b1", state="expired", files=("file-1",))]),
        ({"id": "m1", "type": "message_batch", "processing_status": "in_progress"}, "m1", []),
        ({"id": "m1", "type": "message_batch", "processing_status": "ended", "results_url": "https://x/results"}, "m1",
         [Told(id="m1", state="ended", files=("m1/results",))]),
        ({"id": "j1", "object": "batch", "status": "SUCCESS", "output_file": "o"}, "j1",
         [Told(id="j1", state="success", files=("o",))]),
        ({"name": "batches/1", "metadata": {"state": "BATCH_STATE_RUNNING"}}, "1", []),
        (
            {"name": "batches/1", "metadata": {"state": "BATCH_STATE_SUCCEEDED"}, "done": True,
             "response": {"responsesFile": "files/f1"}},
            "1",
            [Told(id="batches/1", state="succeeded", files=("f1",))],
        ),
        ({"name": "models/veo/operations/o", "done": True, "error": {"code": 3}}, "o",
         [Told(id="models/veo/operations/o", state="failed")]),
        ({"id": "v1", "object": "video", "status": "queued"}, "v1", []),
    ],
)  # fmt: skip
def test_an_object_tells_how_it_ended_and_where_its_lines_are(body: object, place: str, told: list[Told]) -> None:
    assert object_told(json.dumps(body).encode(), Place(What.OBJECT, place), "openai") == told


def test_a_finished_job_tells_what_it_was_billed() -> None:
    body = {"job_id": "ej", "status": "complete", "meta": {"billed_units": {"input_tokens": 12}}}
    (told,) = object_told(json.dumps(body).encode(), Place(What.OBJECT, "ej"), "cohere")
    assert (told.id, told.state, told.reading and told.reading.input_tokens) == ("ej", "complete", 12)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (b"/v1/responses/resp_1", Place(What.OBJECT, "resp_1")),
        (b"/v1/responses/resp_1?stream=true", Place(What.OBJECT, "resp_1")),
        (b"/openai/batches/b%2D1/", Place(What.OBJECT, "b-1")),
        (b"/v1/messages/batches/m1", Place(What.OBJECT, "m1")),
        (b"/v1/messages/batches/m1/results", Place(What.LINES, "m1")),
        (b"/v1/batch/jobs/j1", Place(What.OBJECT, "j1")),
        (b"/v1/files/file-1/content", Place(What.FILE, "file-1")),
        (b"/v1beta/files/f1:download?alt=media", Place(What.FILE, "f1")),
        (b"/v1beta/batches/1", Place(What.OBJECT, "1")),
        (b"/v1beta/models/veo/operations/o", Place(What.OBJECT, "o")),
        (b"/v1/batches?limit=3", Place(What.LIST, "")),
        (b"/v1/batch/jobs", Place(What.LIST, "")),
        (b"/v1beta/openai/batches/batches%2F1", Place(What.OBJECT, "1")),
        (b"/v1beta/openai/files/files%2Fbatch-1/content", Place(What.FILE, "batch-1")),
        (b"/v1/responses/resp_1/input_items", None),
        (b"/v1/responses/resp_1/cancel", None),
        (b"/v1/files/file-1", None),
        (b"/v1/models", None),
        (b"/v1/chat/completions", None),
    ],
)
def test_what_a_path_gives_back(path: bytes, place: Place | None) -> None:
    assert place_of(path) == place


def test_what_a_cancel_gives_back_and_what_other_requests_do_not() -> None:
    cancels = [b"/v1/responses/resp_1/cancel", b"/openai/v1/responses/resp_1/cancel?api-version=1",
               b"/v1/batches/resp_1/cancel", b"/v1/batch/jobs/resp%5F1/cancel"]  # fmt: skip
    assert {place_of(path, b"POST") for path in cancels} == {Place(What.OBJECT, "resp_1")}
    assert place_of(b"/v1/responses/resp_1", b"POST") is None
    assert {place_of(b"/v1/responses/resp_1", method) for method in (b"HEAD", b"DELETE", b"OPTIONS")} == {None}


def test_lines_of_the_same_name_are_as_many_lines_the_same_ones_each_time(monkeypatch) -> None:
    data = jsonl(*(openai_line(name, CHAT) for name in ("a", "a", "b", "a")), {"custom_id": "b", "error": {}})
    for _ in range(2):
        assert [each.line for each in told_by(data)] == ["a", "a#1", "b", "a#3"]
    monkeypatch.setattr("taximeter.flavors.results.NAMES_MAX", 1)
    assert [each.line for each in told_by(data)] == ["a", "a#1", "b", "a#3"]
    assert NAMES_MAX >= 50_000  # https://platform.openai.com/docs/guides/batch


def test_a_long_line_of_a_response_that_made_an_image_is_a_responses() -> None:
    image = {"type": "image_generation_call", "result": "A" * 300_000}
    (told,) = told_by(jsonl(openai_line("a", {**RESPONSE, "output": [image]})))
    assert figures([told]) == [("a", "responses", 7, 3)]
