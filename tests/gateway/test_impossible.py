"""An answer that reports what no call can use: relayed as it came, recorded as unknown, priced at nothing."""

import httpx2
import msgspec
import pytest

from taximeter.core.bounds import MAX_COST_NUSD
from upstream import LAST_CHUNK, chunk, response, stream_head

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "one two three"}]}
JSON = [("content-type", "application/json")]
TOO_MANY = 2**40


def usage(**figures):
    return {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8, **figures}


def answered(used):
    return msgspec.json.encode({"model": "gpt-4o-mini", "choices": [], "usage": used})


@pytest.fixture(params=[False, True], ids=["unary", "streamed"])
async def record(request, serve, provider):
    """Asks with this usage in the answer; answers the record and the bytes sent and received."""

    async def ask(used, prices=None):
        body = answered(used)
        if request.param:
            events = b"data: " + body + b"\n\n" + b"data: [DONE]\n\n"
            provider.script(stream_head(), chunk(events), LAST_CHUNK)
            sent = events
        else:
            provider.script(response(body, headers=JSON))
            sent = body
        asked = {**CHAT, "stream": True, "stream_options": {"include_usage": True}} if request.param else CHAT
        async with serve(provider) as running, httpx2.AsyncClient() as client:
            running.gate.metering.prices = prices or running.gate.metering.prices
            answer = await client.post(running.url + "/v1/chat/completions", json=asked)
        assert answer.content == sent
        (found,) = running.records
        return found

    return ask


@pytest.mark.parametrize(
    ("odd", "unknown"),
    [
        ({"prompt_tokens": TOO_MANY, "total_tokens": TOO_MANY + 5}, {"input_tokens"}),
        ({"completion_tokens": 10**30, "total_tokens": 10**30 + 3}, {"output_tokens"}),
        ({"prompt_tokens": 1e30}, {"input_tokens"}),
        ({"prompt_tokens_details": {"cached_tokens": TOO_MANY}}, {"cached_input_tokens"}),
        ({"completion_tokens_details": {"reasoning_tokens": TOO_MANY}}, {"reasoning_output_tokens"}),
    ],
)
async def test_it_is_unknown_inconsistent_and_has_no_cost(record, odd, unknown):
    found = await record(usage(**odd))
    assert not unknown & found.keys()  # neither as reported nor counted in its place
    assert found["inconsistent"] is True
    assert found["cost_note"] == "impossible_usage"
    assert "cost_nusd" not in found
    assert "price_ref" not in found
    assert found["usage"] == msgspec.json.decode(msgspec.json.encode(usage(**odd)))


async def test_what_a_call_can_use_is_believed(record):
    found = await record(usage(prompt_tokens=10**9, total_tokens=10**9 + 5))
    assert (found["input_tokens"], found["output_tokens"]) == (10**9, 5)
    assert "inconsistent" not in found
    assert found["cost_nusd"] == 10**9 * 1_000 + 5 * 2_000


class Dear:
    def why(self, record):
        return None

    def cost(self, record):
        return MAX_COST_NUSD, "dear"


async def test_a_cost_at_its_bound_says_that_it_is_cut(record):
    found = await record(usage(), Dear())
    assert (found["cost_nusd"], found["cost_note"], found["price_ref"]) == (MAX_COST_NUSD, "saturated", "dear")
