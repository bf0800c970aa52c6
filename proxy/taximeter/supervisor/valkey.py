"""The embedded Valkey under the supervisor's eyes."""

from __future__ import annotations

import asyncio

from taximeter.node.embedded_valkey import EmbeddedValkey

_POLL_S = 0.01


class ValkeyProcess:
    """One run of the server; `ready` once it answers PING, however long its file takes to load."""

    def __init__(self, server: EmbeddedValkey) -> None:
        """Start it. Raises ValkeyError, DataDirError."""
        self.ready = asyncio.Event()
        self.exited = asyncio.Event()
        self._server = server
        self._popen = server.spawn()
        self.pid = self._popen.pid

    async def watch(self) -> None:
        """Return when it serves or has ended."""
        while not self.exited.is_set():
            if await asyncio.to_thread(self._server.ping) == "PONG":
                self.ready.set()
                return
            await asyncio.sleep(_POLL_S)  # nothing tells of a port being opened

    def check(self) -> int | None:
        """See Managed."""
        code = self._popen.poll()
        if code is not None:
            self.exited.set()
        return code

    def terminate(self) -> None:
        """SIGTERM: write the file out and end."""
        self._popen.terminate()

    def kill(self) -> None:
        """SIGKILL."""
        self._popen.kill()
