"""Streams are asked for their usage; who does not know how says so in many ways, and is asked again without."""

import asyncio
import gzip
import json
import zlib

import httpx2
import pytest

from upstream import LAST_CHUNK, RESET, Script, chunk, response, stream_head
from waits import HANG_S

STREAM = {"model": "old-model", "messages": [{"role": "user", "content": "one two three"}], "stream": True}
JSON = ("content-type", "application/json")
UNKNOWN = b'{"error": {"message": "Unrecognized request argument supplied: stream_options"}}'
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"stream_options or include_usage"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


@pytest.fixture
async def client():
    async with httpx2.AsyncClient(timeout=HANG_S) as session:
        yield session


def refused(status, body=UNKNOWN, *headers):
    return response(body, status, [JSON, *headers])


def events(*parts, headers=()):
    return b"".join([stream_head(headers=headers), *(chunk(part) for part in parts), LAST_CHUNK])


ANSWER = events(EVENT, DONE)
REFUSALS = {str(status): refused(status) for status in (400, 403, 404, 405, 406, 415, 422, 500, 501)} | {
    "by its member": refused(400, b'{"detail": "extra fields not permitted: body.stream_options.include_usage"}'),
    "in camel case": refused(404, b'{"message": "Unknown name \\"streamOptions\\""}'),
    "in words": refused(400, b"Stream options are not supported"),
    "escaped": refused(400, b'{"message": "unknown field stream\\u005foptions"}'),
    "as text": response(b"no such field: include_usage", 501, [("content-type", "text/plain")]),
    "gzip": refused(400, gzip.compress(UNKNOWN), ("content-encoding", "gzip")),
    "deflate": refused(400, zlib.compress(UNKNOWN), ("content-encoding", "deflate")),
    "chunked": response(UNKNOWN, 400, [JSON], framing="chunked"),
    "with 200": refused(200),
    "with 200, as vLLM writes errors": refused(200, b'{"object":"error","message":"stream_options: extra input"}'),
    "as the first event": events(b"data: " + UNKNOWN + b"\n\n", DONE),
    "as the first event, by name": events(b"event: error\ndata: unknown member stream_options\n\n"),
    "as the first event, behind a comment": events(b": queued\n\n: still\n\ndata: " + UNKNOWN + b"\n\n", DONE),
    "with 200, in a list": refused(200, b"[" + UNKNOWN + b"]"),
    "as the first event, with CR LF": events(b"event: error\r\ndata: " + UNKNOWN + b"\r\n\r\n"),
    "as the first event, gzip": events(
        gzip.compress(b"data: " + UNKNOWN + b"\n\n"), headers=[("content-encoding", "gzip")]
    ),
}  # fmt: skip


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
async def test_who_refuses_it_by_name_is_asked_again_without_and_remembered(serve, provider, client, refusal):
    provider.answering = lambda request: Script((refusal if b"include_usage" in request.body else ANSWER,))
    async with serve(provider) as running:
        direct = await client.post(provider.base_url + "/chat/completions", json=STREAM)
        first = await client.post(running.url + "/v1/chat/completions", json=STREAM)
        second = await client.post(running.url + "/v1/chat/completions", json=STREAM)
        await running.record(2)
        records = running.records
    assert (first.status_code, first.content) == (second.status_code, second.content) == (200, direct.content)
    asked = [b"include_usage" in request.body for request in provider.requests[1:]]
    assert asked == [True, False, False]
    assert [(record["outcome"], record.get("attempt", 1)) for record in records] == [
        ("upstream_error", 1), ("ok", 2), ("ok", 1),
    ]  # fmt: skip
    assert [record.get("output_source") for record in records[1:]] == ["counted", "counted"]


OTHERS = {str(status): refused(status) for status in (401, 402, 408, 413, 429, 502, 503, 504)} | {
    "about something else": refused(400, b'{"error": {"message": "too long"}}'),
    "a long one": refused(400, b'"' + b"x" * 70_000 + UNKNOWN),
    "an error in the first event": events(b'data: {"error": {"message": "overloaded"}}\n\n'),
    "text about it": ANSWER,
    "text about it, not streamed": response(
        b'{"choices":[{"message":{"content":"use stream_options"}}]}', headers=[JSON]
    ),
}


@pytest.mark.parametrize("answer", OTHERS.values(), ids=OTHERS.keys())
async def test_any_other_answer_is_passed_on_as_it_came(serve, provider, client, answer):
    provider.answering = lambda _: Script((answer,))
    async with serve(provider) as running:
        direct = await client.post(provider.base_url + "/chat/completions", json=STREAM)
        through = await client.post(running.url + "/v1/chat/completions", json=STREAM)
        await client.post(running.url + "/v1/chat/completions", json=STREAM)
    assert (through.status_code, through.content) == (direct.status_code, direct.content)
    assert [b"include_usage" in request.body for request in provider.requests] == [False, True, True]


async def test_an_error_that_repeats_the_whole_request_teaches_nothing(serve, provider, client):
    """FastAPI's 422 holds the body it is about, and so our own member too."""

    def answering(request):
        body = json.loads(request.body)
        echo = {"detail": [{"loc": ["body", "n"], "msg": "too many", "input": body}]}
        return Script((refused(422, json.dumps(echo).encode()) if "n" in body else ANSWER,))

    provider.answering = answering
    async with serve(provider) as running:
        url = running.url + "/v1/chat/completions"
        wrong = await client.post(url, json={**STREAM, "n": 99})
        right = await client.post(url, json=STREAM)
    assert (wrong.status_code, right.status_code) == (422, 200)
    assert "stream_options" not in wrong.text  # as a direct call's
    assert [b"include_usage" in request.body for request in provider.requests] == [True, False, True]


async def test_what_one_model_refuses_another_is_still_asked(serve, provider, client):
    provider.answering = lambda request: Script(
        (refused(400) if b"old" in request.body and b"include_usage" in request.body else ANSWER,)
    )
    async with serve(provider) as running:
        url = running.url + "/v1/chat/completions"
        for model in ("old-model", "new-model", "old-model", "new-model"):
            await client.post(url, json={**STREAM, "model": model})
    asked = [(request.json()["model"][:3], "stream_options" in request.json()) for request in provider.requests]
    assert asked == [("old", True), ("old", False), ("new", True), ("old", False), ("new", True)]


async def test_a_comment_before_the_first_event_is_not_waited_behind(serve, provider, client):
    go_on = asyncio.Event()
    provider.script(stream_head(), chunk(b": processing\n\n"), go_on, chunk(EVENT), chunk(DONE), LAST_CHUNK)
    async with serve(provider) as running:
        url = running.url + "/v1/chat/completions"
        async with client.stream("POST", url, json=STREAM) as answer:
            parts = answer.aiter_raw()
            assert await anext(parts) == b": processing\n\n"
            go_on.set()
            assert b"".join([part async for part in parts]) == EVENT + DONE
        provider.answering = lambda request: Script((refused(400) if b"include_usage" in request.body else ANSWER,))
        assert (await client.post(url, json=STREAM)).content == EVENT + DONE  # it had told nothing


async def test_the_head_of_a_stream_that_says_nothing_yet_is_not_kept_from_its_client(serve, provider, client):
    go_on = asyncio.Event()
    provider.script(stream_head(), go_on, chunk(EVENT), chunk(DONE), LAST_CHUNK)
    async with serve(provider) as running:
        url = running.url + "/v1/chat/completions"
        async with client.stream("POST", url, json=STREAM) as answer:
            assert answer.status_code == 200
            go_on.set()
            assert await answer.aread() == EVENT + DONE


@pytest.mark.parametrize("begun", [(), (chunk(b"data: {"),)], ids=["nothing", "half an event"])
async def test_a_stream_cut_before_its_first_event_is_cut_as_it_was(serve, provider, client, begun):
    provider.script(stream_head(), *begun, RESET)
    async with serve(provider) as running:
        url = running.url + "/v1/chat/completions"
        async with client.stream("POST", url, json=STREAM) as answer:
            assert answer.status_code == 200
            with pytest.raises(httpx2.RemoteProtocolError):
                await answer.aread()
        record = await running.record()
    assert (record["outcome"], len(provider.requests)) == ("upstream_cut", 1)
