"""Bodies that are no plain JSON: their model is known, they arrive as they were sent, and little of them is held."""

from __future__ import annotations

import gzip
import json
import zlib

import brotli
import httpx2
import pytest
from backports.zstd import compress as zstd
from hypothesis import given
from hypothesis import strategies as st

from taximeter.gateway.forms import FIELD_BYTES, Form
from taximeter.gateway.odd_bodies import HELD_FORM_BYTES
from waits import HANG_S

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "one two three"}]}
CODINGS = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress, "zstd": zstd}
FORM = "multipart/form-data; boundary=b"


def form(*fields: tuple[str, bytes, str | None], boundary: bytes = b"b") -> bytes:
    """A form of (name, value, file name or None)."""
    parts = []
    for name, value, filename in fields:
        file = f'; filename="{filename}"' if filename else ""
        parts.append(
            b"--%b\r\nContent-Disposition: form-data; name=%b\r\n\r\n%b\r\n"
            % (boundary, f'"{name}"{file}'.encode(), value)
        )
    return b"".join(parts) + b"--%b--\r\n" % boundary


@pytest.fixture
async def client():
    async with httpx2.AsyncClient(timeout=HANG_S) as session:
        yield session


async def sent(serve, provider, client, path, content, headers, **settings):
    """(answer, record, request as the provider saw it)"""
    async with serve(provider, **settings) as running:
        answer = await client.post(running.url + path, content=content, headers=headers)
        record = await running.record()
    return answer, record, provider.requests[-1]


@pytest.mark.parametrize("coding", sorted(CODINGS))
async def test_a_compressed_body_is_read_and_arrives_as_it_was_sent(serve, provider, client, coding):
    body = CODINGS[coding](json.dumps({**CHAT, "user": "u1"}).encode())
    headers = {"content-type": "application/json", "content-encoding": coding}
    answer, record, seen = await sent(serve, provider, client, "/v1/chat/completions", body, headers)
    assert (seen.body, dict(seen.headers)["content-encoding"]) == (body, coding)
    assert (record["request_model"], record["request_bytes"]) == ("gpt-4o-mini", len(body))
    assert answer.status_code in (200, 400)


@pytest.mark.parametrize("coding", sorted(CODINGS))
async def test_where_usage_has_to_be_asked_for_it_goes_uncompressed(serve, provider, client, coding):
    body = CODINGS[coding](json.dumps({**CHAT, "stream": True}).encode())
    headers = {"content-type": "application/json", "content-encoding": coding}
    answer, record, seen = await sent(serve, provider, client, "/v1/chat/completions", body, headers)
    assert "content-encoding" not in dict(seen.headers)
    assert json.loads(seen.body) == {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    assert int(dict(seen.headers)["content-length"]) == len(seen.body)
    assert b'"usage":{' not in answer.content.replace(b" ", b"")  # the event we asked for is taken out again
    assert (record["stream"], record["input_source"], record["outcome"]) == (True, "reported", "ok")


async def test_where_usage_is_not_asked_for_a_compressed_stream_arrives_as_it_was_sent(serve, provider, client):
    body = gzip.compress(json.dumps({**CHAT, "stream": True}).encode())
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    _, record, seen = await sent(
        serve, provider, client, "/v1/chat/completions", body, headers, upstream={"stream_usage": "off"}
    )
    assert (seen.body, dict(seen.headers)["content-encoding"]) == (body, "gzip")
    assert (record["request_model"], record["stream"]) == ("gpt-4o-mini", True)


async def test_identity_is_no_encoding(serve, provider, client):
    headers = {"content-type": "application/json", "content-encoding": "identity"}
    body = json.dumps(CHAT).encode()
    answer, record, seen = await sent(serve, provider, client, "/v1/chat/completions", body, headers)
    assert (answer.status_code, seen.body, record["request_model"]) == (200, body, "gpt-4o-mini")


async def test_a_bomb_is_refused(serve, provider, client):
    body = gzip.compress(b'{"model": "m", "pad": "' + b"x" * 200_000 + b'"}')
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    async with serve(provider, limits={"json_body_bytes": 100_000}) as running:
        answer = await client.post(running.url + "/v1/chat/completions", content=body, headers=headers)
        record = await running.record()
    assert answer.status_code == 413
    assert "unfolds to more than limits.json_body_bytes" in answer.json()["error"]["message"]
    assert (record["outcome"], provider.requests) == ("refused", [])


@pytest.mark.parametrize("kind", ["text/plain", "application/octet-stream", "application/x-ndjson", "odd"])
async def test_json_is_read_under_any_type(serve, provider, client, kind):
    body = json.dumps(CHAT).encode()
    _, record, seen = await sent(serve, provider, client, "/v1/chat/completions", body, {"content-type": kind})
    assert (seen.body, record["request_model"]) == (body, "gpt-4o-mini")


@pytest.mark.parametrize(
    ("coding", "body"),
    [("gzip", b"no gzip at all"), ("compress", b"\x1f\x9d"), ("gzip", gzip.compress(b"no json", mtime=0))],
    ids=["no gzip", "compress", "no json"],
)
async def test_what_cannot_be_read_goes_on_as_it_is(serve, provider, client, coding, body):
    headers = {"content-type": "application/json", "content-encoding": coding}
    _, record, seen = await sent(serve, provider, client, "/v1/chat/completions", body, headers)
    assert seen.body == body
    assert record.get("request_model") is None


@pytest.mark.parametrize("size", [10, 3 * HELD_FORM_BYTES])
@pytest.mark.parametrize("model_first", [True, False])
async def test_the_model_of_a_form_is_known_wherever_it_stands(serve, provider, client, size, model_first):
    fields = [("model", b"gpt-4o-transcribe", None), ("file", b"RIFF" * size, "a.wav")]
    body = form(*(fields if model_first else fields[::-1]))
    _, record, seen = await sent(serve, provider, client, "/v1/audio/transcriptions", body, {"content-type": FORM})
    assert seen.body == body
    assert (record["request_model"], record["request_bytes"]) == ("gpt-4o-transcribe", len(body))


async def test_a_form_goes_to_the_upstream_of_its_model(serve, provider, client, tmp_path):
    body = form(("language", b"de", None), ("model", b"whisper-1", None), ("file", b"RIFF", "a.wav"))
    upstream = {"models": ["whisper-*"]}
    _, record, _ = await sent(
        serve, provider, client, "/v1/audio/transcriptions", body, {"content-type": FORM}, upstream=upstream
    )
    assert (record["upstream"], record["request_model"]) == ("openai", "whisper-1")


async def test_a_form_that_cannot_be_read_goes_on_as_it_is(serve, provider, client):
    body = b"--c\r\nno form"
    _, record, seen = await sent(serve, provider, client, "/v1/audio/transcriptions", body, {"content-type": FORM})
    assert (seen.body, record.get("request_model")) == (body, None)


@given(
    fields=st.lists(
        st.tuples(
            st.sampled_from(["model", "stream", "language", "file", 'od"d']),
            st.binary(max_size=60).filter(lambda value: b"--b" not in value),
            st.none() | st.just("a.wav"),
        ),
        max_size=6,
    ),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
)
def test_a_form_is_read_alike_however_it_is_cut(fields: list[tuple[str, bytes, str | None]], sizes: list[int]) -> None:
    fields = [(name.replace('"', "%22"), value, file) for name, value, file in fields]
    body = form(*fields)
    whole, pieces = Form(FORM.encode()), Form(FORM.encode())
    whole.feed(body)
    at = turn = 0
    while at < len(body):
        size = sizes[turn % len(sizes)]
        pieces.feed(body[at : at + size])
        at, turn = at + size, turn + 1
    assert pieces.as_json() == whole.as_json()
    first: dict[str, str] = {}
    for name, value, file in fields:
        if file is None:
            first.setdefault(name.replace("%22", '"'), value.decode("utf-8", "replace"))
    assert pieces.model == (first.get("model") or None)


def test_of_a_forms_text_no_more_than_a_bound_is_kept() -> None:
    read = Form(FORM.encode())
    read.feed(form(("prompt", b"x" * (FIELD_BYTES + 1), None), ("stream", b"true", None), ("model", b"m", None)))
    assert json.loads(read.as_json()) == {"stream": True, "model": "m"}
