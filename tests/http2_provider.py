"""A scripted HTTP/2 provider on a real socket, on `h2`: what each request is answered, and anything a server may do.

async with Http2Provider(max_streams=2) as provider:
    provider.script(answer)                    # `async def answer(call)`, for the next request; else `fine` answers
    ...
    await provider.until(lambda: provider.calls)
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl as tls
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    RequestReceived,
    SettingsAcknowledged,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from waits import HANG_S

Fields = list[tuple[bytes, bytes]]


class Gone(Exception):
    """The client has reset the stream, or hung up."""


@dataclass(eq=False)
class Call:
    """A request as it comes in, and its answer."""

    connection: Connection
    id: int
    fields: Fields
    body: bytearray = field(default_factory=bytearray)
    complete: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """The client has reset it, or hung up."""
    code: int | None = None
    """With which code the client has reset it."""

    def value(self, name: bytes) -> bytes | None:
        return dict(self.fields).get(name)

    def head(self, status: int = 200, fields: Iterable[tuple[str, str]] = (), *, last: bool = False) -> None:
        self.connection.h2.send_headers(self.id, [(":status", str(status)), *fields], end_stream=last)
        self.connection.flush()

    async def send(self, data: bytes, *, last: bool = False) -> None:
        """As fast as the client's windows allow."""
        h2 = self.connection.h2
        while True:
            if self.gone.is_set():
                raise Gone
            room = min(h2.local_flow_control_window(self.id), h2.max_outbound_frame_size, len(data))
            if room or not data:
                h2.send_data(self.id, data[:room], end_stream=last and room == len(data))
                data = data[room:]
                self.connection.flush()
            if not data:
                return
            if not room:
                await self.connection.news()

    def reset(self, code: ErrorCodes) -> None:
        self.connection.h2.reset_stream(self.id, code)
        self.connection.flush()


Answer = Callable[[Call], Awaitable[None]]


async def fine(call: Call) -> None:
    """The usual answer."""
    await call.complete.wait()
    call.head(200, [("content-type", "application/json")])
    await call.send(b'{"path": "%s"}' % (call.value(b":path") or b""), last=True)


class Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, provider: Http2Provider) -> None:
        self.provider = provider
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self.calls: dict[int, Call] = {}
        self.tasks: list[asyncio.Task[None]] = []
        self.open = True
        self.acknowledged = 0
        """Settings that the client has confirmed."""
        self._news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.provider.connections.append(self)
        self.h2.local_settings = Settings(client=False, initial_values=self.provider.settings)
        self.h2.initiate_connection()
        if not self.provider.silent:
            self.flush()
        self.provider.told()

    def data_received(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, RequestReceived):
                call = Call(self, event.stream_id, list(event.headers))
                self.calls[event.stream_id] = call
                self.provider.calls.append(call)
                answer = self.provider.next_answer()
                self.tasks.append(asyncio.get_running_loop().create_task(self.answer(call, answer)))
            elif isinstance(event, DataReceived):
                self.calls[event.stream_id].body += event.data
                if self.provider.reads and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                self.calls[event.stream_id].complete.set()
            elif isinstance(event, StreamReset):
                self.calls[event.stream_id].code = event.error_code
                self.calls[event.stream_id].gone.set()
            elif isinstance(event, SettingsAcknowledged):
                self.acknowledged += 1
            elif isinstance(event, WindowUpdated):
                pass
        self._news.set()
        if not self.provider.silent:
            self.flush()
        self.provider.told()

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        for call in self.calls.values():
            call.gone.set()
        self._news.set()
        self.provider.told()

    async def answer(self, call: Call, answer: Answer) -> None:
        with contextlib.suppress(Gone, H2Error):
            await answer(call)

    async def news(self) -> None:
        self._news.clear()
        await self._news.wait()

    def flush(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(self.h2.data_to_send())

    def goaway(self, last_stream_id: int, code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        """What runs goes on; `h2` itself would end its connection."""
        self.transport.write(GoAwayFrame(0, last_stream_id=last_stream_id, error_code=code).serialize())

    def set(self, settings: dict[SettingCodes | int, int]) -> None:
        self.h2.update_settings(settings)
        self.flush()


@dataclass
class Http2Provider:
    """`settings`: its own SETTINGS. `silent`: it accepts connections and says nothing."""

    settings: dict[SettingCodes, int] = field(default_factory=dict)
    max_streams: int | None = None
    ssl: tls.SSLContext | None = None
    silent: bool = False
    reads: bool = True
    """False: it never gives leave to send more of a body."""
    answer: Answer = fine
    calls: list[Call] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)
    port: int = 0

    def __post_init__(self) -> None:
        self._answers: deque[Answer] = deque()
        self._news = asyncio.Event()
        if self.max_streams is not None:
            self.settings[SettingCodes.MAX_CONCURRENT_STREAMS] = self.max_streams

    @property
    def base_url(self) -> str:
        return f"{'https' if self.ssl else 'http'}://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> Http2Provider:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), "127.0.0.1", 0, ssl=self.ssl)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        tasks = [task for connection in self.connections for task in connection.tasks]
        for connection in self.connections:
            connection.transport.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def script(self, *answers: Answer) -> None:
        """Answers to the next requests, in the order in which they come."""
        self._answers.extend(answers)

    def next_answer(self) -> Answer:
        return self._answers.popleft() if self._answers else self.answer

    def told(self) -> None:
        self._news.set()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something that this provider sees makes `condition` true."""
        async with asyncio.timeout(HANG_S):
            while not condition():
                self._news.clear()
                await self._news.wait()
