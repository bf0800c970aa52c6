"""WebSockets through a whole node: its worker killed, its settings reloaded, the node stopped."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from nodes import Node, node
from waits import happens
from websocket_provider import Talk, WebSocketProvider, begin, finish

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc"),
    pytest.mark.xdist_group("processes"),
]

CREATE = json.dumps({"type": "response.create"})
GO = json.dumps({"type": "go"})


async def half(talk: Talk, event: dict[str, object]) -> None:
    """Begins a response, and ends it when told to."""
    await (begin(talk, "resp_1") if event["type"] == "response.create" else finish(talk, "resp_1"))


class Served:
    """A node in front of a provider that answers by `half`."""

    def __init__(self, served: Node, provider: WebSocketProvider, folder: Path) -> None:
        self.node = served
        self.file = folder / "taximeter.toml"
        self._base_url = provider.base_url
        self.write()
        self.url = ""

    def write(self, top: str = "") -> None:
        self.file.write_text(
            f'{top}\n[[upstream]]\nname = "openai"\nbase_url = "{self._base_url}"\nforward_credentials = true\n'
        )

    async def start(self) -> None:
        runtime = await asyncio.to_thread(self.node.start)
        self.url = f"ws://{runtime.listen}/w/acme/v1/realtime?model=gpt-realtime"

    async def begun(self) -> ClientConnection:
        """A session with a response under way."""
        socket = await connect(self.url)
        await socket.send(CREATE)
        await until(socket, "response.output_text.delta")
        return socket


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with WebSocketProvider(half) as provider:
        with node(tmp_path) as made:
            running = Served(made, provider, tmp_path)
            await running.start()
            yield running


async def until(socket: ClientConnection, kind: str) -> None:
    while json.loads(await socket.recv())["type"] != kind:
        pass


async def test_a_response_under_way_in_a_killed_worker_is_settled_once_as_interrupted(served: Served) -> None:
    socket = await served.begun()
    os.kill(served.node.child("worker 1"), signal.SIGKILL)
    with pytest.raises(ConnectionClosed):
        await socket.recv()
    await happens(served.node.records)
    again = await connect(served.url)
    await again.send(CREATE)
    await again.send(GO)
    await until(again, "response.done")
    await again.close()
    await happens(lambda: len(served.node.records()) > 1)
    assert await asyncio.to_thread(served.node.stop) == 0
    first, second = sorted(served.node.records(), key=lambda record: str(record["started_at"]))
    assert (first["outcome"], first["api"], first["workspace"]) == ("interrupted", "realtime", "acme")
    assert (second["outcome"], second["total_tokens"]) == ("ok", 253)


async def test_a_reload_closes_idle_sessions_and_lets_a_response_end(served: Served) -> None:
    busy, idle = await served.begun(), await connect(served.url)
    await until(idle, "session.created")
    served.write("workers = 2")
    done = await asyncio.to_thread(served.node.run, "reload")
    assert done.returncode == 0, done.stderr
    with pytest.raises(ConnectionClosed) as closed:
        await idle.recv()
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012
    await busy.send(GO)
    await until(busy, "response.done")
    with pytest.raises(ConnectionClosed) as closed:
        await busy.recv()
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012
    (record,) = served.node.records()
    assert (record["outcome"], record["total_tokens"]) == ("ok", 253)
