"""The events of one response on a Realtime connection (shapes of OpenAI's reference of server events)."""

import json

import pytest

from taximeter.flavors.meter import Answer, Prepared
from taximeter.flavors.responses import REALTIME
from websocket_provider import USAGE

EVENTS = Answer(status=200, content_type=b"text/event-stream")


@pytest.mark.parametrize(("status", "failed"), [("completed", False), ("cancelled", False), ("failed", True)])
def test_a_response(status, failed):
    meter = REALTIME.meter(Prepared(body=b"", stream=True), EVENTS, "openai")
    made = {"id": "resp_1", "status": "in_progress"}
    done = {"id": "resp_1", "status": status, "usage": USAGE}
    for event in ({"type": "response.created", "response": made}, {"type": "response.done", "response": done}):
        assert not meter.terminal
        meter.feed(b"data: " + json.dumps(event).encode() + b"\n\n")
    reading = meter.reading()
    assert meter.terminal
    assert (reading.failed, reading.finished, reading.inconsistent) == (failed, True, False)
    assert (reading.input_tokens, reading.output_tokens, reading.cached_input_tokens) == (132, 121, 64)
    assert (reading.audio_input_tokens, reading.audio_output_tokens) == (13, 91)


@pytest.mark.parametrize(("messages", "seconds"), [(0, 1), (2, None)])
def test_xais_usage_stands_beside_the_response(messages, seconds):
    used = {
        "input_tokens": 6, "input_token_details": {"text_tokens": 6, "audio_tokens": 0, "grok_tokens": 0},
        "output_tokens": 87, "output_token_details": {"text_tokens": 7, "audio_tokens": 80, "grok_tokens": 0},
        "total_tokens": 93, "output_audio_seconds": 1.5895, "billable_audio_seconds": 1,
        "input_text_messages": messages,
    }  # fmt: skip
    meter = REALTIME.meter(Prepared(body=b"", stream=True), EVENTS, "xai")
    done = {"type": "response.done", "response": {"id": "r", "status": "completed", "usage": {}}, "usage": used}
    meter.feed(b"data: " + json.dumps(done).encode() + b"\n\n")
    reading = meter.reading()
    assert (reading.input_tokens, reading.output_tokens, reading.audio_output_tokens) == (6, 87, 80)
    assert (reading.seconds, reading.inconsistent) == (seconds, False)
