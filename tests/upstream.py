"""A scripted provider on a real socket: OpenAI-like by itself, and byte by byte as bad as a test wants it.

    async with Provider() as provider:
        provider.script(response(b"{}"), gate, b"more", RESET)     # the next request's answer; else openai_like answers
        ...                                                        # talk to provider.base_url
        await provider.until(lambda: provider.requests[0].client_left)

As a process: `python tests/upstream.py --port 0 --ledger FILE`; its first line of output is the port.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import enum
import hashlib
import json
import os
import secrets
import socket
import ssl as tls
import struct
import sys
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import openai_like
from waits import HANG_S

KEEP_BODY_BYTES = 4 * 1024 * 1024
"""A longer request body is hashed and counted, not kept."""
_HIGH_BYTES = 1024 * 1024


class Act(enum.Enum):
    """What a script can do beside sending bytes and waiting for an `asyncio.Event`."""

    CLOSE = "close"
    RESET = "reset"
    EOF = "half-close our side"
    STALL = "say nothing until the client leaves"


CLOSE, RESET, EOF, STALL = Act.CLOSE, Act.RESET, Act.EOF, Act.STALL
LAST_CHUNK = b"0\r\n\r\n"


@dataclass(slots=True)
class Request:
    """A request as it came in; `complete` once its body is whole."""

    connection: int
    raw_head: bytes
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    body_bytes: int = 0
    body_sha256: str = ""
    complete: bool = False
    client_left: bool = False
    answered: bool = False

    def header(self, name: str) -> str | None:
        """The values of a header, joined by a comma; None when it is absent. `name` in lower case."""
        values = [value for key, value in self.headers if key == name]
        return ", ".join(values) if values else None

    @property
    def x_headers(self) -> dict[str, str]:
        """Every X-* header, so a test can say that nothing leaked."""
        return {key: value for key, value in self.headers if key.startswith("x-")}

    def json(self) -> Any:
        return json.loads(self.body)


Step = bytes | asyncio.Event | Act | Callable[[Request], bytes | None]


@dataclass(slots=True)
class Script:
    """Steps to run for one request; `at_head`: before its body has been read."""

    steps: tuple[Step, ...]
    at_head: bool = False


@dataclass(slots=True)
class Billed:
    """One call the provider charged for. `complete` is False when the client left before the end."""

    request_id: str
    path: str
    model: str | None
    usage: dict[str, Any]
    stream: bool
    complete: bool
    connection: int
    marker: str | None = None


def response(
    body: bytes = b"", status: int = 200, headers: Iterable[tuple[str, str]] = (), *, framing: str = "length"
) -> bytes:
    """A whole answer as bytes. `framing`: length | chunked (one chunk and the last one) | close (neither)."""
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in headers)]
    if framing == "length":
        lines.append(f"content-length: {len(body)}")
    elif framing == "chunked":
        lines.append("transfer-encoding: chunked")
        body = chunk(body) + LAST_CHUNK
    return "\r\n".join([*lines, "", ""]).encode() + body


def stream_head(status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """The head of a chunked event stream; follow it with `chunk(…)` steps and LAST_CHUNK."""
    fields = [("content-type", "text/event-stream"), ("transfer-encoding", "chunked"), *headers]
    return response(status=status, headers=fields, framing="close")


def chunk(data: bytes) -> bytes:
    """Chunk framing around data; empty data gives nothing (an empty chunk would be the last one)."""
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""


@dataclass
class Provider:
    """See the module's docstring. `base_url` is what a client would be configured with."""

    host: str = "127.0.0.1"
    port: int = 0
    ssl: tls.SSLContext | None = None
    chunks: int = 0
    """Least number of words a generated text has, and so of deltas in a stream."""
    chunk_ms: float = 0
    delay_ms: float = 0
    api_key: str | None = None
    """Set: any other `Authorization: Bearer` is answered with 401."""
    reject_stream_options: bool = False
    ledger_file: str | None = None
    idle_close_ms: float | None = None
    """It closes a connection that has been idle for so long behind an answer; None: never."""
    on_connect: tuple[Step, ...] = ()
    """Steps to run as soon as a connection stands, before any request is read."""
    handler: Callable[[Request], Script | None] | None = None
    """Asked for a script when none is queued; None: the default behaviour answers."""
    answering: Callable[[Request], Script | None] | None = None
    """Asked as the last one, with the request's body: another provider than OpenAI (tests/providers)."""

    requests: list[Request] = field(default_factory=list)
    ledger: list[Billed] = field(default_factory=list)
    connections: int = 0
    open_connections: int = 0

    def __post_init__(self) -> None:
        self._scripts: deque[Script] = deque()
        self._news = asyncio.Event()
        self._live: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._ledger_fd: int | None = None
        self._name = secrets.token_hex(4)
        self._calls = 0

    @property
    def url(self) -> str:
        return f"{'https' if self.ssl else 'http'}://{self.host}:{self.port}"

    @property
    def base_url(self) -> str:
        return self.url + "/v1"

    async def __aenter__(self) -> Provider:
        if self.ledger_file:
            self._ledger_fd = os.open(self.ledger_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self), self.host, self.port, ssl=self.ssl, backlog=4096
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        tasks = [connection.task for connection in self._live]
        for connection in list(self._live):
            connection.transport.abort()
            connection.task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._ledger_fd is not None:
            os.close(self._ledger_fd)

    def script(self, *steps: Step, at_head: bool = False) -> None:
        """Queue the answer to one request (first come, first served)."""
        self._scripts.append(Script(steps, at_head))

    def drop_connections(self) -> None:
        """Reset every open connection."""
        for connection in list(self._live):
            connection.reset()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something that this provider sees (a request, a client leaving) makes `condition` true."""
        async with asyncio.timeout(HANG_S):
            while not condition():
                self._news.clear()
                await self._news.wait()

    def told(self) -> None:
        self._news.set()

    def next_script(self, request: Request) -> Script | None:
        if self._scripts:
            return self._scripts.popleft()
        return self.handler(request) if self.handler else None

    def new_call_id(self) -> str:
        self._calls += 1
        return f"{self._name}-{self._calls}"

    def bill(self, billed: Billed) -> None:
        """Write down a charge, in the file with one write so that it survives whatever is killed next."""
        self.ledger.append(billed)
        if self._ledger_fd is not None:
            line = {name: getattr(billed, name) for name in Billed.__slots__}
            os.write(self._ledger_fd, json.dumps(line).encode() + b"\n")
        self.told()


class _Left(Exception):
    """The client is gone."""


class _Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.buffer = bytearray()
        self.news = asyncio.Event()
        self.lost = asyncio.Event()
        self.writable = asyncio.Event()
        self.writable.set()
        self.reading = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self.provider.connections += 1
        self.provider.open_connections += 1
        self.number = self.provider.connections
        self.provider._live.add(self)
        self.task = asyncio.get_running_loop().create_task(self.serve())
        self.provider.told()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self.news.set()
        if len(self.buffer) > _HIGH_BYTES and self.reading:
            self.reading = False
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self._gone()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone()
        self.provider._live.discard(self)
        self.provider.open_connections -= 1
        self.provider.told()

    def _gone(self) -> None:
        self.lost.set()
        self.news.set()
        self.writable.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def reset(self) -> None:
        """Send a TCP reset instead of a FIN."""
        raw = self.transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    async def more(self) -> None:
        """Wait for more bytes in the buffer."""
        if self.lost.is_set():
            raise _Left
        if not self.reading:
            self.reading = True
            self.transport.resume_reading()
        self.news.clear()
        await self.news.wait()

    async def send(self, data: bytes) -> None:
        if self.lost.is_set() or self.transport.is_closing():
            raise _Left
        self.transport.write(data)
        await self.writable.wait()

    async def pause(self, milliseconds: float) -> None:
        """A provider that takes its time, but notices when the client leaves meanwhile."""
        if milliseconds > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.lost.wait(), milliseconds / 1000)
                raise _Left

    async def serve(self) -> None:
        try:
            await self.run(self.provider.on_connect, None)
            while True:
                await self.one()
                if idle_ms := self.provider.idle_close_ms:
                    await self.next_within(idle_ms)
        except (_Left, OSError):
            pass
        finally:
            self.transport.close()

    async def next_within(self, milliseconds: float) -> None:
        """Wait for the next request so long, then close the connection."""
        try:
            while not self.buffer:
                await asyncio.wait_for(self.more(), milliseconds / 1000)
        except TimeoutError:
            raise _Left from None

    async def one(self) -> None:
        """Read one request and answer it."""
        provider = self.provider
        while (end := self.buffer.find(b"\r\n\r\n")) < 0:
            await self.more()
        raw_head = bytes(self.buffer[: end + 4])
        del self.buffer[: end + 4]
        first, *lines = raw_head[:-4].decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        pairs = (line.partition(":") for line in lines)
        headers = [(name.lower(), value.strip()) for name, _, value in pairs]
        request = Request(self.number, raw_head, method, target, headers)
        provider.requests.append(request)
        provider.told()
        try:
            script = provider.next_script(request)
            if script is not None and script.at_head:
                await self.run(script.steps, request)
            await self.read_body(request)
            if script is None and provider.answering is not None:
                script = provider.answering(request)
            if script is None:
                await self.answer(request)
            elif not script.at_head:
                await self.run(script.steps, request)
            request.answered = True
            provider.told()
        except (_Left, OSError):
            request.client_left = self.lost.is_set()
            provider.told()
            raise

    async def read_body(self, request: Request) -> None:
        digest = hashlib.sha256()
        kept = bytearray()

        def take(size: int) -> None:
            data = self.buffer[:size]
            del self.buffer[:size]
            digest.update(data)
            request.body_bytes += len(data)
            if len(kept) < KEEP_BODY_BYTES:
                kept.extend(data)

        async def exactly(size: int) -> None:
            while size:
                while not self.buffer:
                    await self.more()
                part = min(size, len(self.buffer))
                take(part)
                size -= part

        if request.header("transfer-encoding") == "chunked":
            size = -1
            while size:
                while (end := self.buffer.find(b"\r\n")) < 0:
                    await self.more()
                size = int(self.buffer[:end], 16)
                del self.buffer[: end + 2]
                await exactly(size)
                while len(self.buffer) < 2:
                    await self.more()
                del self.buffer[:2]
        else:
            await exactly(int(request.header("content-length") or 0))
        request.body = bytes(kept)
        request.body_sha256 = digest.hexdigest()
        request.complete = True
        self.provider.told()

    async def run(self, steps: Iterable[Step], request: Request | None) -> None:
        for step in steps:
            if isinstance(step, bytes):
                await self.send(step)
            elif isinstance(step, asyncio.Event):
                await self.gate(step)
            elif step is CLOSE:
                self.transport.close()
                raise _Left
            elif step is RESET:
                self.reset()
                raise _Left
            elif step is EOF:
                self.transport.write_eof()
            elif step is STALL:
                await self.lost.wait()
                raise _Left
            elif callable(step) and request is not None:
                await self.send(step(request) or b"")

    async def gate(self, event: asyncio.Event) -> None:
        """Wait for a test's event, or notice that the client has left."""
        loop = asyncio.get_running_loop()
        waits = [loop.create_task(event.wait()), loop.create_task(self.lost.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self.lost.is_set() and not event.is_set():
            raise _Left

    async def answer(self, request: Request) -> None:
        """The default behaviour: what OpenAI would do, from `openai_like`."""
        provider = self.provider
        path = request.target.partition("?")[0]
        call_id = provider.new_call_id()
        if provider.api_key is not None and request.header("authorization") != f"Bearer {provider.api_key}":
            answer = openai_like.error(401, "Incorrect API key provided.", "invalid_api_key")
        elif request.method in ("GET", "HEAD"):
            found = path.endswith("/models")
            answer = openai_like.Answer(body=openai_like.models()) if found else openai_like.error(404, path, None)
        else:
            answer = openai_like.answer(
                path,
                request.body,
                call_id=call_id,
                chunks=provider.chunks,
                reject_stream_options=provider.reject_stream_options,
            )
            if path.endswith("/files"):
                answer.body |= {"bytes": request.body_bytes, "sha256": request.body_sha256}
        marker = request.header("x-marker")
        usage = answer.usage or {}
        billed = Billed(
            f"req-{call_id}", path, answer.model, usage, answer.events is not None, True, self.number, marker
        )
        own = [("x-request-id", billed.request_id), ("openai-processing-ms", "1")]
        if answer.events is not None:
            await self.stream(answer, billed, own)
            return
        try:
            await self.pause(provider.delay_ms)
        finally:  # a unary call is charged even when the client has left
            if answer.usage is not None:
                provider.bill(billed)
        body = json.dumps(answer.body).encode()
        whole = response(body, answer.status, [("content-type", "application/json"), *own])
        await self.send(whole if request.method != "HEAD" else whole[: len(whole) - len(body)])

    async def stream(self, answer: openai_like.Answer, billed: Billed, own: list[tuple[str, str]]) -> None:
        assert answer.events is not None
        *events, last = answer.events
        billed.complete = False
        try:
            await self.pause(self.provider.delay_ms)
            await self.send(stream_head(answer.status, own))
            for event in events:
                await self.send(chunk(event))
                await self.pause(self.provider.chunk_ms)
            billed.complete = True
        finally:  # the charge is on the books before the client can see the end
            self.provider.bill(billed)
        await self.send(chunk(last) + LAST_CHUNK)


async def _main() -> None:
    parser = argparse.ArgumentParser(description="A scripted OpenAI-like provider.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ledger", help="append a JSON line per billed call to this file")
    parser.add_argument("--chunks", type=int, default=0, help="least number of words in a generated text")
    parser.add_argument("--chunk-ms", type=float, default=0)
    parser.add_argument("--delay-ms", type=float, default=0)
    parser.add_argument("--api-key")
    args = parser.parse_args()
    provider = Provider(
        host=args.host,
        port=args.port,
        ledger_file=args.ledger,
        chunks=args.chunks,
        chunk_ms=args.chunk_ms,
        delay_ms=args.delay_ms,
        api_key=args.api_key,
    )
    async with provider:
        sys.stdout.write(f"{provider.port}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main())
