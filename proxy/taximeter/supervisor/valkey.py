"""The embedded Valkey under the supervisor's eyes. What it writes becomes entries of our log, in our form."""

from __future__ import annotations

import asyncio
import logging
import os
import re

from taximeter.node.embedded_valkey import EmbeddedValkey

log = logging.getLogger("taximeter.valkey")

_POLL_S = 0.01
_PROCESS = {"process_name": "valkey"}
_said = re.compile(rb"\d+:[A-Z] \d\d \w{3} \d{4} [\d:.]+ ([.\-*#]) (.*)").fullmatch
"""`PID:ROLE DATE LEVEL MESSAGE`; . debug, - verbose, * notice, # warning."""


class ValkeyProcess:
    """One run of the server; `ready` once it answers PING, however long its file takes to load."""

    def __init__(self, server: EmbeddedValkey) -> None:
        """Start it. Raises ValkeyError, DataDirError."""
        self.ready = asyncio.Event()
        self.exited = asyncio.Event()
        self.said = ""
        self._server = server
        self._output, end = os.pipe()
        os.set_blocking(self._output, False)
        try:
            self._popen = server.spawn(end)
        except BaseException:
            os.close(self._output)
            raise
        finally:
            os.close(end)
        self.pid = self._popen.pid
        self._line = b""
        asyncio.get_running_loop().add_reader(self._output, self._hear)

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
        if code is not None and not self.exited.is_set():
            self._hear()
            self._hung_up()
            self.exited.set()
        return code

    def retire(self) -> None:
        """See Managed. There is only one on a data directory, which is never replaced while it lives."""

    def terminate(self) -> None:
        """SIGTERM: write the file out and end."""
        self._popen.terminate()

    def kill(self) -> None:
        """SIGKILL."""
        self._popen.kill()

    def _hear(self) -> None:
        """Whole lines into the log; all of it into its own file, which is looked at where it does not start."""
        if self._output < 0:
            return
        try:
            heard = os.read(self._output, 65_536)
        except BlockingIOError:
            return
        if not heard:
            self._hung_up()
            return
        self._server.keep(heard)
        *lines, self._line = (self._line + heard).split(b"\n")
        for line in lines:
            tell(line)

    def _hung_up(self) -> None:
        if self._output >= 0:
            asyncio.get_running_loop().remove_reader(self._output)
            os.close(self._output)
            self._output = -1


def tell(line: bytes) -> None:
    """A line of Valkey's as an entry of our log. Its notices are of no use to an operator, nor is its advice, at each
    start, about a system that may serve other ends: they are `debug`."""
    said = _said(line)
    level, message = (said[1], said[2]) if said else (b"", line)
    if message.strip():
        weight = logging.WARNING if level == b"#" and not message.startswith(b"WARNING ") else logging.DEBUG
        log.log(weight, "valkey: %s", message.decode("utf-8", "replace"), extra=_PROCESS)
