"""Sessions that do nothing cost little, and long messages are not kept."""

import gc
import json
import tracemalloc
from contextlib import AsyncExitStack

from websockets.asyncio.client import connect

from gateway.test_websockets import own, until, url
from websocket_provider import WebSocketProvider

SESSIONS = 50
MOST_BYTES = 12 * 1024
"""Of a session that is idle, in what our own code allocates; without its two sockets' transports."""
OURS = [tracemalloc.Filter(True, "*/proxy/taximeter/*")]


def held_bytes() -> int:
    gc.collect()
    return sum(each.size for each in tracemalloc.take_snapshot().filter_traces(OURS).statistics("filename"))


async def test_an_idle_session_holds_little(serve):
    async with WebSocketProvider() as provider, serve(provider) as running, AsyncExitStack() as sockets:
        async with connect(url(running), **own()) as first:
            await until(first, "session.created")
        tracemalloc.start()
        try:
            before = held_bytes()
            for _ in range(SESSIONS):
                socket = await sockets.enter_async_context(connect(url(running), **own()))
                await until(socket, "session.created")
            each_bytes = (held_bytes() - before) / SESSIONS
        finally:
            tracemalloc.stop()
    assert each_bytes < MOST_BYTES


async def test_a_message_of_ten_megabytes_arrives_whole_and_leaves_nothing_behind(serve):
    audio = json.dumps({"type": "input_audio_buffer.append", "audio": "A" * 10_000_000})

    async def back(talk, event):
        await talk.say("conversation.item.done", item={"audio": event["audio"]})

    async with (
        WebSocketProvider(back) as provider,
        serve(provider) as running,
        connect(url(running), max_size=None, **own()) as socket,
    ):
        await until(socket, "session.created")
        tracemalloc.start()
        try:
            before = held_bytes()
            await socket.send(audio)
            event = await until(socket, "conversation.item.done")
            held = held_bytes() - before
        finally:
            tracemalloc.stop()
    assert len(event["item"]["audio"]) == 10_000_000
    assert provider.received == [audio]
    assert held < 1_000_000
