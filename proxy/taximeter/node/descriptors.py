"""How many files and sockets a process may have open: raised as far as the system lets us, and told."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import time

log = logging.getLogger("taximeter.supervisor")

ENOUGH = 1 << 20
"""More is never asked for: some programs walk through all that they may have."""
FEW = 4096
"""A call holds two sockets, of the client and of the upstream."""


def raise_limit() -> int:
    """Let this process and its children have as many open as the hard limit allows. Returns how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        log.info("Each process may have %d files and sockets open: the hard limit; the soft one was %d", most, soft)
        soft = most
    if soft < FEW:
        log.warning(
            "%d open files are enough for about %d calls at a time in one worker. Raise the hard limit (LimitNOFILE= "
            "in a systemd unit, `ulimit -Hn`, --ulimit nofile=… of a container).",
            soft,
            soft // 2,
        )
    return soft


MOST_KEPT = 64
"""Of the limit so many, at most an eighth, are kept from new clients, so that what is under way goes on."""
_TOLD_EVERY_S = 10.0
_RAISE_IT = "Raise it: LimitNOFILE= in a systemd unit, `ulimit -Hn`, --ulimit nofile=… of a container"


class OpenFiles:
    """Of this process: how many files and sockets it may have open, and has. The kernel numbers them from 0 on and
    gives the lowest number that is free, so a new one's number says whether there are many."""

    def __init__(self, limit: int | None = None) -> None:
        """`limit`: None: the soft one in force."""
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if limit is None else limit
        self.limit = ENOUGH if soft == resource.RLIM_INFINITY else soft
        kept = min(MOST_KEPT, self.limit // 8)
        self.turned_away_from = self.limit - kept
        """A client whose socket has this number or a higher one is turned away,"""
        self.cut_off_from = self.limit - kept // 2
        """from here on without a word."""
        self._not_dialed_from = self.limit - kept // 4
        """The last are the journal's."""
        self.ran_out = 0
        """How often something was not opened or not accepted for it."""
        self._told_at = -_TOLD_EVERY_S

    def check(self) -> None:
        """Raises OSError (EMFILE) where a socket to an upstream would take one of the last."""
        probe = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        os.close(probe)
        if probe >= self._not_dialed_from:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def in_use(self) -> int | None:
        """How many are open now; None where the system does not say."""
        for folder in ("/proc/self/fd", "/dev/fd"):
            with contextlib.suppress(OSError):
                return sum(1 for _ in os.scandir(folder)) - 1  # the folder itself
        return None

    def tell_of(self, error: OSError, what: str) -> bool:
        """`tell`, and True, where the error is that one."""
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            return False
        self.tell(what)
        return True

    def tell(self, what: str) -> None:
        """Count and log, not more often than one reads, that something failed for it."""
        self.ran_out += 1
        now = time.monotonic()
        if now - self._told_at >= _TOLD_EVERY_S:
            self._told_at = now
            log.error("%s: the limit of %d open files is reached. %s", what, self.limit, _RAISE_IT)


OPEN_FILES = OpenFiles()
"""This process's own."""
