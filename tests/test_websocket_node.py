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
        upstream = f'name = "openai"\nbase_url = "{self._base_url}"\nforward_credentials = true\n'
        self.file.write_text(f"{top}\n[limits]\nshutdown_s = 0.2\n[[upstream]]\n{upstream}")

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


async def test_a_killed_workers_response_is_settled_once_and_a_reload_lets_one_end(served: Served) -> None:
    socket = await served.begun()
    os.kill(served.node.child("worker 1"), signal.SIGKILL)
    with pytest.raises(ConnectionClosed):
        await socket.recv()
    await happens(served.node.records)
    busy, idle = await served.begun(), await connect(served.url)
    await until(idle, "session.created")
    served.write("workers = 2")
    done = await asyncio.to_thread(served.node.run, "reload")
    assert done.returncode == 0, done.stderr
    assert await closed_with(idle) == 1012
    await busy.send(GO)
    await until(busy, "response.done")
    assert await closed_with(busy) == 1012
    last = await served.begun()
    assert await asyncio.to_thread(served.node.stop) == 0
    await last.close()
    cut, ended, left = sorted(served.node.records(), key=lambda record: str(record["started_at"]))
    assert (cut["outcome"], cut["api"], cut["workspace"]) == ("interrupted", "realtime", "acme")
    assert (ended["outcome"], ended["total_tokens"]) == ("ok", 253)
    assert left["outcome"] == "interrupted"


async def closed_with(socket: ClientConnection) -> int:
    """The close code that the other end sent."""
    with pytest.raises(ConnectionClosed) as closed:
        await socket.recv()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code
