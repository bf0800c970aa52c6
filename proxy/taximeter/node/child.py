"""What a child process and its supervisor say to each other: the same few lines for worker and control.

The child's stdin is a pipe: `go` on it means that the boot file is complete, its end means that the supervisor is
gone. Its stdout is a pipe the other way, on which it says `ready` once; its log goes to stderr.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable

import msgspec
from setproctitle import setproctitle

from taximeter.config.settings import Settings
from taximeter.node.logs import log_to_stderr

GO = b"go\n"
READY = b"ready\n"


class Boot(msgspec.Struct, kw_only=True):
    """What all children are told, in a file without a name that they inherit."""

    settings: Settings
    node: str
    redis_url: str
    """The configured one, or the embedded Valkey's with its password."""
    redis_url_file: str
    prices_file: str
    """The compiled prices."""


class Slot(msgspec.Struct, kw_only=True):
    """Which child this is, on its command line; file descriptors are inherited."""

    number: int
    """Of a worker: 1, 2, 3 …; of control: 0."""
    socket_fd: int
    boot_fd: int
    lock_fd: int


class Child:
    """The child's end of the conversation. Make it first, import what is heavy, then `wait`."""

    def __init__(self, name: str) -> None:
        self.slot = msgspec.json.decode(sys.argv[1], type=Slot)
        self.name = f"{name} {self.slot.number}" if self.slot.number else name
        self.orphaned = False
        """The supervisor is gone: another may start on this directory at once."""
        setproctitle(f"taximeter: {self.name}")
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to handle
        for descriptor in (self.slot.socket_fd, self.slot.boot_fd, self.slot.lock_fd):
            if descriptor >= 0:
                os.set_inheritable(descriptor, False)  # a helper process of ours must not hold port and lock
        # Whatever a library prints goes to the log; stdout proper is for the supervisor.
        self._answers = os.dup(1)
        os.dup2(2, 1)
        log_to_stderr(self.name)

    def wait(self) -> Boot:
        """Block until everything is prepared. Ends the process when the supervisor is gone before that."""
        if os.read(0, len(GO)) != GO:
            sys.exit(0)
        size = os.fstat(self.slot.boot_fd).st_size
        boot = msgspec.json.decode(os.pread(self.slot.boot_fd, size, 0), type=Boot)
        log_to_stderr(self.name, boot.settings.log)
        return boot

    def socket(self) -> socket.socket:
        """The inherited listening socket."""
        return socket.socket(fileno=self.slot.socket_fd)

    def ready(self) -> None:
        """Say that this process serves now. Where the supervisor is gone meanwhile, `on_stop` ends what was begun."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._answers, READY)

    def on_stop(self, stop: Callable[[], None]) -> None:
        """Call `stop` in the running loop on SIGTERM, and when the supervisor is gone."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stop)

        def gone() -> None:
            loop.remove_reader(0)
            self.orphaned = True
            logging.getLogger("taximeter").warning("The supervisor is gone; ending.")
            stop()

        loop.add_reader(0, gone)

    def release(self) -> None:
        """The port is closed: the next Taximeter may start on this data directory."""
        os.close(self.slot.lock_fd)
