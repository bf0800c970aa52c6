"""Budgets, rates and allow-lists on a WebSocket: they hold for each response, and the connection stays."""

import json

from websockets.asyncio.client import connect

from gateway.test_budget import budget, gated, redis, spend
from gateway.test_websockets import CREATE, own, until, url
from taximeter.keys.rule import ProxyKey, digest
from waits import happens
from websocket_provider import WebSocketProvider, begin, finish

__all__ = ["gated", "redis"]
ASKED = {"type": "response.create", "model": "gpt-5", "input": "hello there", "max_output_tokens": 40}


async def test_a_response_holds_its_bound_and_lets_it_go(serve, gated, redis):
    async with WebSocketProvider() as provider, serve(provider) as running:
        gated(running, budget())
        async with connect(url(running, "/w/acme/v1/responses"), **own()) as socket:
            await socket.send(json.dumps(ASKED))
            await until(socket, "response.completed")
        (record,) = running.records
        assert (record["outcome"], record["tags"]) == ("ok", {"budgets": "b1"})
        assert 10 < int(await redis.hget("tm:{acme}:held", "b1")) < 250
        assert running.gate.admission.budgets._flying == {}


async def test_over_budget_the_client_gets_the_apis_error_and_the_connection_stays(serve, gated, redis):
    await spend(redis, 9_990, budget())
    async with WebSocketProvider() as provider, serve(provider) as running:
        gated(running, budget())
        async with connect(url(running, "/w/acme/v1/responses"), **own()) as socket:
            await socket.send(json.dumps({**ASKED, "stream_id": "s1"}))
            error = await until(socket, "error")
            assert (error["status"], error["stream_id"]) == (429, "s1")
            assert error["error"]["code"] == "insufficient_quota"
            await redis.delete("tm:{acme}:sum:b1")
            gated(running)
            await socket.send(json.dumps(ASKED))
            await until(socket, "response.completed")
        refused, answered = running.records
    assert (refused["outcome"], refused["error_code"]) == ("refused", "insufficient_quota")
    assert answered["outcome"] == "ok"
    assert [json.loads(message) for message in provider.received] == [ASKED]


async def test_a_realtime_response_that_nothing_bounds_is_refused_by_a_small_budget(serve, gated, redis):
    async with WebSocketProvider() as provider, serve(provider) as running:
        gated(running, budget())
        async with connect(url(running), **own()) as socket:
            await socket.send(json.dumps({"type": "response.create", "event_id": "mine"}))
            error = await until(socket, "error")
            assert error["error"]["event_id"] == "mine"
            await (await socket.ping())
    assert provider.received == []


async def test_what_the_server_begins_by_itself_is_counted_though_its_budget_is_spent(serve, gated, redis, caplog):
    async def speak(talk, event):
        if event["audio"] == "AAAA":
            await begin(talk, "resp_own")
        else:
            await finish(talk, "resp_own")

    await spend(redis, 9_990, budget())
    async with WebSocketProvider(speak) as provider, serve(provider) as running:
        gated(running, budget())
        async with connect(url(running), **own()) as socket:
            await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": "AAAA"}))
            await happens(lambda: "began although its budget has no room" in caplog.text)
            await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": "BBBB"}))
            await until(socket, "response.done")
        (record,) = running.records
    assert (record["outcome"], record["input_tokens"]) == ("ok", 132)


async def test_an_allow_list_holds_for_each_response(serve):
    secret = "tm-" + "b" * 64
    key = ProxyKey(id="key_1", workspace="team", sha256=digest(secret), models=("gpt-5",))
    async with WebSocketProvider() as provider, serve(provider, keys=[key]) as running:
        headers = {"x-taximeter-key": secret, "authorization": "Bearer sk-own"}
        async with connect(url(running, "/v1/responses"), additional_headers=headers) as socket:
            await socket.send(json.dumps({**ASKED, "model": "gpt-5-pro"}))
            error = await until(socket, "error")
            assert error["error"]["code"] == "forbidden"
            await socket.send(json.dumps(ASKED))
            await until(socket, "response.completed")
    assert [json.loads(message)["model"] for message in provider.received] == ["gpt-5"]


async def test_the_journal_is_on_stable_storage_before_a_response_is_asked_for(serve):
    async with WebSocketProvider() as provider, serve(provider, journal={"fsync": "always"}) as running:
        async with connect(url(running), **own()) as socket:
            for _ in range(3):
                await socket.send(CREATE)
                await until(socket, "response.done")
        assert [record["outcome"] for record in running.records] == ["ok"] * 3
