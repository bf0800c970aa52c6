"""The way of one chat call from its socket to its journal, as docs/architecture.md walks it: a real one, traced.

What is followed is a call of a worker that runs: its client's connection and the upstream's stand, its head came
before, its model has been priced, and the disk takes its lines. Not on the way, and so not here: what happens once
(connecting, compiling patterns, loading prices), what a clock does beside it (timeouts, syncing), and what follows a
failure.
"""

from __future__ import annotations

import sys
from types import FrameType

from architecture import ROOT, lines, walked
from gateway.test_cost import JSON, UNARY, Client, script
from taximeter.config import Settings
from taximeter.pricebook import PriceBook, compile_prices
from upstream import response
from waits import clock_at_rest

HEADING = "From a socket to the journal"
MOST_FILES, MOST_LINES = 22, 4_000

ANSWER = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1790000000,"model":"gpt-4o-mini-2024-07-18","choices":[{'
    b'"index":0,"message":{"role":"assistant","content":"Hello!","refusal":null},"logprobs":null,"finish_reason":"stop"'
    b'}],"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13,"prompt_tokens_details":{"cached_tokens":0,'
    b'"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens"'
    b':0,"rejected_prediction_tokens":0}},"service_tier":"default","system_fingerprint":"fp_1"}'
)


class Followed:
    """Files of ours of which any function runs in this thread, in the order in which a call meets them."""

    def __init__(self) -> None:
        self.files: dict[str, None] = {}

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(f"{ROOT}/"):
            self.files[name[len(str(ROOT)) + 1 :]] = None

    def __enter__(self) -> Followed:
        sys.setprofile(self)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)


async def test_a_call_passes_just_the_files_of_the_walk(serve, provider, tmp_path) -> None:
    prices = PriceBook(compile_prices(Settings(), tmp_path / "prices.json", {}))
    provider.handler = lambda _: script(response(ANSWER, headers=JSON))
    async with serve(provider) as running, await Client().open(running.port) as client:
        running.gate.metering.prices = prices
        for _ in range(2):  # the first one's host was new, so what its head says was not kept
            await client.call(UNARY, ANSWER[-20:])
        with clock_at_rest(), Followed() as followed:
            await client.call(UNARY, ANSWER[-20:])
        assert [record["cost_nusd"] for record in running.records] == [3_750] * 3
    assert sorted(followed.files) == sorted(walked(HEADING))


def test_the_walk_is_short() -> None:
    files = walked(HEADING)
    assert len(files) <= MOST_FILES
    assert lines(files) <= MOST_LINES
