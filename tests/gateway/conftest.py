"""A worker's gateway in this process: the real server on a real socket, a real journal, the scripted provider."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from taximeter.config import LimitSettings, Settings
from taximeter.core import loops
from taximeter.core.errors import UpstreamError
from taximeter.core.hosts import Hosts
from taximeter.core.record import Source
from taximeter.gateway.admission.admission import Admission
from taximeter.gateway.handler import Gateway
from taximeter.gateway.metering.metering import Metering
from taximeter.gateway.tagging import dropped_headers
from taximeter.gateway.upstream.upstreams import Upstreams
from taximeter.gateway.websocket.handshake import WebSockets
from taximeter.journal import Journal
from taximeter.keys.rule import Keys, ProxyKey
from taximeter.server import server as server_module
from taximeter.server.client import at_once
from taximeter.server.exchange import Exchange
from taximeter.server.server import Server
from waits import HANG_S, happens


class FlatPrices:
    """1,000 nano-USD an input token, 2,000 an output token: figures a test can check by hand."""

    def why(self, record):
        return None

    def cost(self, record):
        if record.input_tokens is None or record.cost_note is not None:
            return None, None
        return record.input_tokens * 1_000 + (record.output_tokens or 0) * 2_000, "flat"

    def dearest_nusd(self, call, models, tiers, most):
        searches = most.web_searches * 10_000_000 + most.search_units * 2_000_000 + most.seconds * 100_000
        return most.input_tokens * 1_000 + most.output_tokens * 2_000 + searches, True

    def context_tokens(self, provider, model, *, longest=True):
        return 128_000


class Words:
    """A token is a word."""

    async def count(self, countable, *, model, provider, tokenizer=""):
        tokens = countable.tokens + sum(len(text.split()) for text in countable.texts)
        return WordCount(tokens, "words", Source.COUNTED)


class WordCount(NamedTuple):
    tokens: int
    tokenizer: str
    source: Source


class Running:
    """A gateway in service."""

    def __init__(self, gate: Gateway, journal: Journal, directory: Path, port: int) -> None:
        self.gate = gate
        self.journal = journal
        self.directory = directory
        self.port = port
        self.server: Server
        self.exchanges: list[Exchange]
        self.url = f"http://127.0.0.1:{port}"

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """All journal lines of a kind, in the order written."""
        found = []
        for file in sorted(self.directory.glob("*.jsonl")):
            found += [line[kind] for line in map(json.loads, file.read_text().splitlines()) if kind in line]
        return found

    @property
    def records(self) -> list[dict[str, Any]]:
        return self.lines("close")

    def break_journal(self) -> None:
        """Make every further write fail, as a full disk would."""
        import os

        for file in self.journal._files.all:
            os.close(file.fd)
            file.fd = os.open(file.path, os.O_RDONLY)

    def watched_left(self) -> bool:
        """Whether a relay has noticed that its client is gone."""
        return any(exchange.left for exchange in self.exchanges)

    async def record(self, number: int = 0) -> dict[str, Any]:
        """The n-th record, as soon as it is written (a counted one comes after its answer)."""
        await happens(lambda: len(self.records) > number)
        return self.records[number]


class Edged:
    """A handler of exchanges on our connections."""

    def __init__(self, server: Server, port: int) -> None:
        self.server, self.port = server, port
        self.opened: list[asyncio.StreamWriter] = []

    async def open(self, request: bytes = b"", **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the edge, closed with it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, **options)
        self.opened.append(writer)
        writer.write(request)
        return reader, writer

    async def ask(self, request: bytes) -> bytes:
        """Everything that comes until the connection is closed. Raises ConnectionResetError where it is reset."""
        reader, writer = await self.open(request)
        try:
            return await asyncio.wait_for(reader.read(), HANG_S)
        finally:
            writer.close()


@pytest.fixture
def edged() -> Callable[..., Any]:
    """`async with edged(handler, **limits) as edge`."""

    @contextlib.asynccontextmanager
    async def serving(handler: Callable[[Exchange], Any], *, then=at_once, **limits: Any) -> AsyncIterator[Edged]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = Server(handler, LimitSettings(**limits), then=then)
            async with asyncio.TaskGroup() as group:
                task = group.create_task(server.serve([listener]))
                edge = Edged(server, listener.getsockname()[1])
                try:
                    yield edge
                finally:
                    for writer in edge.opened:
                        writer.close()
                server.stop()
                await task

    return serving


@pytest.fixture
def warm() -> bool:
    """Whether a connection to the provider stands before the first call: then that call is never a task."""
    return False


@pytest.fixture
def serve(tmp_path, monkeypatch, warm) -> Callable[..., Any]:
    """`async with serve(provider, upstream={…}, **settings) as running`."""

    @contextlib.asynccontextmanager
    async def serving(
        provider,
        *,
        upstream: dict[str, Any] | None = None,
        upstreams: Sequence[dict[str, Any]] = (),
        keys: Sequence[ProxyKey] = (),
        **more,
    ) -> AsyncIterator[Running]:
        base = {"name": "openai", "base_url": provider.base_url, "forward_credentials": True, **(upstream or {})}
        settings = msgspec.convert({"upstream": [base, *upstreams], "data_dir": str(tmp_path), **more}, Settings)
        journal = Journal(
            Path(settings.data_dir) / "journal",
            node="n",
            worker="w",
            settings=settings.journal,
            now_us=lambda: time.time_ns() // 1000,
            batched=True,
        )
        made = Upstreams(
            settings.upstream,
            drop=dropped_headers(settings),
            then=journal.after_written,
            admin_token_sha256=settings.auth.admin_token_sha256,
            mark=loops.mark(settings.node),
        )
        hosts = Hosts(settings.control.allowed_hosts, origins_setting="cors.allowed_origins")
        gate = Gateway(
            settings,
            metering=Metering(settings, journal=journal, prices=FlatPrices(), tokenizers=Words()),
            upstreams=made,
            admission=Admission(Keys(keys), hosts, required=settings.auth.mode == "keys"),
        )
        if warm:
            with contextlib.suppress(UpstreamError):
                transport: Any = made.all[0]._transport
                pool = transport.pool
                pool.release(await pool.connect())
        listener = socket.create_server(("127.0.0.1", 0))
        exchanges: list[Exchange] = []

        async def handle(exchange: Exchange) -> None:
            exchanges.append(exchange)
            await gate(exchange)

        sockets = WebSockets(settings, metering=gate.metering, upstreams=made, admission=gate.admission)
        server = Server(handle, settings.limits, then=journal.after_written, websockets=sockets)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await happens(lambda: server.started)
        running = Running(gate, journal, Path(settings.data_dir) / "journal", listener.getsockname()[1])
        running.server, running.exchanges = server, exchanges

        monkeypatch.setattr(server_module, "UNREAD_WAIT_S", 0)  # what it is for is tested with the server
        try:
            yield running
        finally:
            server.stop()
            await serving
            await made.close()
            journal.shutdown()

    return serving


@pytest.fixture
def both(provider) -> Callable[..., Any]:
    """`await both(clients, read)`: what `read(client)` gives directly and through the proxy, which must be the same,
    and so must be what the provider saw. Answers are models of any SDK, in lists or not."""

    async def reading(clients, read, *, same_request: bool = True) -> Any:
        direct, through, _ = clients
        before = len(provider.requests)
        one, two = plain(await read(direct)), plain(await read(through))
        assert one == two
        first, second = provider.requests[before:]
        assert (first.method, first.target) == (second.method, second.target)
        if same_request:
            assert first.body == second.body
        ours = {name for name, _ in second.headers if name.startswith(("x-taximeter", "x-workspace", "x-track"))}
        assert not ours
        return two

    return reading


def plain(answer: Any) -> Any:
    """An SDK's models as plain values."""
    if isinstance(answer, list):
        return [plain(one) for one in answer]
    return answer.model_dump(exclude={"sdk_http_response"}) if hasattr(answer, "model_dump") else answer


@pytest.fixture
def billed() -> Callable[..., dict[str, Any]]:
    """The members of a record that a test names, to be compared as one value."""
    return lambda record, names: {name: record.get(name) for name in names}
