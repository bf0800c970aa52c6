"""Calls under a hard budget or an allow-list, over real sockets: read as leniently as the provider reads, or refused.

The provider bills what it reads, to the full (lenient_provider). What a call holds must cover it.
"""

from __future__ import annotations

import gzip
import json
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lenient_provider
from taximeter.budgets.rule import Budget
from taximeter.gateway.admission.budget import BudgetGate
from taximeter.gateway.admission.holding import connect
from taximeter.keys.rule import ProxyKey, digest
from upstream import LAST_CHUNK, Script, chunk, response, stream_head
from valkeys import known

SECRET = "tm-" + "a" * 64
KEY = ProxyKey(id="k1", sha256=digest(SECRET), workspace="acme", models=("gpt-4o-mini",))
CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello there"}], "max_tokens": 400}
PATH = "/w/acme/v1/chat/completions"
JSON = {"content-type": "application/json"}


BUDGETED = [
    Budget(id="b1", workspace="acme", unit="tokens", period="total", limit=2**52),
    Budget(id="b2", workspace="acme", period="total", limit=2**52),
]


@pytest.fixture
async def redis(redis):
    """Of one workspace that is known there."""
    await known(redis, "acme", budgets=BUDGETED)
    return redis


@pytest.fixture
async def budgeted(serve, provider, redis, valkey_url):
    """A gateway whose workspace acme has a hard budget in tokens and one in USD, before the lenient provider."""
    provider.answering = lenient_provider.answer
    async with serve(provider, limits={"json_body_bytes": 1_000_000}) as running:
        gate = running.gate
        gate.admission.budgets = BudgetGate(
            gate.settings.budget,
            connect=lambda: connect(valkey_url),
            prices=gate.metering.prices,
            counting=gate.metering.tokenizers,
        )
        gate.admission.use_budgets(BUDGETED)
        yield running
        await gate.admission.budgets.close()


@pytest.fixture
async def listed(serve, provider):
    """A gateway with a key that may call gpt-4o-mini only."""
    async with serve(provider, keys=[KEY], limits={"json_body_bytes": 1_000_000}) as running:
        yield running


async def post(running, body, path=PATH, headers=JSON, method="POST"):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with httpx2.AsyncClient(base_url=running.url, timeout=10) as client:
        return await client.request(method, path, content=content, headers=headers)


async def held(redis, budget="b1"):
    return int(await redis.hget("tm:{acme}:held", budget) or 0)


def utf16(body):
    return json.dumps(body).encode("utf-16")


ODD = {
    "a byte order mark": (b"\xef\xbb\xbf" + json.dumps(CHAT).encode(), JSON),
    "UTF-16": (utf16(CHAT), JSON),
    "NaN": (json.dumps({**CHAT, "temperature": float("nan")}).encode(), JSON),
    "a lone surrogate": (json.dumps({**CHAT, "user": "\ud83d"}).encode(), JSON),
    "bad UTF-8": (json.dumps(CHAT).encode().replace(b"hello", b"hell\xff"), JSON),
    "text/plain": (json.dumps(CHAT).encode(), {"content-type": "text/plain"}),
    "gzip": (gzip.compress(json.dumps(CHAT).encode(), mtime=0), {**JSON, "content-encoding": "gzip"}),
    "no type": (json.dumps(CHAT).encode(), {}),
    "other case": (json.dumps({name.upper(): value for name, value in CHAT.items()}).encode(), JSON),
    "numbers as strings": (json.dumps({**CHAT, "max_tokens": "400", "n": "1000"}).encode(), JSON),
    "an odd tier": (json.dumps({**CHAT, "service_tier": 1, "max_tokens": 5_000}).encode(), JSON),
    "a huge answer": (json.dumps({**CHAT, "max_tokens": 2**41}).encode(), JSON),
    "a kept context": (json.dumps({**CHAT, "messages": None, "previous_response_id": "r"}).encode(), JSON),
}
UNREADABLE = {
    "two models": (b'{"model":"gpt-4o-mini","model":"o3","messages":[]}', JSON),
    "two bounds": (b'{"model":"gpt-4o-mini","max_tokens":1,"max_tokens":9,"messages":[]}', JSON),
    "comments": (b'{"model":"gpt-4o-mini" /* */ ,"messages":[]}', JSON),
    "two values": (b'{"model":"o3"} {"model":"gpt-4o-mini"}', JSON),
    "a form": (b"model=gpt-4o-mini", {"content-type": "application/x-www-form-urlencoded"}),
    "a charset": (json.dumps(CHAT).encode(), {"content-type": "application/json; charset=utf-7"}),
    "a coding": (b"x", {**JSON, "content-encoding": "compress"}),
    "deep nesting": (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, JSON),
    "an array": (json.dumps([CHAT]).encode(), JSON),
    "another method": (json.dumps(CHAT).encode(), {**JSON, "x-http-method-override": "PUT"}),
}


@pytest.mark.parametrize("kind", ODD)
async def test_what_a_lenient_provider_reads_is_held_in_full(budgeted, provider, redis, kind):
    body, headers = ODD[kind]
    path = "/w/acme/v1/responses" if kind == "a kept context" else PATH
    answer = await post(budgeted, body, path, headers)
    assert answer.status_code == 200, answer.text
    assert provider.requests[-1].body == body  # it went as it came
    billed = answer.json()["usage"]["total_tokens"]
    record = await budgeted.record()
    assert record["tags"] == {"budgets": "b1,b2"}
    assert await held(redis) >= billed >= DEFAULT_BILL
    assert await held(redis, "b2") >= (record.get("cost_nusd") or 0)


DEFAULT_BILL = 400


@pytest.mark.parametrize("kind", UNREADABLE)
async def test_what_cannot_be_read_is_refused_and_says_why(budgeted, listed, provider, redis, kind):
    body, headers = UNREADABLE[kind]
    for running, more in ((budgeted, {}), (listed, {"x-taximeter-key": SECRET})):
        answer = await post(running, body, headers={**headers, **more})
        assert (answer.status_code, answer.headers["x-taximeter-error"]) == (400, "bad_request")
        assert "A hard budget or an allow-list is about this call" in answer.json()["error"]["message"]
    assert provider.requests == [] and await held(redis) == 0


@pytest.mark.parametrize("kind", [*ODD, *UNREADABLE])
async def test_outside_every_byte_passes_as_it_came(budgeted, provider, redis, kind):
    body, headers = {**ODD, **UNREADABLE}[kind]
    await post(budgeted, body, "/w/other/v1/chat/completions", headers)
    assert provider.requests[-1].body == body and await held(redis) == 0


spelled = st.fixed_dictionaries(
    {
        "encoding": st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32-le"]),
        "coding": st.sampled_from([None, "gzip"]),
        "kind": st.sampled_from(["application/json", "text/plain", "application/x-www-form-urlencoded", None]),
        "case": st.sampled_from(["lower", "upper", "title"]),
        "twice": st.sampled_from([None, "max_tokens", "model"]),
        "number": st.sampled_from(["{}", "{}.0", '"{}"', '" {} "', '"{}e0"']),
        "path": st.sampled_from(["/v1/chat/completions", "/V1/Chat//Completions/", "/v1/chat%2Fcompletions"]),
    }
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=40
)
@given(how=spelled, tokens=st.integers(1, 10**7))
async def test_any_spelling_is_held_in_full_or_refused(budgeted, redis, how, tokens):
    before = await held(redis)
    asked = {
        getattr(name, how["case"])(): value
        for name, value in {**CHAT, "max_tokens": json.loads(how["number"].format(tokens))}.items()
    }
    text = json.dumps(asked)
    if how["twice"]:
        text = text[:-1] + f', "{getattr(how["twice"], how["case"])()}": "1"}}'
    body = text.encode(how["encoding"])
    headers = {} if how["kind"] is None else {"content-type": how["kind"]}
    if how["coding"]:
        body, headers = gzip.compress(body), {**headers, "content-encoding": "gzip"}
    answer = await post(budgeted, body, "/w/acme" + how["path"], headers)
    if answer.status_code == 200:
        assert await held(redis) - before >= answer.json()["usage"]["total_tokens"] >= tokens
    else:
        assert answer.headers.get("x-taximeter-error") in ("bad_request", None)
        assert answer.headers.get("x-taximeter-error") or answer.status_code == 400


@pytest.mark.parametrize(
    ("body", "path", "named"),
    [
        ({**CHAT, "tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "/w/acme/v1/messages", "max_uses"),
        ({**CHAT, "mcp_servers": [{"url": "https://x"}]}, "/w/acme/v1/messages", "mcp_servers"),
        ({**CHAT, "tools": [{"type": "web_search"}]}, "/w/acme/v1/responses", "max_tool_calls"),
        ({"contents": [], "tools": [{"googleSearch": {}}]}, "/w/acme/v1beta/models/g:generateContent", "googleSearch"),
        ({"input_file_id": "f"}, "/w/acme/v1/batches", "billed later"),
        ({"assistant_id": "a"}, "/w/acme/v1/threads/t/runs", "agent"),
        ({**CHAT, "model": "gpt-4o-mini:online"}, PATH, "model"),
        ({"model": "m", "input_files": ["f"]}, "/w/acme/v1/batch/jobs", "billed later"),
        ({}, "/w/acme/v1/fine_tuning/jobs/f/resume", "billed later"),
        ({"grader": {"model": "m"}}, "/w/acme/v1/fine_tuning/alpha/graders/run", "billed later"),
        ({"prompt": {"id": "pmpt_1"}, "max_output_tokens": 5}, "/w/acme/v1/responses", "max_tool_calls"),
        ({**CHAT, "enable_search": True}, PATH, "enable_search"),
    ],
)
async def test_what_has_no_bound_is_refused_unless_it_is_allowed(budgeted, provider, redis, body, path, named):
    answer = await post(budgeted, body, path)
    assert (answer.status_code, answer.headers["x-taximeter-error"]) == (400, "unbounded_request")
    assert named in answer.json()["error"]["message"] and provider.requests == [] and await held(redis) == 0
    budgeted.gate.settings.budget.on_unbounded = "allow"
    assert (await post(budgeted, body, path)).headers.get("x-taximeter-error") is None


async def test_what_is_billed_later_may_hold_a_share_of_its_budgets_until_it_is_settled(budgeted, provider, redis):
    budgeted.gate.settings.budget.later_percent = 10
    batch = b'{"id": "batch_1", "object": "batch", "status": "validating"}'
    provider.answering = lambda _: Script((response(batch, headers=[("content-type", "application/json")]),))
    answer = await post(budgeted, {"input_file_id": "f"}, "/w/acme/v1/batches")
    assert answer.status_code == 200
    share = -(-(2**52) // 10)
    (record,) = budgeted.records
    assert (record["deferred"], record["charged_tokens"], record["charged_cost_nusd"]) == ("batch_1", share, share)
    assert await held(redis) == await held(redis, "b2") == share  # until delivery charges it instead
    refused = await post(budgeted, {"assistant_id": "a"}, "/w/acme/v1/threads/t/runs")
    assert refused.headers["x-taximeter-error"] == "unbounded_request"


async def test_what_cancels_a_call_holds_nothing_and_is_never_refused(budgeted, provider, redis):
    cancelled = b'{"id": "resp_1", "object": "response", "status": "cancelled", "background": true}'
    provider.answering = lambda _: Script((response(cancelled, headers=[("content-type", "application/json")]),))
    for path in ("responses/resp_1", "batches/resp_1", "batch/jobs/resp_1"):
        assert (await post(budgeted, {}, f"/w/acme/v1/{path}/cancel")).status_code == 200
    assert await held(redis) == 0


async def test_a_stated_number_of_searches_is_held_with_its_fees(budgeted, redis):
    tool = {"type": "web_search_20250305", "name": "web_search", "max_uses": lenient_provider.SEARCHES}
    answer = await post(budgeted, {**CHAT, "tools": [tool]}, "/w/acme/v1/messages")
    assert answer.status_code == 200
    assert await held(redis, "b2") >= lenient_provider.SEARCHES * 10_000_000


async def test_a_rerank_holds_a_search_unit_for_each_hundred_documents(budgeted, redis):
    answer = await post(budgeted, {"model": "r", "query": "q", "documents": ["d"] * 1_000}, "/w/acme/v2/rerank")
    assert answer.json()["meta"]["billed_units"]["search_units"] == 10
    assert await held(redis, "b2") >= 10 * 2_000_000


@pytest.mark.parametrize(
    "body",
    [
        {"model": "m", "messages": []},
        {**CHAT, "max_tokens": None},
        {"model": "m", "input": "x", "previous_response_id": "r", "max_output_tokens": 5},
        {"model": "m", "input": "x", "max_output_tokens": 5, "path": "/w/acme/v1/Responses/compact/"},
    ],
)
async def test_with_refuse_what_is_left_open_is_refused(budgeted, provider, body):
    budgeted.gate.settings.budget.on_unbounded = "refuse"
    answer = await post(budgeted, body, body.get("path", "/w/acme/v1/responses" if "input" in body else PATH))
    assert answer.headers["x-taximeter-error"] == "unbounded_request" and provider.requests == []
    assert (await post(budgeted, CHAT)).status_code == 200


async def test_a_form_is_held_by_its_fields_and_goes_as_it_came(budgeted, provider, redis):
    parts: dict[str, Any] = {"model": (None, "whisper-1"), "file": ("a.mp3", b"x" * 5_000)}
    async with httpx2.AsyncClient(base_url=budgeted.url) as client:
        answer = await client.post("/w/acme/v1/audio/transcriptions", files=parts)
    assert answer.status_code == 200 and b"x" * 5_000 in provider.requests[-1].body
    assert (await budgeted.record())["request_model"] == "whisper-1"
    assert await held(redis, "b2") >= 100 * 100_000  # 100 s at 50 bytes a second


async def test_a_body_longer_than_is_read_is_refused_and_an_upload_is_not(budgeted, provider, redis):
    long = json.dumps({**CHAT, "x": "y" * 1_000_000}).encode()
    for headers in (JSON, {"content-type": "text/plain"}, {**JSON, "transfer-encoding": "chunked"}):
        assert (await post(budgeted, long, headers=headers)).status_code == 413
    assert provider.requests == []
    async with httpx2.AsyncClient(base_url=budgeted.url) as client:
        await client.post("/w/acme/v1/files", files={"file": ("a.jsonl", b"x" * 2_000_000)})
    assert provider.requests[-1].body_bytes > 2_000_000 and await held(redis) == 0


async def test_a_stream_under_a_path_in_another_case_is_held_and_metered(budgeted, provider, redis):
    usage = {"prompt_tokens": 7, "completion_tokens": 300, "total_tokens": 307}
    event = b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"
    provider.script(stream_head(), chunk(event), chunk(b"data: [DONE]\n\n"), LAST_CHUNK)
    answer = await post(budgeted, {**CHAT, "stream": True}, "/w/acme/v1/Chat//Completions/")
    assert answer.content == b"data: [DONE]\n\n"  # the usage was asked for here, and is taken out again
    assert provider.requests[0].target == "/v1/Chat//Completions/"
    assert (await budgeted.record())["total_tokens"] == 307 <= await held(redis)


async def test_half_a_character_hides_neither_model_nor_stream_outside_a_budget_either(budgeted, provider):
    provider.answering = None
    body = rb'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"cut \ud83d"}],"stream":true}'
    answer = await post(budgeted, body, "/w/other/v1/chat/completions")
    record = await budgeted.record()
    assert (record["request_model"], record["stream"], record["output_source"]) == ("gpt-4o-mini", True, "reported")
    assert answer.status_code == 200 and b'"usage":{' not in answer.content


REFUSED = [
    ({**CHAT, "Model": "o3"}, "/v1/chat/completions"),
    ({**CHAT, "models": ["gpt-4o-mini", "o3"]}, "/v1/chat/completions"),
    ({**CHAT, "fallbacks": [{"model": "o3"}]}, "/v1/chat/completions"),
    ({**CHAT, "extra_body": {"model": "o3"}}, "/v1/chat/completions"),
    ({**CHAT, "model": "gpt-4o-mini,o3"}, "/v1/chat/completions"),
    ({**CHAT, "model": "gpt-4o-mini\0"}, "/v1/chat/completions"),
    (CHAT, "/openai/deployments/o3/chat/completions"),
    (CHAT, "/v1/chat/completions?model=o3"),
    ({"messages": []}, "/v1/chat/completions"),
    ({"messages": []}, "/model/o3/converse"),
    ({**CHAT, "input_file_id": "f"}, "/v1/batches"),
    ({**CHAT, "assistant_id": "a"}, "/v1/threads/t/runs"),
    ({**CHAT, "preset": "dear"}, "/v1/chat/completions"),
    ({"model": "gpt-4o-mini", "from": "o3"}, "/api/create"),
    ({"source": "o3", "destination": "gpt-4o-mini"}, "/api/copy"),
    ({"model": "gpt-4o-mini", "version": "5c7d5dc6", "input": {}}, "/v1/predictions"),
]


@pytest.mark.parametrize(("body", "path"), REFUSED)
async def test_an_allow_list_is_not_passed_by_another_way_to_name_a_model(listed, provider, body, path):
    answer = await post(listed, body, path, {**JSON, "x-taximeter-key": SECRET})
    assert (answer.status_code, answer.headers["x-taximeter-error"]) == (403, "forbidden")
    assert provider.requests == [] and listed.records[0]["outcome"] == "refused"
    assert (await post(listed, body, path)).headers.get("x-taximeter-error") is None  # without a key: as it came


@pytest.mark.parametrize(
    ("body", "path", "method"),
    [
        (CHAT, "/v1/chat/completions", "POST"),
        (CHAT, "/openai/deployments/gpt-4o-mini/chat/completions?api-version=1", "POST"),
        (b"", "/v1/models", "GET"),
        (b"", "/v1/responses/r_1", "DELETE"),
        ({"models": ["gpt-4o-mini"], "messages": [], "metadata": {"model": "o3"}}, "/v1/chat/completions", "POST"),
    ],
)
async def test_an_allow_list_lets_its_models_and_reading_through(listed, provider, body, path, method):
    await post(listed, body, path, {**JSON, "x-taximeter-key": SECRET}, method)
    assert len(provider.requests) == 1


async def test_a_cheap_or_unpriced_model_beside_a_dear_one_holds_the_dear_ones_price(budgeted, redis, monkeypatch):
    prices = budgeted.gate.admission.budgets.wanting._prices
    cost = {"gpt-4o-mini": 1, "o3": 9_000_000}

    def dearest(call, models, tiers, most):
        return max(cost.get(model, 0) for model in models), all(model in cost for model in models)

    monkeypatch.setattr(prices, "dearest_nusd", dearest)
    await post(budgeted, {**CHAT, "models": ["o3", "nobody's"]})
    assert await held(redis, "b2") == 9_000_000
    budgeted.gate.settings.budget.on_unpriced = "refuse"
    answer = await post(budgeted, {**CHAT, "models": ["o3", "nobody's"]})
    assert answer.status_code == 429 and "no price" in answer.json()["error"]["message"]
    assert (await post(budgeted, {**CHAT, "models": ["o3"]})).status_code == 200
    assert (await post(budgeted, {"purpose": "x"}, "/w/acme/v1/files")).status_code == 200  # nothing to be priced
