"""Gemini's Live API through the running gateway: each time that the model generates is a record."""

import asyncio
import contextlib
import json
import ssl

import pytest
import trustme
from google import genai
from google.genai import types
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gateway.test_budget import budget, gated, redis, spend
from gateway.test_websockets import code_of, own, url
from live_provider import COMPLETE, MODEL, PATH, SETUP, SPOKEN, TOOL_CALL, TOOL_RESPONSE, ask, converse, tell, usage
from taximeter.keys.rule import ProxyKey, digest
from websocket_provider import WebSocketProvider

__all__ = ["gated", "redis"]
GOOGLE = {"name": "google", "provider": "google"}


@contextlib.asynccontextmanager
async def session(running, path="/w/acme/t/talk" + PATH, setup=SETUP, headers=None):
    headers = own()["additional_headers"] if headers is None else headers
    async with connect(url(running, path), additional_headers=headers, max_size=None) as socket:
        await socket.send(json.dumps(setup))
        assert json.loads(await socket.recv()) == {"setupComplete": {}}
        yield socket


async def until(socket, *members):
    while True:
        message = json.loads(await socket.recv())
        if all(member in message for member in members):
            return message


def told(record):
    return record["outcome"], record.get("input_tokens"), record.get("output_tokens")


async def talked(serve, script, sent, wanted):
    """The records of a session in which `sent` was sent, as soon as `wanted` of the provider's messages have come."""

    async def answer(talk, event):
        await (tell(talk, {"setupComplete": {}}) if "setup" in event else script(talk, event))

    async with WebSocketProvider(answer) as provider, serve(provider, upstream=GOOGLE) as running:
        async with session(running) as socket:
            for message in sent:
                await socket.send(json.dumps(message))
            for _ in range(wanted):
                await socket.recv()
            before = list(running.records)
        assert len(running.lines("open")) == len(running.records)
        return before, running.records


async def test_a_turn_is_recorded_with_its_model_before_its_end_is_with_the_client(serve, billed):
    async with (
        WebSocketProvider(converse) as provider,
        serve(provider, upstream=GOOGLE) as running,
        session(running) as socket,
    ):
        for _ in range(2):
            await socket.send(json.dumps(ask()))
            await until(socket, "usageMetadata")
        first, second = running.records
    assert billed(
        first, ("workspace", "track", "api", "operation", "request_model", "outcome", "input_tokens", "output_tokens",
        "audio_input_tokens", "audio_output_tokens", "input_source"),
    ) == {
        "workspace": "acme", "track": "talk", "api": "live", "operation": "llm", "request_model": MODEL,
        "outcome": "ok", "input_tokens": 143, "output_tokens": 19, "audio_input_tokens": 3,
        "audio_output_tokens": 19, "input_source": "reported",
    }  # fmt: skip
    assert json.loads(json.dumps(second["usage"])) == usage()["usageMetadata"]
    assert [json.loads(message) for message in provider.received] == [SETUP, ask(), ask()]


async def test_what_the_model_says_by_itself_is_a_record(serve):
    async def speak(talk, event):
        heard = {"inputTranscription": {"text": "hello"}}
        await tell(talk, {"serverContent": heard}, {"serverContent": SPOKEN}, {"serverContent": COMPLETE, **usage()})

    before, records = await talked(serve, speak, [{"realtimeInput": {"audio": {"data": "AAAA"}}}], 3)
    assert [told(record) for record in before] == [told(record) for record in records] == [("ok", 143, 19)]


async def test_a_call_of_a_tool_and_what_comes_of_it_are_two(serve):
    async def calls(talk, event):
        if "clientContent" in event:
            await tell(talk, {**TOOL_CALL, **usage(100, 5)})
        else:
            await tell(talk, {"serverContent": SPOKEN}, {"serverContent": COMPLETE, **usage(120, 7)})

    before, records = await talked(serve, calls, [ask(), TOOL_RESPONSE], 3)
    assert [told(record) for record in records] == [("ok", 100, 5), ("ok", 120, 7)]
    assert len(before) == 2


async def test_use_that_is_told_behind_the_end_of_a_turn_is_that_turns(serve):
    async def late(talk, event):
        await tell(talk, {"serverContent": SPOKEN}, {"serverContent": COMPLETE}, usage(90, 9))

    before, records = await talked(serve, late, [ask()], 3)
    assert [told(record) for record in before] == [told(record) for record in records] == [("ok", 90, 9)]


@pytest.mark.parametrize("known", [False, True])
async def test_words_that_come_behind_their_turn_are_no_turn(serve, known):
    words = {"serverContent": {"outputTranscription": {"text": "hello"}}}

    async def late(talk, event):
        told = usage(90, 9)
        done = ({**told, "serverContent": COMPLETE}, words) if known else ({"serverContent": COMPLETE}, words, told)
        await tell(talk, {"serverContent": SPOKEN}, *done)

    _, records = await talked(serve, late, [ask()], 3 if known else 4)
    assert [told(record) for record in records] == [("ok", 90, 9)]


async def test_use_that_is_told_before_the_end_of_a_turn_is_told_once(serve):
    async def early(talk, event):
        await tell(
            talk, {"serverContent": SPOKEN, **usage(90, 9)}, {"serverContent": SPOKEN}, {"serverContent": COMPLETE}
        )

    _, records = await talked(serve, early, [ask()], 3)
    assert [told(record) for record in records] == [("ok", 90, 9)]


async def test_each_use_that_is_told_within_a_turn_is_billed(serve):
    async def twice(talk, event):
        await tell(talk, {"serverContent": SPOKEN, **usage(90, 9)}, {"serverContent": COMPLETE, **usage(95, 5)})

    _, records = await talked(serve, twice, [ask()], 2)
    assert [told(record) for record in records] == [("ok", 90, 9), ("ok", 95, 5)]


async def test_an_interrupted_turn_and_the_one_that_interrupts_it(serve):
    async def barge(talk, event):
        if talk.number:
            done = {"serverContent": {"interrupted": True}}, {"serverContent": COMPLETE, **usage(50, 2)}
            await tell(talk, *done, {"serverContent": SPOKEN}, {"serverContent": COMPLETE, **usage(60, 3)})
        else:
            talk.next_id()
            await tell(talk, {"serverContent": SPOKEN})

    _, records = await talked(serve, barge, [ask(), ask()], 5)
    assert [told(record) for record in records] == [("ok", 50, 2), ("ok", 60, 3)]


async def test_a_turn_that_never_tells_what_it_used_is_unknown(serve):
    async def silent(talk, event):
        await tell(talk, {"serverContent": SPOKEN}, {"serverContent": COMPLETE})

    before, records = await talked(serve, silent, [ask()], 2)
    assert before == []
    assert [told(record) for record in records] == [("ok", None, None)]


async def test_what_is_under_way_when_the_client_leaves(serve):
    async def begins(talk, event):
        await tell(talk, {"serverContent": SPOKEN})

    _, records = await talked(serve, begins, [ask()], 1)
    assert [told(record) for record in records] == [("client_left", None, None)]


async def test_turns_without_an_end_ask_for_nothing(serve):
    async def nothing(talk, event):
        await tell(talk, {"sessionResumptionUpdate": {}})

    history = {"client_content": {"turns": [], "turn_complete": False}}
    _, records = await talked(serve, nothing, [history], 1)
    assert records == []


async def test_a_long_turn_is_known_by_its_end_and_long_audio_by_its_own(serve):
    long = {"serverContent": {**SPOKEN, "words": "x" * 300_000, **COMPLETE}, **usage(70, 4)}

    async def answers(talk, event):
        await tell(talk, long)

    _, records = await talked(serve, answers, [ask("word " * 60_000)], 1)
    assert [told(record) for record in records] == [("ok", 70, 4)]
    assert records[0]["request_model"] == MODEL


async def test_searches_are_told_once_however_often_they_are_repeated(serve):
    grounded = {"serverContent": {**SPOKEN, "groundingMetadata": {"webSearchQueries": ["a", "b"]}}}

    async def search(talk, event):
        await tell(talk, grounded, grounded, {"serverContent": COMPLETE, **usage()})

    _, (record,) = await talked(serve, search, [ask()], 3)
    assert record["web_search_requests"] == 1  # a model of Gemini 2 is billed by the prompt


async def test_vertex_names_its_region_in_the_setup(serve):
    path = "/ws/google.cloud.aiplatform.v1beta1.LlmBidiService/BidiGenerateContent"
    model = f"projects/p/locations/europe-west4/publishers/google/models/{MODEL}"
    vertex = {"name": "vertex", "provider": "vertex"}
    async with WebSocketProvider(converse) as provider, serve(provider, upstream=vertex) as running:
        async with session(running, path, {"setup": {"model": model}}) as socket:
            await socket.send(json.dumps(ask()))
            await until(socket, "usageMetadata")
        (record,) = running.records
    assert (record["request_model"], record["region"]) == (MODEL, "europe-west4")


SECRET = "tm-" + "c" * 64


@pytest.mark.parametrize("where", ["header", "query"])
async def test_an_allow_list_holds_for_what_the_setup_names(serve, where):
    key = ProxyKey(id="key_1", workspace="team", sha256=digest(SECRET), models=("gemini-live*",))
    headers = {"x-goog-api-key": SECRET} if where == "header" else {}
    path = PATH + (f"?key={SECRET}" if where == "query" else "")
    async with WebSocketProvider(converse) as provider, serve(provider, upstream=GOOGLE, keys=[key]) as running:
        async with session(running, path, headers=headers) as socket:
            await socket.send(json.dumps(ask()))
            await until(socket, "usageMetadata")
        other = {"setup": {"model": "models/gemini-3.8-live"}}
        async with connect(url(running, path), additional_headers=headers) as socket:
            await socket.send(json.dumps(other))
            error = await until(socket, "code")
            assert (error["code"], error["status"]) == (403, "PERMISSION_DENIED")
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
        (record,) = running.records
    assert code_of(closed.value) == 1008
    assert (record["key_id"], record["workspace"]) == ("key_1", "team")
    assert other not in [json.loads(message) for message in provider.received]
    assert all(SECRET not in request.path + str(request.headers) for request in provider.requests)


async def test_a_turn_over_budget_is_answered_in_googles_form_and_the_connection_stays(serve, gated, redis):
    bounded = {"setup": {**SETUP["setup"], "generationConfig": {"maxOutputTokens": 50}}}
    of_window = budget(limit=130_000)
    async with WebSocketProvider(converse) as provider, serve(provider, upstream=GOOGLE) as running:
        gated(running, of_window)
        async with session(running, "/w/acme" + PATH, bounded) as socket:
            await socket.send(json.dumps(ask()))
            await until(socket, "usageMetadata")
            await spend(redis, 129_000, of_window)
            await socket.send(json.dumps(ask()))
            error = await until(socket, "code")
            assert (error["code"], error["status"]) == (429, "RESOURCE_EXHAUSTED")
            await (await socket.ping())
        answered, refused = running.records
    assert (answered["outcome"], answered["tags"]) == ("ok", {"budgets": "b1"})
    assert (refused["outcome"], refused["error_code"]) == ("refused", "insufficient_quota")
    assert len(provider.received) == 2


@contextlib.asynccontextmanager
async def encrypted(port, context):
    """What stands before the data port where it is reached over TLS."""

    async def both(reader, writer):
        inner, outer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.TaskGroup() as group:
            group.create_task(_pipe(reader, outer))
            group.create_task(_pipe(inner, writer))

    server = await asyncio.start_server(both, "localhost", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def _pipe(reader, writer):
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def test_googles_own_client(serve):
    authority = trustme.CA()
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(served)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with WebSocketProvider(converse) as provider, serve(provider, upstream=GOOGLE) as running:
        async with encrypted(running.port, served) as port:
            options = types.HttpOptions(
                base_url=f"https://localhost:{port}/w/acme", async_client_args={"ssl": trusting}, api_version="v1beta"
            )
            spoken = types.LiveConnectConfig(response_modalities=[types.Modality.AUDIO])
            client = genai.Client(api_key="g-own", http_options=options)
            async with client.aio.live.connect(model=MODEL, config=spoken) as live:
                await live.send_client_content(turns={"role": "user", "parts": [{"text": "hi"}]}, turn_complete=True)
                seen = [message async for message in live.receive()]
        (record,) = running.records
    (request,) = provider.requests
    assert request.headers["x-goog-api-key"] == "g-own" and request.path == PATH
    counted = seen[-1].usage_metadata
    assert counted is not None and counted.total_token_count == record["total_tokens"] == 162
    assert (record["workspace"], record["request_model"]) == ("acme", MODEL)
