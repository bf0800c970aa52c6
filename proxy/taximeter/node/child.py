"""What a child process and its supervisor say to each other: the same few lines for worker and control.

The child's stdin is a pipe with orders, one a line: `go` means that the boot file is complete, the others are below;
its end means that the supervisor is gone. Its stdout is a pipe the other way: `ready` once, and what became of an order
that is answered; its log goes to stderr.
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
from taximeter.node.logs import Printed, log_to_stderr

GO = b"go\n"
READY = b"ready\n"
LEAVE, RETIRE, SERVE, TAKE = "leave", "retire", "serve", "take"
"""Orders: this node goes, so send clients elsewhere; another worker accepts in your place, so end when your calls have
ended; accept calls (where the slot says `hold`); `take N`, to control: the settings in boot file N are in force now.
That one is answered."""
TAKEN, REFUSED = "taken", "refused"
"""Answers: done; not done, and why."""

Order = Callable[[str], None]

_LINE_CHARS = 2_000
"""Of an answer: a write to a pipe is whole up to 4 KiB."""


class Boot(msgspec.Struct, kw_only=True):
    """What all children are told, in a file without a name that they inherit."""

    settings: Settings
    node: str
    redis_url: str
    """The configured one, or the embedded Valkey's with its password."""
    redis_url_file: str
    prices_file: str
    """The compiled prices."""
    environ: dict[str, str] = {}
    """What `env_file` holds: it stands over the environment the process was started with."""


class Slot(msgspec.Struct, kw_only=True):
    """Which child this is, on its command line; file descriptors are inherited."""

    number: int
    """Of a worker: 1, 2, 3 …; of control: 0."""
    socket_fd: int
    boot_fds: list[int]
    """Two boot files in turn: settings that are refused must not be in the way of those in force."""
    boot: int = 0
    """Which of them holds."""
    lock_fd: int = -1
    hold: bool = False
    """Of a worker: get ready, but accept no call before `serve`. Of prices: they are not in force yet."""

    def descriptors(self) -> list[int]:
        """All that are inherited."""
        return [fd for fd in (self.socket_fd, *self.boot_fds, self.lock_fd) if fd >= 0]


class Child:
    """The child's end of the conversation. Make it first, import what is heavy, then `wait`."""

    def __init__(self, name: str) -> None:
        self.slot = msgspec.json.decode(sys.argv[1], type=Slot)
        self.name = f"{name} {self.slot.number}" if self.slot.number else name
        self.orphaned = False
        """The supervisor is gone: another may start on this directory at once."""
        setproctitle(f"taximeter: {self.name}")
        for number in (signal.SIGINT, signal.SIGHUP):  # the supervisor's to handle; `systemctl kill` sends to all
            signal.signal(number, signal.SIG_IGN)
        for descriptor in self.slot.descriptors():
            os.set_inheritable(descriptor, False)  # a helper process of ours must not hold port and lock
        # Whatever a library prints goes to the log; stdout proper is for the supervisor.
        self._answers = os.dup(1)
        os.dup2(2, 1)
        sys.stdout = Printed()
        log_to_stderr(self.name)
        self._orders: dict[str, Order] = {}
        self._heard = b""
        self._environ = dict(os.environ)

    def wait(self) -> Boot:
        """Block until everything is prepared. Ends the process when the supervisor is gone before that."""
        if os.read(0, len(GO)) != GO:
            sys.exit(0)
        boot = self.boot(self.slot.boot)
        self.use(boot)
        return boot

    def boot(self, which: int) -> Boot:
        """What a boot file says. Raises ValueError, OSError."""
        descriptor = self.slot.boot_fds[which]
        size = os.fstat(descriptor).st_size
        return msgspec.json.decode(os.pread(descriptor, size, 0), type=Boot)

    def environ(self, boot: Boot) -> dict[str, str]:
        """The variables that go with these settings."""
        return self._environ | boot.environ

    def use(self, boot: Boot) -> None:
        """Have these variables, and no more, in the environment of the process; and log as these settings say."""
        log_to_stderr(self.name, boot.settings.log)
        wanted = self.environ(boot)
        for name in os.environ.keys() - wanted.keys():
            del os.environ[name]
        os.environ.update(wanted)

    def socket(self) -> socket.socket:
        """The inherited listening socket."""
        return socket.socket(fileno=self.slot.socket_fd)

    def ready(self) -> None:
        """Say that this process serves now. Where the supervisor is gone meanwhile, `on_stop` ends what was begun."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._answers, READY)

    def answer(self, word: str, why: str = "") -> None:
        """Say what became of an order. `why` is one line."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._answers, f"{word} {' '.join(why.split())}"[:_LINE_CHARS].encode() + b"\n")

    def on_order(self, order: str, act: Order) -> None:
        """Call `act` with what stands behind the order, in the running loop. Before `on_stop`."""
        self._orders[order] = act

    def on_stop(self, stop: Callable[[], None], *, orphan_s: int = 0) -> None:
        """Call `stop` in the running loop on SIGTERM, and when the supervisor is gone. From now on orders are heard.

        `orphan_s`: so long after the supervisor is gone the kernel ends this process, whatever it still does: nobody
        else is there to, and the next start waits for its lock. 0: it ends by itself.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stop)

        def heard() -> None:
            said = os.read(0, 4096)
            if said:
                self._obey(said)
                return
            loop.remove_reader(0)
            self.orphaned = True
            signal.alarm(orphan_s)
            logging.getLogger("taximeter").warning("The supervisor is gone; ending.")
            stop()

        loop.add_reader(0, heard)

    def _obey(self, said: bytes) -> None:
        *lines, self._heard = (self._heard + said).split(b"\n")
        for line in lines:
            order, _, rest = line.decode().partition(" ")
            if order in self._orders:
                self._orders[order](rest)

    def release(self) -> None:
        """The port is closed: the next Taximeter may start on this data directory."""
        os.close(self.slot.lock_fd)
