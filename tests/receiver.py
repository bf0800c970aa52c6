"""A billing backend for tests, on a real socket: it misbehaves as scripted and remembers what it accepted."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec


@dataclass
class Received:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def key(self) -> str:
        return self.headers["idempotency-key"]

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


@dataclass
class Receiver:
    """`async with Receiver() as backend`. `script`: what the next requests get, then every one `usually`.

    A number is a status; "hang" never answers; "lose" accepts, then closes without an answer; "close" reads nothing.
    """

    script: list[int | str] = field(default_factory=list)
    usually: int | str = 204
    headers: str = ""
    seen: list[Received] = field(default_factory=list)
    accepted: dict[str, Received] = field(default_factory=dict)
    """By Idempotency-Key, as a backend that keeps to it would book them."""
    times: Counter[str] = field(default_factory=Counter)
    """How often each key was accepted."""
    port: int = 0

    async def __aenter__(self) -> Receiver:
        await self.up()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.down()

    async def up(self) -> None:
        """Listen; on the same port as before, after `down`."""
        self._over = asyncio.Event()
        self._clients: set[asyncio.StreamWriter] = set()
        self._server = await asyncio.start_server(self._client, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Refuse connections from now on."""
        self._over.set()
        self._server.close()
        for client in list(self._clients):
            client.transport.abort()
        while self._clients:
            await asyncio.sleep(0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            while await self._request(reader, writer):
                pass
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()
            self._clients.discard(writer)

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        received = Received(first.split()[1], headers, body)
        self.seen.append(received)
        answer = self.script.pop(0) if self.script else self.usually
        if answer == "hang":
            await self._over.wait()
            return False
        if answer == "lose" or (isinstance(answer, int) and answer < 300):
            self.accepted.setdefault(received.key, received)
            self.times[received.key] += 1
        if isinstance(answer, str):
            return False
        writer.write(f"HTTP/1.1 {answer} x\r\ncontent-length: 0\r\n{self.headers}\r\n".encode())
        await writer.drain()
        return True
