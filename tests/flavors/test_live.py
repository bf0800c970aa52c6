"""What the model generates once on a connection of Gemini's Live API (https://ai.google.dev/api/live)."""

import json

import pytest

from live_provider import COMPLETE, SPOKEN, usage
from taximeter.flavors.generate import LIVE
from taximeter.flavors.meter import Answer, Prepared

EVENTS = Answer(status=200, content_type=b"text/event-stream")
GROUNDED = {"serverContent": {**SPOKEN, "groundingMetadata": {"webSearchQueries": ["a", "b", ""]}}}


@pytest.mark.parametrize(("model", "searches"), [("gemini-live-2.5-flash", 1), ("gemini-3.8-live", 2), (None, 2)])
def test_what_was_used_and_looked_up(model, searches):
    meter = LIVE.meter(Prepared(body=b"", model=model, stream=True), EVENTS, "google")
    for message in ({"serverContent": SPOKEN}, GROUNDED, GROUNDED, {"serverContent": COMPLETE, **usage()}):
        meter.feed(b"data: " + json.dumps(message).encode() + b"\n\n")
    reading = meter.reading()
    assert (reading.input_tokens, reading.output_tokens, reading.audio_input_tokens) == (143, 19, 3)
    assert reading.audio_output_tokens == 19
    assert (reading.web_search_requests, reading.inconsistent) == (searches, False)
