"""Taximeter behind Taximeter, and one whose upstream leads back to it."""

import asyncio
import contextlib

import httpx2
import pytest

from taximeter.core import loops
from taximeter.keys.rule import ProxyKey, digest
from waits import HANG_S

SECRET = b"tm-" + b"7" * 64
CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "one two three"}]}
STREAM = {**CHAT, "stream": True}
JSON = [("content-type", "application/json")]


@pytest.fixture
async def client():
    async with httpx2.AsyncClient(timeout=HANG_S) as session:
        yield session


@pytest.fixture
def chained(serve, provider, monkeypatch, tmp_path):
    """`async with chained(outer={…}, **inner) as (outer, inner)`: the outer one has a key of the inner's."""
    monkeypatch.setenv("INNER_KEY", SECRET.decode())

    @contextlib.asynccontextmanager
    async def serving(*, outer=None, **inner):
        inner_key = ProxyKey(id="outer", sha256=digest(SECRET), workspace="outer")
        async with serve(
            provider, node="inner", data_dir=str(tmp_path / "in"), keys=[inner_key], auth={"mode": "keys"}, **inner
        ) as second:
            before = {"base_url": second.url + "/v1", "api_key_env": "INNER_KEY", "forward_credentials": False}
            async with serve(provider, upstream=before, node="outer", **(outer or {})) as first:
                yield first, second

    return serving


async def test_a_client_sees_one_request_id_and_one_call(chained, provider, client):
    async with chained(outer={"usage_headers": True}, usage_headers=True) as (outer, inner):
        answer = await client.post(outer.url + "/v1/chat/completions", json=CHAT)
        (first,), (second,) = outer.records, inner.records
    ids = answer.headers.get_list("x-taximeter-request-id")
    assert (answer.status_code, ids) == (200, [first["request_id"]])
    assert first["upstream_request_id"] == second["request_id"]
    assert len(answer.headers.get_list("x-taximeter-input-tokens")) == 1
    assert (second["workspace"], second["input_tokens"]) == ("outer", first["input_tokens"])
    assert len(provider.requests) == 1


@pytest.mark.parametrize("wanted", [None, True, False])
async def test_usage_that_was_injected_is_counted_and_taken_out_once(chained, provider, client, wanted):
    body = STREAM if wanted is None else {**STREAM, "stream_options": {"include_usage": wanted}}
    async with chained() as (outer, inner):
        direct = await client.post(provider.base_url + "/chat/completions", json=body)
        through = await client.post(outer.url + "/v1/chat/completions", json=body)
        first, second = await outer.record(), await inner.record()
    assert through.text.count('"usage":{') == direct.text.count('"usage":{') == bool(wanted)
    assert through.text.count("data: ") == direct.text.count("data: ")
    assert {record["output_source"] for record in (first, second)} == {"reported"}
    assert first["output_tokens"] == second["output_tokens"] == provider.ledger[-1].usage["completion_tokens"]


async def test_an_error_of_the_inner_one_is_no_error_of_the_outer_one(chained, provider, client, monkeypatch):
    monkeypatch.setenv("INNER_KEY", "tm-" + "0" * 64)
    async with chained() as (outer, inner):
        answer = await client.post(outer.url + "/v1/chat/completions", json=CHAT)
        (first,), (second,) = outer.records, inner.records
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert "x-taximeter-error" not in answer.headers  # that one's own call was refused, not this one
    assert answer.headers.get_list("x-taximeter-request-id") == [first["request_id"]]
    assert (first["outcome"], second["outcome"]) == ("upstream_error", "refused")


@contextlib.asynccontextmanager
async def forwarding(to):
    """Another address under which a port can be reached, as a load balancer is one."""

    async def pump(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def accepted(reader, writer):
        there, back = await asyncio.open_connection("127.0.0.1", to[0])
        await asyncio.gather(pump(reader, back), pump(there, writer))

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def test_a_loop_ends_after_one_round(serve, provider, client):
    to: list[int] = []
    async with forwarding(to) as port:
        upstream = {"base_url": f"http://127.0.0.1:{port}/v1"}
        async with serve(provider, upstream=upstream, node="a") as running:
            to.append(running.port)
            answer = await client.post(running.url + "/v1/chat/completions", json=CHAT)
            records = [(one["outcome"], one.get("error_code"), one.get("status")) for one in running.records]
    assert (answer.status_code, answer.json()["error"]["code"]) == (508, "loop_detected")
    assert "base_url" in answer.json()["error"]["message"]
    assert records == [("refused", "loop_detected", None), ("upstream_error", None, 508)]


async def test_a_loop_through_two_nodes_ends_where_it_began(serve, provider, client, tmp_path):
    to: list[int] = []
    async with forwarding(to) as port:
        there = {"base_url": f"http://127.0.0.1:{port}/v1"}
        async with (
            serve(provider, upstream=there, node="a", data_dir=str(tmp_path / "a")) as a,
            serve(provider, upstream={"base_url": a.url + "/v1"}, node="b", data_dir=str(tmp_path / "b")) as b,
        ):
            to.append(b.port)
            answer = await client.post(a.url + "/v1/chat/completions", json=CHAT)
            assert (answer.status_code, len(a.records), len(b.records)) == (508, 2, 1)


async def test_what_other_proxies_said_goes_on_and_a_provider_is_told_nothing(serve, provider, client, monkeypatch):
    passed = {"cdn-loop": f"cloudflare; loops=1, {loops.mark('outer').decode()}"}
    async with serve(provider, node="a") as running:
        await client.post(running.url + "/v1/chat/completions", json=CHAT, headers=passed)
        monkeypatch.setattr(loops, "gets_mark", lambda host: host != "127.0.0.1")
    async with serve(provider, node="a") as running:  # its host is a provider's now
        await client.post(running.url + "/v1/chat/completions", json=CHAT, headers=passed)
        await client.post(running.url + "/v1/chat/completions", json=CHAT)
    seen = [[value for name, value in request.headers if name == "cdn-loop"] for request in provider.requests]
    assert seen == [[loops.mark("a").decode(), passed["cdn-loop"]], ["cloudflare; loops=1"], []]
