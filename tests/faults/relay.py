"""A relay before a PostgreSQL server's unix socket, where the answers to commits get lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Self

NAME = ".s.PGSQL.5432"
COMMITTED = b"C\x00\x00\x00\x0bCOMMIT\x00"
"""CommandComplete with the tag COMMIT: message type, length, tag."""


class CommitRelay:
    """Clients connect to the socket in `folder`; while `loses_commits`, a commit's answer is thrown away and the
    connection closed: it took effect, and the client cannot know."""

    def __init__(self, folder: Path, server: Path) -> None:
        """`server`: the directory of the server's socket."""
        self.folder, self._to = folder, server
        self.loses_commits = False
        self.refuses = False
        """While set, nobody gets through at all."""
        self.lost = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self.folder.mkdir()
        self._server = await asyncio.start_unix_server(self._client, self.folder / NAME)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        if self.refuses:
            writer.close()
            self._tasks.discard(task)
            return
        from_server, to_server = await asyncio.open_unix_connection(self._to / NAME)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, to_server))
                both.create_task(self._pump(from_server, writer, lossy=True))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            to_server.close()
            self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, lossy: bool = False) -> None:
        while data := await reader.read(65_536):
            if lossy and self.loses_commits and COMMITTED in data:
                self.lost += 1
                raise ConnectionResetError
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError
