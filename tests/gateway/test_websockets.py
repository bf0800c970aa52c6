"""WebSockets through the running gateway: what is recorded, what the provider and the client get, how sessions end."""

import json

import openai
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from taximeter.keys.rule import ProxyKey, digest
from waits import happens
from websocket_provider import WebSocketProvider, begin, finish

HEARD = "conversation.item.input_audio_transcription.completed"
CREATE = json.dumps({"type": "response.create"})


@pytest.fixture
async def realtime():
    async with WebSocketProvider() as provider:
        yield provider


def url(running, path="/w/acme/t/talk/v1/realtime?model=gpt-realtime"):
    return f"ws://127.0.0.1:{running.port}{path}"


def own(**more):
    return {"additional_headers": {"authorization": "Bearer sk-own", **more}}


def code_of(closed):
    return closed.rcvd.code


async def until(socket, kind):
    while True:
        event = json.loads(await socket.recv())
        if event["type"] == kind:
            return event


async def test_a_response_is_recorded_before_its_end_is_with_the_client(serve, realtime, billed):
    async with serve(realtime) as running, connect(url(running), **own()) as socket:
        await socket.send(CREATE)
        await until(socket, "response.done")
        (record,) = running.records
        assert billed(
            record, ("workspace", "track", "api", "operation", "request_model", "outcome", "input_tokens",
            "output_tokens", "audio_input_tokens", "audio_output_tokens", "cached_input_tokens",
            "cached_audio_input_tokens", "input_source"),
        ) == {
            "workspace": "acme", "track": "talk", "api": "realtime", "operation": "llm",
            "request_model": "gpt-realtime", "outcome": "ok", "input_tokens": 132, "output_tokens": 121,
            "audio_input_tokens": 13, "audio_output_tokens": 91, "cached_input_tokens": 64,
            "cached_audio_input_tokens": 4, "input_source": "reported",
        }  # fmt: skip
    assert len(running.lines("open")) == len(running.records) == 1


async def test_the_upgrade_goes_on_as_it_came_but_for_what_is_ours(serve, realtime):
    async with serve(realtime) as running:
        offered = [Subprotocol("realtime")]
        async with connect(url(running), subprotocols=offered, **own(**{"x-track-id": "t"})) as socket:
            assert socket.subprotocol == "realtime"
        (request,) = realtime.requests
        assert request.path == "/v1/realtime?model=gpt-realtime"
        assert request.headers["authorization"] == "Bearer sk-own"
        assert "sec-websocket-extensions" not in request.headers
        assert "x-track-id" not in request.headers
    assert running.lines("open") == []


async def test_an_upstreams_refusal_is_the_clients_answer(serve):
    async with WebSocketProvider(refuse=403) as provider, serve(provider) as running:
        with pytest.raises(InvalidStatus) as refused:
            await connect(url(running), **own())
    assert refused.value.response.status_code == 403
    assert b"no" in refused.value.response.body


async def test_other_paths_are_told_so(serve, realtime):
    async with serve(realtime) as running:
        with pytest.raises(InvalidStatus) as refused:
            await connect(url(running, "/v1/chat/completions"), **own())
    assert refused.value.response.status_code == 404


KEY = ProxyKey(id="key_1", workspace="team", sha256=digest("tm-" + "a" * 64))


@pytest.mark.parametrize("where", ["header", "protocol"])
async def test_a_proxy_key_opens_the_session_and_stays_here(serve, realtime, monkeypatch, where):
    monkeypatch.setenv("UPSTREAM_KEY", "sk-ours")
    upstream = {"api_key_env": "UPSTREAM_KEY", "forward_credentials": False}
    secret = "tm-" + "a" * 64
    async with serve(realtime, upstream=upstream, keys=[KEY], auth={"mode": "keys"}) as running:
        path = url(running, "/v1/realtime?model=gpt-realtime")
        with pytest.raises(InvalidStatus) as refused:
            await connect(path)
        assert refused.value.response.status_code == 401
        if where == "header":
            opening = connect(path, additional_headers={"authorization": f"Bearer {secret}"})
        else:
            offered = [Subprotocol("realtime"), Subprotocol(f"openai-insecure-api-key.{secret}")]
            opening = connect(path, subprotocols=offered)
        async with opening as socket:
            await socket.send(CREATE)
            await until(socket, "response.done")
        assert running.records[0]["key_id"] == "key_1"
        assert running.records[0]["workspace"] == "team"
    (request,) = realtime.requests
    assert request.headers["authorization"] == "Bearer sk-ours"
    assert secret not in str(request.headers)


async def test_a_response_the_server_begins_and_what_was_heard_have_records(serve):
    async def speak(talk, event):
        await talk.say(
            HEARD, item_id="i", content_index=0, transcript="Hello",
            usage={"type": "tokens", "total_tokens": 22, "input_tokens": 13, "output_tokens": 9,
                   "input_token_details": {"text_tokens": 0, "audio_tokens": 13}},
        )  # fmt: skip
        await begin(talk, "resp_own")
        await finish(talk, "resp_own")

    async with WebSocketProvider(speak) as provider, serve(provider) as running:
        async with connect(url(running), **own()) as socket:
            await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": "AAAA"}))
            await until(socket, "response.done")
        heard, spoken = running.records
    assert (heard["request_model"], heard["input_tokens"], heard["output_tokens"]) == ("gpt-4o-transcribe", 13, 9)
    assert (heard["api"], heard["track"], heard["audio_input_tokens"]) == ("audio", "talk", 13)
    assert (spoken["request_model"], spoken["input_tokens"], spoken["outcome"]) == ("gpt-realtime", 132, "ok")


async def test_several_responses_on_one_connection_are_told_apart(serve):
    ids = iter(("a", "b"))
    asked: list[str] = []

    async def crossing(talk, event):
        asked.append(event["stream_id"])
        if len(asked) < 2:
            return
        for stream in asked:
            await talk.say("response.created", response={"id": "r" + stream, "model": "m"}, stream_id=stream)
        for stream, tokens in zip(reversed(asked), (5, 50), strict=True):
            await talk.say("response.output_text.delta", delta="x", stream_id=stream)
            usage = {"input_tokens": tokens, "output_tokens": 1, "total_tokens": tokens + 1}
            done = {"id": "r" + stream, "model": "m-" + stream, "usage": usage}
            await talk.say("response.completed", response=done, stream_id=stream)

    async with WebSocketProvider(crossing) as provider, serve(provider) as running:
        async with connect(url(running, "/v1/responses"), **own()) as socket:
            for stream in ids:
                create = {"type": "response.create", "model": "m-" + stream, "input": "hi", "stream_id": stream}
                await socket.send(json.dumps(create))
            await until(socket, "response.completed")
            await until(socket, "response.completed")
        found = {record["request_model"]: record for record in running.records}
    assert {model: record["input_tokens"] for model, record in found.items()} == {"m-b": 5, "m-a": 50}
    assert {record["response_model"] for record in found.values()} == {"m"}


async def test_responses_out_of_band_are_told_apart_by_their_metadata(serve):
    asked = []

    async def backwards(talk, event):
        asked.append(event["response"].get("metadata"))
        if len(asked) < 3:
            return
        for number, metadata in enumerate(reversed(asked)):
            usage = {"input_tokens": 10 * number, "output_tokens": 1, "total_tokens": 10 * number + 1}
            told = {"id": f"r{number}", "metadata": metadata}
            await talk.say("response.created", response=told)
            await talk.say("response.done", response={**told, "status": "completed", "usage": usage})

    async with WebSocketProvider(backwards) as provider, serve(provider, tags={"body": True}) as running:
        async with connect(url(running, "/w/acme/v1/realtime?model=m"), **own()) as socket:
            for response in ({"metadata": {"track": "a"}}, {"metadata": {"track": "b"}}, {}):
                told = {"conversation": "none", **response}
                await socket.send(json.dumps({"type": "response.create", "response": told}))
            for _ in range(3):
                await until(socket, "response.done")
        records = [(record.get("track"), record["input_tokens"]) for record in running.records]
    assert records == [(None, 0), ("b", 10), ("a", 20)]


@pytest.mark.parametrize("made", ["resp_own", None])
async def test_a_response_whose_beginning_or_name_nobody_told_is_one(serve, made):
    async def speak(talk, event):
        if made is None:
            await begin(talk, made)
        await finish(talk, made)

    async with WebSocketProvider(speak) as provider, serve(provider) as running:
        async with connect(url(running), **own()) as socket:
            for sent in ({"type": "input_audio_buffer.commit"}, {"type": "response.create"}):
                await socket.send(json.dumps(sent))
                await until(socket, "response.done")
        assert [(record["outcome"], record["total_tokens"]) for record in running.records] == [("ok", 253)] * 2
    assert len(running.lines("open")) == 2


@pytest.mark.parametrize("first", ["client", "upstream"])
async def test_whoever_says_first_that_it_leaves_has_left(serve, first):
    async def begins(talk, event):
        await begin(talk, "resp_1")
        if first == "upstream":
            await talk.connection.close(1011)

    async with WebSocketProvider(begins) as provider, serve(provider) as running:
        async with connect(url(running), **own()) as socket:
            await socket.send(CREATE)
            await until(socket, "response.output_text.delta")
            if first == "upstream":
                with pytest.raises(ConnectionClosed):
                    await socket.recv()
        assert [record["outcome"] for record in running.records] == [
            {"client": "client_left", "upstream": "upstream_cut"}[first]
        ]


@pytest.mark.parametrize("how", ["client", "upstream", "server"])
async def test_what_is_under_way_is_settled_however_the_session_ends(serve, how):
    async def begins(talk, event):
        await begin(talk, "resp_1")

    async with WebSocketProvider(begins) as provider, serve(provider, limits={"shutdown_s": 0.05}) as running:
        socket = await connect(url(running), **own())
        await socket.send(CREATE)
        await until(socket, "response.output_text.delta")
        if how == "client":
            socket.transport.abort()
        elif how == "upstream":
            provider.talks[0].connection.transport.abort()
        else:
            running.server.stop()
        record = await running.record()
        if how == "server":
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert code_of(closed.value) == 1012
        await socket.close()
    outcome = {"client": "client_left", "upstream": "upstream_cut", "server": "interrupted"}[how]
    assert record["outcome"] == outcome
    assert len(running.records) == 1


async def test_an_idle_session_is_closed_when_the_server_stops(serve, realtime):
    async with serve(realtime) as running, connect(url(running), **own()) as socket:
        await until(socket, "session.created")
        running.server.stop()
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        await happens(lambda: realtime.closed_with)
    assert (code_of(closed.value), realtime.closed_with) == (1012, [1001])


async def test_pings_and_close_codes_pass(serve, realtime):
    async with serve(realtime) as running, connect(url(running), **own()) as socket:
        await (await socket.ping(b"are you there"))
        await socket.close(4001, "enough")
        await happens(lambda: realtime.closed_with)
    assert realtime.closed_with == [4001]


async def test_a_long_fragmented_request_arrives_as_it_was_sent(serve, realtime):
    text = json.dumps({"type": "response.create", "model": "gpt-5", "input": "word " * 400_000, "stream_id": "s"})
    pieces = [text[start : start + 70_001] for start in range(0, len(text), 70_001)]
    async with serve(realtime) as running:
        async with connect(url(running, "/v1/responses"), **own()) as socket:
            await socket.send(pieces)
            await until(socket, "response.completed")
        (record,) = running.records
    assert realtime.received == [text]
    assert (record["request_model"], record["input_tokens"], record["output_tokens"]) == ("gpt-5", 7, 3)


async def test_a_long_last_event_is_read_in_pieces(serve, realtime):
    async def answers(talk, event):
        made = "resp_1"
        await begin(talk, made)
        usage = {"input_tokens": 9, "output_tokens": 8, "total_tokens": 17}
        done = {"id": made, "status": "completed", "output": ["so " * 600_000], "usage": usage}
        await talk.say("response.done", response=done)

    async with WebSocketProvider(answers) as provider, serve(provider) as running:
        async with connect(url(running), max_size=None, **own()) as socket:
            await socket.send(CREATE)
            await until(socket, "response.done")
        (record,) = running.records
    assert (record["input_tokens"], record["output_tokens"], record["outcome"]) == (9, 8, "ok")


async def test_openais_realtime_client(serve, realtime):
    async with serve(realtime) as running:
        client = openai.AsyncOpenAI(base_url=running.url + "/w/acme/v1", api_key="sk-own", max_retries=0)
        async with client, client.realtime.connect(model="gpt-realtime") as connection:
            await connection.response.create()
            async for event in connection:
                if event.type == "response.done":
                    assert event.response.usage is not None
                    told = event.response.usage.total_tokens
                    break
        (record,) = running.records
    assert told == record["total_tokens"] == 253


async def test_openais_responses_client(serve, realtime):
    async with serve(realtime) as running:
        client = openai.AsyncOpenAI(base_url=running.url + "/w/acme/v1", api_key="sk-own", max_retries=0)
        async with client, client.responses.connect() as connection:
            await connection.response.create(model="gpt-5", input="Hello")
            async for event in connection:
                if event.type == "response.completed":
                    assert event.response.usage is not None
                    told = event.response.usage.total_tokens
                    break
        (record,) = running.records
    assert told == record["total_tokens"] == 10
    assert record["api"] == "responses"


@pytest.mark.parametrize("said", [{"event_id": "mine"}, {"param": "response.output_modalities"}])
async def test_an_error_about_a_response_settles_it(serve, said):
    async def refuses(talk, event):
        await talk.say("error", error={"type": "invalid_request_error", "message": "no", "param": None, **said})

    named = {"event_id": "mine"} if "event_id" in said else {}
    async with WebSocketProvider(refuses) as provider, serve(provider) as running:
        async with connect(url(running), **own()) as socket:
            await socket.send(json.dumps({"type": "response.create", **named}))
            await until(socket, "error")
        (record,) = running.records
    assert (record["outcome"], record.get("input_tokens")) == ("upstream_error", None)


async def test_azures_deployments(serve, realtime, monkeypatch):
    monkeypatch.setenv("AZURE_KEY", "az-ours")
    upstream = {"provider": "azure", "api_key_env": "AZURE_KEY", "forward_credentials": False}
    async with serve(realtime, upstream=upstream) as running:
        path = "/w/acme/openai/realtime?api-version=2025-04-01-preview&deployment=our-realtime"
        async with connect(url(running, path), additional_headers={"api-key": "anything"}) as socket:
            await socket.send(CREATE)
            await until(socket, "response.done")
        (record,) = running.records
    (request,) = realtime.requests
    assert request.path == "/openai/realtime?api-version=2025-04-01-preview&deployment=our-realtime"
    assert request.headers.get_all("api-key") == ["az-ours"]
    assert (record["provider"], record["api"], record["total_tokens"]) == ("azure", "realtime", 253)


async def test_what_was_heard_may_be_billed_by_seconds(serve):
    async def hear(talk, event):
        usage = {"type": "duration", "seconds": 3}
        beta = {"input_audio_transcription": {"model": "whisper-1"}}
        await talk.say("transcription_session.updated", session=beta)
        await talk.say(HEARD, item_id="i", transcript="x", usage=usage)

    async with WebSocketProvider(hear) as provider, serve(provider) as running:
        async with connect(url(running, "/v1/realtime?intent=transcription"), **own()) as socket:
            await socket.send(json.dumps({"type": "input_audio_buffer.commit"}))
            await until(socket, HEARD)
        (record,) = running.records
    assert (record["seconds"], record.get("input_tokens"), record["request_model"]) == (3, None, "whisper-1")


async def test_a_cancelled_or_failed_response_is_recorded_with_what_it_used(serve):
    async def ends(talk, event):
        made = talk.next_id()
        await begin(talk, made)
        await finish(talk, made, "cancelled" if talk.number == 1 else "failed")

    async with WebSocketProvider(ends) as provider, serve(provider) as running:
        async with connect(url(running), **own()) as socket:
            for _ in range(2):
                await socket.send(CREATE)
                await until(socket, "response.done")
        cancelled, failed = running.records
    assert (cancelled["outcome"], cancelled["total_tokens"]) == ("ok", 253)
    assert (failed["outcome"], failed["total_tokens"]) == ("upstream_error", 253)


async def test_one_asked_for_while_another_is_active_is_the_one_that_failed(serve):
    async def refuses(talk, event):
        if talk.number:
            await talk.say("error", error={"code": "conversation_already_has_active_response", "message": "wait"})
            await finish(talk, "resp_1")
        else:
            await begin(talk, talk.next_id())

    async with WebSocketProvider(refuses) as provider, serve(provider) as running:
        async with connect(url(running), **own()) as socket:
            await socket.send(CREATE)
            await until(socket, "response.output_text.delta")
            await socket.send(CREATE)
            await until(socket, "response.done")
        failed, done = running.records
    assert (failed["outcome"], failed.get("total_tokens")) == ("upstream_error", None)
    assert (done["outcome"], done["total_tokens"]) == ("ok", 253)


async def test_an_error_on_a_stream_settles_what_was_begun_there(serve):
    async def breaks(talk, event):
        if event["stream_id"] == "a":
            await talk.say("response.created", response={"id": "r", "model": "m"}, stream_id="a")
        await talk.say(
            "error", status=500, error={"code": "server_error", "message": "no"}, stream_id=event["stream_id"]
        )

    async with WebSocketProvider(breaks) as provider, serve(provider) as running:
        async with connect(url(running, "/v1/responses"), **own()) as socket:
            for stream in ("a", "b"):
                await socket.send(
                    json.dumps({"type": "response.create", "model": "m", "input": "x", "stream_id": stream})
                )
                await until(socket, "error")
        assert [record["outcome"] for record in running.records] == ["upstream_error"] * 2
