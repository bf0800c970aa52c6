"""Budgets, rates and allow-lists on a WebSocket: they hold for each response, and the connection stays."""

import asyncio
import json

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.test_budget import budget, gated, redis, spend
from gateway.test_websockets import CREATE, code_of, own, until, url
from taximeter.gateway.admission.admission import Admission
from taximeter.gateway.websocket.books import MAX_UNDER_WAY
from taximeter.keys.rule import ProxyKey, digest
from waits import HANG_S, happens
from websocket_provider import SESSION, WebSocketProvider, answer, begin, finish

__all__ = ["gated", "redis"]
ASKS = "response.create"
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


WINDOW = 135_000
"""Room for one response on a session: the model's window of 128,000 tokens with what is added to any prompt."""


def session_of(**members):
    """A provider whose session begins so, and takes over what it is told."""

    async def script(talk, event):
        if event["type"] == "session.update":
            await talk.say("session.updated", session={**SESSION, **members, **event["session"]})
        else:
            await answer(talk, event)

    return script


async def created(socket, **response):
    await socket.send(json.dumps({"type": "response.create", "event_id": "mine", "response": response}))


@pytest.mark.parametrize("name", ["max_output_tokens", "max_response_output_tokens"])
async def test_a_realtime_response_is_held_at_the_length_it_or_its_session_names(serve, gated, redis, name):
    async with WebSocketProvider(session_of()) as provider, serve(provider) as running:
        gated(running, budget(limit=10 * WINDOW))
        async with connect(url(running), **own()) as socket:
            for response in ({name: "inf"}, {name: 40}):
                await created(socket, **response)
                await until(socket, "response.done")
            await socket.send(json.dumps({"type": "session.update", "session": {name: 70}}))
            await until(socket, "session.updated")
            await created(socket)
            await until(socket, "response.done")
            await socket.send(json.dumps({"type": "session.update", "session": {name: "inf"}}))
            await created(socket)  # before the server has said so
            await until(socket, "response.done")
    longest, stated, of_session, again = (line["bound_tokens"] for line in running.lines("tick"))
    assert 128_040 <= stated < WINDOW < longest == again
    assert of_session == stated + 30


async def test_a_realtime_response_that_nothing_bounds_is_refused_by_a_small_budget(serve, gated, redis):
    async with WebSocketProvider(session_of()) as provider, serve(provider) as running:
        gated(running, budget(limit=WINDOW))
        async with connect(url(running), **own()) as socket:
            await created(socket)
            assert (await until(socket, "error"))["error"]["event_id"] == "mine"
            await created(socket, max_output_tokens=40)
            await until(socket, "response.done")


async def test_a_realtime_response_that_tools_of_the_provider_answer_has_no_bound(serve, gated, redis):
    async with WebSocketProvider() as provider, serve(provider) as running:
        gated(running, budget(limit=10 * WINDOW))
        async with connect(url(running), **own()) as socket:
            tools = [{"type": "function", "name": "f"}, {"type": "mcp", "server_label": "x"}]
            await socket.send(json.dumps({"type": "session.update", "session": {"tools": tools[:1]}}))
            await created(socket, max_output_tokens=40)
            await until(socket, "response.done")
            await socket.send(json.dumps({"type": "session.update", "session": {"tools": tools}}))
            await created(socket, max_output_tokens=40)  # before the server has said so
            error = await until(socket, "error")
    assert "mcp" in error["error"]["message"]


async def test_a_stored_prompt_of_the_session_has_no_bound(serve, gated, redis):
    async with WebSocketProvider() as provider, serve(provider) as running:
        gated(running, budget(limit=10 * WINDOW))
        async with connect(url(running), **own()) as socket:
            await socket.send(json.dumps({"type": "session.update", "session": {"prompt": {"id": "pmpt_1"}}}))
            await created(socket, max_output_tokens=40)
            error = await asyncio.wait_for(until(socket, "error"), HANG_S)
    assert "prompt" in error["error"]["message"]


async def test_what_was_asked_for_of_an_upstream_that_left_while_it_was_held_is_let_go(
    serve, gated, redis, monkeypatch
):
    held, goes_on, hold = asyncio.Event(), asyncio.Event(), Admission.hold

    async def slowly(*given):
        held.set()
        await goes_on.wait()
        return await hold(*given)

    async with WebSocketProvider() as provider, serve(provider) as running:
        gated(running, budget())
        monkeypatch.setattr(Admission, "hold", slowly)
        async with connect(url(running, "/w/acme/v1/responses"), **own()) as socket:
            await socket.send(json.dumps(ASKED))
            await held.wait()
            provider.talks[0].connection.transport.abort()
            record = await running.record()
        goes_on.set()
        await happens(lambda: running.lines("tick"))
        await happens(lambda: running.gate.admission.budgets._flying == {})
    assert (record["outcome"], len(running.records), provider.received) == ("upstream_cut", 1, [])


async def test_no_more_than_so_many_are_under_way_on_a_connection(serve):
    async def silent(talk, event):
        pass

    async with WebSocketProvider(silent) as provider, serve(provider) as running:
        async with connect(url(running), **own()) as socket:
            for _ in range(MAX_UNDER_WAY + 1):
                await socket.send(CREATE)
            error = await asyncio.wait_for(until(socket, "error"), HANG_S)
        assert error["error"]["code"] == "overloaded"
        assert running.records[0]["outcome"] == "refused"
    assert len(running.lines("open")) == len(running.records) == MAX_UNDER_WAY + 1


async def test_a_request_whose_type_is_named_last_is_held_like_any_other(serve, gated, redis):
    await spend(redis, 9_990, budget())
    long = {**{name: value for name, value in ASKED.items() if name != "type"}, "input": "word " * 40_000, "type": ASKS}
    async with WebSocketProvider() as provider, serve(provider) as running:
        gated(running, budget())
        async with connect(url(running, "/w/acme/v1/responses"), **own()) as socket:
            await socket.send(json.dumps(long))
            await until(socket, "error")
            await socket.send(json.dumps(long).encode())
            await until(socket, "error")
            gated(running)
            await socket.send(json.dumps(long))
            await until(socket, "response.completed")
    assert [record["outcome"] for record in running.records] == ["refused", "refused", "ok"]
    assert len(provider.received) == 1


async def test_a_session_whose_responses_begin_over_budget_ends_with_the_first_of_them(serve, gated, redis, caplog):
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
            assert (await until(socket, "error"))["error"]["code"] == "insufficient_quota"
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
        (record,) = running.records
        await spend(redis, 10_000, budget())
        with pytest.raises(InvalidStatus) as refused:
            await connect(url(running), **own())
        assert refused.value.response.status_code == 429
        async with connect(url(running, "/w/acme/v1/responses"), **own()):
            pass  # where nothing begins by itself, each is asked for
    assert code_of(closed.value) == 1008
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


async def test_so_many_sessions_and_no_longer_than_they_may_last(serve):
    async with WebSocketProvider() as provider, serve(provider, limits={"websocket_sessions": 1}) as running:
        at_once = await asyncio.gather(*(connect(url(running), **own()) for _ in range(3)), return_exceptions=True)
        (socket,) = (each for each in at_once if not isinstance(each, BaseException))
        statuses = [each.response.status_code for each in at_once if isinstance(each, InvalidStatus)]
        assert statuses == [429, 429]
        await socket.close()
        await happens(lambda: not running.server._sessions)
        async with connect(url(running), **own()) as socket:
            await until(socket, "session.created")


async def test_a_session_that_has_lasted_ends_with_the_response_that_is_under_way(serve):
    async def half(talk, event):
        await (begin(talk, "r") if event["type"] == ASKS else finish(talk, "r"))

    limits = {"websocket_session_s": 0.2}
    async with WebSocketProvider(half) as provider, serve(provider, limits=limits) as running:
        async with connect(url(running), **own()) as busy, connect(url(running), **own()) as idle:
            await busy.send(CREATE)
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    await idle.recv()
            assert code_of(closed.value) == 1001
            await until(busy, "response.output_text.delta")
            await busy.send(json.dumps({"type": "go"}))
            await until(busy, "response.done")
            with pytest.raises(ConnectionClosed) as closed:
                await busy.recv()
            assert code_of(closed.value) == 1001
        (record,) = running.records
    assert (record["outcome"], record["total_tokens"]) == ("ok", 253)


async def test_what_a_steered_response_goes_on_with_is_held_at_the_whole_window_and_has_its_model(serve, gated, redis):
    async def steered(talk, event):
        if event["type"] == ASKS:
            await answer(talk, event)
        else:
            await answer(talk, {**ASKED, "stream_id": "s"})

    async with WebSocketProvider(steered) as provider, serve(provider) as running:
        gated(running, budget(limit=10 * WINDOW))
        async with connect(url(running, "/w/acme/v1/responses"), **own()) as socket:
            await socket.send(json.dumps({**ASKED, "stream_id": "s"}))
            await until(socket, "response.completed")
            await socket.send(json.dumps({"type": "response.steer", "stream_id": "s", "input": "shorter"}))
            await until(socket, "response.completed")
            await happens(lambda: len(running.lines("tick")) == 2)
    asked, steered_on = (line["bound_tokens"] for line in running.lines("tick"))
    assert asked < 1_000 < 128_000 < steered_on
    assert [record["request_model"] for record in running.records] == ["gpt-5", "gpt-5"]
