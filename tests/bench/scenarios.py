"""The kinds of call that proxies are compared by: what is posted where, by which load."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench import processes, streams, wrk
from bench.figures import Load
from bench.running import CHAT, EMBEDDINGS, MESSAGES, Running

STREAM_CHUNKS, CHUNK_GAP_MS = 100, 5


@dataclass(frozen=True)
class Scenario:
    """One kind of call: what is posted where, by how many connections; the arguments of its provider."""

    name: str
    path: str
    body: bytes
    connections: int
    provider: list[str] = field(default_factory=list)
    of: str = "openai"
    """Whose API it is."""
    unread_path: str = ""
    """A path that means the same to the provider, and whose answers Taximeter relays without reading their usage."""

    @contextlib.contextmanager
    def upstream(self, folder: Path, *, first: bool = False) -> Iterator[int]:
        """The provider on the load's core; its port. `first`: what else runs on that core has to wait for it."""
        port = processes.free_port()
        argv = [sys.executable, str(Path(__file__).with_name("provider.py")), "--port", str(port), *self.provider]
        process = processes.start(argv, processes.LOAD_CORE, log=folder / "provider.log")
        try:
            processes.until_open(port, process)
            if first:
                processes.come_first(process.pid, 1)
            yield port
        finally:
            processes.stop(process)

    def load(
        self, running: Running, folder: Path, seconds: float, path: str = "", *, each_another: bool = False
    ) -> Load:
        """Load a proxy for `seconds`; what failed is counted. `each_another`: no request has the head of another."""
        body = running.named(self.body)
        lua = wrk.script(folder / "post.lua", body, running.headers, each_another=each_another)
        return wrk.run(
            running.url + (path or self.path), lua, connections=running.connections(self.connections), seconds=seconds
        )


class Streams(Scenario):
    """Streams that are all read to their end: wrk would cut the last of each connection."""

    def load(
        self, running: Running, folder: Path, seconds: float, path: str = "", *, each_another: bool = False
    ) -> Load:
        return streams.to_the_end(
            running.url + (path or self.path),
            running.named(self.body),
            connections=running.connections(self.connections),
            seconds=seconds,
            headers=running.headers,
        )


def chat(**more: object) -> bytes:
    message = {"role": "user", "content": "How much does a call cost?"}
    return json.dumps({"model": "gpt-4o-mini", "messages": [message], **more}).encode()


UNREAD = "/assistants"
"""To the bench's provider a chat call; to Taximeter no inference, so recorded and delivered, but not read or priced."""

UNARY = Scenario("unary", CHAT, chat(), 32, unread_path=UNREAD)
STREAM = Streams(
    "stream",
    CHAT,
    chat(stream=True),
    64,
    ["--chunks", str(STREAM_CHUNKS), "--chunk-ms", str(CHUNK_GAP_MS)],
    unread_path=UNREAD,
)
EMBEDDING = Scenario(
    "embeddings 2 MB",
    EMBEDDINGS,
    json.dumps({"model": "text-embedding-3-small", "input": ["text"] * 64}).encode(),
    8,
    ["--embedding-bytes", str(2 * 1024 * 1024)],
)
PROMPT = Scenario("prompt 100 KB", CHAT, chat(pad="x " * 50_000), 16)
MESSAGE = Scenario("messages", MESSAGES, chat(model="claude-sonnet-4-5", max_tokens=64), 32, of="anthropic")
"""Anthropic's API, which LiteLLM has in Rust."""
SCENARIOS = (UNARY, STREAM, MESSAGE, EMBEDDING, PROMPT)
