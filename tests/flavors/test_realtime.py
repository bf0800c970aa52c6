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
