"""Calls that are answered now and billed later: their records know the object, and no figure that nobody told."""

import gzip

import httpx2
import msgspec
import pytest

from taximeter.core.record import Outcome, Record
from taximeter.pricebook.unpriced import why
from upstream import LAST_CHUNK, chunk, response, stream_head

JSON = [("content-type", "application/json")]
ASKED = {"model": "gpt-5", "input": "one two three", "background": True}
QUEUED = {"id": "resp_1", "object": "response", "status": "queued", "background": True, "model": "gpt-5", "usage": None}
BATCH = {"id": "batch_1", "object": "batch", "status": "validating", "usage": {"input_tokens": 0, "output_tokens": 0}}
FIGURES = ("input_tokens", "output_tokens", "total_tokens", "cost_nusd", "tokenizer")


@pytest.mark.parametrize(
    ("path", "asked", "answer"),
    [
        ("/v1/responses", ASKED, QUEUED),
        ("/v1/batches", {"input_file_id": "file-1", "endpoint": "/v1/chat/completions"}, BATCH),
        ("/v1/messages/batches", {"requests": []}, {"id": "batch_1", "processing_status": "in_progress"}),
        ("/v1beta/models/g:batchGenerateContent", {"batch": {}}, {"name": "batches/1", "metadata": {}}),
    ],
)
async def test_the_record_of_what_is_done_later_knows_the_object_and_no_figure(
    serve, provider, path, asked, answer
) -> None:
    provider.script(response(msgspec.json.encode(answer), headers=JSON))
    async with serve(provider) as running, httpx2.AsyncClient() as client:
        got = await client.post(running.url + path, json=asked)
        assert got.json() == answer
    (record,) = running.records
    assert record["deferred"] == answer.get("id", answer.get("name"))
    assert not record.keys() & set(FIGURES)
    assert (record["usage"], record["input_source"], record["output_source"]) == (None, "deferred", "deferred")
    decoded = msgspec.json.decode(msgspec.json.encode(record), type=Record)
    assert (decoded.outcome, why(decoded, running.gate.metering.prices)) == (Outcome.OK, "deferred")


async def test_a_stream_of_a_background_response_that_is_cut_is_not_counted(serve, provider) -> None:
    event = {"type": "response.in_progress", "response": {**QUEUED, "status": "in_progress"}}
    text = {"type": "response.output_text.delta", "delta": "four five"}
    sent = b"".join(b"data: " + msgspec.json.encode(each) + b"\n\n" for each in (event, text))
    provider.script(stream_head(), chunk(sent), LAST_CHUNK)
    async with serve(provider) as running, httpx2.AsyncClient() as client:
        got = await client.post(running.url + "/v1/responses", json={**ASKED, "stream": True})
        assert got.content == sent
    (record,) = running.records
    assert record["deferred"] == "resp_1"
    assert not record.keys() & set(FIGURES)
    assert (record["usage"], record["input_source"], record["output_source"]) == (None, "deferred", "deferred")


ENDED = {**QUEUED, "status": "completed", "usage": {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}}
CHAT_USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
CHAT = {"object": "chat.completion", "model": "m", "choices": [], "usage": CHAT_USAGE}
LINE = {"custom_id": "a", "response": {"status_code": 200, "body": CHAT}}
MESSAGE = {"type": "message", "model": "claude-haiku-4-5", "usage": {"input_tokens": 7, "output_tokens": 3}}
GEMINI = {"usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10}}
GOOGLES = {"name": "batches/1", "metadata": {"state": "BATCH_STATE_SUCCEEDED"}, "done": True}
OF_EACH = {
    "/openai/v1/batches/b1": ({"id": "b1", "object": "batch", "status": "expired", "output_file_id": "f"},
                              "b1", "", "expired", ["f"]),
    "/openai/files/f/content?api-version=2025-04-01-preview": (LINE, "file:f", "a", None, None),
    "/v1/messages/batches/m1": ({"id": "m1", "processing_status": "ended", "results_url": "https://x/results"},
                                "m1", "", "ended", ["m1/results"]),
    "/v1/messages/batches/m1/results": ({"custom_id": "a", "result": {"type": "succeeded", "message": MESSAGE}},
                                        "m1", "a", None, None),
    "/v1beta/batches/1": ({**GOOGLES, "response": {"responsesFile": "files/f"}}, "batches/1", "", "succeeded", ["f"]),
    "/v1beta/batches/1?alt=json": (
        {**GOOGLES, "response": {"inlinedResponses": {"inlinedResponses": [{"response": GEMINI}]}}},
        "batches/1", "#0", None, None),
    "/download/v1beta/files/f:download?alt=media": ({"key": "a", "response": GEMINI}, "file:f", "a", None, None),
    "/v1/batch/jobs/j1": ({"id": "j1", "status": "SUCCESS", "object": "batch", "output_file": "f"},
                          "j1", "", "success", ["f"]),
    "/v1/batch/jobs/j1?inline=true": ({"id": "j1", "status": "SUCCESS", "object": "batch", "outputs": [LINE]},
                                      "j1", "a", None, None),
    "/v1/batches?limit=1": ({"object": "list", "data": [{"id": "b1", "object": "batch", "status": "completed",
                                                         "output_file_id": "f"}]}, "b1", "", "completed", ["f"]),
    "/v1/videos/video_1": ({"id": "video_1", "object": "video", "status": "failed"}, "video_1", "", "failed", None),
}  # fmt: skip
"""What each API answers to a GET, and what is told first of it: object, line, state, files."""
EVENTS = b"".join(
    b"data: " + msgspec.json.encode({"type": f"response.{each['status']}", "response": each}) + b"\n\n"
    for each in (QUEUED, ENDED)
)


@pytest.mark.parametrize(
    ("path", "body", "kind", "told"),
    [
        ("/v1/responses/resp_1", msgspec.json.encode(ENDED), "application/json", ("resp_1", "", "completed")),
        ("/v1/responses/resp_1?stream=true", EVENTS, "text/event-stream", ("resp_1", "", "completed")),
        ("/v1/files/f1/content", msgspec.json.encode(LINE) + b"\n", "application/octet-stream", ("file:f1", "a", None)),
    ],
)
async def test_what_is_fetched_tells_its_use_under_an_id_of_its_own_and_passes_as_it_came(
    serve, provider, path, body, kind, told
) -> None:
    provider.script(response(body, headers=[("content-type", kind)]))
    async with serve(provider) as running, httpx2.AsyncClient() as client:
        got = await client.get(running.url + "/w/acme/t/poller" + path)
        assert got.content == body
    teller, poll = running.records
    assert (teller["kind"], teller["workspace"], teller["input_tokens"]) == ("told", "acme", 7)
    assert (teller["deferred"], teller.get("line", ""), teller.get("object_state")) == (told[0], told[1] or "", told[2])
    assert teller["request_id"] != poll["request_id"] == got.headers["x-taximeter-request-id"]
    assert not poll.keys() & {"input_tokens", "deferred", "kind", "cost_nusd"}


@pytest.mark.parametrize("path", OF_EACH)
async def test_what_each_api_gives_back_tells_gzipped_too_and_a_head_tells_nothing(serve, provider, path) -> None:
    body, *told = OF_EACH[path]
    packed = gzip.compress(msgspec.json.encode(body))
    provider.script(response(b"", headers=JSON))
    provider.script(response(packed, headers=[*JSON, ("content-encoding", "gzip")]))
    async with serve(provider) as running, httpx2.AsyncClient() as client:
        assert (await client.head(running.url + path)).status_code == 200
        assert (await client.get(running.url + path)).json() == body
    _, first, *_, poll = running.records
    assert first["kind"] == "told" and "kind" not in poll
    assert [first["deferred"], first.get("line", ""), first.get("object_state"), first.get("files")] == told
    assert first.get("input_tokens") == (7 if told[1] else None)


async def test_what_cancels_a_call_tells_how_it_ended(serve, provider) -> None:
    cancelled = {**ENDED, "status": "cancelled"}
    provider.script(response(msgspec.json.encode(cancelled), headers=JSON))
    async with serve(provider) as running, httpx2.AsyncClient() as client:
        got = await client.post(running.url + "/w/acme/v1/responses/resp_1/cancel")
        assert got.json() == cancelled
    told, cancel = running.records
    assert (told["kind"], told["deferred"], told["object_state"], told["input_tokens"]) == (
        "told", "resp_1", "cancelled", 7
    )  # fmt: skip
    assert not cancel.keys() & {"input_tokens", "deferred", "kind", "cost_nusd"}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, msgspec.json.encode(QUEUED)),
        (404, msgspec.json.encode(ENDED)),
        (206, msgspec.json.encode(ENDED)),
        (200, b"{"),
    ],
)
async def test_what_goes_on_or_fails_or_is_a_part_tells_nothing(serve, provider, status, body) -> None:
    provider.script(response(body, headers=JSON, status=status))
    async with serve(provider) as running, httpx2.AsyncClient() as client:
        assert (await client.get(running.url + "/v1/responses/resp_1")).content == body
    assert [each.get("kind") for each in running.records] == [None]
