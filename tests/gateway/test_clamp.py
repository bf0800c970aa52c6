"""Answers that are bounded to what is left of a budget: which member is lowered, what client and provider see."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.test_bounds import LIMITS, PATHS, flavor_of, nested
from gateway.test_budget import CHAT, budget, gated, post, redis, spend
from taximeter.flavors.meter import Countable, Demand
from taximeter.gateway.bounds.bounds import bound
from taximeter.gateway.bounds.clamp import is_sealed, shortened
from taximeter.gateway.bounds.rules import EXCEPTIONS, RULES, SHORTENED, SHORTENED_AT, Bounds
from taximeter.gateway.metering.tokenizers import Tokenizers
from upstream import LAST_CHUNK, chunk, response, stream_head

__all__ = ["gated", "redis"]

ANSWERS = [rule for rule in RULES if rule.bounds is Bounds.ANSWER]
CLAMPED = {"clamp": True, "clamp_min_output_tokens": 10}


def bound_of(body, dialect, provider="p"):
    flavor = flavor_of(dialect)
    return bound(flavor, Demand(members=body, reading=msgspec.json.encode(body)), Countable(), 0, provider, LIMITS)


def cut(dialect: str, provider: str, body: dict[str, Any], most: int) -> dict[str, Any] | None:
    """The body as it is sent, decoded."""
    short = shortened(dialect, provider, body, json.dumps(body).encode(), most)
    return None if short is None else json.loads(short)


@pytest.mark.parametrize("rule", ANSWERS, ids=lambda rule: f"{rule.dialect}.{rule.member}")
@pytest.mark.parametrize("said", [900, "900", 900.5, -1, 0])
def test_each_member_that_bounds_an_answer_is_lowered(rule, said):
    body = {"a": 1, **nested(rule.member, said)}
    short = cut(rule.dialect, "p", body, 100)
    assert short == {"a": 1, **nested(rule.member, 100)}
    assert bound_of(short, rule.dialect).output_tokens == 100


@pytest.mark.parametrize("dialect", PATHS)
@pytest.mark.parametrize("provider", ["p", "openai", "azure", "deepseek"])
def test_where_none_is_said_one_is_put_in_that_the_provider_documents(dialect, provider):
    body = {"model": "m", "messages": [], "input": "x", "prompt": "x"}
    short = cut(dialect, provider, body, 100)
    if dialect not in SHORTENED:
        assert short is None
        return
    member = SHORTENED_AT.get((dialect, provider), SHORTENED[dialect])[-1]
    assert (dialect, member, provider) not in EXCEPTIONS
    assert short == body | nested(member, 100)
    assert bound_of(short, dialect, provider).output_tokens == 100


@pytest.mark.parametrize(
    ("dialect", "body", "member"),
    [
        ("generate", {"instances": [], "parameters": {}}, "parameters.maxOutputTokens"),
        ("generate", {"generation_config": {"temperature": 0}}, "generation_config.maxOutputTokens"),
        ("cohere", {"chatRequest": {"message": "hi"}}, "chatRequest.maxTokens"),
        ("responses", {"Max-Output-Tokens": 900}, "Max-Output-Tokens"),
        ("chat", {"max_tokens": None}, "max_tokens"),
    ],
)
def test_the_place_is_the_one_that_the_request_has(dialect, body, member):
    *parents, name = member.split(".")
    inner = wanted = json.loads(json.dumps(body))
    for parent in parents:
        inner = inner[parent]
    inner[name] = 100
    assert cut(dialect, "p", body, 100) == wanted


@given(
    members=st.fixed_dictionaries(
        {},
        optional={
            name: st.none() | st.integers(-2, 2000) | st.integers(1, 2000).map(str)
            for name in ("max_tokens", "max_completion_tokens", "MAX_TOKENS")
        },
    ),
    most=st.integers(1, 3000),
)
def test_nothing_is_ever_raised(members, most):
    for name, value in (cut("chat", "p", members, most) or {}).items():
        was = members.get(name)
        if was != value:
            assert value == most and (was is None or not 1 <= int(was) <= most)


@pytest.mark.parametrize(
    ("field", "sealed"),
    [
        ((b"authorization", b"AWS4-HMAC-SHA256 Credential=x"), True),
        ((b"authorization", b"Bearer sk"), False),
        ((b"content-digest", b"sha-256=:x:"), True),
        ((b"content-encoding", b"gzip"), True),
        ((b"content-encoding", b"identity"), False),
    ],
)
def test_a_body_whose_bytes_are_signed_is_left_as_it_is(field, sealed):
    assert is_sealed([(b"host", b"x"), field]) is sealed


# ── over a socket ────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_answer_is_bounded_to_what_is_left_and_the_client_is_told(serve, provider, gated, redis):
    await spend(redis, 9_700, budget())
    async with serve(provider, budget=CLAMPED) as running:
        gated(running, budget(), budget(id="b2", limit=20_000))
        answer = await post(running, {**CHAT, "max_tokens": 4_000})
        assert answer.status_code == 200
        told = int(answer.headers["x-taximeter-max-tokens"])
        sent = provider.requests[0].body
        assert json.loads(sent) == {**CHAT, "max_tokens": told} and 100 < told < 300
        assert sent == json.dumps({**CHAT, "max_tokens": told}, separators=(",", ":"), ensure_ascii=False).encode()
        assert await redis.hget("tm:{acme}:held", "b1") == await redis.hget("tm:{acme}:held", "b2") == "300"
        assert answer.headers["x-taximeter-budget-remaining"] == "0"
        assert (await running.record())["request_bytes"] > len(sent) - 8


@pytest.mark.parametrize("asked", [40, 100])
async def test_what_fits_is_sent_as_it_came(serve, provider, gated, redis, asked):
    async with serve(provider, budget=CLAMPED) as running:
        gated(running, budget())
        answer = await post(running, {**CHAT, "max_tokens": asked})
        assert "x-taximeter-max-tokens" not in answer.headers
        assert json.loads(provider.requests[0].body)["max_tokens"] == asked


@pytest.mark.parametrize(("more", "spent"), [({}, 9_990), ({"thinking": {"budget_tokens": 500}}, 9_700)])
async def test_below_the_minimum_a_call_is_refused_as_ever(serve, provider, gated, redis, more, spent):
    await spend(redis, spent, budget())
    async with serve(provider, budget=CLAMPED) as running:
        gated(running, budget())
        answer = await post(running, {**CHAT, "max_tokens": 4_000, **more})
        assert (answer.status_code, answer.headers["x-taximeter-error"]) == (429, "insufficient_quota")
        assert provider.requests == []


@pytest.mark.parametrize(("spent", "code"), [(9_700, "budget_reserved"), (9_990, "insufficient_quota")])
async def test_what_would_be_shortened_but_for_calls_in_flight_may_come_again(
    serve, provider, gated, redis, spent, code
):
    await spend(redis, spent, budget())
    await redis.hset("tm:{acme}:held", "b1", 10_000 - spent)
    async with serve(provider, budget=CLAMPED) as running:
        gated(running, budget())
        answer = await post(running, {**CHAT, "max_tokens": 4_000})
        assert (answer.status_code, answer.headers["x-taximeter-error"]) == (429, code)
        assert answer.headers["x-should-retry"] == ("true" if code == "budget_reserved" else "false")
        assert answer.headers["x-taximeter-budget-remaining"] == "0" and provider.requests == []


async def test_it_is_off_unless_switched_on_and_what_has_no_answer_cannot_be_shortened(serve, provider, gated, redis):
    await spend(redis, 9_700, budget())
    long = {**CHAT, "max_tokens": 4_000}
    async with serve(provider) as running:
        gated(running, budget())
        assert (await post(running, long)).status_code == 429
    async with serve(provider, budget=CLAMPED) as running:
        gated(running, budget())
        embedding = {"model": "e", "input": "word " * 400}
        assert (await post(running, embedding, path="/w/acme/v1/embeddings")).status_code == 429
        signed = await post(running, long, headers={"content-digest": "sha-256=:x:"})
        assert signed.status_code == 429
        spelled_twice = {**CHAT, "max_tokens": 4_000, "extra_body": {"max_tokens": 4_000}}
        assert (await post(running, spelled_twice)).status_code == 429


async def test_a_budget_in_usd_is_clamped_by_the_price_of_all_answers(serve, provider, gated, redis):
    async with serve(provider, budget=CLAMPED) as running:
        gated(running, budget(unit="usd", period="total", limit=2_000_000))
        answer = await post(running, {**CHAT, "n": 3, "max_tokens": 4_000})
        told = int(answer.headers["x-taximeter-max-tokens"])
        held = int(await redis.hget("tm:{acme}:held", "b1"))
        assert 2_000_000 - 3 * 2_000 < held <= 2_000_000
        assert held - 3 * 2_000 * told < 200_000  # what remains is the prompt's
        assert answer.headers["x-taximeter-budget-limit"] == "0.002"


async def test_a_second_attempt_without_stream_options_is_clamped_too(serve, provider, gated, redis, monkeypatch):
    refusal = b'{"error":{"message":"unknown field stream_options"}}'
    provider.script(response(refusal, 400, [("content-type", "application/json")]))
    provider.script(stream_head(), chunk(b"data: [DONE]\n\n"), LAST_CHUNK)
    async with serve(provider, budget=CLAMPED) as running:
        gated(running, budget(limit=400))
        reserve = running.gate.admission.budgets._reserve

        async def after_the_first_is_counted(opening, *wanted):
            if opening.attempt == 2:
                await redis.hdel("tm:{acme}:held", "b1")
            return await reserve(opening, *wanted)

        monkeypatch.setattr(running.gate.admission.budgets, "_reserve", after_the_first_is_counted)
        answer = await post(running, {**CHAT, "max_tokens": 4_000, "stream": True})
        assert answer.status_code == 200
        sent = [json.loads(request.body) for request in provider.requests]
        assert [("stream_options" in body, body["max_tokens"] < 400) for body in sent] == [(True, True), (False, True)]


async def test_many_at_once_are_bounded_to_what_is_left_together(serve, provider, gated, redis):
    async with serve(provider, budget=CLAMPED) as running:
        gated(running, budget(limit=2_000))
        answers = await asyncio.gather(*(post(running, {**CHAT, "max_tokens": 1_500}) for _ in range(20)))
        assert int(await redis.hget("tm:{acme}:held", "b1")) <= 2_000
        assert {answer.status_code for answer in answers} == {200, 429}


async def test_what_the_documentation_shows_is_what_comes(serve, provider, gated, redis):
    page = (Path(__file__).parents[2] / "docs/limits.md").read_text()
    shown = page[page.index("### Clamped to what is left") :]
    await spend(redis, 9_700, budget())
    tokenizers = Tokenizers()
    try:
        async with serve(provider, budget={"clamp": True}) as running:
            running.gate.metering.tokenizers = tokenizers
            gated(running, budget())
            answer = await post(running, {**CHAT, "max_tokens": 4_000})
    finally:
        tokenizers.close()
    head = [
        f"    {name}: {value}"
        for name, value in answer.headers.items()
        if name[:16] in ("x-taximeter-budg", "x-taximeter-max-")
    ]
    assert len(head) == 5 and "\n".join(head) in shown
    assert f"sent to the provider                {json.dumps(json.loads(provider.requests[0].body))}\n" in shown
