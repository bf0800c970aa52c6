"""WebSockets: a connection lasts, and what holds for it may change meanwhile; what has begun by then is counted."""

import json

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gateway.test_breakers import trip
from gateway.test_websocket_limits import ASKED
from gateway.test_websockets import CREATE, HEARD, code_of, own, until, url
from taximeter.breaker.rule import Trips
from taximeter.keys.rule import Keys, ProxyKey, digest
from waits import happens
from websocket_provider import WebSocketProvider, answer

SECRET = "tm-" + "d" * 64
KEY = ProxyKey(id="key_1", workspace="acme", sha256=digest(SECRET))
NARROWED = ProxyKey(id="key_1", workspace="acme", sha256=digest(SECRET), models=("gpt-5",))
SPEECH = json.dumps({"type": "input_audio_buffer.append", "audio": "AAAA"})


async def speak(talk, event):
    """Whatever it is sent, the server begins a response."""
    await answer(talk, {"type": "response.create"})


def keyed(running, path="/v1/realtime?model=gpt-realtime"):
    headers = {"x-taximeter-key": SECRET, "authorization": "Bearer sk-own"}
    return connect(url(running, path), additional_headers=headers)


async def ends_with(socket, code):
    """The API's error, then the close."""
    assert (await until(socket, "error"))["error"]["code"] == code
    with pytest.raises(ConnectionClosed) as closed:
        await socket.recv()
    assert code_of(closed.value) == 1008


def counted(running):
    return [(record["outcome"], record.get("total_tokens")) for record in running.records]


async def test_what_the_server_begins_while_a_breaker_is_open_is_counted_and_ends_the_connection(serve):
    async with WebSocketProvider(speak) as provider, serve(provider) as running:
        async with connect(url(running), **own()) as socket:
            await until(socket, "session.created")
            running.gate.admission.use_trips(Trips([trip(track="talk")]))
            await socket.send(SPEECH)
            await until(socket, "response.done")
            await ends_with(socket, "breaker_open")
        assert counted(running) == [("ok", 253)]


@pytest.mark.parametrize(("keys", "code"), [([], "invalid_api_key"), ([NARROWED], "forbidden")])
async def test_what_the_server_begins_for_a_key_that_may_no_more_is_counted_and_ends_the_connection(serve, keys, code):
    async with WebSocketProvider(speak) as provider, serve(provider, keys=[KEY]) as running:
        async with keyed(running) as socket:
            await until(socket, "session.created")
            running.gate.admission.keys = Keys(keys)
            await socket.send(SPEECH)
            await until(socket, "response.done")
            await ends_with(socket, code)
        assert counted(running) == [("ok", 253)]
        assert running.records[0]["key_id"] == "key_1"


async def test_what_was_heard_for_a_revoked_key_is_counted_and_ends_the_connection(serve):
    async def hear(talk, event):
        await talk.say(HEARD, item_id="i", transcript="x", usage={"type": "duration", "seconds": 3})

    async with WebSocketProvider(hear) as provider, serve(provider, keys=[KEY]) as running:
        async with keyed(running) as socket:
            await until(socket, "session.created")
            running.gate.admission.keys = Keys([])
            await socket.send(SPEECH)
            await until(socket, HEARD)
            await ends_with(socket, "invalid_api_key")
        (record,) = running.records
    assert (record["seconds"], record["key_id"]) == (3, "key_1")


HEARS = {"audio": {"input": {"transcription": {"model": "gpt-4o-transcribe"}}}}


@pytest.mark.parametrize(
    "session", [HEARS, {"model": "gpt-5-pro"}, {"model": "gpt-5-pro", "instructions": "x" * 99_000}]
)
async def test_an_allow_list_holds_for_the_models_a_session_is_to_use(serve, session):
    update = {"type": "session.update", "event_id": "mine", "session": session}
    right = {"type": "session.update", "session": {"model": "gpt-5", "audio": {"output": {"voice": "marin"}}}}
    async with (
        WebSocketProvider() as provider,
        serve(provider, keys=[NARROWED]) as running,
        keyed(running, "/v1/realtime?model=gpt-5") as socket,
    ):
        await socket.send(json.dumps(update))
        error = (await until(socket, "error"))["error"]
        assert (error["code"], error["event_id"]) == ("forbidden", "mine")
        await socket.send(json.dumps(right))
        await happens(lambda: provider.received)
    assert [json.loads(message) for message in provider.received] == [right]


async def test_a_revoked_key_asks_for_nothing_more(serve):
    async with WebSocketProvider() as provider, serve(provider, keys=[KEY]) as running:
        async with keyed(running) as socket:
            await socket.send(CREATE)
            await until(socket, "response.done")
            running.gate.admission.keys = Keys([])
            await socket.send(CREATE)
            await ends_with(socket, "invalid_api_key")
        assert counted(running) == [("ok", 253), ("refused", None)]
    assert len(provider.received) == 1


async def test_an_allow_list_that_a_key_is_given_holds_for_its_open_connections(serve):
    async with (
        WebSocketProvider() as provider,
        serve(provider, keys=[KEY]) as running,
        keyed(running, "/v1/responses") as socket,
    ):
        other = json.dumps({**ASKED, "model": "gpt-5-pro", "input": "word " * 40_000})
        for keys, kind in (([KEY], "response.completed"), ([NARROWED], "error")):
            running.gate.admission.keys = Keys(keys)
            await socket.send(other)
            await until(socket, kind)
        await socket.send(json.dumps(ASKED))
        await until(socket, "response.completed")
    assert [json.loads(message)["model"] for message in provider.received] == ["gpt-5-pro", "gpt-5"]
