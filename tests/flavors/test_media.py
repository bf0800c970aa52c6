"""What is billed by the piece: images by size and quality, characters spoken, pages, and tokens by their kind."""

from __future__ import annotations

import json
from typing import Any

import pytest

from answers import known, metered, read, sse
from taximeter.flavors import find
from taximeter.flavors.meter import Answer, Meter, Prepared
from taximeter.flavors.usage import conventions, openai
from taximeter.gateway.forms import Form

GENERATIONS = "/v1/images/generations"
GPT_IMAGE = {
    "total_tokens": 160, "input_tokens": 50, "output_tokens": 110,
    "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
    "output_tokens_details": {"text_tokens": 10, "image_tokens": 100},
}  # fmt: skip


def pieces(path: str, body: object, asked: object = None, **answer: Any) -> dict[str, object]:
    """What is told beside tokens."""
    reading = read(path, body, asked=asked, **answer)
    return {name: value for name, value in known(reading).items() if "token" not in name}


@pytest.mark.parametrize(
    ("path", "asked", "answer", "want"),
    [
        # https://platform.openai.com/docs/api-reference/images/create
        (
            GENERATIONS,
            {"model": "dall-e-3", "prompt": "a", "size": "1024x1792", "quality": "hd"},
            {"created": 1, "data": [{"url": "https://x/1.png", "revised_prompt": 'say "url": "x"'}]},
            {"images": 1, "media_size": "1024x1792", "media_quality": "hd"},
        ),
        (GENERATIONS, {"model": "dall-e-2", "n": 3}, {"data": [{"b64_json": "AAAA"}] * 3}, {"images": 3}),
        (
            GENERATIONS,
            {"model": "gpt-image-1", "size": "auto", "quality": "auto"},
            {"data": [{"b64_json": "AAAA"}], "size": "1024x1536", "quality": "high", "usage": GPT_IMAGE},
            {"images": 1, "media_size": "1024x1536", "media_quality": "high"},
        ),
        # of an answer that does not tell, what was asked for
        (GENERATIONS, {"n": 2}, {"made": True}, {"images": 2}),
        (GENERATIONS, {"n": "x"}, {"made": True}, {"images": 1}),
        (GENERATIONS, {"n": 2}, {"data": []}, {"images": 0}),
        # https://ai.google.dev/gemini-api/docs/imagen: what was filtered out is told without its bytes
        (
            "/v1beta/models/imagen-4.0-generate-001:predict",
            {"instances": [{"prompt": "a"}], "parameters": {"sampleCount": 2, "sampleImageSize": "2K"}},
            {"predictions": [{"bytesBase64Encoded": "AAAA"}, {"raiFilteredReason": "people"}]},
            {"images": 1, "media_size": "2K"},
        ),
        ("/api/v1/image/generate", {}, {"id": "1", "images": ["AAAA", "BBBB"]}, {"images": 2}),  # Venice
        # https://www.volcengine.com/docs/82379/1541523
        ("/api/v3/images/generations", {}, {"data": [], "usage": {"generated_images": 4}}, {"images": 4}),
        # https://docs.mistral.ai/api/#tag/ocr
        ("/v1/ocr", {}, {"pages": [], "usage_info": {"pages_processed": 3, "doc_size_bytes": 9}}, {"pages": 3}),
        (
            "/v1/ocr",
            {"document_annotation_format": {"type": "json_schema"}},
            {"usage_info": {"pages_processed": 3}},
            {"pages": 3, "annotated_pages": 3},
        ),
        # https://platform.minimax.io/docs/api-reference/speech-t2a-http
        ("/v1/audio/speech", {"input": "hi"}, {"usage": {"usage_characters": 7}}, {"input_characters": 7}),
    ],
)  # fmt: skip
def test_what_was_made_is_told_by_the_answer_else_by_the_request(
    path: str, asked: object, answer: object, want: dict[str, object]
) -> None:
    assert pieces(path, answer, asked) == want


def test_images_are_counted_in_bodies_too_long_to_be_kept_however_they_are_cut() -> None:
    image = {"b64_json": "A" * 300_000, "revised_prompt": '"url": "'}
    body = json.dumps({"data": [image] * 3, "size": "1024x1024", "usage": GPT_IMAGE, "quality": "low"}).encode()
    flavor = find(b"POST", GENERATIONS.encode())
    for width in (len(body), 100_001, 4_099):
        meter = flavor.meter(Prepared(body=b""), Answer(status=200, content_type=b"application/json"), "openai")
        for at in range(0, len(body), width):
            meter.feed(body[at : at + width])
        meter.finish()
        reading = meter.reading()
        assert (reading.images, reading.media_size, reading.media_quality) == (3, "1024x1024", "low")
        assert (reading.output_tokens, reading.image_output_tokens) == (110, 100)


def test_streamed_images_are_the_whole_ones() -> None:
    events = sse(
        {"type": "image_generation.partial_image", "b64_json": "AAAA", "partial_image_index": 0, "size": "1x1"},
        {"type": "image_generation.completed", "b64_json": "BBBB", "size": "1x1", "quality": "low", "usage": GPT_IMAGE},
    )
    told = pieces(GENERATIONS, events, {"stream": True}, content_type=b"text/event-stream")
    assert told == {"images": 1, "media_size": "1x1", "media_quality": "low"}


def test_an_image_that_is_the_answer_is_one() -> None:
    assert pieces(GENERATIONS, b"\x89PNG....", {"n": 4}, content_type=b"image/png") == {"images": 1}


@pytest.mark.parametrize("status", [400, 500])
def test_what_failed_made_nothing(status: int) -> None:
    assert pieces(GENERATIONS, {"error": {"message": "no"}}, {"n": 2}, status=status) == {}
    assert pieces(GENERATIONS, {"error": {"message": "no"}}, {"n": 2}) == {}


def test_a_form_tells_what_is_to_be_made_when_all_of_it_has_come() -> None:
    form = Form(b"multipart/form-data; boundary=b")
    flavor = find(b"POST", b"/v1/images/edits")
    prepared = flavor.prepare(form.as_json(), b"/v1/images/edits", inject=False)
    prepared.form = form
    for name, text in (("model", "dall-e-2"), ("n", "2"), ("size", "512x512")):
        form.feed(f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode())
    form.feed(b"--b--\r\n")
    answer = Answer(status=200, content_type=b"application/json")
    reading = _after(flavor.meter(prepared, answer, "openai"), b'{"made": true}')
    assert (reading.images, reading.media_size) == (2, "512x512")


@pytest.mark.parametrize(
    ("path", "asked", "model"),
    [
        ("/v1/audio/speech", {"model": "tts-1", "input": "Grüße, 世界"}, "tts-1"),
        ("/v1/text-to-speech/voice/stream", {"model_id": "eleven_v3", "text": "Grüße, 世界"}, "eleven_v3"),
    ],
)
def test_speech_is_as_long_as_its_text(path: str, asked: object, model: str) -> None:
    want = {"input_characters": 9}
    assert pieces(path, b"\xff\xf3\x00", asked, content_type=b"audio/mpeg") == want
    assert find(b"POST", path.encode()).prepare(json.dumps(asked).encode(), path.encode(), inject=False).model == model


@pytest.mark.parametrize("body", [b"", b"[", b"[1]", b'{"input":[1]}', b'{"input":{"a":1}}'])
def test_a_request_that_tells_nothing_leaves_it_unknown(body: bytes) -> None:
    flavor = find(b"POST", b"/v1/audio/speech")
    prepared = flavor.prepare(body, b"/v1/audio/speech", inject=False)
    reading = _after(flavor.meter(prepared, Answer(status=200, content_type=b"audio/mpeg"), "openai"), b"\xff")
    assert not reading.measured


@pytest.mark.parametrize("length", [100, 200_000])
def test_images_of_bedrock_stand_in_a_list(length: int) -> None:
    asked = {"imageGenerationConfig": {"numberOfImages": 3, "width": 1024, "height": 512, "quality": "premium"}}
    answer = {"images": ["A" * length, "B" * length], "error": None}
    for cut in (0, 1_000):
        reading = read("/model/amazon.nova-canvas-v1:0/invoke", answer, provider="bedrock", asked=asked, cut=cut)
        assert (reading.images, reading.media_size, reading.media_quality) == (2, "1024x512", "premium")
    made = {"images": ["A" * length], "seeds": [1], "finish_reasons": [None]}
    assert read("/model/stability.stable-image-core-v1:1/invoke", made, provider="bedrock").images == 1


def test_an_images_size_may_be_asked_for_in_two() -> None:
    made = read("/v1/images/generations", {"data": [{"url": "https://a"}]}, asked={"width": 1024, "height": 768})
    assert (made.images, made.media_size) == (1, "1024x768")


def test_an_image_made_as_a_tool_of_another_model_is_a_use_of_it() -> None:
    made: dict[str, object] = {"type": "image_generation_call", "status": "completed", "result": "A" * 400_000}
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    tool = {"image_gen": {"input_tokens": 9, "output_tokens": 200, "total_tokens": 209}}
    for output in ([made, made], [made | {"result": "A"}]):
        response = {"object": "response", "output": output, "usage": usage, "tool_usage": tool}
        reading = read("/v1/responses", response)
        assert reading.image_generations == len(output)
        assert b'"image_gen"' in bytes(reading.usage)
    assert read("/v1/responses", {"output": [made | {"status": "failed", "result": None}]}).image_generations is None


def test_openais_kinds_of_tokens() -> None:
    usage = {  # https://platform.openai.com/docs/api-reference/realtime-server-events/response/done
        "total_tokens": 253, "input_tokens": 132, "output_tokens": 121,
        "input_token_details": {
            "text_tokens": 32, "audio_tokens": 80, "image_tokens": 20, "cached_tokens": 64,
            "cached_tokens_details": {"text_tokens": 4, "audio_tokens": 50, "image_tokens": 10},
        },
        "output_token_details": {"text_tokens": 30, "audio_tokens": 91},
    }  # fmt: skip
    reading = openai.read(usage, "openai", "gpt-realtime")
    assert (reading.cached_audio_input_tokens, reading.cached_image_input_tokens) == (50, 10)
    assert (reading.audio_input_tokens, reading.image_input_tokens, reading.audio_output_tokens) == (80, 20, 91)
    assert not reading.inconsistent
    video = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"video_tokens": 8}}
    assert openai.read(video, "openrouter", None).video_input_tokens == 8  # https://openrouter.ai/docs/api-reference
    assert openai.read({**video, "prompt_tokens": 7}, "openrouter", None).inconsistent


def test_geminis_kinds_of_tokens() -> None:
    usage = {
        "promptTokenCount": 300, "candidatesTokenCount": 90, "totalTokenCount": 390, "cachedContentTokenCount": 100,
        "promptTokensDetails": [{"modality": "VIDEO", "tokenCount": 200}, {"modality": "AUDIO", "tokenCount": 60},
                                {"modality": "IMAGE", "tokenCount": 30}, {"modality": "TEXT", "tokenCount": 10}],
        "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 40}, {"modality": 2, "tokenCount": 9}],
        "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 80}, {"modality": 3, "tokenCount": 2}],
    }  # fmt: skip
    reading = conventions.gemini(usage)
    told = {
        name: value for name, value in known(reading).items() if any(k in name for k in ("video", "image", "audio"))
    }
    assert told == {
        "video_input_tokens": 200, "audio_input_tokens": 60, "image_input_tokens": 30, "cached_audio_input_tokens": 40,
        "cached_image_input_tokens": 9, "image_output_tokens": 80, "video_output_tokens": 2,
    }  # fmt: skip
    spoken = {"promptTokenCount": 3, "responseTokenCount": 9, "responseTokensDetails": [{"modality": "AUDIO"}]}
    assert conventions.gemini(spoken).audio_output_tokens is None
    spoken["responseTokensDetails"] = [{"modality": "AUDIO", "tokenCount": 9}]
    assert conventions.gemini(spoken).audio_output_tokens == 9


def test_a_speech_stream_that_tells_tokens_has_both() -> None:
    events = sse(
        {"type": "speech.audio.done", "usage": {"input_tokens": 14, "output_tokens": 101, "total_tokens": 115}}
    )
    meter = metered("/v1/audio/speech", events, asked={"input": "hello"}, content_type=b"text/event-stream")
    assert known(meter.reading()) == {"input_tokens": 14, "output_tokens": 101, "input_characters": 5}
    assert meter.terminal


def _after(meter: Meter, body: bytes) -> Any:
    meter.feed(body)
    meter.finish()
    return meter.reading()
